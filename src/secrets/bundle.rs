//! Everything secret that one node gets, as a tree of files.

use std::collections::BTreeSet;
use std::fmt;

use super::PasswordHash;
use super::certificates::{CA_CERTIFICATE, CertificateStore, Component};
use crate::tree::{Entry, FileTree, Mode, Owner, Placed, TreePath};

/// Where `%post` finds the root password's hash; it applies and deletes it.
pub const ROOT_HASH_PATH: &str = "root/.nodeforge-root-hash";

/// /root as EL8's package `filesystem` makes it; unpacking must not open it.
const ROOT_HOME: Mode = Mode::new(0o550).expect("9 bits");
const CERTIFICATE: Mode = Mode::FILE;
/// DAOS refuses server and agent keys that anybody but their owner can read.
const OWNER_KEY: Mode = Mode::new(0o400).expect("9 bits");
/// dmg allows a group: sites let one run it (`MaxGroupKeyPerm` in `src/control/security/pem.go`).
const GROUP_KEY: Mode = Mode::new(0o440).expect("9 bits");
const CLIENT_FOLDER: Mode = Mode::new(0o700).expect("9 bits");

/// What a node's secrets are made from.
#[derive(Clone, Copy, Debug)]
pub struct BundleContents<'a> {
    /// `None` for a system without certificates.
    pub certificates: Option<&'a CertificateStore>,
    /// The programs of DAOS that the node runs, by its roles.
    pub components: &'a BTreeSet<Component>,
    /// `None` for a locked root account.
    pub root_hash: Option<&'a PasswordHash>,
}

/// A tree of secret files. Has no `Display`; `Debug` shows paths only.
///
/// An `Owner` other than root is a name for the node to apply, as everywhere.
#[derive(Clone)]
pub struct SecretTree(FileTree);

impl SecretTree {
    /// The tree itself, for packing into the secret folder and nowhere else.
    pub fn expose(&self) -> &FileTree {
        &self.0
    }

    /// Whether the node has no secrets at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Path, mode and owner of everything that is not root's: not secret.
    pub fn owners(&self) -> impl Iterator<Item = (&TreePath, Mode, &Owner)> {
        let owned = self.0.entries().filter(|(_, placed)| !placed.owner.is_root());
        owned.map(|(path, placed)| (path, placed.entry.mode(), &placed.owner))
    }
}

impl fmt::Debug for SecretTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.entries().map(|(path, _)| path.as_str())).finish()
    }
}

/// The secret files of one node: certificates under etc/daos/certs, and the root hash.
///
/// The public certificates are here too, so that one source gives all that must fit
/// together. The authority's key cannot be: a [`CertificateStore`] does not hold it.
pub fn bundle(contents: BundleContents<'_>) -> SecretTree {
    let mut files = Files::default();
    if let Some(store) = contents.certificates
        && !contents.components.is_empty()
    {
        files.certificates(store, contents.components);
    }
    if let Some(hash) = contents.root_hash {
        files.put("root", Entry::Dir { mode: ROOT_HOME }, Owner::root());
        files.file(ROOT_HASH_PATH, Mode::SECRET, hash.to_line().expose(), Owner::root());
    }
    SecretTree(files.tree)
}

/// The tree while it grows.
#[derive(Default)]
struct Files {
    tree: FileTree,
}

impl Files {
    fn certificates(&mut self, store: &CertificateStore, components: &BTreeSet<Component>) {
        let ca = certificate_path(CA_CERTIFICATE);
        self.file(&ca, CERTIFICATE, store.ca_certificate(), Owner::root());
        for &component in components {
            let owner = owner_of(component);
            let certificate = certificate_path(component.certificate());
            self.file(&certificate, CERTIFICATE, store.certificate(component), owner.clone());
            let key_mode = match component {
                Component::Server | Component::Agent => OWNER_KEY,
                Component::Admin => GROUP_KEY,
            };
            let key = certificate_path(component.key());
            self.file(&key, key_mode, store.key(component).expose(), owner);
        }
        if components.contains(&Component::Server) {
            self.client_certificates(store);
        }
    }

