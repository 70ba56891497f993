//! What a medium brings to one node, whatever the medium is.

use std::io;

use crate::format::digest::Hasher;
use crate::format::fat;
use crate::media::install_archive as names;

/// The label by which EL8's installer finds a kickstart of its own accord (anaconda 33.16.9.5,
/// dracut/30-parse-anaconda-options.sh), and by which the kickstart finds the rest.
pub const OEMDRV: &str = "OEMDRV";

/// The files of one node, as the kickstart of `overlay = "media"`, `secrets = "media"` wants them.
///
/// Without `Debug`: secrets are among them.
#[derive(Clone)]
pub struct NodeMedium<'a> {
    pub name: &'a str,
    pub kickstart: String,
    /// overlay.tar.gz, the node's own.
    pub overlay: Vec<u8>,
    /// The node's shared layers by name, in the order of unpacking.
    pub layers: Vec<(&'a str, &'a [u8])>,
    /// The digests of all shared layers.
    pub layer_sums: &'a [u8],
    /// secrets.tar.gz; empty for a node without secrets.
    pub secrets: &'a [u8],
}

impl NodeMedium<'_> {
    /// Every file with its name in the root of the medium: the kickstart, then what is
    /// [handed over](Self::handed).
    pub fn files(&self) -> Vec<(String, &[u8])> {
        let mut files = vec![(names::KICKSTART.to_owned(), self.kickstart.as_bytes())];
        files.extend(self.handed());
        files
    }

    /// What the kickstart's scripts take from the medium: digests, layers, overlay, secrets.
    pub fn handed(&self) -> Vec<(String, &[u8])> {
        let mut files = vec![(names::LAYER_SUMS.to_owned(), self.layer_sums)];
        files.extend(self.layers.iter().map(|(name, layer)| (names::layer(name), *layer)));
        files.push((names::OVERLAY.to_owned(), &self.overlay));
        if self.has_secrets() {
            files.push((names::SECRETS.to_owned(), self.secrets));
        }
        files
    }

    /// Whether the medium has to be kept like a password.
    pub fn has_secrets(&self) -> bool {
        !self.secrets.is_empty()
    }

    /// The assignments of shell variables that the kickstart's scripts read, or `None` where a
    /// site's template writes them otherwise.
    pub fn variables(&self) -> Option<&str> {
        const BEGIN: &str = "\ncat >\"$NF_RUN/node.sh\" <<'END_OF_FILE'\n";
        const END: &str = "\nEND_OF_FILE\n";
        let begin = self.kickstart.find(BEGIN)? + BEGIN.len();
        let rest = &self.kickstart[begin..];
        // With the end of its last line.
        Some(&rest[..rest.find(END)? + 1])
    }
}

/// Returns a FAT volume of `files` with that label; its number follows from what is in it.
///
/// # Errors
///
/// Those of [`fat::volume`].
pub fn volume<N: AsRef<str>, B: AsRef<[u8]>>(label: &str, files: &[(N, B)]) -> io::Result<Vec<u8>> {
    let mut hasher = Hasher::default();
    for (name, bytes) in files {
        hasher.update(format!("{} {}\n", name.as_ref(), bytes.as_ref().len()).as_bytes());
        hasher.update(bytes.as_ref());
    }
    let digest = hasher.finish();
    let serial = u32::from_le_bytes(*digest.as_bytes().first_chunk().expect("it has 32 bytes"));
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, bytes)| (name.as_ref(), bytes.as_ref())).collect();
    fat::volume(label, serial, &files)
}
