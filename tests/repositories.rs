//! Repositories that come as archives, as vendors ship MLNX_OFED: from the file to what nodes see.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nodeforge::fetch::{Client, Location, Retries};
use nodeforge::repodata;
use serde_json::Value;

use crate::examples::{copy_with_secrets, nodeforge, printed};
use crate::fetch::stub_repository;
use crate::oracles::archives;
use crate::support::{self, listing};

const PROGRAMS: [&str; 4] = ["rpmbuild", "createrepo_c", "tar", "xorriso"];

/// As long as the real ones are: behind the record in an ISO's directory.
const LONG_NAME: &str =
    "mlnx-ofa_kernel-modules-5.8-OFED.5.8.4.1.5.1.kver.4.18.0_513.5.1.el8_9.x86_64.x86_64.rpm";

const URL: &str = "http://192.168.3.1:8080/pxe/repos/mlnx_ofed/";

/// The lab with secrets, and `[repo.mlnx_ofed]` that says `lines`.
fn lab(lines: &str) -> tempfile::TempDir {
    let folder = support::scratch();
    copy_with_secrets(folder.path(), "lab3.toml");
    let path = folder.path().join("lab3.toml");
    let text = fs::read_to_string(&path).unwrap();
    let repo = format!("{text}\n[repo.mlnx_ofed]\n{lines}\ngpgcheck = false\n");
    fs::write(&path, repo).unwrap();
    folder
}

