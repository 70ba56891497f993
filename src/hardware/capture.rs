//! Outputs of tools, told apart by what is in them.

use serde_json::Value;

use crate::hardware::facts::FORMAT;
use crate::hardware::{Facts, daos, disks, links, machine, nics, pci};

/// What became of one output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The file, and for a part of a file what the part is headed with.
    pub from: String,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Read as the output of this tool.
    Read(&'static str),
    /// The box has no such tool, or it gave nothing.
    Absent,
    /// Nothing nodeforge can make use of.
    Unknown,
}

/// An output that was recognised and cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{from}, read as {tool}: {fault}")]
pub struct CaptureError {
    pub from: String,
    pub tool: &'static str,
    pub fault: String,
}

/// The outputs nodeforge makes use of, for messages.
pub const TOOLS: &str = "lspci -Dvmmnn, lsblk -J -b -O, ip -j addr, lscpu -J, dmidecode, \
    /proc/meminfo, /proc/cmdline, ls -l of /dev/disk/by-path and /sys/class/net, \
    daos_server network scan, daos_server config generate, or facts as JSON";

/// Adds to `facts` what `text` of the file `name` says: one output, or several below headings
/// like `==> lspci -Dnn <==`, as `tail -n +1 FILE…` and nodeforge's own script write them.
///
/// # Errors
///
/// Fails if an output was recognised and is not as its tool writes it, or contradicts another
/// one: then the two are of different boxes.
pub fn read(name: &str, text: &str, facts: &mut Facts) -> Result<Vec<Reading>, CaptureError> {
    parts(text)
        .into_iter()
        .map(|(heading, part)| {
            let from = match heading {
                Some(heading) => format!("{name}: {heading}"),
                None => name.to_owned(),
            };
            let outcome = read_part(&from, part, facts)?;
            Ok(Reading { from, outcome })
        })
        .collect()
}

/// The parts of a text, each with its heading; a text without any is one part.
fn parts(text: &str) -> Vec<(Option<&str>, &str)> {
    fn heading(line: &str) -> Option<&str> {
        line.trim_end().strip_prefix("==> ")?.strip_suffix(" <==")
    }
    let mut parts = Vec::new();
    let (mut open, mut start, mut at) = (None, 0, 0);
    for line in text.split_inclusive('\n') {
        if let Some(heading) = heading(line) {
            parts.push((open, &text[start..at]));
            (open, start) = (Some(heading), at + line.len());
        }
        at += line.len();
    }
    parts.push((open, &text[start..]));
    // Before the first heading there is usually nothing.
    if parts.len() > 1 && parts[0].1.trim().is_empty() {
        parts.remove(0);
    }
    parts
}

fn read_part(from: &str, text: &str, facts: &mut Facts) -> Result<Outcome, CaptureError> {
    if text.trim().is_empty() || text.trim() == "total 0" {
        return Ok(Outcome::Absent);
    }
    let Some(tool) = recognise(text) else { return Ok(Outcome::Unknown) };
    let read = match tool {
        Tool::Wrong(_, fault) => Err(fault.to_owned()),
        Tool::Json => return read_json(from, text, facts),
        Tool::Text(_, read) => read(text, facts),
    };
    let name = tool.name();
    match read {
        Ok(()) => Ok(Outcome::Read(name)),
        Err(fault) => Err(CaptureError { from: from.to_owned(), tool: name, fault }),
    }
}

type ReadText = fn(&str, &mut Facts) -> Result<(), String>;

/// A tool, by one of its outputs.
enum Tool {
    Text(&'static str, ReadText),
    Json,
    /// A form of the output that leaves out what is needed; and which form is wanted.
    Wrong(&'static str, &'static str),
}

impl Tool {
    fn name(&self) -> &'static str {
        match self {
            Tool::Text(name, _) | Tool::Wrong(name, _) => name,
            Tool::Json => "JSON",
        }
    }
}

