//! What of a kickstart is somebody's decision, and what of that an installed node lacks.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::changes::Need;
use crate::format::digest::Digest;

/// A kickstart without what follows from other artefacts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// What all kickstarts of a build begin with.
    pub scripts: String,
    /// The node's own commands.
    pub own: String,
    /// What nobody may see: the root password's hash, the bundle of secrets.
    pub hidden: String,
    /// Digests of the archives of shared layers inside it, by layer.
    pub layers: BTreeMap<String, Digest>,
}

/// The line between the scripts and the node's own part.
const OWN_PART: &str = "# ==================== ";
const EMBEDDED: &str = "cat >\"$NF_RUN/embedded/\"";
const END: &str = "END_OF_FILE\n";

/// Where the mark is missing, as in a site's own template, all of it is the node's own.
pub fn view(text: &str) -> View {
    let at = text.find(&format!("\n{OWN_PART}")).map_or(0, |end| end + 1);
    let (scripts, hidden): (Vec<&str>, Vec<&str>) =
        text[..at].split_inclusive('\n').partition(|line| !shows_secret(line));
    let mut view = View { scripts: scripts.concat(), hidden: hidden.concat(), ..View::default() };
    let mut lines = text[at..].split_inclusive('\n');
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix(EMBEDDED) {
            let is_secret = name.starts_with("'secrets.");
            let body = lines.by_ref().take_while(|line| *line != END).collect::<String>();
            if let Some(layer) = layer_of(name) {
                view.layers.insert(layer.to_owned(), Digest::of(body.as_bytes()));
            }
            if is_secret {
                view.hidden.push_str(&body);
            }
        } else if line.starts_with("rootpw --iscrypted") || shows_secret(line) {
            view.hidden.push_str(line);
        } else if let Some(layers) = line.strip_prefix("NF_LAYERS=") {
            let shared = layers.trim_end().trim_matches('\'').split(' ');
            let shared: Vec<&str> = shared.filter(|name| !is_kind_layer(name)).collect();
            writeln!(view.own, "NF_LAYERS='{}'", shared.join(" "))
                .expect("a string takes all that is written");
        } else if !line.starts_with("NF_OWN_SHA256=") {
            view.own.push_str(line);
        }
    }
    view
}

/// Whether a line of a site's own template has what nobody may see: a password's hash (crypt(5),
/// `$6$salt$hash`), or nothing but base64, as of a bundle.
fn shows_secret(line: &str) -> bool {
    const MIN_HASH: usize = 30;
    const MIN_BASE64: usize = 64;
    let is_of_hash = |c: char| c.is_ascii_alphanumeric() || "./$=,".contains(c);
    let is_hash = |word: &str| {
        let hash = word.find('$').map_or("", |at| &word[at..]);
        hash.len() >= MIN_HASH && hash.matches('$').count() >= 3
    };
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    let line = line.trim_end();
    // Most lines have no word that has to be looked at.
    (line.len() >= MIN_HASH && line.contains('$') && line.split(|c| !is_of_hash(c)).any(is_hash))
        || (line.len() >= MIN_BASE64 && line.bytes().all(is_base64))
}

/// Whether shared layers come with a node's own files, and not from `layers/` on the boot server.
pub fn brings_layers(text: &str) -> bool {
    text.lines().any(|line| ["NF_OVERLAY=embedded", "NF_OVERLAY=media"].contains(&line))
}

/// Of `'layer-common.tar.gz' <<…`: `common`.
fn layer_of(rest: &str) -> Option<&str> {
    let (layer, _) = rest.strip_prefix("'layer-")?.split_once(".tar.gz'")?;
    Some(layer).filter(|layer| !is_kind_layer(layer))
}

