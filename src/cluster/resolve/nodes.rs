//! The nodes: which there are, of which kind, and what each has of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::hash::Hash;
use std::net::Ipv4Addr;

use crate::cluster::expr;
use crate::cluster::merge::{MergedTable, blame};
use crate::cluster::model::{Link, Net, Nic, Node, NodeNic, Sited};
use crate::cluster::resolve::facts::{Fact, Given, NodeFacts};
use crate::cluster::resolve::kind::{KindDraft, unknown_name};
use crate::cluster::resolve::reader::Reader;
use crate::diag::{Code, Diagnostic, Span, codes};
use crate::net::{InfinibandGuid, MacAddr, is_host_name};
use crate::range::{self, NodeName};
use crate::toml_doc::did_you_mean;

/// A node and where its values come from, until they are known to be unique.
#[derive(Debug)]
pub struct NodeDraft {
    pub node: Node,
    /// By the order of the NICs: the places of address, MAC and GUID.
    sites: Vec<NicSites>,
    serial: Option<Span>,
    /// Whether its inventory did not say what it should have.
    lacks_facts: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct NicSites {
    ip: Option<Span>,
    mac: Option<Span>,
    guid: Option<Span>,
}

/// What one node has of its own: the rules of its kind applied, and the facts of its inventory.
pub fn node(
    reader: &mut Reader,
    name: &NodeName,
    kind: usize,
    draft: &KindDraft,
    facts: &NodeFacts,
    span: Span,
) -> NodeDraft {
    let nics = &draft.kind.hw.nics;
    let mut node = Node {
        name: name.clone(),
        kind,
        rack: None,
        nics: vec![NodeNic::default(); nics.len()],
        serial: draft.serial.as_ref().map(|serial| serial.value.clone()),
        bmc_ip: None,
        fault_path: None,
        span,
    };
    let mut sites = vec![NicSites::default(); nics.len()];
    for (at, rules) in draft.nics.iter().enumerate() {
        if let Some(rule) = &rules.ip {
            node.nics[at].ip = compute(reader, rule.value.address(name), rule.span);
            sites[at].ip = Some(rule.span);
        }
        node.nics[at].mac = rules.mac.as_ref().map(|mac| mac.value);
        sites[at].mac = rules.mac.as_ref().map(|mac| mac.span);
        node.nics[at].guid = rules.guid.as_ref().map(|guid| guid.value);
        sites[at].guid = rules.guid.as_ref().map(|guid| guid.span);
    }
    if let Some(rule) = &draft.bmc_ip {
        node.bmc_ip = compute(reader, rule.value.address(name), rule.span);
    }
    let mut drafted = NodeDraft {
        node,
        sites,
        serial: draft.serial.as_ref().map(|serial| serial.span),
        lacks_facts: facts.are_partial,
    };
    for (fact, value) in &facts.given {
        apply(reader, &mut drafted, draft, fact, value);
    }
    drafted
}

fn compute<T>(
    reader: &mut Reader,
    result: Result<T, expr::ExpressionError>,
    span: Span,
) -> Option<T> {
    result
        .map_err(|fault| {
            reader.error(
                Diagnostic::error(codes::EXPRESSION, fault.to_string())
                    .at(span)
                    .help("let the rule give each node an address of its own net"),
            )
        })
        .ok()
}

fn apply(
    reader: &mut Reader,
    drafted: &mut NodeDraft,
    draft: &KindDraft,
    fact: &Fact,
    given: &Given,
) {
    let value = &given.cell;
    let nic_at = |key: &str| draft.kind.hw.nics.iter().position(|nic| nic.key == key);
    match fact {
        Fact::Mac(nic) | Fact::Guid(nic) => {
            let Some(at) = nic_at(nic) else {
                let name = Sited { value: nic.clone(), span: given.column };
                reader.error(unknown_name(
                    "nic",
                    &name,
                    draft.kind.hw.nics.iter().map(|nic| nic.key.as_str()),
                ));
                return;
            };
            let site = &mut drafted.sites[at];
            if let Fact::Mac(_) = fact {
                let mac = reader.parse(value, value.span, codes::BAD_MAC);
                refuse_twice(reader, site.mac, given, &format!("the MAC address of `{nic}`"));
                drafted.node.nics[at].mac = mac.map(|mac| mac.value);
                site.mac = Some(value.span);
            } else {
                let guid = reader.parse::<InfinibandGuid>(value, value.span, codes::BAD_MAC);
                refuse_twice(reader, site.guid, given, &format!("the GUID of `{nic}`"));
                drafted.node.nics[at].guid = guid.map(|guid| guid.value);
                site.guid = Some(value.span);
            }
        }
        Fact::Serial => {
            refuse_twice(reader, drafted.serial, given, "the serial number");
            let is_plain =
                value.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\'));
            if !is_plain {
                let message = format!("`{}` is no serial number", value.value);
                reader.error(
                    Diagnostic::error(codes::BAD_VALUE, message)
                        .at(value.span)
                        .help("write it without spaces, quotes and backslashes"),
                );
            }
            drafted.node.serial = Some(value.value.clone());
            drafted.serial = Some(value.span);
        }
        Fact::BmcIp => {
            let ip = reader.address(value, value.span);
            refuse_twice(reader, draft.bmc_ip.as_ref().map(|rule| rule.span), given, "`bmc.ip`");
            drafted.node.bmc_ip = ip.map(|ip| ip.value);
        }
    }
}

/// Points at the column, not at the cell: so a whole range is one problem.
fn refuse_twice(reader: &mut Reader, first: Option<Span>, second: &Given, what: &str) {
    if let Some(first) = first {
        reader.error(
            Diagnostic::error(codes::GIVEN_TWICE, format!("{what} is given twice"))
                .at(first)
                .also(second.column, "and by this column of the inventory")
                .help("keep it in one place"),
        );
    }
}

/// Names that no host can have; a range is named once.
pub fn check_names<'a>(reader: &mut Reader, names: impl Iterator<Item = (&'a NodeName, Span)>) {
    let mut bad: BTreeMap<Span, Vec<&NodeName>> = BTreeMap::new();
    for (name, span) in names {
        let text = name.as_str();
        let is_valid = is_host_name(text) && !text.contains('.') && text != "localhost";
        // A control character has been reported by the check against the schema.
        if !is_valid && !text.contains(char::is_control) {
            bad.entry(span).or_default().push(name);
        }
    }
    for (span, names) in bad {
        let verb = if names.len() == 1 { "is no host name" } else { "are no host names" };
        let message = format!("`{}` {verb}", range::fold(names));
        reader.error(
            Diagnostic::error(codes::BAD_HOST_NAME, message)
                .at(span)
                .help("use lower-case letters, digits and inner hyphens; the domain stands in `cluster.domain`"),
        );
    }
}