fn recognise(text: &str) -> Option<Tool> {
    let first = text.lines().map(str::trim_end).find(|line| !line.trim().is_empty())?;
    let has_line = |is_it: &dyn Fn(&str) -> bool| text.lines().any(is_it);
    let starts_with_address =
        |line: &str| line.split(' ').next().is_some_and(|word| pci::full_address(word).is_some());
    if first.starts_with(['{', '[']) {
        return Some(Tool::Json);
    }
    let tool = if first.starts_with("Slot:") {
        Tool::Text("lspci -vmmnn", pci::read_records)
    } else if starts_with_address(first) {
        match first.contains("]: ") {
            true => Tool::Text("lspci -Dnn", pci::read_lines),
            false => Tool::Wrong("lspci", "no class numbers; expected `lspci -Dvmmnn`"),
        }
    } else if first.starts_with(pci::NUMA_PREFIX) {
        Tool::Text("the NUMA nodes in sysfs", pci::read_numa_nodes)
    } else if first.starts_with("# dmidecode") || first.contains("SMBIOS") {
        Tool::Text("dmidecode", machine::read_dmidecode)
    } else if first.starts_with("MemTotal:") {
        Tool::Text("/proc/meminfo", machine::read_meminfo)
    } else if first.starts_with("Architecture:") {
        Tool::Text("lscpu", machine::read_lscpu_text)
    } else if first.starts_with("/sys/firmware/") {
        Tool::Text("the firmware's folders", machine::read_firmware)
    } else if has_line(&|line| links::link(line).is_some()) {
        Tool::Text("ls -l", links::read)
    } else if has_line(&|line| line.trim().starts_with("NUMA Socket ")) {
        Tool::Text("daos_server network scan", daos::read_network_scan)
    } else if has_line(&|line| line.starts_with("engines:")) {
        Tool::Text("daos_server config generate", daos::read_config)
    } else if is_kernel_line(text) {
        Tool::Text("/proc/cmdline", machine::read_kernel_line)
    } else if first.starts_with("1: lo:") {
        Tool::Wrong("ip", "not JSON; expected `ip -j addr`")
    } else if first.starts_with("NAME ") && first.contains("SIZE") {
        Tool::Wrong("lsblk", "not JSON; expected `lsblk -J -b -O`")
    } else {
        return None;
    };
    Some(tool)
}

/// One line with arguments that kernels are booted with.
fn is_kernel_line(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let is_argument = |word: &str| {
        ["BOOT_IMAGE=", "root=", "initrd=", "console=", "inst."]
            .iter()
            .any(|prefix| word.starts_with(prefix))
    };
    text.trim().lines().count() == 1 && words.any(is_argument)
}

fn read_json(from: &str, text: &str, facts: &mut Facts) -> Result<Outcome, CaptureError> {
    let failed = |tool, fault| CaptureError { from: from.to_owned(), tool, fault };
    let json: Value = serde_json::from_str(text)
        .map_err(|fault| failed("JSON", format!("not well-formed: {fault}")))?;
    let (tool, read) = if !json["nodeforge_facts"].is_null() {
        ("facts as JSON", absorb(text, facts))
    } else if !json["blockdevices"].is_null() {
        ("lsblk -J", disks::read(&json, facts))
    } else if !json["lscpu"].is_null() {
        ("lscpu -J", machine::read_lscpu_json(&json, facts))
    } else if let Some(links) = json.as_array().filter(|links| has_interfaces(links)) {
        ("ip -j", nics::read(links, facts))
    } else {
        return Ok(Outcome::Unknown);
    };
    read.map(|()| Outcome::Read(tool)).map_err(|fault| failed(tool, fault))
}

fn has_interfaces(links: &[Value]) -> bool {
    links.iter().any(|link| link["ifname"].is_string())
}

fn absorb(text: &str, facts: &mut Facts) -> Result<(), String> {
    let other: Facts = serde_json::from_str(text).map_err(|fault| fault.to_string())?;
    if other.nodeforge_facts != FORMAT {
        let format = other.nodeforge_facts;
        return Err(format!("`nodeforge_facts` is {format}; this nodeforge knows {FORMAT}"));
    }
    facts.absorb(other)
}
