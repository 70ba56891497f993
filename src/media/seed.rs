//! A seed for cloud-init's NoCloud: what makes a node of a cloud image.
//!
//! cloud-init is to the image what anaconda is to an empty disk: it brings up the boot NIC, and
//! starts at each boot a script that does what `%pre` and `%post` do, by their own scripts, until
//! that has succeeded once. Then the machine restarts as a node: the overlay's keyfiles have the
//! NICs, cloud-init's profiles are gone, and nodeforge's first boot runs.
//!
//! Formats: cloud-init 23.1, "NoCloud" and "Networking Config Version 2".

use std::fmt::Write;
use std::net::Ipv4Addr;

use serde_json::json;

use crate::cluster::{Cluster, Link, Node};
use crate::format::digest::Hasher;
use crate::media::node::NodeMedium;
use crate::net::MacAddr;
use crate::render::install;

/// The label by which cloud-init finds the seed.
pub const LABEL: &str = "CIDATA";
/// The script on the seed.
pub const SCRIPT: &str = "nodeforge-seed.sh";
/// The values of the node, for the script.
pub const VARIABLES: &str = "nodeforge-node.sh";

/// What cloud-init writes to the image: it starts the script from the seed.
const START: &str = "\
#!/bin/bash
# Made by nodeforge: makes this machine the node that the seed is for.
[[ ! -e /var/lib/nodeforge/seeded ]] || exit 0
set -euo pipefail
umask 022
export NF_RUN=/run/nodeforge-seed NF_TARGET=/
mkdir -p \"$NF_RUN/medium\"
mountpoint -q \"$NF_RUN/medium\" || mount -o ro /dev/disk/by-label/CIDATA \"$NF_RUN/medium\"
cp \"$NF_RUN/medium/nodeforge-node.sh\" \"$NF_RUN/node.sh\"
cp \"$NF_RUN/medium/nodeforge-seed.sh\" \"$NF_RUN/seed.sh\"
set -a
. \"$NF_RUN/node.sh\"
exec bash \"$NF_RUN/seed.sh\"
";

/// The seed cannot be made of this node's kickstart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the site's kickstart template does not write the node's values to $NF_RUN/node.sh")]
pub struct NoVariables;

/// Returns the files of the seed by name: cloud-init's own, the script, and what the script takes
/// from the medium. `script` is [`MediaScripts::seed`](crate::render::media_scripts::MediaScripts).
///
/// The instance's id follows from all of it: cloud-init takes the machine for a new one when
/// anything changed.
///
/// # Errors
///
/// [`NoVariables`] for a site's own template.
pub fn files(
    cluster: &Cluster,
    node: &Node,
    medium: &NodeMedium<'_>,
    script: &str,
) -> Result<Vec<(String, Vec<u8>)>, NoVariables> {
    let mut variables = variables(cluster, node, medium)?;
    let mut files: Vec<(String, Vec<u8>)> =
        vec![("user-data".to_owned(), user_data(cluster, node).into())];
    files.extend(
        network_config(cluster, node).map(|text| ("network-config".to_owned(), text.into())),
    );
    files.push((SCRIPT.to_owned(), script.into()));
    files.extend(medium.handed().into_iter().map(|(name, bytes)| (name, bytes.to_vec())));
    let instance = instance_id(&files, &variables);
    writeln!(variables, "NF_INSTANCE={instance}").expect("a string takes all that is written");
    files.push((VARIABLES.to_owned(), variables.into()));
    let meta_data =
        format!("instance-id: {instance}\nlocal-hostname: {}\n", full_name(cluster, node));
    files.insert(0, ("meta-data".to_owned(), meta_data.into()));
    Ok(files)
}

fn instance_id(files: &[(String, Vec<u8>)], variables: &str) -> String {
    let mut hasher = Hasher::default();
    for (name, bytes) in files {
        hasher.update(format!("{name} {}\n", bytes.len()).as_bytes());
        hasher.update(bytes);
    }
    hasher.update(variables.as_bytes());
    format!("nodeforge-{}", &hasher.finish().to_string()[..16])
}

