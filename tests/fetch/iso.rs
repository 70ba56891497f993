//! Taking images out of ISOs: signatures by GnuPG, ISOs by xorriso.

use std::collections::VecDeque;

use nodeforge::fetch::{Assurance, cached_image};

use super::server::{File, Server};
use super::*;

const ISO_NAME: &str = "AlmaLinux-8.9-x86_64-boot.iso";

/// A GnuPG home with a key that signs by a subkey and expired on 2024-01-12.
struct Signer {
    home: TempDir,
    fingerprint: Fingerprint,
    public_key: String,
}

impl Signer {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let gpg = |day: &str, arguments: &[&str]| gpg(&home, day, arguments);
        gpg(
            "20210112",
            &["--quick-generate-key", "Test <test@example.org>", "ed25519", "cert", "3y"],
        );
        let listing = gpg("20210112", &["--with-colons", "--list-keys"]);
        let fingerprint = listing
            .lines()
            .find_map(|line| line.strip_prefix("fpr:")?.split(':').nth(8))
            .unwrap()
            .to_owned();
        gpg("20210112", &["--quick-add-key", &fingerprint, "ed25519", "sign", "3y"]);
        let public_key = gpg("20230101", &["--armor", "--export"]);
        Self { fingerprint: fingerprint.parse().unwrap(), public_key, home }
    }

    /// A clear-signed `text`, of the day of AlmaLinux 8.9's release.
    fn sign(&self, text: &str) -> String {
        let path = self.home.path().join("text");
        fs::write(&path, text).unwrap();
        gpg(&self.home, "20231121", &["--clear-sign", "--output", "-", path.to_str().unwrap()])
    }
}

impl Drop for Signer {
    /// Ends the agent of this home, which gpg started.
    fn drop(&mut self) {
        let home = self.home.path();
        run(Command::new("gpgconf").arg("--homedir").arg(home).args(["--kill", "gpg-agent"]));
    }
}

fn gpg(home: &TempDir, day: &str, arguments: &[&str]) -> String {
    let time = format!("{day}T120000!");
    let mut command = Command::new("gpg");
    command.arg("--homedir").arg(home.path());
    command.args(["--batch", "--quiet", "--yes", "--no-tty", "--pinentry-mode", "loopback"]);
    command.args(["--passphrase", "", "--trust-model", "always", "--faked-system-time", &time]);
    run(command.args(arguments))
}

/// The bytes of an ISO with `images`, by xorriso.
fn iso(images: &BTreeMap<&str, Vec<u8>>) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    for (path, bytes) in images {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let path = folder.path().join("boot.iso");
    let mut command = Command::new("xorriso");
    run(command.args(["-as", "mkisofs", "-quiet", "-R", "-J", "-o"]).arg(&path).arg(&root));
    fs::read(path).unwrap()
}

fn checksum(name: &str, iso: &[u8]) -> String {
    format!("# {name}: {} bytes\nSHA256 ({name}) = {}\n", iso.len(), Digest::of(iso))
}

/// An ISO on disk with its CHECKSUM, a key file, and a bench that trusts the key.
struct IsoBench {
    bench: Bench,
    folder: TempDir,
    signer: Signer,
    iso: Vec<u8>,
}

impl IsoBench {
    fn new() -> Self {
        let (signer, iso, folder) = (Signer::new(), iso(&images()), tempfile::tempdir().unwrap());
        let mut bench = Bench::new();
        let key = folder.path().join("key.asc");
        fs::write(&key, &signer.public_key).unwrap();
        fs::write(folder.path().join(ISO_NAME), &iso).unwrap();
        fs::write(folder.path().join("CHECKSUM"), signer.sign(&checksum(ISO_NAME, &iso))).unwrap();
        bench.trust.fingerprints = vec![signer.fingerprint];
        bench.trust.keys = vec![Location::Local(key)];
        Self { bench, folder, signer, iso }
    }

    /// A request for the ISO on disk; its mirror is a folder that is not there.
    fn request(&self) -> Request {
        let path = self.folder.path().join(ISO_NAME);
        self.bench.request("/nowhere", ImageSource::IsoFile { path, checksum: None })
    }

    /// Fails to fetch, and leaves nothing behind.
    #[track_caller]
    fn refusal(&self) -> String {
        let failure = self.bench.failure(&self.request());
        assert_eq!(self.bench.files(), BTreeMap::new());
        failure.replace(self.folder.path().to_str().unwrap(), "DIR")
    }
}

