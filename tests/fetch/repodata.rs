//! Reading repositories: RPMs by rpmbuild, metadata by createrepo_c, read from a folder and
//! over HTTP.

use nodeforge::repodata::{self, Repodata};

use super::server::{File, Server};
use super::*;

const COMPS: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE comps PUBLIC "-//Red Hat, Inc.//DTD Comps info//EN" "comps.dtd">
<comps>
  <group><id>core</id><name>Core</name><default>false</default><uservisible>true</uservisible>
    <packagelist><packagereq type="mandatory">daos-server</packagereq></packagelist></group>
  <environment><id>minimal-environment</id><name>Minimal Install</name>
    <grouplist><groupid>core</groupid></grouplist></environment>
</comps>
"#;

/// A repository of two stub packages, compressed by `compression` as createrepo_c names it.
pub fn stub_repository(compression: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, provides) in [("daos-server", "daos(server) = 2.6.0"), ("chrony", "ntpdate")] {
        let spec = folder.path().join("stub.spec");
        let text = format!(
            "Name: {name}\nVersion: 1\nRelease: 1\nSummary: stub\nLicense: none\n\
             BuildArch: noarch\nProvides: {provides}\n%description\nstub\n%files\n"
        );
        fs::write(&spec, text).unwrap();
        let define = |name: &str, value: &str| format!("{name} {value}");
        let top = folder.path().join("build").to_str().unwrap().to_owned();
        let packages = folder.path().join("repo").to_str().unwrap().to_owned();
        let mut command = Command::new("rpmbuild");
        command.args(["-bb", "--quiet", "--define", &define("_topdir", &top)]);
        run(command.args(["--define", &define("_rpmdir", &packages)]).arg(&spec));
    }
    let comps = folder.path().join("comps.xml");
    fs::write(&comps, COMPS).unwrap();
    let repo = folder.path().join("repo");
    let mut command = Command::new("createrepo_c");
    command.args(["--quiet", "--general-compress-type"]);
    command.arg(if compression == "zst" { "gz" } else { compression });
    run(command.arg("--groupfile").arg(&comps).arg(&repo));
    if compression == "zst" {
        compress_primary_by_zstd(&repo);
    }
    folder
}

/// Packs the primary anew as createrepo_c 0.21 and later do, which Debian 12 does not have.
fn compress_primary_by_zstd(repo: &Path) {
    let metadata = repo.join("repodata");
    let primary = find(&metadata, "primary.xml.gz");
    let packed = metadata.join(format!("{primary}.zst").replace(".gz", ""));
    run(Command::new("gunzip").arg("--keep").arg(metadata.join(&primary)));
    let unpacked = metadata.join(primary.replace(".gz", ""));
    run(Command::new("zstd").args(["-q", "-19", "--rm", "-o"]).arg(&packed).arg(&unpacked));
    let (old, new) = (fs::read(metadata.join(&primary)).unwrap(), fs::read(&packed).unwrap());
    let repomd = fs::read_to_string(metadata.join("repomd.xml")).unwrap();
    let repomd = repomd
        .replace(&primary, packed.file_name().unwrap().to_str().unwrap())
        .replace(&Digest::of(&old).to_string(), &Digest::of(&new).to_string())
        .replace(&format!("<size>{}</size>", old.len()), &format!("<size>{}</size>", new.len()));
    // The file's name holds the old digest, which the replacement changed too.
    let renamed = packed
        .to_str()
        .unwrap()
        .replace(&Digest::of(&old).to_string(), &Digest::of(&new).to_string());
    fs::rename(&packed, renamed).unwrap();
    fs::write(metadata.join("repomd.xml"), repomd).unwrap();
    fs::remove_file(metadata.join(primary)).unwrap();
}

/// The one file below `folder` whose name ends so.
fn find(folder: &Path, end: &str) -> String {
    let names: Vec<String> =
        files_below(folder).into_keys().filter(|name| name.ends_with(end)).collect();
    assert_eq!(names.len(), 1, "{end}: {names:?}");
    names.into_iter().next().unwrap()
}

fn read(location: &str) -> Result<Repodata> {
    repodata::read(&location.parse().unwrap(), &Client::new(QUICK, &|_| ()))
}

#[track_caller]
fn failure(location: &str) -> String {
    format!("{:#}", read(location).expect_err("reading must fail")).replace(location, "REPO")
}

fn expected() -> Repodata {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Repodata {
        packages: set(&["chrony", "daos-server"]),
        provides: set(&["chrony", "daos(server)", "daos-server", "ntpdate"]),
        groups: set(&["Core", "core"]),
        environments: set(&["Minimal Install", "minimal-environment"]),
    }
}