fn nodeforge_in(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(nodeforge());
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

const BUILD: [&str; 7] = ["build", "lab3.toml", "-o", "out", "--cache", "cache", "--json"];

fn build(folder: &Path) -> Value {
    serde_json::from_str(&printed(folder, &BUILD)).unwrap()
}

/// The folder `RPMS` as its vendor lays it out, below `folder`.
fn ofed(folder: &Path) -> PathBuf {
    let (top, stub) = (folder.join("tree/MLNX_OFED_LINUX-5.8"), stub_repository("gz"));
    fs::create_dir_all(&top).unwrap();
    fs::rename(stub.path().join("repo"), top.join("RPMS")).unwrap();
    support::write(&top, &format!("RPMS/{LONG_NAME}"), vec![7; 300_000]);
    support::write(&top, "mlnxofedinstall", "#!/usr/bin/perl\n");
    top.join("RPMS")
}

/// Makes `folder/ofed.tgz` and `folder/ofed.iso` of the tree there.
fn pack(folder: &Path) {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let tree = path("tree");
    let mut runs = vec![("tar", vec!["-czf".to_owned(), path("ofed.tgz"), "-C".to_owned()])];
    runs[0].1.extend([tree.clone(), ".".to_owned()]);
    let options = ["-as", "mkisofs", "-quiet", "-R", "-J", "-joliet-long", "-o"].map(str::to_owned);
    // An ISO has the contents of the folder at its top.
    let top = format!("{tree}/MLNX_OFED_LINUX-5.8");
    runs.push(("xorriso", options.into_iter().chain([path("ofed.iso"), top]).collect()));
    for (program, arguments) in runs {
        let output = support::run(program, &arguments);
        assert!(output.status.success(), "{program}: {:?}", support::spoken_lines(&output));
    }
}

#[test]
fn an_archive_becomes_a_repository_of_the_boot_server() {
    if support::lacks(&PROGRAMS) {
        return;
    }
    for name in ["ofed.tgz", "ofed.iso"] {
        let lab = lab(&format!("archive = \"vendor/{name}\""));
        let vendor = lab.path().join("vendor");
        let rpms = ofed(&vendor);
        pack(&vendor);
        let checked = nodeforge_in(lab.path(), &["check", "lab3.toml"]);
        let said = support::spoken_lines(&checked).join("\n");
        assert!(checked.status.success() && !said.contains("NF217"), "{name}: {said}");
        assert!(!lab.path().join("cache").exists(), "check unpacks nothing");

        assert_eq!(build(lab.path())["state"], "new");
        let served = lab.path().join("out/current/pxe/repos/mlnx_ofed");
        let files = |folder: &Path| {
            let names = support::files_below(folder, |_| true);
            let read = |name: String| (fs::read(folder.join(&name)).unwrap(), name);
            names.into_iter().map(read).collect::<Vec<_>>()
        };
        assert!(files(&served) == files(&rpms), "{name}: the files are those of the archive");
        assert!(served.join(LONG_NAME).exists());
        let read = repodata::read(
            &Location::Local(served.clone()),
            &Client::new(Retries::DEFAULT, &|_| ()),
        );
        assert!(read.unwrap().has("daos-server"), "{name}");
        assert_urls(&lab.path().join("out/current"));
        printed(lab.path(), &["verify", "out"]);

        let before = listing::of_folder(&lab.path().join("out"));
        assert_eq!(build(lab.path())["state"], "unchanged");
        let after = listing::of_folder(&lab.path().join("out"));
        assert_eq!(listing::differences(&before, &after), [""; 0]);
        // From an empty cache, the same.
        fs::remove_dir_all(lab.path().join("cache")).unwrap();
        assert_eq!(build(lab.path())["state"], "unchanged");

        support::write(&rpms, "new.rpm", "new");
        fs::remove_file(vendor.join(name)).unwrap();
        pack(&vendor);
        assert_eq!(build(lab.path())["generation"], 2, "{name}: a newer archive");
        assert_eq!(fs::read_to_string(served.join("new.rpm")).unwrap(), "new");
        printed(lab.path(), &["verify", "out"]);
    }
}

/// The installer and dnf look where the boot server has it.
#[track_caller]
fn assert_urls(current: &Path) {
    let kickstart = fs::read_to_string(current.join("nodes/node0/kickstart.ks")).unwrap();
    let line = format!("repo --name='mlnx_ofed' --baseurl='{URL}'");
    assert!(kickstart.contains(&line), "{kickstart}");
    let unpacked = support::scratch();
    archives::extract(&current.join("layers/common/layer.tar.gz"), unpacked.path());
    let repo = fs::read_to_string(unpacked.path().join("etc/yum.repos.d/nodeforge.repo")).unwrap();
    assert!(repo.contains(&format!("[mlnx_ofed]\nname=mlnx_ofed\nbaseurl={URL}\n")), "{repo}");
}

/// Exit code and standard error of a build.
fn refused(folder: &Path) -> String {
    let output = nodeforge_in(folder, &BUILD);
    assert_eq!(output.status.code(), Some(1));
    assert!(!folder.join("out").exists(), "nothing was built");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn an_archive_that_will_not_do_is_refused_where_it_is_named() {
    if support::lacks(&PROGRAMS) {
        return;
    }
    let lab = lab("archive = \"vendor/ofed.tgz\"");
    let checked = nodeforge_in(lab.path(), &["check", "lab3.toml"]);
    assert!(checked.status.success(), "only a warning: another machine may have it");
    let said = support::spoken_lines(&checked).join("\n");
    assert!(said.contains("warning[NF217]: the archive vendor/ofed.tgz cannot be read"), "{said}");
    let said = refused(lab.path());
    assert!(said.contains("error[NF217]: the archive vendor/ofed.tgz cannot be read"), "{said}");

    let vendor = lab.path().join("vendor");
    let rpms = ofed(&vendor);
    fs::rename(rpms.join("repodata"), vendor.join("repodata")).unwrap();
    pack(&vendor);
    let said = refused(lab.path());
    assert!(said.contains("no repodata/repomd.xml is in it"), "{said}");
    assert!(said.contains("createrepo_c"), "{said}");

    for name in ["RPMS", "RPMS_UPSTREAM"] {
        let path = format!("{name}/repodata/repomd.xml");
        support::write(rpms.parent().unwrap(), &path, "<repomd/>");
    }
    pack(&vendor);
    let said = refused(lab.path());
    assert!(
        said.contains(
            "has several repositories: in `MLNX_OFED_LINUX-5.8/RPMS`, \
             `MLNX_OFED_LINUX-5.8/RPMS_UPSTREAM`"
        ),
        "{said}"
    );
    assert!(said.contains("lab3.toml:"), "{said}");

    let whole = fs::read(vendor.join("ofed.tgz")).unwrap();
    fs::write(vendor.join("ofed.tgz"), &whole[..whole.len() - 100]).unwrap();
    let said = refused(lab.path());
    assert!(said.contains("vendor/ofed.tgz is damaged"), "{said}");
}
