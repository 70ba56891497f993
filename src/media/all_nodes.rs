//! A medium for all nodes of a cluster: a kickstart that finds out which node a machine is, and an
//! archive with what is each node's own.
//!
//! The installer runs `%pre` of the kickstart itself only, not of a file that `%pre` makes it include
//! (anaconda 33.16.9.5, pyanaconda/kickstart.py, `preScriptPass`). So a node's commands are included,
//! and its `%pre` is run by the one that picks the node.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::io;

use crate::cluster::{Cluster, Node};
use crate::format::Archive;
use crate::media::install_archive as names;
use crate::media::node::NodeMedium;
use crate::tree::{FileTree, Mode};

/// The archive of the nodes.
pub const NODES: &str = "nodeforge-nodes.tar.ks";
/// What machines are told by, in the archive.
const INDEX: &str = "index";

/// Why there can be no such medium.
#[derive(Debug, thiserror::Error)]
pub enum AllNodesError {
    #[error("{} has neither a MAC address nor a serial number, so no machine can be told to be it", .0)]
    Untold(String),
    #[error("{0} and {1} have the same {2}")]
    Twice(String, String, String),
    #[error("the kickstart of {0} does not begin with the scripts of all nodes")]
    Template(String),
    #[error("laying out the nodes' archive: {0}")]
    Archive(#[from] io::Error),
}

/// A medium for several nodes, while it is made. Without `Debug`: secrets are in it.
pub struct AllNodes<'a> {
    /// What every kickstart begins with.
    scripts: &'a str,
    nodes: FileTree,
    /// `mac 52:54:00:03:00:11` and the node that has it.
    told_by: BTreeMap<String, String>,
    /// The shared files of all nodes.
    shared: BTreeMap<String, &'a [u8]>,
    names: BTreeSet<String>,
}

impl<'a> AllNodes<'a> {
    /// `scripts` are those of [`Prepared::kickstart_scripts`](crate::render::prepared::Prepared).
    pub fn new(scripts: &'a str) -> Self {
        Self {
            scripts,
            nodes: FileTree::default(),
            told_by: BTreeMap::new(),
            shared: BTreeMap::new(),
            names: BTreeSet::new(),
        }
    }

    /// Takes in one node.
    ///
    /// # Errors
    ///
    /// Says why a machine could not be told to be this node.
    pub fn add(&mut self, node: &Node, medium: &NodeMedium<'a>) -> Result<(), AllNodesError> {
        let name = node.name.as_str();
        let own = medium.kickstart.strip_prefix(self.scripts);
        let own = own.ok_or_else(|| AllNodesError::Template(name.to_owned()))?;
        self.tell(node)?;
        let Own { commands, pre } = split(own);
        let mut files: Vec<(&str, &[u8])> = vec![
            ("commands.ks", commands.as_bytes()),
            ("overlay.tar.gz", &medium.overlay),
            ("pre.sh", pre.as_bytes()),
        ];
        if medium.has_secrets() {
            files.push(("secrets.tar.gz", medium.secrets));
        }
        for (file, contents) in files {
            self.nodes
                .add_file(&format!("{name}/{file}"), Mode::SECRET, contents, "media")
                .map_err(|twice| io::Error::other(twice.to_string()))?;
        }
        self.shared.insert(names::LAYER_SUMS.to_owned(), medium.layer_sums);
        self.shared
            .extend(medium.layers.iter().map(|(layer, bytes)| (names::layer(layer), *bytes)));
        self.names.insert(name.to_owned());
        Ok(())
    }