/// Whether a layer is a kind's: its name follows from what is in it.
pub fn is_kind_layer(name: &str) -> bool {
    let hex = name.strip_prefix("kind-").unwrap_or_default();
    hex.len() == 12 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Lines that say nothing an installed node lacks: they are of use to the installer only, or files
/// of the node's root say the same.
const FOR_THE_INSTALLER: [&str; 19] = [
    "#",
    "NF_DATA_DEVICES=",
    "NF_DATA_PCI=",
    "NF_NODE=",
    "NF_OVERLAY=",
    "NF_SECRETS=",
    "NF_URL=",
    "firewall --enabled",
    "keyboard ",
    "lang ",
    "network ",
    "reboot ",
    "repo ",
    "rootpw ",
    "skipx ",
    "sshkey ",
    "text ",
    "timezone ",
    "url ",
];

/// What an installed node needs for a changed line of the own part.
pub fn need_of(line: &str) -> Need {
    // A command may stand alone, and a package may begin like one.
    let line = format!("{} ", line.trim_end());
    let is_for_installer = line.trim().is_empty()
        || FOR_THE_INSTALLER.iter().any(|beginning| line.starts_with(beginning));
    if is_for_installer { Need::Nothing } else { Need::Reinstall }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_from_other_files_is_not_looked_at() {
        let kickstart = |kind: &str, overlay: &str, secret: &str| {
            format!(
                "%pre\n%end\n\n# ==================== n1 ====================\nlang 'C'\n\
                 rootpw --iscrypted '{secret}'\nNF_LAYERS='common server kind-{kind}'\n\
                 NF_OWN_SHA256='{overlay}'\n{EMBEDDED}'layer-kind-{kind}.tar.gz' <<'END_OF_FILE'\n\
                 {overlay}\nEND_OF_FILE\n{EMBEDDED}'secrets.tar.gz' <<'END_OF_FILE'\n{secret}\n\
                 END_OF_FILE\nchoose_disk\n"
            )
        };
        let expected = View {
            scripts: "%pre\n%end\n\n".to_owned(),
            own: "# ==================== n1 ====================\nlang 'C'\n\
                  NF_LAYERS='common server'\nchoose_disk\n"
                .to_owned(),
            hidden: "rootpw --iscrypted 's'\ns\n".to_owned(),
            layers: BTreeMap::new(),
        };
        assert_eq!(view(&kickstart("0123456789ab", "a", "s")), expected);
        assert_eq!(view(&kickstart("ba9876543210", "b", "s")), expected);
        assert_ne!(view(&kickstart("ba9876543210", "b", "t")).hidden, expected.hidden);
    }

    #[test]
    fn secrets_that_a_site_writes_otherwise_are_hidden_too() {
        let hash = "$6$rounds=5000$saltsalt$Hu4YTkHag2rBaqkc0WmDW08TFnqD9VmPHf4miY6rZKN5y";
        let bcrypt = "$2b$05$bvIG6Nmid91Mu9RcmmWZfO5HJIMCT8riNW0hEp8f6/FuA2/mHZFpe";
        for secret in [
            format!("rootpw '{hash}' --iscrypted\n"),
            format!("user --name=ops --iscrypted --password={hash}\n"),
            format!("rootpw --iscrypted \"{bcrypt}\"\n"),
            format!("{}\n", "H4sIAAAAAAAA".repeat(6)),
        ] {
            for mark in ["", "\n# ==================== n1 ====================\n"] {
                let seen = view(&format!("%pre\n{secret}{mark}lang 'C'\n{secret}"));
                assert!(seen.hidden.contains(&secret), "{secret}");
                assert!(!seen.own.contains(&secret) && !seen.scripts.contains(&secret), "{secret}");
            }
        }
        for line in ["echo \"$NF_RUN/$1$2$NF_URL\"\n", "NF_OWN='0123456789abcdef'\n", "tmux\n"] {
            assert_eq!(view(line).hidden, "", "{line}");
        }
    }

    #[test]
    fn packages_and_disks_want_an_installation_and_mirrors_do_not() {
        for (line, need) in [
            ("tmux\n", Need::Reinstall),
            ("text-tools\n", Need::Reinstall),
            ("rebooter\n", Need::Reinstall),
            ("text\n", Need::Nothing),
            ("reboot --eject\n", Need::Nothing),
            ("NF_DISK_BUS='nvme'\n", Need::Reinstall),
            ("NF_KERNEL_ARGS='quiet'\n", Need::Reinstall),
            ("services --enabled=sshd\n", Need::Reinstall),
            ("timezone 'UTC' --utc\n", Need::Nothing),
            ("firewall --enabled --ssh\n", Need::Nothing),
            ("firewall --disabled\n", Need::Reinstall),
            ("url --url='http://mirror/'\n", Need::Nothing),
            ("network --device='bootif'\n", Need::Nothing),
            ("\n", Need::Nothing),
        ] {
            assert_eq!(need_of(line), need, "{line}");
        }
    }
}
