//! Whether the owners that overlays name exist on the nodes: nodeforge makes no users, they
//! come with packages.

use crate::cluster::Kind;
use crate::diag::{Diagnostic, Problems, Span, codes};
use crate::tree::{Owner, TreePath};

/// Users and groups of every EL8 system: those of `setup`, `systemd`, `dbus` and what a
/// minimal install brings (its /etc/passwd and /etc/group).
const EVERYWHERE: [&str; 49] = [
    "root",
    "bin",
    "daemon",
    "sys",
    "adm",
    "tty",
    "disk",
    "lp",
    "mem",
    "kmem",
    "wheel",
    "cdrom",
    "mail",
    "man",
    "dialout",
    "floppy",
    "games",
    "tape",
    "video",
    "ftp",
    "lock",
    "audio",
    "users",
    "nobody",
    "sync",
    "shutdown",
    "halt",
    "operator",
    "input",
    "kvm",
    "render",
    "systemd-journal",
    "systemd-coredump",
    "systemd-resolve",
    "dbus",
    "polkitd",
    "ssh_keys",
    "sshd",
    "tss",
    "utmp",
    "utempter",
    "sssd",
    "cgred",
    "rngd",
    "unbound",
    "libstoragemgmt",
    "setroubleshoot",
    "slocate",
    "tcpdump",
];

/// Users and groups by the package that creates them.
const OF_PACKAGES: [(&str, &str); 11] = [
    ("daos_server", "daos-server"),
    ("daos_metrics", "daos-server"),
    ("daos_daemons", "daos-server"),
    ("daos_agent", "daos-client"),
    ("chrony", "chrony"),
    ("apache", "httpd"),
    ("nginx", "nginx"),
    ("munge", "munge"),
    ("postfix", "postfix"),
    ("rpc", "rpcbind"),
    ("rpcuser", "nfs-utils"),
];

/// Warns of owners that no package of `kind` creates.
pub fn check<'a>(
    kind: &Kind,
    owners: impl Iterator<Item = (&'a TreePath, &'a Owner, Span)>,
    problems: &mut Problems,
) {
    for (path, owner, span) in owners {
        for name in [&owner.user, &owner.group] {
            if EVERYWHERE.contains(&&**name) {
                continue;
            }
            let package = OF_PACKAGES.iter().find(|(known, _)| *known == &**name);
            let (message, help) = match package {
                Some((_, package)) if kind.os.packages.contains_key(*package) => continue,
                Some((_, package)) => (
                    format!(
                        "`{name}`, who is to own /{path}, comes with {package}, which the node lacks"
                    ),
                    format!("add the package {package} to its role, or let root own the file"),
                ),
                None => (
                    format!("nobody creates `{name}`, who is to own /{path}"),
                    format!(
                        "let root own it; if a package of yours creates the user, allow {}",
                        codes::UNKNOWN_OWNER
                    ),
                ),
            };
            problems.push(Diagnostic::warning(codes::UNKNOWN_OWNER, message).at(span).help(help));
            // User and group are mostly one name.
            break;
        }
    }
}