#[test]
fn images_come_out_of_a_signed_iso_with_a_warning_for_the_expired_key() {
    let bench = IsoBench::new();
    let mut request = bench.request();
    request.also.insert(ImageName::InstallImg);
    let fetched = bench.bench.fetch(&request).unwrap();
    assert!(fetched.images.values().all(|cached| cached.image.assurance == Assurance::Signed));
    let mut expected = boot_images();
    expected.insert("install.img".to_owned(), images()["images/install.img"].clone());
    assert_eq!(bench.bench.image_files(), expected);
    assert_eq!(
        bench.bench.take_notes(),
        [Note::Warning(format!(
            "the signature is good, but its key {} expired on 2024-01-12",
            bench.signer.fingerprint
        ))]
    );
}

#[test]
fn a_signature_by_a_stranger_is_refused() {
    let mut bench = IsoBench::new();
    bench.bench.trust.fingerprints = vec!["0".repeat(40).parse().unwrap()];
    let refusal = bench.refusal();
    let start = "fetching release 8.9: checking the signature of DIR/CHECKSUM: no trusted key for \
                 it was found; give AlmaLinux's key as a file (on an AlmaLinux host \
                 /etc/pki/rpm-gpg/RPM-GPG-KEY-AlmaLinux); tried: DIR/key.asc: it is signed by the \
                 key ";
    assert!(refusal.starts_with(start), "{refusal}");
}

#[test]
fn a_changed_checksum_file_is_refused() {
    let bench = IsoBench::new();
    let path = bench.folder.path().join("CHECKSUM");
    let text = fs::read_to_string(&path).unwrap();
    let right = Digest::of(&bench.iso).to_string();
    fs::write(&path, text.replace(&right, &"0".repeat(64))).unwrap();
    assert_eq!(
        bench.refusal(),
        format!(
            "fetching release 8.9: checking the signature of DIR/CHECKSUM: the signature by the \
             key {} is bad: the text or the signature was changed",
            bench.signer.fingerprint
        )
    );
    fs::write(&path, checksum(ISO_NAME, &bench.iso)).unwrap();
    let refusal = bench.refusal();
    assert!(refusal.contains("it is no clear-signed text"), "{refusal}");
    fs::remove_file(&path).unwrap();
    assert_eq!(
        bench.refusal(),
        "fetching release 8.9: /nowhere/isos/x86_64/CHECKSUM does not exist: without it an ISO \
         cannot be told to be genuine"
    );
}

#[test]
fn a_damaged_iso_and_one_of_another_release_are_refused() {
    let bench = IsoBench::new();
    let path = bench.folder.path().join(ISO_NAME);
    let mut damaged = bench.iso.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&path, &damaged).unwrap();
    assert_eq!(
        bench.refusal(),
        format!(
            "fetching release 8.9: DIR/{ISO_NAME} is no ISO that DIR/CHECKSUM knows: its sha256 is \
             {}; it is damaged or of another release: fetch it again",
            Digest::of(&damaged)
        )
    );
    fs::write(&path, &bench.iso).unwrap();
    let other = checksum("AlmaLinux-8.8-x86_64-boot.iso", &bench.iso);
    fs::write(bench.folder.path().join("CHECKSUM"), bench.signer.sign(&other)).unwrap();
    assert_eq!(
        bench.refusal(),
        format!(
            "fetching release 8.9: DIR/{ISO_NAME} is AlmaLinux-8.8-x86_64-boot.iso, \
             not of release 8.9"
        )
    );
}

#[test]
fn an_iso_whose_digest_is_pinned_needs_no_signature() {
    let mut bench = IsoBench::new();
    fs::remove_file(bench.folder.path().join("CHECKSUM")).unwrap();
    bench.bench.trust.isos = vec![("8.9".to_owned(), Digest::of(&bench.iso))];
    bench.bench.fetch(&bench.request()).unwrap();
    assert_eq!(bench.bench.image_files(), boot_images());
    assert_eq!(bench.bench.take_notes(), []);
}