/// Names in a host list that are no node's.
pub fn unknown_nodes<'a>(
    names: &[&NodeName],
    span: Span,
    known: impl Iterator<Item = &'a NodeName> + Clone,
) -> Diagnostic {
    let letters = |name: &str| name.replace(|c: char| c.is_ascii_digit(), "");
    // A node of another number is no slip of the pen.
    let similar = match names {
        [only] => did_you_mean(only.as_str(), known.clone().map(NodeName::as_str))
            .filter(|similar| letters(similar) != letters(only.as_str())),
        _ => None,
    };
    let help = match similar {
        Some(similar) => format!("did you mean `{similar}`?"),
        None => format!("there are: {}", range::fold(known)),
    };
    let message = format!("there is no node `{}`", range::fold(names.iter().copied()));
    Diagnostic::error(codes::UNKNOWN_NAME, message).at(span).help(help)
}

/// Checks that hold between nodes: nothing is given to two of them.
pub fn check_unique(reader: &mut Reader, drafts: &[NodeDraft], kinds: &[KindDraft]) {
    let mut ips = Uses::<Ipv4Addr>::default();
    let mut macs = Uses::<MacAddr>::default();
    let mut guids = Uses::<InfinibandGuid>::default();
    let mut serials = Uses::<String>::default();
    for draft in drafts {
        let name = &draft.node.name;
        for (nic, site) in draft.node.nics.iter().zip(&draft.sites) {
            ips.add(nic.ip, site.ip, name);
            macs.add(nic.mac, site.mac, name);
            guids.add(nic.guid, site.guid, name);
        }
        serials.add(draft.node.serial.clone(), draft.serial, name);
    }
    ips.report(
        reader,
        codes::ADDRESS_TWICE,
        "address",
        "give each NIC its own; in a rule, `{index}` does",
    );
    macs.report(
        reader,
        codes::MAC_TWICE,
        "MAC address",
        "give each NIC its own: it selects the node's boot files",
    );
    guids.report(reader, codes::SERIAL_TWICE, "GUID", "give each port its own");
    serials.report(reader, codes::SERIAL_TWICE, "serial number", "give each box its own");
    check_macs(reader, drafts, kinds);
}

