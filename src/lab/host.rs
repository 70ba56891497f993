//! What this host has for guests: QEMU, an accelerator, firmware, memory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use anyhow::{Context, Result};

use crate::tool;
use crate::units::ByteSize;
use crate::vm::qemu::{Accelerator, PROGRAMS, Threads, UEFI_FIRMWARE};

/// The user's choice of what runs the guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedAccelerator {
    /// KVM if this user may use it.
    Any,
    Kvm,
    Tcg,
}

/// Where QEMU is.
///
/// # Errors
///
/// Says what to install.
pub fn qemu() -> Result<PathBuf> {
    PROGRAMS
        .into_iter()
        .find_map(tool::find)
        .context("QEMU is not installed: install qemu-system-x86 (Debian, Ubuntu) or qemu-kvm (EL)")
}

/// What runs `n_guests`.
///
/// # Errors
///
/// Fails if KVM is wanted and cannot be had.
pub fn accelerator(wanted: WantedAccelerator, n_guests: usize) -> Result<Accelerator> {
    let kvm = || File::options().read(true).write(true).open("/dev/kvm");
    let n_cores = available_parallelism().map_or(1, usize::from);
    let threads = if n_guests >= n_cores { Threads::One } else { Threads::EachProcessor };
    match wanted {
        WantedAccelerator::Kvm => kvm()
            .map(|_| Accelerator::Kvm)
            .context("KVM cannot be used: opening /dev/kvm; --accel tcg does without"),
        WantedAccelerator::Any if kvm().is_ok() => Ok(Accelerator::Kvm),
        _ => Ok(Accelerator::Tcg(threads)),
    }
}

/// UEFI for guests and the variables it begins with.
///
/// # Errors
///
/// Says what to install.
pub fn uefi() -> Result<[&'static Path; 2]> {
    let pairs = UEFI_FIRMWARE.map(|pair| pair.map(Path::new));
    let found = pairs.into_iter().find(|pair| pair.iter().all(|path| path.is_file()));
    found.context("UEFI for guests is not installed: install ovmf (Debian) or edk2-ovmf (EL)")
}

/// What guests may take without swapping (proc(5), MemAvailable).
pub fn available_memory() -> Option<ByteSize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(ByteSize::from_bytes(kib << 10))
}
