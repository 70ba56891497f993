//! The kickstart of a golden image: what is installed, and that nothing of one machine stays.

use std::fs;

use nodeforge::render::install::golden;
use nodeforge::render::kickstart::{self, KickstartContext, Selinux};

use super::judges::{judged_by_ksvalidator, matrix};
use super::machine::{Disk, Machine};
use super::{client, pre, rendered_as, sections, server};

fn text(of_nodes: &KickstartContext) -> String {
    rendered_as(kickstart::GOLDEN, &golden(of_nodes))
}

/// The machine of an installation after `%pre`: a disk for the image, and the installer's medium.
fn prepared(of_nodes: &KickstartContext) -> Machine {
    let machine = Machine::new("inst.ks=file:/ks.cfg");
    machine.add(&Disk::virtio("vda", 3, 48, "nfgolden"));
    machine.add(&Disk::virtio("vdb", 6, 12, "nfmedium"));
    machine.run(&pre(&text(of_nodes)));
    machine
}

#[test]
fn ksvalidator_finds_nothing_to_say_of_golden_images() {
    let folder = tempfile::tempdir().unwrap();
    for (number, context) in matrix().iter().enumerate() {
        let include = prepared(context).read("tmp/nodeforge-disk.ks");
        assert!(include.starts_with("ignoredisk --only-use=vda\nzerombr\n"), "{include}");
        assert_eq!(include.contains("--label=DAOSMETA"), !context.kept.is_empty(), "{include}");
        let whole = text(context).replace("%include /tmp/nodeforge-disk.ks\n", &include);
        assert!(whole.contains(&include), "the include is not in the kickstart");
        let file = folder.path().join(format!("{number}.ks"));
        fs::write(&file, whole).unwrap();
        let (said, nothing) = judged_by_ksvalidator(&file);
        assert_eq!(said, nothing, "about {context:#?}");
    }
}

#[test]
fn a_golden_image_gets_exactly_these_commands() {
    let text = text(&client());
    let heading = "# ==================== golden image ====================\n";
    let own = text.split_once(heading).unwrap().1;
    let (commands, pre) = own.split_once("\n%pre").unwrap();
    assert_eq!(
        commands,
        r#"cmdline
skipx
eula --agreed
firstboot --disabled
url --url='https://vault.almalinux.org/8.9/BaseOS/x86_64/kickstart/'
repo --name='appstream' --baseurl='https://vault.almalinux.org/8.9/AppStream/x86_64/kickstart/'
repo --name='mlnx_ofed' --baseurl='http://10.20.0.2:8080/repos/mlnx_ofed-5.8/rhel8.9/x86_64/' --cost=900 --excludepkgs='rdma-core*,opensm*'
module --name='pmdk' --disable
lang 'en_US.UTF-8'
keyboard --vckeymap='us'
timezone 'Asia/Shanghai' --utc --ntpservers='192.168.3.1,192.168.3.2'
network --device=link --bootproto=dhcp --noipv6 --activate
rootpw --lock
selinux --disabled
firewall --disabled
services --enabled=cloud-init-local,cloud-init,cloud-config,cloud-final
poweroff
%include /tmp/nodeforge-disk.ks

%addon com_redhat_kdump --disable
%end

%packages
@^minimal-environment
chrony
daos-client
cloud-init
-iwl7260-firmware
-cockpit
%end
"#
    );
    // Those of a node's own that its kickstart has.
    for own in ["cli1", "192.168.3.13", "token=", "0000:5e:00.0", "ssh-ed25519", "127.0.0.1"] {
        assert!(!commands.contains(own) && !pre.contains(own), "{own} in {pre}");
    }
}

#[test]
fn nodes_that_differ_in_nothing_that_is_installed_have_one_golden_image() {
    let mut other = KickstartContext { node: "cli2".into(), ..client() };
    other.overlay_sha256 = "1".repeat(64);
    other.network.ip = "192.168.3.14".into();
    other.install_disk.serial = Some("S2".into());
    other.services.push("tuned".into());
    other.ssh_keys.clear();
    assert_eq!(text(&other), text(&client()));
    for differs in [
        KickstartContext { selinux: Selinux::Enforcing, ..client() },
        KickstartContext { kernel_args: vec!["quiet".into()], ..client() },
        KickstartContext { packages: server().packages, ..client() },
        KickstartContext { kept: server().kept, ..client() },
    ] {
        assert_ne!(text(&differs), text(&client()));
    }
}