/// Which nodes use a value, and where it is said.
struct Uses<T> {
    first: HashMap<T, (NodeName, Span)>,
    /// By the two places: examples of nodes and value, and how many.
    twice: BTreeMap<(Span, Span), (NodeName, NodeName, T, usize)>,
}

impl<T> Default for Uses<T> {
    fn default() -> Self {
        Self { first: HashMap::new(), twice: BTreeMap::new() }
    }
}

impl<T: Eq + Hash + Clone + Display> Uses<T> {
    fn add(&mut self, value: Option<T>, span: Option<Span>, name: &NodeName) {
        let (Some(value), Some(span)) = (value, span) else { return };
        match self.first.get(&value) {
            None => {
                self.first.insert(value, (name.clone(), span));
            }
            Some((first, first_span)) => {
                let fresh = || (first.clone(), name.clone(), value.clone(), 0);
                self.twice.entry((*first_span, span)).or_insert_with(fresh).3 += 1;
            }
        }
    }

    fn report(self, reader: &mut Reader, code: Code, what: &str, help: &str) {
        for ((first_span, span), (first, second, value, n_times)) in self.twice {
            let is_later = blame(span, first_span).0 == span;
            let (first, second, first_span, span) = match is_later {
                true => (first, second, first_span, span),
                false => (second, first, span, first_span),
            };
            let owner =
                if first == second { "another NIC of it".to_owned() } else { format!("`{first}`") };
            let more = if n_times > 1 {
                format!(", and {} more such", n_times - 1)
            } else {
                String::new()
            };
            let message = format!("`{second}` has the {what} of {owner}: {value}{more}");
            let mut diagnostic = Diagnostic::error(code, message).at(span);
            if first_span != span {
                diagnostic = diagnostic.also(first_span, format!("{owner}'s"));
            }
            reader.error(diagnostic.help(help));
        }
    }
}

/// A boot NIC needs a MAC address: boot files and the kickstart's network line go by it.
fn check_macs(reader: &mut Reader, drafts: &[NodeDraft], kinds: &[KindDraft]) {
    let mut without_mac: BTreeMap<(usize, usize), Vec<&NodeName>> = BTreeMap::new();
    for draft in drafts {
        let kind = &kinds[draft.node.kind].kind;
        for (at, (nic, planned)) in draft.node.nics.iter().zip(&kind.hw.nics).enumerate() {
            let can_be_told_apart =
                nic.mac.is_some() || (planned.pci.is_some() && !planned.is_boot);
            let is_said = kinds[draft.node.kind].nics[at].says_mac
                || draft.sites[at].mac.is_some()
                || draft.lacks_facts;
            let needs_it =
                !is_said && planned.link == Link::Ethernet && (planned.is_boot || nic.ip.is_some());
            if needs_it && !can_be_told_apart {
                without_mac.entry((draft.node.kind, at)).or_default().push(&draft.node.name);
            }
            if let (Some(mac), Some(span)) = (nic.mac, draft.sites[at].mac)
                && mac.is_multicast_or_zero()
            {
                let message = format!("{mac} is no NIC's address");
                reader.error(
                    Diagnostic::error(codes::BAD_MAC, message)
                        .at(span)
                        .help("write the address that is printed on the NIC"),
                );
            }
        }
    }
    for ((kind, at), names) in without_mac {
        let kind = &kinds[kind].kind;
        let nic = &kind.hw.nics[at];
        let message = format!("the NIC `{}` of {} has no MAC address", nic.key, range::fold(names));
        let help = match nic.is_boot {
            true => {
                format!("give `nic.{}.mac`, or a column `mac.{}` of an inventory", nic.key, nic.key)
            }
            false => format!("give `nic.{}.mac` or `nic.{}.pci`", nic.key, nic.key),
        };
        reader.error(Diagnostic::error(codes::BOOT_NIC, message).at(kind.span).help(help));
    }
}

