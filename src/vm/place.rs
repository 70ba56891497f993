//! PCI addresses of a q35 machine: who asks for one gets it, and the others what is left.
//!
//! The first bus takes devices at any slot that the chipset leaves. A planned address on
//! another bus needs a root bus of that neighbourhood (`pxb-pcie`) and a root port on it for
//! each bus in a row: firmware numbers the buses behind ports one after another, so the row
//! 81, 82 comes of a root bus 80 with two ports. Seen with SeaBIOS and OVMF.

use std::collections::{BTreeMap, BTreeSet};

use crate::diag::{Diagnostic, Span};
use crate::vm::not_emulated;

/// Where a device of a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the first bus.
    Root { slot: u8, function: u8 },
    /// Behind the root port that leads to this bus.
    Port { bus: u8, function: u8 },
    /// At the chipset's SATA controller.
    Sata,
}

/// A root bus of its own, for planned addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpanderBus {
    /// One less than the first bus behind its ports; 0 is the machine's first bus itself.
    pub number: u8,
    pub numa: Option<u32>,
    /// Buses behind its ports, in a row from `number + 1`.
    pub ports: Vec<u8>,
    /// The slot on the first bus where the expander, or its first port if it is that bus, is.
    pub slots: Vec<u8>,
}

/// The chipset's own: the host bridge, and LPC, SATA and SMBus. Slot 1 is where QEMU puts a
/// screen that somebody adds.
const CHIPSET: [u8; 3] = [0, 1, 0x1f];

/// Addresses being given out. Planned ones are to be asked for before free ones.
#[derive(Debug, Default)]
pub struct Slots {
    taken: BTreeSet<(u8, u8)>,
    buses: BTreeMap<u8, Wanted>,
    problems: Vec<Diagnostic>,
}

/// What planned addresses want of a further bus.
#[derive(Debug)]
struct Wanted {
    functions: BTreeSet<u8>,
    numa: Option<u32>,
    /// The first that wants it.
    span: Span,
}

impl Slots {
    pub fn problem(&mut self, problem: Diagnostic) {
        self.problems.push(problem);
    }

    /// The planned `address`, or a problem.
    pub fn planned(&mut self, address: &str, numa: Option<u32>, span: Span) -> Place {
        match parse(address) {
            Some((0, slot, function)) if self.take(slot, function) => {
                Place::Root { slot, function }
            }
            Some((bus @ 1.., 0, function)) if self.take_on(bus, function, numa, span) => {
                Place::Port { bus, function }
            }
            _ => {
                let why = match parse(address) {
                    None => "QEMU has the domain 0000 only",
                    Some((0, ..)) => "it is the chipset's, or taken",
                    Some((_, 1.., _)) => "beyond bus 00, QEMU's ports have the device 00 only",
                    Some(_) => "it is planned twice, or its neighbours are on another NUMA node",
                };
                let message = format!("{address} cannot be the address of an emulated device");
                self.problem(not_emulated(span, message).note(why));
                Place::Root { slot: 0, function: 0 }
            }
        }
    }

    /// That slot of the first bus, if it is free.
    pub fn at(&mut self, slot: u8) -> Option<Place> {
        let is_free = slot < 32 && self.take(slot, 0);
        is_free.then_some(Place::Root { slot, function: 0 })
    }

    /// The lowest slot of the first bus that nobody has.
    pub fn free(&mut self) -> Place {
        let slot = (2..0x1f).find(|slot| !self.is_taken(*slot)).unwrap_or(0x1e);
        self.taken.insert((slot, 0));
        Place::Root { slot, function: 0 }
    }

    fn is_taken(&self, slot: u8) -> bool {
        CHIPSET.contains(&slot) || self.taken.range((slot, 0)..=(slot, 7)).next().is_some()
    }

    fn take(&mut self, slot: u8, function: u8) -> bool {
        !CHIPSET.contains(&slot) && self.taken.insert((slot, function))
    }

    fn take_on(&mut self, bus: u8, function: u8, numa: Option<u32>, span: Span) -> bool {
        let new = || Wanted { functions: BTreeSet::new(), numa, span };
        let wanted = self.buses.entry(bus).or_insert_with(new);
        wanted.functions.insert(function) && (wanted.numa == numa || numa.is_none())
    }

    /// The buses that the planned addresses need.
    ///
    /// # Errors
    ///
    /// All problems so far, and rows of buses that QEMU cannot have.
    pub fn finish(mut self) -> Result<Vec<ExpanderBus>, Vec<Diagnostic>> {
        let mut rows: Vec<ExpanderBus> = Vec::new();
        let buses = std::mem::take(&mut self.buses);
        for (bus, Wanted { functions, numa, span }) in buses {
            if !functions.contains(&0) {
                let message = format!("bus {bus:02x} has no device 00.0, and so no other");
                self.problem(not_emulated(span, message));
            }
            match rows.last_mut().filter(|row| row.ports.last() == Some(&(bus - 1))) {
                Some(row) if row.numa == numa => row.ports.push(bus),
                Some(_) => {
                    let message = format!("buses {:02x} and {bus:02x} on two NUMA nodes", bus - 1);
                    let help = "leave a bus free between those of two NUMA nodes";
                    self.problem(not_emulated(span, message).help(help));
                }
                None => rows.push(ExpanderBus {
                    number: bus - 1,
                    numa,
                    ports: vec![bus],
                    slots: Vec::new(),
                }),
            }
        }
        for row in &mut rows {
            // Ports on the first bus itself have a slot there each.
            let n_slots = if row.number == 0 { row.ports.len() } else { 1 };
            for _ in 0..n_slots {
                if let Place::Root { slot, .. } = self.free() {
                    row.slots.push(slot);
                }
            }
        }
        match self.problems.is_empty() {
            true => Ok(rows),
            false => Err(self.problems),
        }
    }
}

/// Bus, device and function of an address in domain 0000.
fn parse(address: &str) -> Option<(u8, u8, u8)> {
    let mut fields = address.split([':', '.']);
    let (domain, mut number) = (fields.next()?, || u8::from_str_radix(fields.next()?, 16).ok());
    (domain.trim_start_matches('0').is_empty()).then_some(())?;
    let (bus, device, function) = (number()?, number()?, number()?);
    (device < 32 && function < 8).then_some((bus, device, function))
}
