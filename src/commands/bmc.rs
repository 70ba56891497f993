//! `nodeforge arm --network-boot`: what the BMCs of the nodes are told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context, Result, bail};

use crate::cli::{BmcArgs, ClusterArgs};
use crate::cluster::{Cluster, Firmware, Node, SecretRef};
use crate::commands::load;
use crate::diag::Color;
use crate::progress::{Progress, Unit};
use crate::range::{self, NodeName};
use crate::secrets::{self, SecretText};
use crate::serve::redfish::{self, Bmc, Done, Failure, Network, Order, Power, Trust};

/// The BMCs of the nodes that are armed, and who we are to them.
pub struct Bmcs {
    machines: Vec<Machine>,
    credentials: BTreeMap<usize, Credentials>,
    trust: Trust,
    network: Network,
    power: Power,
}

struct Machine {
    node: NodeName,
    /// The place of its kind in the cluster.
    kind: usize,
    url: String,
    firmware: Firmware,
    serial: Option<String>,
}

/// Of the nodes of a kind.
struct Credentials {
    user: SecretText,
    password: SecretText,
}

impl Bmcs {
    /// Reads all that is needed before anything is changed; `None` if the cluster file has
    /// errors, which are drawn.
    ///
    /// # Errors
    ///
    /// Fails with everything that is missing: a node without an address of its BMC, a kind of
    /// box without user or password, a secret that cannot be read.
    pub fn read(
        args: &BmcArgs,
        cluster: std::path::PathBuf,
        nodes: &BTreeSet<NodeName>,
        color: Color,
    ) -> Result<Option<Self>> {
        let cluster = ClusterArgs { cluster, site: args.site.clone() };
        let Some(loaded) = load::resolved(&cluster, color)? else { return Ok(None) };
        let trust = match (&args.bmc_ca, args.any_bmc_certificate) {
            (Some(path), _) => Trust::Authorities(
                std::fs::read(path).with_context(|| format!("reading {}", path.display()))?,
            ),
            (None, true) => Trust::Anyone,
            (None, false) => Trust::System,
        };
        let (machines, credentials) = machines(&loaded.cluster, nodes, args.uefi_http)?;
        Ok(Some(Self {
            machines,
            credentials,
            trust,
            network: if args.uefi_http { Network::UefiHttp } else { Network::Pxe },
            power: if args.restart { Power::Restart } else { Power::Leave },
        }))
    }

    /// Tells all BMCs; what came of it, in the order of the nodes' names.
    pub fn tell(&self) -> Vec<(&NodeName, Result<Done, Failure>)> {
        let orders: Vec<_> = self
            .machines
            .iter()
            .map(|machine| {
                let credentials = &self.credentials[&machine.kind];
                let bmc = Bmc {
                    url: machine.url.clone(),
                    user: credentials.user.expose(),
                    password: &credentials.password,
                    trust: self.trust.clone(),
                };
                let order = Order {
                    network: self.network,
                    power: self.power,
                    firmware: machine.firmware,
                    serial: machine.serial.as_deref(),
                };
                (bmc, order)
            })
            .collect();
        let progress = Progress::start("BMCs", Some(orders.len() as u64), Unit::Nodes);
        let results = redfish::boot_all(&orders, &progress);
        progress.finish();
        self.machines.iter().map(|machine| &machine.node).zip(results).collect()
    }

    /// What a person does with `node`, whose BMC could not be told.
    pub fn by_hand(&self, node: &NodeName) -> String {
        let machine = self.machines.iter().find(|machine| machine.node == *node);
        let firmware = machine.map_or(Firmware::Uefi, |machine| machine.firmware);
        redfish::by_hand(node.as_str(), firmware)
    }
}