#[test]
fn a_genuine_iso_without_the_images_leaves_the_cache_as_it_was() {
    let bench = IsoBench::new();
    let without = iso(&BTreeMap::from([("images/pxeboot/vmlinuz", kernel(5001))]));
    fs::write(bench.folder.path().join(ISO_NAME), &without).unwrap();
    let text = bench.signer.sign(&checksum(ISO_NAME, &without));
    fs::write(bench.folder.path().join("CHECKSUM"), text).unwrap();
    let failure = bench.bench.failure(&bench.request());
    let end = "it has no file `images/pxeboot/initrd.img`";
    assert!(failure.ends_with(end), "{failure}");
    assert_eq!(nodeforge::fetch::cached(bench.bench.cache.path(), "8.9"), None);
}

/// A mirror with the signed boot ISO and the key, and no tree.
fn iso_mirror(bench: &IsoBench) -> Server {
    let text = bench.signer.sign(&checksum(ISO_NAME, &bench.iso));
    let file = |body: &[u8]| File { body: body.to_vec(), ..File::default() };
    Server::start(BTreeMap::from([
        (format!("/isos/x86_64/{ISO_NAME}"), file(&bench.iso)),
        ("/isos/x86_64/CHECKSUM".to_owned(), file(text.as_bytes())),
        ("/RPM-GPG-KEY-AlmaLinux-8".to_owned(), file(bench.signer.public_key.as_bytes())),
    ]))
}

#[test]
fn the_mirrors_own_iso_is_fetched_verified_and_kept() {
    let mut bench = IsoBench::new();
    let server = iso_mirror(&bench);
    let mirror: Location = server.url.parse().unwrap();
    bench.bench.trust.keys =
        ["RPM-GPG-KEY-AlmaLinux", "RPM-GPG-KEY-AlmaLinux-8"].map(|name| mirror.join(name)).to_vec();
    server.change(&format!("/isos/x86_64/{ISO_NAME}"), |file| {
        file.faults = VecDeque::from([server::Fault::CutAfter(1000)]);
    });
    let request = bench.bench.request(&server.url, ImageSource::MirrorIso);
    bench.bench.fetch(&request).unwrap();
    let mut expected = boot_images();
    expected.insert("boot.iso".to_owned(), bench.iso.clone());
    assert_eq!(bench.bench.image_files(), expected);
    let bytes: Vec<(u16, usize)> =
        server.take_served().into_iter().map(|(_, status, bytes)| (status, bytes)).collect();
    assert_eq!(bytes[1..3], [(404, 0), (200, bench.signer.public_key.len())], "the two keys");
    assert_eq!(bytes[3..], [(200, 1000), (206, bench.iso.len() - 1000)], "the ISO");

    let request = bench.bench.request("/nowhere", ImageSource::Tree("kickstart".to_owned()));
    let fetched = bench.bench.fetch(&request).unwrap().fetched;
    assert_eq!(fetched, names(&[]), "a signed image serves a request for an unsigned one");
}

#[test]
fn unsigned_images_in_the_cache_do_not_serve_a_request_for_signed_ones() {
    let bench = IsoBench::new();
    let tree = tempfile::tempdir().unwrap();
    let folder = tree.path().join("BaseOS/x86_64/kickstart");
    for (path, bytes) in images() {
        fs::create_dir_all(folder.join(path).parent().unwrap()).unwrap();
        fs::write(folder.join(path), bytes).unwrap();
    }
    fs::write(folder.join(".treeinfo"), treeinfo("8.9", &images())).unwrap();
    let source = ImageSource::Tree("kickstart".to_owned());
    let from_tree = bench.bench.request(tree.path().to_str().unwrap(), source);
    bench.bench.fetch(&from_tree).unwrap();
    let assurance = || {
        let cached = cached_image(bench.bench.cache.path(), "8.9", ImageName::Kernel);
        cached.unwrap().image.assurance
    };
    assert_eq!(assurance(), Assurance::MirrorDigest);
    let fetched = bench.bench.fetch(&bench.request()).unwrap().fetched;
    assert_eq!(fetched, names(&[ImageName::Kernel, ImageName::Initrd]));
    assert_eq!(assurance(), Assurance::Signed);
}

#[test]
fn an_iso_beside_an_iso_is_refused() {
    let bench = IsoBench::new();
    let mut request = bench.request();
    request.also.insert(ImageName::BootIso);
    assert_eq!(
        bench.bench.failure(&request),
        "the boot ISO was asked for beside an ISO that is there already; leave one out"
    );
}
