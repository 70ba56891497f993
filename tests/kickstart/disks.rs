//! `%pre` on made-up machines: which disk it takes, what it writes for anaconda, and when it
//! refuses.

use std::collections::BTreeMap;

use nodeforge::render::kickstart::{Bus, DAOSDATA, DiskRule, KeptFilesystem, KickstartContext};

use super::machine::{Contents, Disk, GIB, Machine};
use super::overlay::hand_over;
use super::{client, pre, rendered, server, words};

enum Expect {
    /// The decision and the file that the kickstart includes.
    Install(&'static str, String),
    /// The disk it goes back to, and the programs it calls for that.
    Boot(&'static str, &'static str),
    /// The reason, as it stands on the consoles.
    Refuse(&'static str),
}
use Expect::{Boot, Install, Refuse};

struct Scenario {
    name: &'static str,
    kernel_line: &'static str,
    context: KickstartContext,
    disks: Vec<Disk>,
    /// Anything else about the machine.
    prepare: fn(&Machine),
    expect: Expect,
}

fn scenario(
    name: &'static str,
    context: KickstartContext,
    disks: Vec<Disk>,
    expect: Expect,
) -> Scenario {
    Scenario { name, kernel_line: "", context, disks, prepare: |_| (), expect }
}

impl Scenario {
    fn with(mut self, kernel_line: &'static str) -> Self {
        self.kernel_line = kernel_line;
        self
    }

    fn prepare(mut self, prepare: fn(&Machine)) -> Self {
        self.prepare = prepare;
        self
    }
}

fn rule(rule: DiskRule, context: KickstartContext) -> KickstartContext {
    KickstartContext { install_disk: rule, ..context }
}

fn by_serial(serial: &str) -> DiskRule {
    DiskRule { serial: Some(serial.into()), ..DiskRule::default() }
}

fn data(mut context: KickstartContext) -> KickstartContext {
    context.kept.push(KeptFilesystem {
        label: DAOSDATA,
        size_mib: 17_408,
        mount: "/var/daos".into(),
    });
    context
}

fn fresh_client(disk: &str) -> String {
    format!(
        "ignoredisk --only-use={disk}
zerombr
clearpart --all --drives={disk} --initlabel --disklabel=gpt
bootloader --location=mbr --boot-drive={disk} --timeout=5 --append=\"intel_iommu=on console=ttyS0,115200\"
reqpart --add-boot
part / --fstype=xfs --label=NFROOT --ondisk={disk} --size=10240 --grow
part /var/log --fstype=xfs --label=NFLOG --ondisk={disk} --size=2048
"
    )
}

fn fresh_server(disk: &str) -> String {
    fresh_client(disk)
        + &format!(
            "part /var/lib/daos --fstype=xfs --label=DAOSMETA --ondisk={disk} --size=8192 --fsoptions=defaults\n"
        )
}

fn kept_server(disk: &str, meta: &str, others: &str) -> String {
    let clear = if others.is_empty() { "--none".into() } else { format!("--list={others}") };
    format!(
        "ignoredisk --only-use={disk}
clearpart {clear}
bootloader --location=mbr --boot-drive={disk} --timeout=5 --append=\"intel_iommu=on console=ttyS0,115200\"
reqpart --add-boot
part / --fstype=xfs --label=NFROOT --ondisk={disk} --size=10240 --grow
part /var/log --fstype=xfs --label=NFLOG --ondisk={disk} --size=2048
part /var/lib/daos --onpart={meta} --noformat --fsoptions=defaults
"
    )
}

fn sda() -> Disk {
    Disk::sata("sda", 1, 480, "S1")
}

fn sdb() -> Disk {
    Disk::sata("sdb", 2, 480, "S2")
}

fn meta() -> Contents {
    Contents::labelled("xfs", "DAOSMETA")
}

fn root() -> Contents {
    Contents::labelled("xfs", "NFROOT")
}

fn root_with_grant(grant: &str) -> Contents {
    root().file("var/lib/nodeforge/grant", &format!("{grant}\n"))
}

fn esp() -> Contents {
    Contents::of_type("vfat").tag("PART_ENTRY_UUID", "5a3c0001-aaaa-bbbb-cccc-000000000001")
}

fn boot() -> Contents {
    Contents::of_type("xfs")
        .file(
            "grub2/grubenv",
            "# GRUB Environment Block\nsaved_entry=0123-4.18.0-513.5.1.el8_9.x86_64\n\
             kernelopts=root=UUID=77 ro intel_iommu=on console=ttyS0,115200 \nboot_success=0\n####",
        )
        .file(
            "loader/entries/0123-4.18.0-513.5.1.el8_9.x86_64.conf",
            "title AlmaLinux (4.18.0-513.5.1.el8_9.x86_64) 8.9\nversion 4.18.0-513.5.1.el8_9.x86_64\n\
             linux /vmlinuz-4.18.0-513.5.1.el8_9.x86_64\n\
             initrd /initramfs-4.18.0-513.5.1.el8_9.x86_64.img $tuned_initrd\n\
             options $kernelopts $tuned_params\nid almalinux\n",
        )
}

/// As nodeforge leaves a server: sda1 ESP, sda2 /boot, sda3 DAOSMETA, sda4 logs, sda5 root.
fn installed(disk: Disk, root: Contents) -> Disk {
    disk.part(esp()).part(boot()).part(meta()).part(Contents::labelled("xfs", "NFLOG")).part(root)
}

fn uefi(machine: &Machine) {
    machine.write("sys/firmware/efi/fw_platform_size", "64\n");
    machine.write(
        "answers/efibootmgr -v",
        "BootCurrent: 0001\nBootOrder: 0001,0003\n\
         Boot0001* PXE IPv4\tPciRoot(0x0)/Pci(0x3,0x0)/MAC(525400030011,1)\n\
         Boot0003* AlmaLinux\tHD(1,GPT,5a3c0001-aaaa-bbbb-cccc-000000000001,0x800,0x12c000)/File(\\EFI\\almalinux\\shimx64.efi)\n",
    );
}

fn scenarios_of_choice() -> Vec<Scenario> {
    let any = DiskRule::default;
    let big = || DiskRule { min_bytes: Some(40 * GIB), ..any() };
    vec![
        scenario(
            "one blank disk",
            client(),
            vec![sda()],
            Install("fresh sda", fresh_client("sda")),
        ),
        scenario(
            "one blank disk of a server",
            server(),
            vec![Disk::virtio("vda", 5, 40, "")],
            Install("fresh vda", fresh_server("vda")),
        ),
        scenario(
            "two equal disks",
            client(),
            vec![sda(), sdb()],
            Refuse(
                "2 disks match the rule for the install disk; exactly one must:
  sda, 491520 MiB, sata, serial S1: MATCHES
  sdb, 491520 MiB, sata, serial S2: MATCHES
",
            ),
        ),
        scenario(
            "no disk at all",
            client(),
            vec![],
            Refuse(
                "No disk matches the rule for the install disk. The disks of this machine:\n  (none)",
            ),
        ),
        scenario(
            "data SSDs beside the install disk, told by PCI address, one behind a switch",
            server(),
            vec![
                Disk::nvme("nvme0n1", "0000:5e:00.0", 480, "N0"),
                Disk::at("nvme1n1", "pci0000:5d/0000:5f:00.0/0000:60:00.0/nvme/nvme1", 480),
                Disk::nvme("nvme2n1", "0000:01:00.0", 480, "N2"),
            ],
            Install("fresh nvme2n1", fresh_server("nvme2n1")),
        ),
        scenario(
            "a rule that matches only a data SSD",
            rule(by_serial("N0"), server()),
            vec![Disk::nvme("nvme0n1", "0000:5e:00.0", 480, "N0")],
            Refuse(
                "No disk matches the rule for the install disk. The disks of this machine:
  nvme0n1, 491520 MiB, nvme, serial N0: a data disk of DAOS (0000:5e:00.0)
",
            ),
        ),
        scenario(
            "a kernel device of DAOS by a stable name",
            KickstartContext { data_devices: words("/dev/disk/by-id/ata-MODEL_S2"), ..server() },
            vec![sda(), sdb()],
            Install("fresh sda", fresh_server("sda")),
        ),
        scenario(
            "the installer's stick is mounted",
            client(),
            vec![sda(), Disk::usb("sdb", 64).part(Contents::of_type("xfs"))],
            Install("fresh sda", fresh_client("sda")),
        )
        .prepare(|machine| {
            machine.append("proc/mounts", "/dev/sdb1 /run/install/repo xfs ro 0 0\n")
        }),
        scenario(
            "the rule asks for USB and the only such disk is the hybrid ISO",
            rule(DiskRule { bus: Some(Bus::Usb), ..any() }, client()),
            vec![
                sda(),
                Disk::usb("sdb", 64)
                    .whole(Contents::labelled("iso9660", "AlmaLinux-8-9-x86_64-dvd")),
            ],
            Refuse(
                "No disk matches the rule for the install disk. The disks of this machine:
  sda, 491520 MiB, sata, serial S1: bus is sata, not usb
  sdb, 65536 MiB, usb, serial STICK: an installation medium
",
            ),
        ),
        scenario(
            "the medium with the kickstart",
            client(),
            vec![sda(), Disk::sata("sdb", 2, 1, "S2").whole(Contents::labelled("vfat", "OEMDRV"))],
            Install("fresh sda", fresh_client("sda")),
        ),
        scenario(
            "a blank stick is no install disk by chance",
            client(),
            vec![sda(), Disk::usb("sdb", 64)],
            Install("fresh sda", fresh_client("sda")),
        ),
        scenario(
            "a blank stick where the rule says so",
            rule(DiskRule { bus: Some(Bus::Usb), ..any() }, client()),
            vec![sda(), Disk::usb("sdb", 64)],
            Install("fresh sdb", fresh_client("sdb")),
        ),
        scenario(
            "removable, read-only, loop, zram, CD, device-mapper and empty disks",
            client(),
            vec![
                sdb().removable(),
                Disk::sata("sdc", 3, 480, "S3").read_only(),
                Disk::sata("sdd", 4, 0, "S4"),
                Disk::at("loop0", "virtual", 480),
                Disk::at("zram0", "virtual", 480),
                Disk::at("dm-0", "virtual", 480),
                Disk::at("md127", "virtual", 480),
                Disk::at("sr0", "pci0000:00/0000:00:17.0/ata5/host5/target5:0:0/5:0:0:0", 480),
                Disk::at("pmem0", "LNXSYSTM:00/ndbus0", 480),
            ],
            Refuse(
                "No disk matches the rule for the install disk. The disks of this machine:
  sdb, 491520 MiB, sata, serial S2: removable
  sdc, 491520 MiB, sata, serial S3: read-only
  sdd, 0 MiB, sata, serial S4: empty (no medium)
",
            ),
        ),
        scenario(
            "a DAOS blob that is not in the plan, whole disk and partition",
            client(),
            vec![sda().whole(Contents::daos_blob()), sdb().part(Contents::daos_blob())],
            Refuse(
                "No disk matches the rule for the install disk. The disks of this machine:
  sda, 491520 MiB, sata, serial S1: a DAOS data disk (SPDK blob on sda)
  sdb, 491520 MiB, sata, serial S2: a DAOS data disk (SPDK blob on sdb1)
",
            ),
        ),
        scenario(
            "a lab's data disks are refused even by name",
            rule(by_serial("nfdata-0"), client()),
            vec![Disk::virtio("vda", 5, 40, "nfdata-0"), Disk::virtio("vdb", 6, 40, "os")],
            Refuse(
                "No disk matches the rule for the install disk. The disks of this machine:
  vda, 40960 MiB, virtio, serial nfdata-0: a data disk of a lab (serial nfdata-0)
  vdb, 40960 MiB, virtio, serial os: serial is not nfdata-0
",
            ),
        ),
        scenario(
            "too small and too large, limits included",
            rule(
                DiskRule { min_bytes: Some(100 * GIB), max_bytes: Some(200 * GIB), ..any() },
                client(),
            ),
            vec![
                Disk::sata("sda", 1, 99, "S1"),
                Disk::sata("sdb", 2, 200, "S2"),
                Disk::sata("sdc", 3, 201, "S3"),
            ],
            Install("fresh sdb", fresh_client("sdb")),
        ),
        scenario(
            "no disk of the right size",
            rule(big(), client()),
            vec![Disk::virtio("vda", 5, 39, "os")],
            Refuse(
                "No disk matches the rule for the install disk. The disks of this machine:
  vda, 39936 MiB, virtio, serial os: smaller than 40960 MiB
",
            ),
        ),
        scenario(
            "the plan does not fit",
            data(server()),
            vec![Disk::virtio("vda", 5, 30, "os")],
            Refuse("vda, 30720 MiB, virtio, serial os is too small: the plan needs 39514 MiB."),
        ),
        scenario(
            "by serial, the disk and not its twin",
            rule(by_serial("S2"), client()),
            vec![sda(), sdb()],
            Install("fresh sdb", fresh_client("sdb")),
        ),
        scenario(
            "a SAS disk by its own serial, which udev keeps apart from the WWN",
            rule(by_serial("ZC1"), client()),
            vec![
                sda(),
                Disk::at(
                    "sdb",
                    "pci0000:3a/0000:3b:00.0/host1/port-1:0/end_device-1:0/target1:0:0/1:0:0:0",
                    480,
                )
                .udev("ID_SERIAL=35000c500aa\nID_SERIAL_SHORT=5000c500aa\nID_SCSI_SERIAL=ZC1\n"),
            ],
            Install("fresh sdb", fresh_client("sdb")),
        ),
        scenario(
            "by path",
            rule(DiskRule { by_path: Some("pci-0000:00:17.0-ata-2".into()), ..any() }, client()),
            vec![sda(), sdb()],
            Install("fresh sdb", fresh_client("sdb")),
        ),
        scenario(
            "by a path that no disk has",
            rule(
                DiskRule {
                    by_path: Some("/dev/disk/by-path/pci-0000:01:00.0-ata-1".into()),
                    ..any()
                },
                client(),
            ),
            vec![sda()],
            Refuse(
                "No disk matches the rule for the install disk. The disks of this machine:
  sda, 491520 MiB, sata, serial S1: not at by-path/pci-0000:01:00.0-ata-1
",
            ),
        ),
        scenario(
            "by id with its folder",
            rule(
                DiskRule { by_id: Some("/dev/disk/by-id/ata-MODEL_S1".into()), ..any() },
                client(),
            ),
            vec![sda(), sdb()],
            Install("fresh sda", fresh_client("sda")),
        ),
        scenario(
            "by WWN, however it is written",
            rule(DiskRule { wwn: Some("5000C500AB".into()), ..any() }, client()),
            vec![sda().udev("ID_WWN=0x5000c500ab\n"), sdb().udev("ID_WWN=0x5000c500ac\n")],
            Install("fresh sda", fresh_client("sda")),
        ),
        scenario(
            "all conditions must hold, not any",
            rule(DiskRule { bus: Some(Bus::Nvme), ..by_serial("S1") }, client()),
            vec![sda(), Disk::nvme("nvme0n1", "0000:01:00.0", 480, "N0")],
            Refuse(
                "No disk matches the rule for the install disk. The disks of this machine:
  nvme0n1, 491520 MiB, nvme, serial N0: serial is not S1
  sda, 491520 MiB, sata, serial S1: bus is sata, not nvme
",
            ),
        ),
        scenario(
            "two paths of one disk",
            rule(DiskRule { wwn: Some("0x5000c500ab".into()), ..any() }, client()),
            vec![sda().udev("ID_WWN=0x5000c500ab\n"), sdb().udev("ID_WWN=0x5000c500ab\n")],
            Refuse(
                "2 disks match the rule for the install disk; exactly one must:
  sda, 491520 MiB, sata, serial S1: MATCHES
  sdb, 491520 MiB, sata, serial S2: MATCHES
",
            ),
        ),
        scenario(
            "a member of a multipath disk",
            client(),
            vec![sda().whole(Contents::of_type("mpath_member"))],
            Refuse(
                "No disk matches the rule for the install disk. The disks of this machine:
  sda, 491520 MiB, sata, serial S1: a path of a multipath disk
",
            ),
        ),
        scenario(
            "a disk that cannot be read",
            client(),
            vec![sda().part(Contents::blkid_fails("ioerror"))],
            Refuse(
                "No disk matches the rule for the install disk. The disks of this machine:
  sda, 491520 MiB, sata, serial S1: sda1 cannot be read
",
            ),
        ),
    ]
}

fn scenarios_of_foreign_content() -> Vec<Scenario> {
    let centos = || sda().part(esp()).part(Contents::of_type("LVM2_member"));
    vec![
        scenario(
            "another system's LVM is not ours to take",
            client(),
            vec![centos()],
            Refuse(
                "sda, 491520 MiB, sata, serial S1 is the disk to install on, but something else is on it:
  vfat on sda1
  LVM2_member on sda2
",
            ),
        ),
        scenario(
            "another system's LVM, given up",
            client(),
            vec![centos()],
            Install("fresh sda", fresh_client("sda")),
        )
        .with("nodeforge.reinstall=17"),
        scenario(
            "the boot server's grant gives up nothing that is another system's",
            client(),
            vec![centos()],
            Refuse(
                "sda, 491520 MiB, sata, serial S1 is the disk to install on, but something else is on it:
  vfat on sda1
  LVM2_member on sda2
",
            ),
        )
        .with("nodeforge.grant=17"),
        scenario(
            "the boot server's grant beside the word that gives up",
            client(),
            vec![centos()],
            Install("fresh sda", fresh_client("sda")),
        )
        .with("nodeforge.grant=17 nodeforge.reinstall=17"),
        scenario(
            "an md member in use",
            client(),
            vec![sda().part(Contents::of_type("linux_raid_member")).held_by("md127")],
            Refuse(
                "sda, 491520 MiB, sata, serial S1 is the disk to install on, but something else is on it:
  linux_raid_member on sda1
  in use by md127
",
            ),
        ),
        scenario(
            "signatures of two things at once",
            client(),
            vec![sda().whole(Contents::blkid_fails("ambivalent"))],
            Refuse(
                "sda, 491520 MiB, sata, serial S1 is the disk to install on, but something else is on it:
  several-signatures on sda
",
            ),
        ),
        scenario(
            "a filesystem on the whole disk",
            client(),
            vec![sda().whole(Contents::labelled("ext4", "photos"))],
            Refuse(
                "sda, 491520 MiB, sata, serial S1 is the disk to install on, but something else is on it:
  ext4 on sda (photos)
",
            ),
        ),
        scenario(
            "an empty partition table",
            client(),
            vec![sda().part(Contents::empty()).part(Contents::empty())],
            Install("fresh sda", fresh_client("sda")),
        ),
        scenario(
            "a grant that is no number",
            client(),
            vec![sda()],
            Refuse("nodeforge.reinstall=yes on the kernel line is not a number of at most 18 digits."),
        )
        .with("nodeforge.reinstall=yes"),
        scenario(
            "a grant of the boot server that is no number",
            client(),
            vec![sda()],
            Refuse("nodeforge.grant=yes on the kernel line is not a number of at most 18 digits."),
        )
        .with("nodeforge.grant=yes"),
    ]
}

fn scenarios_of_kept_data() -> Vec<Scenario> {
    let kept = || installed(sda(), root_with_grant("16"));
    let granted = "nodeforge.reinstall=17";
    let wiped = "nodeforge.reinstall=17 nodeforge.wipe_daos=1";
    let on_nvme = KickstartContext {
        meta_disk: Some(DiskRule { bus: Some(Bus::Nvme), ..DiskRule::default() }),
        ..rule(DiskRule { bus: Some(Bus::Sata), ..DiskRule::default() }, server())
    };
    let nvme = || Disk::nvme("nvme0n1", "0000:01:00.0", 100, "N0");
    vec![
        scenario(
            "DAOSMETA is kept by default",
            server(),
            vec![kept()],
            Install("keep sda", kept_server("sda", "sda3", "sda1,sda2,sda4,sda5")),
        )
        .with(granted),
        scenario(
            "DAOSMETA alone on the disk",
            server(),
            vec![sda().part(meta())],
            Install("keep sda", kept_server("sda", "sda1", "")),
        ),
        scenario(
            "a word to wipe with a grant",
            server(),
            vec![kept()],
            Install("fresh sda", fresh_server("sda")),
        )
        .with(wiped),
        scenario(
            "a word to wipe without a grant",
            server(),
            vec![sda().part(meta())],
            Refuse("nodeforge.wipe_daos=1 needs nodeforge.reinstall=<number> beside it on the kernel line."),
        )
        .with("nodeforge.wipe_daos=1"),
        scenario(
            "a word to wipe with a used grant goes back to the disk",
            server(),
            vec![installed(sda(), root_with_grant("17"))],
            Boot("sda", BOOT_SDA_BY_KEXEC),
        )
        .with(wiped),
        scenario(
            "two DAOSMETA on one disk",
            server(),
            vec![sda().part(meta()).part(meta())],
            Refuse("Several filesystems are labelled DAOSMETA:\n  DAOSMETA on sda1\n  DAOSMETA on sda2\n"),
        ),
        scenario(
            "DAOSMETA on a disk where the plan does not have it",
            rule(by_serial("S1"), server()),
            vec![sda(), sdb().part(meta())],
            Refuse("sdb1 holds kept DAOS data (DAOSMETA); the plan has it on sda."),
        ),
        scenario(
            "DAOSMETA elsewhere is not replaced by a word to wipe either",
            rule(by_serial("S1"), server()),
            vec![sda(), sdb().part(meta())],
            Refuse("sdb1 holds kept DAOS data (DAOSMETA); the plan has it on sda."),
        )
        .with(wiped),
        scenario(
            "a client finds DAOSMETA on its disk",
            client(),
            vec![kept()],
            Refuse("sda3 holds kept DAOS data (DAOSMETA), which this node's plan does not have."),
        )
        .with(granted),
        scenario(
            "a client finds DAOSMETA and is told to wipe",
            client(),
            vec![kept()],
            Install("fresh sda", fresh_client("sda")),
        )
        .with(wiped),
        scenario(
            "a label that lies",
            server(),
            vec![sda().part(Contents::labelled("ext4", "DAOSMETA"))],
            Refuse("sda1 is labelled DAOSMETA but is not an XFS partition."),
        ),
        scenario(
            "metadata without the files that belong to it",
            data(server()),
            vec![kept()],
            Refuse("Only a part of the kept DAOS filesystems is there (planned: DAOSMETA DAOSDATA ):\n  DAOSMETA on sda3\n"),
        )
        .with(granted),
        scenario(
            "bdev files without their metadata",
            data(server()),
            vec![sda().part(Contents::labelled("xfs", "DAOSDATA"))],
            Refuse("Only a part of the kept DAOS filesystems is there (planned: DAOSMETA DAOSDATA ):\n  DAOSDATA on sda1\n"),
        ),
        scenario(
            "bdev files that the plan no longer has",
            server(),
            vec![kept().part(Contents::labelled("xfs", "DAOSDATA"))],
            Refuse("sda6 holds kept DAOS data (DAOSDATA), which this node's plan does not have."),
        )
        .with(granted),
        scenario(
            "metadata and bdev files are kept together",
            data(server()),
            vec![kept().part(Contents::labelled("xfs", "DAOSDATA"))],
            Install(
                "keep sda",
                kept_server("sda", "sda3", "sda1,sda2,sda4,sda5")
                    + "part /var/daos --onpart=sda6 --noformat --fsoptions=defaults\n",
            ),
        )
        .with(granted),
        scenario(
            "fresh metadata on a disk of its own",
            on_nvme.clone(),
            vec![sda(), nvme()],
            Install(
                "fresh sda",
                fresh_client("sda").replace("sda\nzerombr", "sda,nvme0n1\nzerombr").replace(
                    "--drives=sda",
                    "--drives=sda,nvme0n1",
                ) + "part /var/lib/daos --fstype=xfs --label=DAOSMETA --ondisk=nvme0n1 --size=8192 --fsoptions=defaults\n",
            ),
        ),
        scenario(
            "kept metadata on a disk of its own, after the install disk was replaced",
            on_nvme.clone(),
            vec![sda(), nvme().part(meta())],
            Install(
                "keep sda",
                fresh_client("sda").replace("sda\nzerombr", "sda,nvme0n1\nzerombr")
                    + "part /var/lib/daos --onpart=nvme0n1p1 --noformat --fsoptions=defaults\n",
            ),
        ),
        scenario(
            "the metadata's own disk is gone",
            on_nvme,
            vec![sda()],
            Refuse(
                "No disk matches the rule for the disk of DAOS's metadata. The disks of this machine:
  sda, 491520 MiB, sata, serial S1: taken as install disk
",
            ),
        ),
    ]
}

const BOOT_SDA_BY_KEXEC: &str = "mount sda5
mount sda2
kexec --load NF_RUN/boot/vmlinuz-4.18.0-513.5.1.el8_9.x86_64 --initrd=NF_RUN/boot/initramfs-4.18.0-513.5.1.el8_9.x86_64.img --command-line=root=UUID=77 ro intel_iommu=on console=ttyS0,115200  \n\
systemctl kexec
sleep 60
sleep 60
sleep 60
";

fn scenarios_of_an_installed_node() -> Vec<Scenario> {
    let installed_with = |grant: &str| installed(sda(), root_with_grant(grant));
    let kept = || kept_server("sda", "sda3", "sda1,sda2,sda4,sda5");
    vec![
        scenario(
            "installed, no grant, BIOS",
            server(),
            vec![installed_with("16")],
            Boot("sda", BOOT_SDA_BY_KEXEC),
        ),
        scenario(
            "installed, the grant it was installed by",
            server(),
            vec![installed_with("16")],
            Boot("sda", BOOT_SDA_BY_KEXEC),
        )
        .with("nodeforge.reinstall=16"),
        scenario(
            "installed, an older grant",
            server(),
            vec![installed_with("16")],
            Boot("sda", BOOT_SDA_BY_KEXEC),
        )
        .with("nodeforge.reinstall=9"),
        scenario(
            "installed, a newer grant",
            server(),
            vec![installed_with("9")],
            Install("keep sda", kept()),
        )
        .with("nodeforge.reinstall=16"),
        scenario(
            "installed, the boot server's grant it was installed by: its report was lost",
            server(),
            vec![installed_with("16")],
            Boot("sda", BOOT_SDA_BY_KEXEC),
        )
        .with("nodeforge.grant=16"),
        scenario(
            "installed, a newer grant of the boot server",
            server(),
            vec![installed_with("9")],
            Install("keep sda", kept()),
        )
        .with("nodeforge.grant=16"),
        scenario(
            "of two grants on the line the last one counts, and leading zeros do not",
            server(),
            vec![installed_with("0016")],
            Boot("sda", BOOT_SDA_BY_KEXEC),
        )
        .with("nodeforge.reinstall=17 nodeforge.reinstall=0016"),
        scenario(
            "installed, no grant, UEFI",
            server(),
            vec![installed_with("16")],
            Boot(
                "sda",
                "mount sda5
efibootmgr -v
efibootmgr --quiet --bootnext 0003
systemctl reboot
sleep 60
sleep 60
sleep 60
",
            ),
        )
        .prepare(uefi),
        scenario(
            "installed, UEFI, its boot entry is lost: wait, then restart",
            server(),
            vec![installed_with("16")],
            Boot(
                "sda",
                "mount sda5\nefibootmgr -v\nsleep 900\nsystemctl reboot\nsleep 60\nsleep 60\n",
            ),
        )
        .prepare(|machine| {
            uefi(machine);
            machine.write("answers/efibootmgr -v", "BootCurrent: 0001\n");
        }),
        scenario(
            "installed, BIOS, no kernel to be found: wait, then restart",
            server(),
            vec![sda().part(root_with_grant("16"))],
            Boot("sda", "mount sda1\nsleep 900\nsystemctl reboot\nsleep 60\nsleep 60\n"),
        ),
        scenario(
            "installed, and a second disk has come that fits the rule too",
            client(),
            vec![installed(sda(), root_with_grant("16")), sdb()],
            Boot("sda", BOOT_SDA_BY_KEXEC),
        ),
        scenario(
            "an installation that never ended is made anew, what is kept is kept",
            server(),
            vec![installed(sda(), root())],
            Install("keep sda", kept()),
        ),
        scenario(
            "an installation that nobody can read",
            server(),
            vec![installed(sda(), root().unmountable())],
            Refuse("sda holds an installation (sda5, label NFROOT) that cannot be read."),
        ),
        scenario(
            "an installation whose grant is garbage",
            server(),
            vec![installed(sda(), root_with_grant("soon"))],
            Refuse("sda holds an installation (sda5, label NFROOT) that cannot be read."),
        ),
        scenario(
            "an installation that nobody can read, given up",
            server(),
            vec![installed(sda(), root().unmountable())],
            Install("keep sda", kept()),
        )
        .with("nodeforge.reinstall=1"),
        scenario(
            "two complete installations",
            client(),
            vec![sda().part(root_with_grant("1")), sdb().part(root_with_grant("2"))],
            Refuse("2 disks hold a complete installation of nodeforge."),
        ),
    ]
}

#[test]
fn pre_chooses_one_disk_or_refuses() {
    check(scenarios_of_choice());
}

#[test]
fn pre_takes_no_disk_that_holds_something_else() {
    check(scenarios_of_foreign_content());
}

#[test]
fn pre_keeps_daos_data_unless_twice_told() {
    check(scenarios_of_kept_data());
}

#[test]
fn pre_leaves_an_installed_node_alone() {
    check(scenarios_of_an_installed_node());
}

fn check(scenarios: Vec<Scenario>) {
    let wrong: Vec<String> = scenarios.iter().filter_map(difference).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// What happened that was not expected.
fn difference(scenario: &Scenario) -> Option<String> {
    let machine = Machine::new(scenario.kernel_line);
    let mut context = scenario.context.clone();
    hand_over(&machine, &mut context);
    for disk in &scenario.disks {
        machine.add(disk);
    }
    (scenario.prepare)(&machine);
    let disks_before = machine.listing("dev");
    let pre = pre(&rendered(&context));
    let output = machine.run(&pre);
    let seen = Seen::on(&machine, &output);
    let is_touched = without_consoles(machine.listing("dev")) != without_consoles(disks_before);
    let expected = Seen::expected(&scenario.expect, &machine);
    (seen != expected || is_touched).then(|| {
        format!(
            "{}: disks touched: {is_touched}\nexpected {expected:#?}\nseen {seen:#?}\nlog:\n{}{}",
            scenario.name,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

fn without_consoles(mut dev: BTreeMap<String, String>) -> BTreeMap<String, String> {
    dev.retain(|name, _| !["tty1", "ttyS0", "console"].contains(&name.as_str()));
    dev
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Installing {
        decision: String,
        include: String,
    },
    Booting {
        decision: String,
        actions: String,
    },
    /// How often each reason stands on the consoles.
    Refusing {
        reasons: BTreeMap<String, usize>,
    },
    SomethingElse,
}

impl Seen {
    fn expected(expect: &Expect, machine: &Machine) -> Self {
        let run = machine.path("run/nodeforge");
        match expect {
            Install(decision, include) => {
                Seen::Installing { decision: (*decision).into(), include: include.clone() }
            }
            Boot(disk, actions) => Seen::Booting {
                decision: format!("boot {disk}"),
                actions: actions.replace("NF_RUN", run.to_str().unwrap()),
            },
            // Three times on each console, and then the test ended it.
            Refuse(reason) => Seen::Refusing { reasons: [((*reason).into(), 9)].into() },
        }
    }

    fn on(machine: &Machine, output: &std::process::Output) -> Self {
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let decision = stdout.lines().find_map(|line| line.strip_prefix("nodeforge: decision: "));
        let include = machine.read("tmp/nodeforge-disk.ks");
        match (decision, output.status.code()) {
            (Some(decision), Some(0)) => Seen::Installing { decision: decision.into(), include },
            (Some(decision), None) if include.is_empty() => Seen::Booting {
                decision: decision.into(),
                actions: machine.read("answers/actions"),
            },
            (None, None) if include.is_empty() => {
                let consoles = ["tty1", "ttyS0", "console"];
                let texts = consoles.map(|console| machine.read(&format!("dev/{console}")));
                let mut reasons = BTreeMap::new();
                for reason in texts.iter().flat_map(|text| reasons_on(text)) {
                    *reasons.entry(reason).or_default() += 1;
                }
                Seen::Refusing { reasons }
            }
            _ => Seen::SomethingElse,
        }
    }
}

/// What stands between the heading and the line that says nothing was touched.
fn reasons_on(console: &str) -> Vec<String> {
    console
        .split("is NOT installed ====================\n")
        .skip(1)
        .map(|text| {
            text.split("\nNothing on any disk has been touched.\n").next().unwrap().to_owned()
        })
        .collect()
}