/// The kickstart's variables, and for what there are commands in a kickstart: packages, module
/// streams, services.
fn variables(
    cluster: &Cluster,
    node: &Node,
    medium: &NodeMedium<'_>,
) -> Result<String, NoVariables> {
    let os = &cluster.kind_of(node).os;
    let (without, packages) = install::packages(os);
    let services: Vec<&str> = os.services.iter().map(String::as_str).collect();
    let mut text = medium.variables().ok_or(NoVariables)?.to_owned();
    for (name, value) in [
        ("NF_MEDIUM", LABEL.to_owned()),
        ("NF_PACKAGES", packages.join(" ")),
        ("NF_WITHOUT", without.join(" ")),
        ("NF_MODULES", install::DISABLED_MODULES.join(" ")),
        ("NF_SERVICES", services.join(",")),
    ] {
        // The names of packages and units are checked when the cluster file is read; quotes are
        // for `*` and `@^…`.
        let quoted = value.replace('\'', "'\\''");
        writeln!(text, "{name}='{quoted}'").expect("a string takes all that is written");
    }
    Ok(text)
}

fn full_name(cluster: &Cluster, node: &Node) -> String {
    match cluster.domain.as_str() {
        "" => node.name.to_string(),
        domain => format!("{}.{domain}", node.name),
    }
}

fn user_data(cluster: &Cluster, node: &Node) -> String {
    let keys: Vec<&str> =
        cluster.kind_of(node).os.ssh_keys.iter().map(|key| key.value.as_str()).collect();
    // cloud-init's schema takes no empty list.
    let keys = match keys.as_slice() {
        [] => String::new(),
        keys => format!("  ssh_authorized_keys: {}\n", json!(keys)),
    };
    let mut text = format!(
        "#cloud-config\n\
         # Made by nodeforge; edit the cluster file, not this.\n\
         hostname: {}\n\
         fqdn: {}\n\
         disable_root: false\n\
         ssh_pwauth: false\n\
         users:\n\
         - name: root\n  \
           lock_passwd: false\n\
         {keys}\
         write_files:\n\
         - path: /var/lib/cloud/scripts/per-boot/nodeforge\n  \
           permissions: \"0755\"\n  \
           content: |\n",
        json!(node.name.as_str()),
        json!(full_name(cluster, node)),
    );
    for line in START.lines() {
        writeln!(text, "    {line}").expect("a string takes all that is written");
    }
    text
}

/// The boot NIC as it is planned, until the overlay's keyfiles have it. Without a MAC address, and
/// for a bond, nothing is said: cloud-init asks for an address by DHCP then.
fn network_config(cluster: &Cluster, node: &Node) -> Option<String> {
    let kind = cluster.kind_of(node);
    let at = kind.boot_nic().filter(|at| kind.primary_nic() == Some(*at))?;
    let nic = &kind.hw.nics[at];
    if !matches!(nic.link, Link::Ethernet) {
        return None;
    }
    let (mac, ip): (MacAddr, Ipv4Addr) = (node.nics[at].mac?, node.nics[at].ip?);
    let net = cluster.nets.get(&nic.net.as_ref()?.value)?;
    let mut text = format!(
        "# Made by nodeforge, for the time until the overlay is there.\n\
         version: 2\n\
         ethernets:\n  \
           boot:\n    \
             match: {{macaddress: \"{mac}\"}}\n    \
             addresses: [\"{ip}/{}\"]\n",
        net.subnet.prefix_len(),
    );
    if let Some(gateway) = &net.gateway {
        writeln!(text, "    gateway4: {}", gateway.value).expect("as above");
    }
    if !net.dns.is_empty() {
        writeln!(text, "    nameservers: {{addresses: {}}}", json!(net.dns)).expect("as above");
    }
    if let Some(mtu) = nic.mtu {
        writeln!(text, "    mtu: {mtu}").expect("as above");
    }
    Some(text)
}