/// Addresses must lie in their nets and be nobody else's.
pub fn check_addresses(
    reader: &mut Reader,
    drafts: &[NodeDraft],
    kinds: &[KindDraft],
    nets: &BTreeMap<String, Net>,
    boot_host: Option<Ipv4Addr>,
) {
    // By place and message, so that a range is named once.
    let mut outside: BTreeMap<(Span, String, Span), Vec<&NodeName>> = BTreeMap::new();
    let mut reserved: BTreeMap<(Span, String), Vec<&NodeName>> = BTreeMap::new();
    for draft in drafts {
        let kind = &kinds[draft.node.kind].kind;
        for ((nic, site), planned) in draft.node.nics.iter().zip(&draft.sites).zip(&kind.hw.nics) {
            let (Some(ip), Some(span)) = (nic.ip, site.ip) else { continue };
            let Some(net) = planned.net.as_ref().and_then(|net| nets.get(&net.value)) else {
                continue;
            };
            if !net.subnet.contains(&ip) {
                let message = format!("outside {} of net `{}`", net.subnet.value, net.name);
                let key = (span, message, net.subnet.span);
                outside.entry(key).or_default().push(&draft.node.name);
            } else if let Some(owner) = reserved_for(ip, net, boot_host) {
                reserved
                    .entry((span, format!("{ip} is {owner}")))
                    .or_default()
                    .push(&draft.node.name);
            }
        }
    }
    for ((span, what, subnet), names) in outside {
        let message = format!("the address of {} lies {what}", range::fold(names));
        reader.error(
            Diagnostic::error(codes::OUTSIDE_SUBNET, message)
                .at(span)
                .also(subnet, "the subnet")
                .help("give an address inside the subnet, or widen the subnet"),
        );
    }
    for ((span, what), names) in reserved {
        let message = format!("{} cannot have its address: {what}", range::fold(names));
        reader.error(
            Diagnostic::error(codes::RESERVED_ADDRESS, message)
                .at(span)
                .help("give an address that nobody else has"),
        );
    }
    check_nics_have_nets(reader, kinds);
}

fn reserved_for(ip: Ipv4Addr, net: &Net, boot_host: Option<Ipv4Addr>) -> Option<&'static str> {
    let subnet = net.subnet.value;
    let is_gateway = net.gateway.as_ref().is_some_and(|gateway| gateway.value == ip);
    match ip {
        ip if ip == subnet.network() => Some("the network's own"),
        ip if ip == subnet.broadcast() => Some("the broadcast address"),
        _ if is_gateway => Some("the gateway's"),
        ip if boot_host == Some(ip) => Some("the boot server's, by `boot.url`"),
        _ => None,
    }
}

/// A NIC with an address needs a net, for its prefix length; a boot NIC or its bond an address.
fn check_nics_have_nets(reader: &mut Reader, kinds: &[KindDraft]) {
    for draft in kinds {
        for (nic, rules) in draft.kind.hw.nics.iter().zip(&draft.nics) {
            if let Some(ip) = rules.ip.as_ref().filter(|_| nic.net.is_none()) {
                let message = format!("the NIC `{}` has an address but no net", nic.key);
                reader.error(
                    Diagnostic::error(codes::MISSING, message)
                        .at(ip.span)
                        .help(format!("add `nic.{}.net = \"…\"`", nic.key)),
                );
            }
        }
        let Some(primary) = draft.kind.primary_nic() else { continue };
        if draft.nics[primary].says_ip {
            continue;
        }
        let nic = &draft.kind.hw.nics[primary];
        let names: BTreeSet<&str> = draft.kind.ranges.iter().map(String::as_str).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let (what, key) = (names.join(", "), &nic.key);
        let is_below = |other: &Nic| other.is_boot && other.key != *key;
        let below = draft.kind.hw.nics.iter().zip(&draft.nics);
        let help = match below.into_iter().find(|(other, rules)| is_below(other) && rules.says_ip) {
            Some((other, _)) => format!(
                "write `nic.{key}.ip` instead of `nic.{}.ip`: the bond has the address, not its members",
                other.key
            ),
            None => format!("add `nic.{key}.ip = \"192.168.3.11\"`, or a rule with `{{index}}`"),
        };
        reader.error(
            Diagnostic::error(codes::MISSING, format!("{what} has no address on `{key}`"))
                .at(draft.kind.span)
                .help(help)
                .note(
                    "a node's name stands for the address of its boot NIC, or of the bond over it",
                ),
        );
    }
}