    /// What servers check the credentials of clients by, `client_cert_dir`.
    fn client_certificates(&mut self, store: &CertificateStore) {
        let owner = owner_of(Component::Server);
        let folder = certificate_path("clients");
        self.put(&folder, Entry::Dir { mode: CLIENT_FOLDER }, owner.clone());
        for component in [Component::Agent, Component::Admin] {
            let path = format!("{folder}/{}", component.certificate());
            self.file(&path, CERTIFICATE, store.certificate(component), owner.clone());
        }
    }

    fn file(&mut self, path: &str, mode: Mode, content: &[u8], owner: Owner) {
        self.put(path, Entry::File { mode, contents: content.into() }, owner);
    }

    fn put(&mut self, path: &str, entry: Entry, owner: Owner) {
        let path = TreePath::new(path).expect("the paths of a bundle are constant and clean");
        let placed = Placed { entry, owner, origin: "secrets".into() };
        self.tree.insert(path, placed).expect("the paths of a bundle are distinct");
    }
}

fn certificate_path(name: &str) -> String {
    format!("etc/daos/certs/{name}")
}

/// The user each program runs as, made by DAOS's packages.
fn owner_of(component: Component) -> Owner {
    let same = |name: &str| Owner { user: name.into(), group: name.into() };
    match component {
        Component::Server => same("daos_server"),
        Component::Agent => same("daos_agent"),
        Component::Admin => Owner::root(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::certificates::{CA_KEY, samples};
    use super::*;

    const HASH: &str = "$6$abc$K4v3HcZ8yAmpRfxML6S46NCcqy9r4/KdbQpFvqSWsBf4dgySOEOo1DHJTrmn2BsJK2aNmPN8Tfb826D2o9.z51";

    fn bundled(components: &[Component], root_hash: Option<&PasswordHash>) -> SecretTree {
        let store = CertificateStore::open(samples::folder(), samples::now()).unwrap();
        let components = components.iter().copied().collect();
        bundle(BundleContents { certificates: Some(&store), components: &components, root_hash })
    }

    fn listing(tree: &SecretTree) -> Vec<String> {
        let entries = tree.expose().entries();
        let lines = entries.map(|(path, placed)| {
            let slash = if matches!(placed.entry, Entry::Dir { .. }) { "/" } else { "" };
            format!("{} {} {path}{slash}", placed.entry.mode(), placed.owner)
        });
        lines.collect()
    }

    #[test]
    fn each_role_gets_its_own_files_and_no_more() {
        let top =
            ["0755 root:root etc/", "0755 root:root etc/daos/", "0755 root:root etc/daos/certs/"];
        for (component, files) in [
            (
                Component::Server,
                &[
                    "0700 daos_server:daos_server etc/daos/certs/clients/",
                    "0644 daos_server:daos_server etc/daos/certs/clients/admin.crt",
                    "0644 daos_server:daos_server etc/daos/certs/clients/agent.crt",
                    "0644 root:root etc/daos/certs/daosCA.crt",
                    "0644 daos_server:daos_server etc/daos/certs/server.crt",
                    "0400 daos_server:daos_server etc/daos/certs/server.key",
                ][..],
            ),
            (
                Component::Agent,
                &[
                    "0644 daos_agent:daos_agent etc/daos/certs/agent.crt",
                    "0400 daos_agent:daos_agent etc/daos/certs/agent.key",
                    "0644 root:root etc/daos/certs/daosCA.crt",
                ],
            ),
            (
                Component::Admin,
                &[
                    "0644 root:root etc/daos/certs/admin.crt",
                    "0440 root:root etc/daos/certs/admin.key",
                    "0644 root:root etc/daos/certs/daosCA.crt",
                ],
            ),
        ] {
            let tree = bundled(&[component], None);
            let expected: Vec<&str> = top.iter().chain(files).copied().collect();
            assert_eq!(listing(&tree), expected, "{component:?}");
        }
    }

    #[test]
    fn a_node_with_every_role_and_a_root_password_gets_all() {
        let hash = PasswordHash::parse(HASH).unwrap();
        let tree = bundled(&Component::ALL, Some(&hash));
        let paths: Vec<&str> = tree.expose().entries().map(|(path, _)| path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "etc",
                "etc/daos",
                "etc/daos/certs",
                "etc/daos/certs/admin.crt",
                "etc/daos/certs/admin.key",
                "etc/daos/certs/agent.crt",
                "etc/daos/certs/agent.key",
                "etc/daos/certs/clients",
                "etc/daos/certs/clients/admin.crt",
                "etc/daos/certs/clients/agent.crt",
                "etc/daos/certs/daosCA.crt",
                "etc/daos/certs/server.crt",
                "etc/daos/certs/server.key",
                "root",
                "root/.nodeforge-root-hash",
            ]
        );
        let owned: Vec<String> =
            tree.owners().map(|(path, mode, owner)| format!("{mode} {owner} {path}")).collect();
        assert_eq!(
            owned,
            [
                "0644 daos_agent:daos_agent etc/daos/certs/agent.crt",
                "0400 daos_agent:daos_agent etc/daos/certs/agent.key",
                "0700 daos_server:daos_server etc/daos/certs/clients",
                "0644 daos_server:daos_server etc/daos/certs/clients/admin.crt",
                "0644 daos_server:daos_server etc/daos/certs/clients/agent.crt",
                "0644 daos_server:daos_server etc/daos/certs/server.crt",
                "0400 daos_server:daos_server etc/daos/certs/server.key",
            ]
        );
    }

    #[test]
    fn files_hold_the_bytes_of_the_folder() {
        let tree = bundled(&Component::ALL, None);
        let mut n_files = 0;
        for (path, placed) in tree.expose().entries() {
            if let Entry::File { contents, .. } = &placed.entry {
                let name = path.as_str().rsplit('/').next().unwrap();
                let expected = std::fs::read(samples::folder().join(name)).unwrap();
                assert_eq!(contents[..], expected, "{path}");
                n_files += 1;
            }
        }
        assert_eq!(n_files, 9);
    }

    #[test]
    fn the_key_of_the_authority_is_in_no_file() {
        let key = std::fs::read_to_string(samples::folder().join(CA_KEY)).unwrap();
        let line = key.lines().nth(1).unwrap().as_bytes();
        let tree = bundled(&Component::ALL, None);
        for (path, placed) in tree.expose().entries() {
            if let Entry::File { contents, .. } = &placed.entry {
                assert!(!contents.windows(line.len()).any(|window| window == line), "{path}");
            }
        }
    }

    #[test]
    fn the_root_hash_is_one_line_for_root_alone_and_leaves_its_home_closed() {
        let hash = PasswordHash::parse(HASH).unwrap();
        let components = BTreeSet::from([Component::Server]);
        let root_hash = Some(&hash);
        let tree =
            bundle(BundleContents { certificates: None, components: &components, root_hash });
        let expected = ["0550 root:root root/", "0600 root:root root/.nodeforge-root-hash"];
        assert_eq!(listing(&tree), expected);
        let placed = tree.expose().get(&TreePath::new(ROOT_HASH_PATH).unwrap()).unwrap();
        let mode = Mode::SECRET;
        let contents = format!("{HASH}\n").into_bytes().into();
        assert_eq!(placed.entry, Entry::File { mode, contents });
    }

    #[test]
    fn a_node_without_secrets_has_an_empty_bundle() {
        assert!(bundled(&[], None).is_empty());
    }

    #[test]
    fn debug_shows_paths_and_no_content() {
        let hash = PasswordHash::parse(HASH).unwrap();
        let tree = bundled(&[], Some(&hash));
        assert_eq!(format!("{tree:?}"), r#"{"root", "root/.nodeforge-root-hash"}"#);
    }
}
