//! The overlay and the secrets: fetched and checked by `%pre`, unpacked by `%post --nochroot`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use flate2::{Compression, GzBuilder};
use nodeforge::render::kickstart::{EmbeddedFile, KickstartContext, OverlaySource, SecretsSource};
use sha2::{Digest, Sha256};

use super::machine::{Contents, Disk, Machine};
use super::{pre, rendered, sections, server};

/// An entry of an archive: path, mode, what it is.
pub enum Item {
    Dir,
    File(&'static str),
    Link(&'static str),
}

pub fn archive(entries: &[(&str, u32, Item)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzBuilder::new().write(Vec::new(), Compression::fast()));
    for (path, mode, item) in entries {
        let (kind, text) = match item {
            Item::Dir => (tar::EntryType::Directory, ""),
            Item::File(text) => (tar::EntryType::Regular, *text),
            Item::Link(target) => (tar::EntryType::Symlink, *target),
        };
        let mut header = tar::Header::new_ustar();
        // Not `set_path`, which refuses the paths that an enemy would write.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(*mode);
        header.set_mtime(1_700_524_800);
        header.set_uid(0);
        header.set_gid(0);
        if matches!(item, Item::Link(_)) {
            header.set_link_name(text).unwrap();
        }
        let body = if matches!(item, Item::File(_)) { text.as_bytes() } else { &[] };
        header.set_size(body.len() as u64);
        header.set_cksum();
        tar.append(&header, body).unwrap();
    }
    let mut gzip = tar.into_inner().unwrap();
    gzip.flush().unwrap();
    gzip.finish().unwrap()
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Puts small archives where dracut would hand them over, and says so in `context`.
pub fn hand_over(machine: &Machine, context: &mut KickstartContext) {
    context.overlay = OverlaySource::Media;
    let mut sums = String::new();
    for layer in &context.layers {
        let bytes =
            archive(&[("etc/", 0o755, Item::Dir), ("etc/layer", 0o644, Item::File("shared\n"))]);
        sums += &format!("{}  {layer}/layer.tar.gz\n", sha256(&bytes));
        machine.write(&format!("nodeforge-layer-{layer}.tar.gz.ks"), bytes);
    }
    machine.write("nodeforge-SHA256SUMS.ks", sums);
    let own = archive(&[("etc/", 0o755, Item::Dir), ("etc/own", 0o600, Item::File("own\n"))]);
    context.overlay_sha256 = sha256(&own);
    machine.write("nodeforge-overlay.tar.gz.ks", own);
}

const OWN: &[(&str, u32, Item)] = &[
    ("etc/", 0o755, Item::Dir),
    ("etc/hostname", 0o644, Item::File("srv1\n")),
    ("etc/who", 0o644, Item::File("own\n")),
    ("etc/systemd/", 0o755, Item::Dir),
    ("etc/systemd/unit", 0o777, Item::Link("/usr/lib/systemd/system/unit")),
];

const COMMON: &[(&str, u32, Item)] = &[
    ("etc/", 0o700, Item::Dir),
    ("etc/common", 0o640, Item::File("common\n")),
    ("etc/who", 0o600, Item::File("common\n")),
    ("usr/bin/", 0o755, Item::Dir),
    ("usr/bin/tool", 0o755, Item::File("#!/bin/bash\n")),
];

const ROLE: &[(&str, u32, Item)] = &[("etc/who", 0o600, Item::File("role\n"))];

const SECRET: &[(&str, u32, Item)] = &[
    ("root/", 0o755, Item::Dir),
    ("root/.nodeforge-root-hash", 0o600, Item::File("$6$salt$hash\n")),
];

/// What the installed system of [`installing`] holds after a good unpacking: a later archive
/// wins, modes are the archives', folders that were there keep theirs.
fn good_target() -> BTreeMap<String, String> {
    [
        ("etc", "0755/"),
        ("etc/common", "0640 common\n"),
        ("etc/hostname", "0644 srv1\n"),
        ("etc/systemd", "0755/"),
        ("etc/systemd/unit", "-> /usr/lib/systemd/system/unit"),
        ("etc/who", "0644 own\n"),
        ("root", "0750/"),
        ("root/.nodeforge-root-hash", "0600 $6$salt$hash\n"),
        ("usr", "0755/"),
        ("usr/bin", "0755/"),
        ("usr/bin/tool", "0755 #!/bin/bash\n"),
    ]
    .map(|(path, what)| (path.to_owned(), what.to_owned()))
    .into()
}

/// A boot tree: what stands at each path, and what opens it.
struct Tree {
    files: BTreeMap<String, Vec<u8>>,
    token: &'static str,
}

impl Tree {
    fn good() -> Self {
        let mut tree = Self { files: BTreeMap::new(), token: "sesame" };
        tree.put_layers(COMMON, ROLE);
        tree.files.insert("/nodes/srv1/overlay.tar.gz".into(), archive(OWN));
        tree.files.insert("/secret/srv1.tar.gz".into(), archive(SECRET));
        tree
    }

    fn put_layers(&mut self, common: &[(&str, u32, Item)], role: &[(&str, u32, Item)]) {
        let mut sums = String::new();
        for (layer, entries) in [("common", common), ("server", role)] {
            let bytes = archive(entries);
            sums += &format!("{}  {layer}/layer.tar.gz\n", sha256(&bytes));
            self.files.insert(format!("/layers/{layer}/layer.tar.gz"), bytes);
        }
        self.files.insert("/layers/SHA256SUMS".into(), sums.into_bytes());
    }

    fn answer(&self, path: &str, authorization: &str) -> (u16, Vec<u8>) {
        if path.starts_with("/secret/") && authorization != format!("Bearer {}", self.token) {
            return (403, b"no".to_vec());
        }
        match self.files.get(path) {
            Some(bytes) => (200, bytes.clone()),
            None => (404, b"no".to_vec()),
        }
    }
}

/// A kickstart with its machine, after `%pre` and, if that let it, `%post --nochroot`.
struct Installing {
    machine: Machine,
    log: String,
}

impl Installing {
    fn run(machine: Machine, context: &KickstartContext) -> Self {
        machine.add(&Disk::sata("sda", 1, 480, "S1"));
        for (folder, mode) in [("etc", 0o755), ("root", 0o750), ("usr/bin", 0o755)] {
            let folder = machine.path("target").join(folder);
            fs::create_dir_all(&folder).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        }
        let kickstart = rendered(context);
        let mut output = machine.run(&pre(&kickstart));
        let mut log = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        if output.status.success() {
            output = machine.run(&sections(&kickstart, "%post --nochroot").remove(0));
            log += &String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        }
        Self { machine, log }
    }

    /// The reason that stands on the screen, without what to do about it.
    fn reason(&self) -> String {
        let text = self.machine.read("dev/tty1");
        let text = text.split("is NOT installed ====================\n").nth(1).unwrap_or("none\n");
        let end = ["Nothing on any disk", "The disk has been partitioned"]
            .iter()
            .find_map(|mark| text.find(mark))
            .unwrap_or(text.len());
        text[..end].trim_end().to_owned()
    }

    #[track_caller]
    fn assert_refused_untouched(&self, reason: &str) {
        assert_eq!(self.reason(), reason, "{}", self.log);
        assert_eq!(self.machine.read("tmp/nodeforge-disk.ks"), "", "storage is given away");
    }

    #[track_caller]
    fn assert_good(&self) {
        assert_eq!(self.machine.listing("target"), good_target(), "{}", self.log);
    }
}

fn http_context(tree: &Tree, address: &str) -> KickstartContext {
    KickstartContext {
        boot_url: address.into(),
        secrets: SecretsSource::Token,
        overlay_sha256: sha256(&tree.files["/nodes/srv1/overlay.tar.gz"]),
        ..server()
    }
}

/// Installs srv1 from a tree that may change from request to request.
fn install_by_http(
    tree: Tree,
    kernel_line: &str,
    change: impl FnMut(&str, &mut Tree) + Send + 'static,
) -> (Installing, Vec<Request>) {
    let mut context = http_context(&tree, "");
    let server = serve(tree, change);
    context.boot_url = server.url.clone();
    let installing = Installing::run(Machine::new(kernel_line), &context);
    let requests = server.requests.lock().unwrap().clone();
    (installing, requests)
}

const TOKEN: &str = "nodeforge.token=sesame";

#[test]
fn layers_and_secrets_land_in_order_with_their_modes() {
    let (installing, requests) = install_by_http(Tree::good(), TOKEN, |_, _| ());
    installing.assert_good();
    let paths: Vec<&str> = requests.iter().map(|request| request.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "/layers/SHA256SUMS",
            "/layers/common/layer.tar.gz",
            "/layers/server/layer.tar.gz",
            "/nodes/srv1/overlay.tar.gz",
            "/secret/srv1.tar.gz"
        ]
    );
    assert_eq!(
        installing.machine.read("run/nodeforge/unpacked"),
        "/etc\n/etc/common\n/etc/who\n/usr/bin\n/usr/bin/tool\n/etc/who\n/etc\n/etc/hostname\n/etc/who\n\
         /etc/systemd\n/etc/systemd/unit\n/root\n/root/.nodeforge-root-hash\n"
    );
}

#[test]
fn the_token_is_sent_only_as_the_header_of_the_secrets() {
    let (installing, requests) = install_by_http(Tree::good(), TOKEN, |_, _| ());
    for request in &requests {
        let wanted = if request.path.starts_with("/secret/") { "Bearer sesame" } else { "" };
        assert_eq!(request.authorization, wanted, "{}", request.path);
    }
    let left_behind: Vec<String> = installing
        .machine
        .listing("")
        .into_iter()
        .filter(|(path, text)| path != "proc/cmdline" && text.contains("sesame"))
        .map(|(path, _)| path)
        .collect();
    assert_eq!((left_behind, installing.log.contains("sesame")), (Vec::new(), false));
}

#[test]
fn a_tree_published_in_between_is_taken_as_a_whole() {
    let mut n_sums = 0;
    let (installing, requests) = install_by_http(Tree::good(), TOKEN, move |path, tree| {
        n_sums += usize::from(path == "/layers/SHA256SUMS");
        // After the digests have been read the first time, the layers are new ones.
        if path == "/layers/common/layer.tar.gz" && n_sums == 1 {
            tree.put_layers(&[("etc/common", 0o640, Item::File("newer\n"))], ROLE);
        }
    });
    let mut wanted = good_target();
    wanted.insert("etc/common".into(), "0640 newer\n".into());
    wanted.remove("usr/bin/tool");
    assert_eq!(installing.machine.listing("target"), wanted, "{}", installing.log);
    let n_sets = requests.iter().filter(|request| request.path == "/layers/SHA256SUMS").count();
    assert_eq!(n_sets, 2);
}

#[test]
fn a_layer_that_never_fits_its_digest_is_refused_after_five_tries() {
    let mut tree = Tree::good();
    tree.files.insert("/layers/server/layer.tar.gz".into(), archive(COMMON));
    let (installing, requests) = install_by_http(tree, TOKEN, |_, _| ());
    let url = installing.machine.read("run/nodeforge/node.sh");
    let url = url.lines().find_map(|line| line.strip_prefix("NF_URL=")).unwrap().trim_matches('\'');
    installing.assert_refused_untouched(&format!(
        "The shared layers cannot be had whole from {url}/layers: \
         the digest of server/layer.tar.gz is not the one in SHA256SUMS"
    ));
    let n_sets = requests.iter().filter(|request| request.path == "/layers/SHA256SUMS").count();
    assert_eq!(n_sets, 5);
}

/// What is wrong with a tree, and the end of the reason for refusing it.
type Fault = (&'static str, &'static str, fn(&mut Tree), &'static str);

#[test]
fn what_cannot_be_had_whole_is_refused_before_the_disk_is_touched() {
    let faults: [Fault; 12] = [
        (
            "a missing layer",
            TOKEN,
            |tree| drop(tree.files.remove("/layers/server/layer.tar.gz")),
            "/layers: server: curl: (22) The requested URL returned error: 404",
        ),
        (
            "no digests",
            TOKEN,
            |tree| drop(tree.files.remove("/layers/SHA256SUMS")),
            "/layers: curl: (22) The requested URL returned error: 404",
        ),
        (
            "an unlisted layer",
            TOKEN,
            |tree| drop(tree.files.insert("/layers/SHA256SUMS".into(), Vec::new())),
            "/layers: SHA256SUMS does not list common/layer.tar.gz",
        ),
        (
            "another overlay",
            TOKEN,
            |tree| drop(tree.files.insert("/nodes/srv1/overlay.tar.gz".into(), archive(ROLE))),
            "but its kickstart says\n  OWN.",
        ),
        (
            "no overlay",
            TOKEN,
            |tree| drop(tree.files.remove("/nodes/srv1/overlay.tar.gz")),
            "The overlay of srv1 cannot be fetched: curl: (22) The requested URL returned error: 404",
        ),
        (
            "no token",
            "",
            |_| (),
            "The kernel line has no nodeforge.token=, so the secrets of srv1 cannot be fetched.",
        ),
        (
            "a wrong token",
            "nodeforge.token=simsim",
            |_| (),
            "The secrets of srv1 cannot be fetched: curl: (22) The requested URL returned error: 403",
        ),
        (
            "a token that would be more than one",
            "nodeforge.token=a\"b",
            |_| (),
            "nodeforge.token= on the kernel line holds characters that no token has.",
        ),
        (
            "no secrets",
            TOKEN,
            |tree| drop(tree.files.remove("/secret/srv1.tar.gz")),
            "The secrets of srv1 cannot be fetched: curl: (22) The requested URL returned error: 404",
        ),
        (
            "secrets cut short",
            TOKEN,
            |tree| tree.files.get_mut("/secret/srv1.tar.gz").unwrap().truncate(60),
            "secrets.tar.gz is not a whole tar.gz archive.",
        ),
        (
            "a path out of the root",
            TOKEN,
            |tree| {
                let bytes = archive(&[("etc/../../evil", 0o644, Item::File("evil"))]);
                tree.files.insert("/secret/srv1.tar.gz".into(), bytes);
            },
            "secrets.tar.gz holds a path that leaves the node's root: etc/../../evil",
        ),
        (
            "an absolute path",
            TOKEN,
            |tree| {
                let bytes = archive(&[("/etc/evil", 0o644, Item::File("evil"))]);
                tree.files.insert("/secret/srv1.tar.gz".into(), bytes);
            },
            "secrets.tar.gz holds a path that leaves the node's root: /etc/evil",
        ),
    ];
    for (name, kernel_line, spoil, reason) in faults {
        let mut tree = Tree::good();
        let own = sha256(&tree.files["/nodes/srv1/overlay.tar.gz"]);
        spoil(&mut tree);
        let mut context = KickstartContext { overlay_sha256: own.clone(), ..server() };
        context.secrets = SecretsSource::Token;
        let server = serve(tree, |_, _| ());
        context.boot_url = server.url.clone();
        let installing = Installing::run(Machine::new(kernel_line), &context);
        let seen = installing.reason();
        assert!(seen.ends_with(&reason.replace("OWN", &own)), "{name}: {seen}\n{}", installing.log);
        assert_eq!(installing.machine.read("tmp/nodeforge-disk.ks"), "", "{name}");
    }
}

#[test]
fn a_device_or_hard_link_in_an_archive_is_refused() {
    let mut tree = Tree::good();
    let mut tar = tar::Builder::new(GzBuilder::new().write(Vec::new(), Compression::fast()));
    let mut header = tar::Header::new_ustar();
    header.set_path("etc/null").unwrap();
    header.set_entry_type(tar::EntryType::Char);
    header.set_size(0);
    header.set_mode(0o666);
    header.set_cksum();
    tar.append(&header, &[][..]).unwrap();
    tree.files.insert("/secret/srv1.tar.gz".into(), tar.into_inner().unwrap().finish().unwrap());
    let (installing, _) = install_by_http(tree, TOKEN, |_, _| ());
    installing.assert_refused_untouched(
        "secrets.tar.gz holds something else than folders, files and symbolic links.",
    );
}

#[test]
fn nothing_is_written_through_a_link() {
    for (name, entries, reason) in [
        (
            "a link that is on the system",
            vec![("mail/box", 0o644, Item::File("evil"))],
            "secrets.tar.gz holds mail/box, but /mail is a link on the installed system.",
        ),
        (
            "a folder in the place of a link",
            vec![("mail/", 0o755, Item::Dir)],
            "secrets.tar.gz holds mail/, but /mail is a link on the installed system.",
        ),
        (
            "a link that the archive brings itself",
            vec![("post", 0o777, Item::Link("/tmp/..")), ("post/box", 0o644, Item::File("evil"))],
            "Line ",
        ),
    ] {
        let mut tree = Tree::good();
        tree.files.insert("/secret/srv1.tar.gz".into(), archive(&entries));
        let machine = Machine::new(TOKEN);
        machine.write("outside/box", "as it was");
        machine.link("target/mail", machine.path("outside"));
        let context = http_context(&tree, "");
        let server = serve(tree, |_, _| ());
        let context = KickstartContext { boot_url: server.url.clone(), ..context };
        let installing = Installing::run(machine, &context);
        let seen = installing.reason();
        assert!(seen.starts_with(reason), "{name}: {seen}\n{}", installing.log);
        assert_eq!(installing.machine.read("outside/box"), "as it was", "{name}");
        assert!(!std::path::Path::new("/box").exists(), "{name}");
    }
}

fn media_files(tree: &Tree) -> BTreeMap<String, Vec<u8>> {
    [
        ("nodeforge-SHA256SUMS.ks", "/layers/SHA256SUMS"),
        ("nodeforge-layer-common.tar.gz.ks", "/layers/common/layer.tar.gz"),
        ("nodeforge-layer-server.tar.gz.ks", "/layers/server/layer.tar.gz"),
        ("nodeforge-overlay.tar.gz.ks", "/nodes/srv1/overlay.tar.gz"),
        ("nodeforge-secrets.tar.gz.ks", "/secret/srv1.tar.gz"),
    ]
    .map(|(name, path)| (name.to_owned(), tree.files[path].clone()))
    .into()
}

fn media_context(tree: &Tree) -> KickstartContext {
    KickstartContext {
        overlay: OverlaySource::Media,
        secrets: SecretsSource::Media,
        ..http_context(tree, "http://127.0.0.1:1")
    }
}

#[test]
fn media_are_files_that_dracut_handed_over() {
    let tree = Tree::good();
    let machine = Machine::new("");
    for (name, bytes) in media_files(&tree) {
        machine.write(&name, bytes);
    }
    Installing::run(machine, &media_context(&tree)).assert_good();
}

#[test]
fn media_may_be_a_filesystem_labelled_oemdrv() {
    let tree = Tree::good();
    let machine = Machine::new("");
    machine.add(&Disk::usb("sdb", 1).part(Contents::labelled("vfat", "OEMDRV")));
    for (name, bytes) in media_files(&tree) {
        machine.write(&format!("fs/sdb1/{name}"), bytes);
    }
    Installing::run(machine, &media_context(&tree)).assert_good();
}

#[test]
fn media_that_lack_a_file_or_were_changed_are_refused() {
    for (file, reason) in [
        (
            "nodeforge-secrets.tar.gz.ks",
            "nodeforge-secrets.tar.gz.ks was not handed over with the kickstart, \
             neither in the initrd nor on a filesystem labelled OEMDRV.",
        ),
        (
            "nodeforge-layer-server.tar.gz.ks",
            "The shared layers are not whole: the digest of server/layer.tar.gz is not the one in SHA256SUMS.",
        ),
    ] {
        let tree = Tree::good();
        let machine = Machine::new("");
        for (name, bytes) in media_files(&tree) {
            machine.write(&name, bytes);
        }
        match file.contains("layer") {
            true => machine.write(file, archive(OWN)),
            false => fs::remove_file(machine.path(file)).unwrap(),
        }
        Installing::run(machine, &media_context(&tree)).assert_refused_untouched(reason);
    }
}

#[test]
fn everything_may_be_in_the_kickstart_itself() {
    let tree = Tree::good();
    let context = KickstartContext {
        overlay: OverlaySource::Embedded,
        secrets: SecretsSource::Embedded,
        embedded: media_files(&tree)
            .into_iter()
            .map(|(name, bytes)| EmbeddedFile {
                name: name["nodeforge-".len()..name.len() - ".ks".len()].to_owned(),
                base64: base64(&bytes).lines().map(str::to_owned).collect(),
            })
            .collect(),
        ..media_context(&tree)
    };
    Installing::run(Machine::new(""), &context).assert_good();
}

/// By the coreutils' base64, as lines of 76.
fn base64(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    let output = Command::new("base64").arg(file.path()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn steps_are_reported_only_with_an_event_token() {
    let tree = Tree::good();
    let (_, requests) =
        install_by_http(tree, &format!("{TOKEN} nodeforge.event_token=tell"), |_, _| ());
    let events: Vec<(&str, &str)> = requests
        .iter()
        .filter(|request| request.path == "/events")
        .map(|request| (request.authorization.as_str(), request.body.as_str()))
        .collect();
    assert_eq!(
        events,
        [(
            "Bearer tell",
            r#"{"node":"srv1","step":"disk","state":"ended","message":"fresh installation on sda"}"#
        )]
    );
}

#[derive(Clone)]
struct Request {
    path: String,
    authorization: String,
    body: String,
}

struct Server {
    url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

/// Serves a tree on a port of its own until the test process ends; `change` may alter the tree
/// before each answer.
fn serve(mut tree: Tree, mut change: impl FnMut(&str, &mut Tree) + Send + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = requests.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let Some(request) = read_request(&mut stream) else { continue };
            change(&request.path, &mut tree);
            let (status, body) = tree.answer(&request.path, &request.authorization);
            seen.lock().unwrap().push(request);
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            // A client that has gone away is its own affair.
            drop(stream.write_all(&[head.as_bytes(), &body].concat()));
        }
    });
    Server { url, requests }
}

fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut authorization, mut length) = (String::new(), 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim_end();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("Authorization: ") {
            authorization = value.to_owned();
        }
        if let Some(value) = header.strip_prefix("Content-Length: ") {
            length = value.parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { path, authorization, body: String::from_utf8(body).ok()? })
}