/// `rack.RANGE` as the rack of each node.
pub fn racks(
    reader: &mut Reader,
    table: &MergedTable<'_>,
    is_known: impl Fn(&NodeName) -> bool,
) -> (BTreeMap<String, Vec<NodeName>>, HashMap<NodeName, String>) {
    let mut racks: BTreeMap<String, Vec<NodeName>> = BTreeMap::new();
    let mut of_node: HashMap<NodeName, (String, Span)> = HashMap::new();
    let mut unknown: BTreeMap<Span, Vec<NodeName>> = BTreeMap::new();
    let mut twice: BTreeMap<(Span, Span), Vec<NodeName>> = BTreeMap::new();
    for (racks_range, inner) in table.tables("rack") {
        let names = reader.range(racks_range, inner.span);
        check_rack_names(reader, racks_range, &names, inner.span);
        let hosts = reader.hosts(inner, "nodes");
        let per = reader.number::<usize>(inner, "per");
        let n_per_rack = match (names.len(), per) {
            (0, _) => continue,
            (1, None) => hosts.len().max(1),
            (n_racks, None) => hosts.len().div_ceil(n_racks).max(1),
            (_, Some(per)) => per.value,
        };
        if hosts.len() > names.len() * n_per_rack {
            let racks = if names.len() == 1 { "rack" } else { "racks" };
            let message = format!(
                "{} nodes do not fit into {} {racks} of {n_per_rack}",
                hosts.len(),
                names.len()
            );
            let at = inner.item("nodes").map_or(inner.span, |item| item.span);
            reader.error(
                Diagnostic::error(codes::RACK, message)
                    .at(at)
                    .help("name more racks, or raise `per`"),
            );
            continue;
        }
        for (at, host) in hosts.into_iter().enumerate() {
            let rack = names[at / n_per_rack].to_string();
            if !is_known(&host.value) {
                unknown.entry(host.span).or_default().push(host.value);
                continue;
            }
            let here = (rack.clone(), host.span);
            if let Some((_, first)) = of_node.insert(host.value.clone(), here) {
                twice.entry(blame(host.span, first)).or_default().push(host.value.clone());
            }
            racks.entry(rack).or_default().push(host.value);
        }
    }
    for (span, names) in unknown {
        let message = format!("there is no node `{}`", range::fold(&names));
        reader.error(
            Diagnostic::error(codes::UNKNOWN_NAME, message)
                .at(span)
                .help("add it to the cluster file, or leave it out here"),
        );
    }
    for ((span, other), names) in twice {
        let message = format!("`{}` stands in two racks", range::fold(&names));
        let mut diagnostic = Diagnostic::error(codes::RACK, message).at(span);
        if span != other {
            diagnostic = diagnostic.also(other, "here, too");
        }
        reader.error(diagnostic.help("name each node in one rack"));
    }
    (racks, of_node.into_iter().map(|(node, (rack, _))| (node, rack)).collect())
}

/// A rack becomes a part of the fault path.
fn check_rack_names(reader: &mut Reader, range: &str, names: &[NodeName], span: Span) {
    let is_plain = |name: &NodeName| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        name.as_str().chars().all(is_part)
    };
    if !names.iter().all(is_plain) && !range.contains(char::is_control) {
        let message = format!("`{range}` cannot be the name of a rack");
        reader.error(
            Diagnostic::error(codes::RACK, message)
                .at(span)
                .help("use letters, digits, `_`, `-` and `.`"),
        );
    }
}