    fn tell(&mut self, node: &Node) -> Result<(), AllNodesError> {
        let name = node.name.to_string();
        let macs = node.nics.iter().filter_map(|nic| nic.mac);
        let mut told: Vec<String> = macs.map(|mac| format!("mac {mac}")).collect();
        told.extend(node.serial.iter().map(|serial| format!("serial {serial}")));
        if told.is_empty() {
            return Err(AllNodesError::Untold(name));
        }
        for by in told {
            match self.told_by.insert(by.clone(), name.clone()) {
                Some(other) if other != name => return Err(AllNodesError::Twice(other, name, by)),
                _ => {}
            }
        }
        Ok(())
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Calls `take` with the files in the root of the medium: the kickstart, the nodes' archive,
    /// the shared layers. `pick` is
    /// [`MediaScripts::pick`](crate::render::media_scripts::MediaScripts).
    ///
    /// # Errors
    ///
    /// Fails for an archive that tar cannot describe, and as `take` does.
    pub fn with_files<T>(
        mut self,
        cluster: &Cluster,
        pick: &str,
        take: impl FnOnce(&[(String, &[u8])]) -> T,
    ) -> Result<T, AllNodesError> {
        let mut index = String::new();
        for (by, name) in &self.told_by {
            writeln!(index, "{by} {name}").expect("a string takes all that is written");
        }
        self.nodes
            .add_file(INDEX, Mode::SECRET, index.as_bytes(), "media")
            .map_err(|twice| io::Error::other(twice.to_string()))?;
        let mut archive = Vec::new();
        Archive::Tar.write(&self.nodes, &mut archive)?;
        let kickstart = kickstart(&cluster.name, self.scripts, pick);
        let mut files = vec![
            (names::KICKSTART.to_owned(), kickstart.as_bytes()),
            (NODES.to_owned(), archive.as_slice()),
        ];
        files.extend(self.shared);
        Ok(take(&files))
    }
}

/// The kickstart of an ISO that is nobody's: it stops before anything is touched.
pub fn nobodys_kickstart() -> String {
    "# Made by nodeforge: the ISO that nodes' ISOs are made from.\n\
     text\n\
     %pre --interpreter=/bin/bash\n\
     while :; do\n    \
         for console in /dev/tty1 /dev/console; do\n        \
             echo 'nodeforge: this ISO is for no node: make one with nodeforge media iso --node' >\"$console\"\n    \
         done\n    \
         sleep 30\n\
     done\n\
     %end\n"
        .to_owned()
}

fn kickstart(cluster: &str, scripts: &str, pick: &str) -> String {
    format!(
        "{scripts}# ==================== all nodes of {cluster} ====================\n\
         %include /tmp/nodeforge-node.ks\n\
         \n\
         %pre --interpreter=/bin/bash --erroronfail --log=/tmp/nodeforge-pre.log\n\
         NF_RUN=${{NF_RUN:-${{NF_SYSROOT:-}}/run/nodeforge}}\n\
         umask 077\n\
         mkdir -p \"$NF_RUN\"\n\
         # shellcheck source=/dev/null\n\
         . \"$NF_RUN/lib.sh\"\n\
         {pick}pick_node\n\
         # shellcheck source=/dev/null\n\
         . \"$NF_RUN/pre.sh\"\n\
         %end\n"
    )
}

/// A node's part of its kickstart.
struct Own {
    /// Without `%pre`.
    commands: String,
    /// The bodies of all `%pre`.
    pre: String,
}

fn split(own: &str) -> Own {
    let mut split = Own { commands: String::new(), pre: String::new() };
    let mut is_in_pre = false;
    for line in own.lines() {
        let is_begin = line == "%pre" || line.starts_with("%pre ");
        match (is_in_pre, line) {
            (false, _) if is_begin => is_in_pre = true,
            (true, "%end") => is_in_pre = false,
            (in_pre, line) => {
                let part = if in_pre { &mut split.pre } else { &mut split.commands };
                part.push_str(line);
                part.push('\n');
            }
        }
    }
    split
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pre_is_taken_out_of_the_commands() {
        let Own { commands, pre } =
            split("text\n%pre --log=x\na\nb\n%end\n%packages\n@core\n%end\n");
        assert_eq!(commands, "text\n%packages\n@core\n%end\n");
        assert_eq!(pre, "a\nb\n");
    }
}