#[test]
fn cloud_init_is_installed_even_where_nodes_exclude_it() {
    let mut context = client();
    context.excluded_packages.push("cloud-init".into());
    let packages = sections(&text(&context), "%packages").remove(0);
    assert!(packages.lines().any(|line| line == "cloud-init"), "{packages}");
    assert!(!packages.contains("-cloud-init"), "{packages}");
    context.packages.push("cloud-init".into());
    let packages = sections(&text(&context), "%packages").remove(0);
    assert_eq!(packages.matches("cloud-init").count(), 1, "{packages}");
}

#[test]
fn a_disk_needs_what_the_script_asks_for() {
    let context = golden(&server());
    let machine = |gib| {
        let machine = Machine::new("");
        machine.add(&Disk::virtio("vda", 3, gib, "nfgolden"));
        machine.run(&pre(&rendered_as(kickstart::GOLDEN, &context)));
        machine
    };
    let small = context.disk_mib() / 1024;
    let said = machine(small).read("dev/tty1");
    assert!(said.contains(&format!("the plan needs {} MiB", context.disk_mib())), "{said}");
    assert!(said.contains("nodeforge: golden image is NOT installed"), "{said}");
    assert_eq!(machine(small + 1).read("dev/tty1"), "");
}

/// An image after its packages, and after the section that finishes it.
fn finished(context: &KickstartContext, boot_entry: &str) -> Machine {
    let machine = prepared(context);
    machine.write("answers/boot-entry", format!("{boot_entry}\n"));
    for (path, contents) in [
        ("etc/machine-id", "8c6a1b2c3d4e5f60718293a4b5c6d7e8\n"),
        ("etc/ssh/ssh_host_ed25519_key", "everybody's"),
        ("etc/ssh/sshd_config", "stays"),
        ("etc/sysconfig/network-scripts/ifcfg-ens4", "DEVICE=ens4\n"),
        ("var/lib/systemd/random-seed", "seed"),
        ("var/lib/NetworkManager/secret_key", "key"),
        ("var/cache/dnf/appstream.solv", "large"),
    ] {
        machine.write(path, contents);
    }
    machine.run(&sections(&text(context), "%post --interpreter").remove(0));
    machine
}

#[test]
fn a_finished_image_has_nothing_that_one_machine_made_for_itself() {
    let context = KickstartContext { selinux: Selinux::Enforcing, ..client() };
    let machine = finished(&context, "ro intel_iommu=on console=ttyS0,115200");
    assert_eq!(machine.read("dev/tty1"), "");
    assert_eq!(machine.read("etc/machine-id"), "");
    for gone in [
        "etc/ssh/ssh_host_ed25519_key",
        "etc/sysconfig/network-scripts/ifcfg-ens4",
        "var/lib/systemd/random-seed",
        "var/lib/NetworkManager/secret_key",
        "var/cache/dnf/appstream.solv",
    ] {
        assert!(!machine.path(gone).exists(), "{gone}");
    }
    assert_eq!(machine.read("etc/ssh/sshd_config"), "stays");
    assert_eq!(
        machine.read("etc/cloud/cloud.cfg.d/90-nodeforge.cfg"),
        "# Made by nodeforge, for the seeds that it makes.\ndatasource_list: [NoCloud, None]\n"
    );
    assert_eq!(
        machine.read("var/lib/nodeforge/packages"),
        "@^minimal-environment\nchrony\ndaos-client\ncloud-init\n-iwl7260-firmware\n-cockpit\n"
    );
    let unpacked = machine.read("run/nodeforge/unpacked");
    assert_eq!(
        unpacked,
        "/etc/cloud/cloud.cfg.d/90-nodeforge.cfg\n/var/lib/nodeforge\n/var/lib/nodeforge/packages\n"
    );
    let relabelled =
        format!("restorecon -i -f {}\n", machine.path("run/nodeforge/unpacked").display());
    assert!(machine.read("answers/actions").ends_with(&relabelled));
}

#[test]
fn the_end_is_told_on_the_console_and_a_failure_too() {
    let machine = finished(&client(), "ro intel_iommu=on console=ttyS0,115200");
    let last = sections(&text(&client()), "%post --nochroot").remove(0);
    assert!(machine.run(&last).status.success());
    let said = machine.read("dev/tty1");
    assert!(said.contains("nodeforge: the golden image is installed"), "{said}");
    assert!(machine.path("tmp/NOSAVE_LOGS").exists());

    for opening in ["%onerror", "%traceback"] {
        let machine = prepared(&client());
        machine.write("tmp/anaconda.log", "ERR: error: no such group: x\n");
        machine.run(&sections(&text(&client()), opening).remove(0));
        let said = machine.read("dev/tty1");
        assert!(said.contains("nodeforge: golden image is NOT installed"), "{said}");
        assert!(said.contains("no such group: x"), "{said}");
        assert!(!said.contains("is installed"), "{said}");
    }
}