/// Says on standard error how it went; whether all went well.
pub fn report(bmcs: &Bmcs, results: &[(&NodeName, Result<Done, Failure>)]) -> bool {
    let is = |question: fn(&Done) -> bool| {
        let matching = results.iter().filter(|(_, it)| it.as_ref().is_ok_and(question));
        range::fold(matching.map(|(node, _)| *node))
    };
    let restarted = is(|done| done.reset.is_some());
    if !restarted.is_empty() {
        eprintln!("{restarted}: restarted, from the network");
    }
    let waiting = is(|done| done.reset.is_none());
    if !waiting.is_empty() {
        eprintln!("{waiting}: will boot from the network when started next");
    }
    let stays = is(|done| done.stays);
    if !stays.is_empty() {
        eprintln!(
            "note: the BMC of {stays} keeps the order for every boot, not for one: the boot server \
             sends them to their disks once they are installed, while it runs"
        );
    }
    let failures: Vec<_> =
        results.iter().filter_map(|(node, it)| Some((*node, it.as_ref().err()?))).collect();
    for (node, failure) in &failures {
        eprintln!("{node}: its BMC was not told: {}", in_full(failure));
    }
    if let Some((first, _)) = failures.first() {
        eprintln!("they are armed all the same. {}", bmcs.by_hand(first));
    }
    failures.is_empty()
}

/// A failure with what caused it.
pub fn in_full(failure: &Failure) -> String {
    let mut text = failure.to_string();
    let mut cause = std::error::Error::source(failure);
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

type Found = (Vec<Machine>, BTreeMap<usize, Credentials>);

fn machines(cluster: &Cluster, nodes: &BTreeSet<NodeName>, uefi_http: bool) -> Result<Found> {
    let mut problems = Vec::new();
    let known: Vec<&Node> = nodes.iter().filter_map(|name| cluster.node(name.as_str())).collect();
    let unknown = range::fold(nodes.iter().filter(|name| cluster.node(name.as_str()).is_none()));
    if !unknown.is_empty() {
        problems.push(format!("the cluster file has no node {unknown}"));
    }
    let is_bios = |node: &&&Node| cluster.kinds[node.kind].hw.firmware == Firmware::Bios;
    let with_bios = range::fold(known.iter().filter(is_bios).map(|node| &node.name));
    if uefi_http && !with_bios.is_empty() {
        problems.push(format!("{with_bios}: a BIOS does not boot by UEFI HTTP"));
    }
    let mut machines = Vec::new();
    let mut without_address = Vec::new();
    let mut credentials = BTreeMap::new();
    for node in known {
        let hw = &cluster.kinds[node.kind].hw;
        let (Some(bmc), Some(address)) = (&hw.bmc, node.bmc_ip) else {
            without_address.push(&node.name);
            continue;
        };
        credentials.entry(node.kind).or_insert_with(|| {
            credentials_of(bmc)
                .map_err(|fault| problems.push(format!("{}: {fault:#}", node.name)))
                .ok()
        });
        machines.push(Machine {
            node: node.name.clone(),
            kind: node.kind,
            url: format!("https://{address}:{}", bmc.port),
            firmware: hw.firmware,
            serial: node.serial.clone(),
        });
    }
    let without_address = range::fold(without_address);
    if !without_address.is_empty() {
        problems.push(format!(
            "{without_address}: no address of a BMC; give `bmc.ip` in the hw or the node, or \
             `bmc_ip` in the inventory"
        ));
    }
    if !problems.is_empty() {
        bail!("{}. Nothing was armed", problems.join("\n"));
    }
    let credentials =
        credentials.into_iter().filter_map(|(kind, read)| Some((kind, read?))).collect();
    Ok((machines, credentials))
}

fn credentials_of(bmc: &crate::cluster::Bmc) -> Result<Credentials> {
    if bmc.kind != "redfish" {
        bail!(
            "its BMC is spoken to by {}; only redfish is. Leave --network-boot out, and use \
             `ipmitool … chassis bootdev pxe`",
            bmc.kind
        );
    }
    let read = |key: &str, reference: &Option<SecretRef>| -> Result<SecretText> {
        let reference = reference.as_ref().with_context(|| format!("no `bmc.{key}` is given"))?;
        Ok(secrets::read(reference).with_context(|| format!("bmc.{key}"))?.text)
    };
    let (user, password) = (read("user", &bmc.user), read("password", &bmc.password));
    match (user, password) {
        (Ok(user), Ok(password)) => Ok(Credentials { user, password }),
        (Err(user), Err(password)) => bail!("{user:#}; {password:#}"),
        (Err(fault), _) | (_, Err(fault)) => Err(fault),
    }
}