/// Serves a folder as it is.
fn serve(folder: &Path) -> Server {
    let file = |(name, body)| (format!("/{name}"), File { body, ..File::default() });
    Server::start(files_below(folder).into_iter().map(file).collect())
}

#[test]
fn repositories_are_read_whatever_compresses_them_from_folders_and_servers() {
    for compression in ["gz", "xz", "zst"] {
        let folder = stub_repository(compression);
        let repo = folder.path().join("repo");
        find(&repo.join("repodata"), &format!("primary.xml.{compression}"));
        assert_eq!(read(repo.to_str().unwrap()).unwrap(), expected(), "{compression}, folder");
        let server = serve(&repo);
        assert_eq!(read(&server.url).unwrap(), expected(), "{compression}, server");
    }
}

#[test]
fn a_damaged_or_missing_file_is_refused() {
    let folder = stub_repository("gz");
    let repo = folder.path().join("repo");
    let location = repo.to_str().unwrap();
    let name = find(&repo.join("repodata"), "primary.xml.gz");
    let path = repo.join("repodata").join(&name);
    let mut bytes = fs::read(&path).unwrap();
    let right = Digest::of(&bytes);
    bytes[30] ^= 1;
    let wrong = Digest::of(&bytes);
    fs::write(&path, bytes).unwrap();
    assert_eq!(
        failure(location),
        format!(
            "REPO/repodata/{name}: it has the sha256 {wrong}, repomd.xml says {right}: \
             the mirror is broken or in the middle of an update, try again later"
        )
    );
    fs::remove_file(path).unwrap();
    assert_eq!(
        failure(location),
        format!("REPO/repodata/{name} does not exist, though repomd.xml lists it")
    );
}

#[test]
fn a_folder_without_metadata_is_no_repository() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(
        failure(folder.path().to_str().unwrap()),
        "REPO is no package repository: there is no REPO/repodata/repomd.xml; \
         name the folder above `repodata`"
    );
}

/// A repository whose `repomd.xml` lists one primary with these words.
fn with_primary(href: &str, kind: &str, open_size: usize, body: &[u8]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("repodata")).unwrap();
    let digest = Digest::of(body);
    let repomd = format!(
        r#"<repomd><data type="primary"><location href="{href}"/>
        <checksum type="{kind}">{digest}</checksum><size>{}</size>
        <open-size>{open_size}</open-size></data></repomd>"#,
        body.len()
    );
    fs::write(folder.path().join("repodata/repomd.xml"), repomd).unwrap();
    if !href.contains("..") {
        fs::write(folder.path().join(href), body).unwrap();
    }
    folder
}

#[test]
fn bombs_foreign_paths_weak_checksums_and_other_compressions_are_refused() {
    let xml = format!("<metadata>{}</metadata>", " ".repeat(1 << 20));
    let plain = tempfile::tempdir().unwrap();
    fs::write(plain.path().join("x"), &xml).unwrap();
    run(Command::new("gzip").arg(plain.path().join("x")));
    let bomb = fs::read(plain.path().join("x.gz")).unwrap();
    for (href, kind, open_size, message) in [
        (
            "repodata/primary.xml.gz",
            "sha256",
            1000,
            "reading REPO/repodata/primary.xml.gz: at byte 0: \
             it unpacks to more than it announces",
        ),
        (
            "../etc/passwd",
            "sha256",
            xml.len(),
            "REPO: `../etc/passwd` is no path inside the repository",
        ),
        (
            "repodata/primary.xml.gz",
            "sha",
            xml.len(),
            "REPO/repodata/primary.xml.gz: its checksum is of the kind `sha`, which proves \
             nothing; make the repository anew with `createrepo_c --checksum sha256`",
        ),
        (
            "repodata/primary.xml.bz2",
            "sha256",
            xml.len(),
            "reading REPO/repodata/primary.xml.bz2: it is compressed by `bz2`; nodeforge reads \
             gz, xz and zst: make the repository anew with \
             `createrepo_c --general-compress-type gz`",
        ),
    ] {
        let folder = with_primary(href, kind, open_size, &bomb);
        assert_eq!(failure(folder.path().to_str().unwrap()), message, "{href} {kind}");
    }
    let honest = with_primary("repodata/primary.xml.gz", "sha256", xml.len(), &bomb);
    assert_eq!(read(honest.path().to_str().unwrap()).unwrap(), Repodata::default());
}
