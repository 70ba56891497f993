//! The verbs as a user meets them: exit codes, standard output, what is left on the disk.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::examples::{copy_with_secrets, lab3, nodeforge, printed};
use crate::fetch::stub_repository;
use crate::oracles::archives;
use crate::support::{self, listing, repository};

/// Runs `nodeforge arguments…` in `folder`, whatever comes of it.
fn outcome(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(nodeforge());
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

/// The exit code, and what standard error says.
fn failed(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let output = outcome(folder, arguments);
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// A copy of the lab with secrets, to change and build.
fn lab() -> tempfile::TempDir {
    let folder = support::scratch();
    copy_with_secrets(folder.path(), "lab3.toml");
    folder
}

fn replace(folder: &Path, from: &str, to: &str) {
    let path = folder.join("lab3.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from:?} stands in lab3.toml");
    fs::write(path, text.replace(from, to)).unwrap();
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&printed(folder, arguments)).unwrap()
}

#[test]
fn exit_codes_tell_done_problems_and_wrong_command_lines_apart() {
    let lab = lab();
    replace(lab.path(), "\"8.9\"                  #", "\"8.10\" #");
    replace(lab.path(), "gpgcheck = false", "gpgkey = [\"http://x/key\"]");
    for (arguments, code) in [
        (&["check", "lab3.toml"][..], 0),
        (&["check", "lab3.toml", "--deny", "warnings"], 0),
        (&["check", "no-such.toml"], 1),
        (&["show", "lab3.toml", "node9"], 1),
        (&["why", "lab3.toml", "node0", "os.selinx"], 1),
        (&["explain", "DAOS-0"], 1),
        (&["verify", "no-such"], 1),
        (&["check"], 2),
        (&["check", "lab3.toml", "--no-such"], 2),
        (&["no-such-verb"], 2),
        (&[], 2),
    ] {
        assert_eq!(failed(lab.path(), arguments).0, code, "{arguments:?}");
    }
    replace(lab.path(), "8.10", "8.9");
    assert_eq!(failed(lab.path(), &["check", "lab3.toml", "--deny", "warnings"]).0, 1);
}

#[test]
fn a_file_with_errors_builds_nothing() {
    let lab = lab();
    replace(lab.path(), "access_points = [\"node0\"]", "access_points = [\"node0\", \"node1\"]");
    let (code, said) = failed(lab.path(), &["build", "lab3.toml", "-o", "out"]);
    assert_eq!(code, 1);
    assert!(said.contains("error[DAOS-706]"), "{said}");
    assert!(said.ends_with("1 error, 2 warnings; nothing was built\n"), "{said}");
    assert!(!lab.path().join("out").exists());
}

#[test]
fn a_rule_that_the_file_allows_is_built_and_told() {
    let lab = lab();
    replace(lab.path(), "access_points = [\"node0\"]", "access_points = [\"node0\", \"node1\"]");
    replace(lab.path(), "# allow = [\"DAOS-706\"]", "allow = [\"DAOS-706\"] #");
    let (code, said) = failed(lab.path(), &["build", "lab3.toml", "-o", "out"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("allowed[DAOS-706]"), "{said}");
    let manifest = fs::read(lab.path().join("out/current/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["allowed"], serde_json::json!(["DAOS-706"]));
}

#[test]
fn an_inline_secret_is_refused_and_never_shown() {
    let lab = lab();
    replace(lab.path(), "{ file = \"secrets/root.sha512\" }", "\"hunter2\"");
    for arguments in [&["check", "lab3.toml"][..], &["check", "lab3.toml", "--json"]] {
        let output = outcome(lab.path(), arguments);
        assert_eq!(output.status.code(), Some(1));
        let said = support::spoken_lines(&output).join("\n");
        assert!(said.contains("NF401"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn check_gives_a_script_every_place() {
    let lab = lab();
    replace(lab.path(), "selinux = \"disabled\"", "selinux = \"off\"");
    let output = outcome(lab.path(), &["check", "lab3.toml", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let errors: Vec<&Value> =
        found.as_array().unwrap().iter().filter(|found| found["severity"] == "error").collect();
    let [error] = errors[..] else { panic!("{found:#}") };
    assert_eq!(
        (&error["code"], &error["file"], &error["line"], &error["column"]),
        (&"NF104".into(), &"lab3.toml".into(), &20.into(), &11.into())
    );
    assert_eq!(error["end_column"], 16);
}

#[test]
fn repositories_make_an_unknown_package_an_error() {
    if support::lacks(&["rpmbuild", "createrepo_c"]) {
        return;
    }
    let lab = lab();
    let stub = stub_repository("gz");
    let repo = stub.path().join("repo");
    let arguments = ["check", "lab3.toml", "--json", "--repodata", repo.to_str().unwrap()];
    let output = outcome(lab.path(), &arguments);
    assert_eq!(output.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let missing = |name: &str| {
        let message = format!("no repository has a package `{name}`");
        let is_it = |problem: &&Value| problem["message"] == message.as_str();
        found.as_array().unwrap().iter().find(is_it).map(|problem| problem["code"].clone())
    };
    assert_eq!(missing("daos-client"), Some("NF502".into()), "the stub has no such package");
    assert_eq!(missing("daos-server"), None);
    assert_eq!(missing("chrony"), None);
}

#[test]
fn a_second_build_writes_nothing_and_a_changed_node_one_folder() {
    let lab = lab();
    let build = ["build", "lab3.toml", "-o", "out", "--json"];
    let first = json(lab.path(), &build);
    assert_eq!(
        (&first["state"], &first["generation"], &first["nodes"]),
        (&"new".into(), &1.into(), &3.into())
    );
    let before = listing::of_folder(&lab.path().join("out"));
    assert_eq!(json(lab.path(), &build)["state"], "unchanged");
    let differences = listing::differences(&before, &listing::of_folder(&lab.path().join("out")));
    assert_eq!(differences, [""; 0]);

    replace(lab.path(), "roles = [\"client\"]", "roles = [\"client\"]\npackages = [\"tmux\"]");
    let third = json(lab.path(), &build);
    assert_eq!((&third["generation"], &third["folders_written"]), (&2.into(), &1.into()));
}

#[test]
fn only_builds_the_named_nodes_and_keeps_the_others() {
    let lab = lab();
    printed(lab.path(), &["build", "lab3.toml"]);
    let kickstart = |node: &str| {
        fs::read_to_string(lab.path().join(format!("out/current/nodes/{node}/kickstart.ks")))
            .unwrap()
    };
    let before = [kickstart("node0"), kickstart("node1")];
    replace(lab.path(), "timezone = \"Asia/Shanghai\"", "timezone = \"UTC\"");
    printed(lab.path(), &["build", "lab3.toml", "--only", "node1"]);
    assert_eq!(kickstart("node0"), before[0]);
    assert_ne!(kickstart("node1"), before[1]);
    printed(lab.path(), &["verify", "out"]);
    let (code, said) = failed(lab.path(), &["build", "lab3.toml", "--only", "node[1-9]"]);
    assert_eq!(code, 1);
    assert!(said.ends_with("error: there is no node node[3-9]; there are: node[0-2]\n"), "{said}");
}

#[test]
fn verify_finds_what_is_missing_changed_foreign_or_open() {
    let lab = lab();
    printed(lab.path(), &["build", "lab3.toml"]);
    let current = lab.path().join("out/current");
    fs::remove_file(current.join("nodes/node0/overlay.tar.gz")).unwrap();
    fs::write(current.join("nodes/node1/kickstart.ks"), "text\n").unwrap();
    fs::write(current.join("nodes/node2/extra"), "").unwrap();
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(current.join("secret/node0.tar.gz"), open).unwrap();
    let output = outcome(lab.path(), &["verify", "out", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names = |key: &str| found[key].as_array().unwrap().clone();
    assert_eq!(names("missing"), ["current/nodes/node0/overlay.tar.gz"]);
    assert_eq!(names("changed"), ["current/nodes/node1/kickstart.ks"]);
    assert_eq!(names("foreign"), ["current/nodes/node2/extra"]);
    let secret = serde_json::json!({
        "path": "current/secret/node0.tar.gz", "found": "0644", "expected": "0600",
    });
    assert_eq!(names("wrong_modes"), [secret]);
}

#[test]
fn show_lists_what_the_archives_of_a_node_hold() {
    let lab = lab3();
    let listed = printed(&lab.folder, &["show", "lab3.toml", "node0", "--json"]);
    let rows: Vec<Value> = serde_json::from_str(&listed).unwrap();
    let shown: BTreeMap<String, (String, u64)> = rows
        .iter()
        .filter(|row| row["type"] == "file")
        .map(|row| {
            let text = |key: &str| row[key].as_str().unwrap().to_owned();
            (text("path"), (text("mode"), row["size"].as_u64().unwrap()))
        })
        .collect();
    let root = support::scratch();
    let manifest: Value =
        serde_json::from_slice(&fs::read(lab.current().join("manifest.json")).unwrap()).unwrap();
    let layers = manifest["nodes"]["node0"]["layers"].as_array().unwrap();
    let layers = layers.iter().map(|layer| format!("layers/{}/layer", layer.as_str().unwrap()));
    for archive in layers.chain(["nodes/node0/overlay".to_owned()]) {
        archives::extract(&lab.current().join(format!("{archive}.tar.gz")), root.path());
    }
    let is_file = |mode: u32| mode & 0o170_000 == listing::S_IFREG;
    let unpacked: BTreeMap<String, (String, u64)> = listing::of_folder(root.path())
        .into_iter()
        .filter(|(_, entry)| is_file(entry.mode))
        .map(|(path, entry)| {
            (format!("/{path}"), (format!("{:04o}", entry.mode & 0o7777), entry.size))
        })
        .collect();
    assert_eq!(shown, unpacked);
    assert!(shown.contains_key("/etc/daos/daos_server.yml"));
}

#[test]
fn show_prints_the_very_file_that_is_built() {
    let lab = lab3();
    let kickstart = printed(&lab.folder, &["show", "lab3.toml", "node1", "kickstart"]);
    let built = fs::read_to_string(lab.current().join("nodes/node1/kickstart.ks")).unwrap();
    assert_eq!(kickstart, built);
    let boot = printed(&lab.folder, &["show", "lab3.toml", "node1", "pxe"]);
    let grub = lab.current().join("pxe/grub/grub.cfg-01-52-54-00-03-00-12");
    assert!(boot.contains(&fs::read_to_string(grub).unwrap()), "{boot}");
}

#[test]
fn nodes_are_listed_for_people_scripts_hosts_and_ethers() {
    let examples = repository().join("examples");
    let only = ["--only", "srv[016-017]"];
    let list = |form: &[&str]| {
        let arguments: Vec<&str> =
            ["nodes", "titan.toml"].iter().chain(&only).chain(form).copied().collect();
        printed(&examples, &arguments)
    };
    assert_eq!(
        list(&[]),
        "NAME    ROLES   MAC                ADDRESS     RACK  SERIAL\n\
         srv016  server  02:4e:46:02:00:10  10.20.1.16  r01   TTNSRV016\n\
         srv017  server  02:4e:46:02:00:11  10.20.1.17  r02   TTNSRV017\n"
    );
    assert_eq!(list(&["--ethers"]), "02:4e:46:02:00:10 srv016\n02:4e:46:02:00:11 srv017\n");
    let hosts = list(&["--hosts"]);
    assert_eq!(hosts.lines().next(), Some("10.20.1.16 srv016.titan.example srv016"));
    assert_eq!(hosts.lines().count(), 6, "three addresses each");
    let rows: Value = serde_json::from_str(&list(&["--json"])).unwrap();
    assert_eq!(rows[1]["rack"], "r02");
}

#[test]
fn why_names_the_line_and_what_it_overrode() {
    let examples = repository().join("examples");
    assert_eq!(
        printed(&examples, &["why", "titan.toml", "srv018", "nvme.numa1"])
            .lines()
            .take(3)
            .collect::<Vec<_>>(),
        [
            "nvme.numa1 = [\"0000:c1:00.0\", \"0000:c2:00.0\", \"0000:c3:00.0\"]",
            "  set by  [node.\"srv[017-020]\"]  titan.toml:85:14 = [\"0000:c1:00.0\", \"0000:c2:00.0\", \"0000:c3:00.0\"]",
            "  over    [hw.r760]  titan.toml:45:14 = [\"0000:c1:00.0\", \"0000:c2:00.0\", \"0000:c3:00.0\", \"0000:c4:00.0\"]",
        ]
    );
    let address = printed(&examples, &["why", "titan.toml", "srv018", "nic.mgmt.ip"]);
    assert!(address.starts_with("nic.mgmt.ip = \"10.20.1.18\"\n"), "{address}");
    let default = printed(&examples, &["why", "titan.toml", "srv018", "daos.port"]);
    assert!(default.contains("by default"), "{default}");
}

#[test]
fn init_writes_files_that_check_accepts_and_replaces_none() {
    for (kind, inventory) in [("lab", None), ("bare-metal", Some("name,mac.mgmt,serial\n"))] {
        let folder = support::scratch();
        printed(folder.path(), &["init", "--kind", kind]);
        if let Some(header) = inventory {
            let row = |n: u32| format!("srv{n},02:00:00:00:00:0{n},S{n}\n");
            let rows: String = (1..=4).map(row).collect();
            fs::write(folder.path().join("inventory.csv"), format!("{header}{rows}")).unwrap();
        }
        let mut secrets = Command::new(nodeforge());
        secrets.args(["secrets", "init", "cluster.toml"]).current_dir(folder.path());
        assert!(secrets.output().unwrap().status.success());
        printed(folder.path(), &["check", "cluster.toml"]);
        printed(folder.path(), &["build", "cluster.toml"]);
        let (code, said) = failed(folder.path(), &["init", "--kind", kind]);
        assert_eq!(code, 1);
        assert!(said.contains("never replaced"), "{said}");
    }
}

#[test]
fn completions_and_man_pages_know_every_verb() {
    let folder = support::scratch();
    printed(folder.path(), &["man", "man"]);
    assert!(folder.path().join("man/nodeforge-lab-up.1").exists());
    assert!(!folder.path().join("man/nodeforge-lab-tied.1").exists(), "nobody starts it by hand");
    for verb in ["check", "build", "nodes", "show", "why", "verify", "fetch", "init", "schema"] {
        assert!(folder.path().join(format!("man/nodeforge-{verb}.1")).exists(), "{verb}");
        for shell in ["bash", "zsh", "fish"] {
            assert!(
                printed(folder.path(), &["completions", shell]).contains(verb),
                "{shell} {verb}"
            );
        }
    }
}

#[test]
fn boot_programs_and_images_are_linked_into_the_boot_tree() {
    let lab = lab();
    support::write(lab.path(), "programs/undionly.kpxe", "program");
    support::write(lab.path(), "programs/grub/shimx64.efi", "shim");
    let arguments = ["build", "lab3.toml", "--boot-programs", "programs", "--cache", "empty"];
    printed(lab.path(), &arguments);
    let pxe = lab.path().join("out/current/pxe");
    assert_eq!(fs::read_to_string(pxe.join("grub/shimx64.efi")).unwrap(), "shim");
    printed(lab.path(), &["verify", "out"]);
    let manifest = fs::read(lab.path().join("out/current/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(
        manifest["pxe"]["pending"],
        serde_json::json!(["images/8.9/initrd.img", "images/8.9/vmlinuz"])
    );
}

#[test]
fn secrets_stand_nowhere_but_in_the_secret_folder() {
    let lab = lab();
    let hash = fs::read_to_string(lab.path().join("secrets/root.sha512")).unwrap();
    printed(lab.path(), &["build", "lab3.toml"]);
    let out = lab.path().join("out");
    let current = out.join("current");
    let mode = |path: &str| fs::metadata(current.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("secret"), mode("secret/node0.tar.gz")), (0o700, 0o600));
    let unpacked = support::scratch();
    archives::extract(&current.join("secret/node0.tar.gz"), unpacked.path());
    let kept = fs::read_to_string(unpacked.path().join("root/.nodeforge-root-hash")).unwrap();
    assert_eq!(kept.trim_end(), hash.trim_end());
    for path in support::files_below(&current, |path| !path.starts_with("secret/")) {
        let bytes = fs::read(current.join(&path)).unwrap();
        let needle = hash.trim_end().as_bytes();
        assert!(!bytes.windows(needle.len()).any(|window| window == needle), "{path}");
    }
}

#[test]
fn devices_and_links_out_of_a_site_are_refused() {
    let lab = lab();
    replace(lab.path(), "format = 1", "format = 1\ninclude = [\"/dev/zero\"]");
    let (code, said) = failed(lab.path(), &["check", "lab3.toml"]);
    assert_eq!(code, 1);
    assert!(said.contains("error[NF109]: /dev/zero cannot be read: it is a device"), "{said}");

    let site = support::scratch();
    support::write(site.path(), "overlays/motd/overlay.toml", "description = \"A greeting\"\n");
    fs::create_dir(site.path().join("overlays/motd/rootfs")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", site.path().join("overlays/motd/rootfs/x")).unwrap();
    let arguments = ["check", "examples/lab3.toml", "--site", site.path().to_str().unwrap()];
    let (code, said) = failed(repository(), &arguments);
    assert_eq!(code, 1);
    assert!(said.contains("is a link to /etc/passwd, outside the site folder"), "{said}");
}

#[test]
fn a_role_of_another_name_is_what_its_profile_makes_it() {
    let lab = lab();
    replace(lab.path(), "[role.server]", "[role.store]\nprofile = \"server\"");
    replace(lab.path(), "role.server.engine", "role.store.engine");
    replace(lab.path(), "\"server\"]", "\"store\"]");
    printed(lab.path(), &["build", "lab3.toml"]);
    let yaml = printed(lab.path(), &["show", "lab3.toml", "node1", "/etc/daos/daos_server.yml"]);
    assert!(yaml.contains("targets: 1"), "{yaml}");
    let control =
        printed(lab.path(), &["show", "lab3.toml", "node0", "/etc/daos/daos_control.yml"]);
    assert!(control.contains("hostlist:\n- node0\n- node1\n"), "{control}");
}

/// Every URL and path in the menus leads to a file of the build, in each way that overlay and
/// secrets can travel; only the installer's images are pending.
#[test]
fn boot_menus_name_only_files_that_are_built() {
    for overlay in ["http", "media", "embedded"] {
        for secrets in ["token", "media", "embedded"] {
            let lab = lab();
            let set = format!("overlay = \"{overlay}\"\nsecrets = \"{secrets}\" #");
            replace(lab.path(), "overlay = \"embedded\"", &set);
            replace(lab.path(), "secrets = \"token\"", "#");
            printed(lab.path(), &["build", "lab3.toml"]);
            let current = lab.path().join("out/current");
            let menus =
                support::files_below(&current.join("pxe"), |path| path.contains("52-54-00"));
            assert_eq!(menus.len(), 9);
            for menu in menus {
                let text = fs::read_to_string(current.join("pxe").join(&menu)).unwrap();
                let names = text
                    .split(|c: char| c.is_whitespace() || c == ',')
                    .filter_map(|word| word.split("192.168.3.1:8080").nth(1))
                    .map(|path| path.trim_start_matches(')').trim_start_matches('/'))
                    .filter(|path| !path.starts_with("pxe/images/"));
                for name in names {
                    assert!(current.join(name).is_file(), "{overlay} {secrets} {menu}: {name}");
                }
            }
        }
    }
}

#[test]
fn strangers_go_to_their_disks_as_all_nodes_with_such_firmware_do_or_else_by_firmware() {
    let folder = support::scratch();
    let text = fs::read_to_string(repository().join("tests/boot/netlab.toml")).unwrap();
    let chain = text.replace("disk_boot = \"exit 1\"", "disk_boot = \"chain\"");
    let mixed = chain.replace("firmware = \"bios\"", "firmware = \"uefi\"");
    for (text, chains) in [(&text, false), (&chain, true), (&mixed, false)] {
        fs::write(folder.path().join("netlab.toml"), text).unwrap();
        printed(folder.path(), &["build", "netlab.toml", "--cache", "none"]);
        let menu = folder.path().join("out/current/pxe/grub/grub.cfg");
        let menu = fs::read_to_string(menu).unwrap();
        assert!(menu.contains("exit 1"), "{menu}");
        assert_eq!(menu.contains("chainloader /EFI/BOOT/BOOTX64.EFI"), chains, "{menu}");
    }
}
