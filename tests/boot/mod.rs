//! Real kernels under QEMU: what a kernel makes of the archives that a build wrote, and what
//! nodes do that were installed from them. README.md beside this says what that proves.
//!
//! No accelerator: /dev/kvm may be there and hang. One test at a time has guests, or two that
//! have one each. A test waits for a line on the serial console with a timeout of five times the
//! need, and never sleeps.
//!
//! * [`guest`]: a QEMU process, its console, and a shell in it.
//! * [`initrd`]: the base initrd, whose init reports the tree it finds.
//! * [`machine`], [`lan`]: the emulated hardware, and the network between guests.
//! * [`bench`]: the nodes of lab.toml, installed on a stand-in for AlmaLinux.
//! * [`rollout`]: several nodes until the storage is formatted, and after.
//! * [`media`]: from firmware and an ISO or a volume to the installer.
//! * [`rootfs`]: from firmware to the first boot's end, on disks assembled from a root tree.
//! * [`cloud_init`]: a real cloud-init and a node's seed.
//! * [`network`]: from firmware to the installer or the disk, over a network.
//! * [`install`]: a kickstart executed for real, from the network to a node that is ready.
//! * [`golden`]: the program's own installations, of golden images, and what their ends leave.
//! * [`lab`]: the program's own lab, from one command to a formatted system, and its end.
//! * [`hardware`]: one node, in hardware that is not as planned.

mod bench;
mod cloud_init;
mod golden;
mod guest;
mod hardware;
mod initrd;
mod install;
mod lab;
mod lan;
mod machine;
mod media;
mod network;
mod rollout;
mod rootfs;

use std::path::Path;
use std::time::Duration;

use crate::oracles::archives::{extract, sample_tree, stand_in_cpio};
use crate::support::listing::{self, Listing};
use crate::support::{self, KERNEL, STAND_IN};

use guest::{Guest, Turn};

pub use initrd::tree_with;

/// What boot tests need installed; see [`support::lacks`].
pub const NEEDS: [&str; 4] = ["qemu-system-x86_64", "busybox", "cpio", KERNEL];

/// What tests with installed nodes need besides.
const NEEDS_OF_NODES: [&str; 5] = ["qemu-img", "mkfs.xfs", "tar", "strip", STAND_IN];

/// Whether a test with installed nodes has to be skipped; see [`support::lacks`].
#[track_caller]
fn lacks_for_nodes() -> bool {
    support::lacks(&[&NEEDS[..], &NEEDS_OF_NODES].concat())
}

/// A boot to init takes 3 to 5 seconds on one core without an accelerator, a report of a
/// hundred files two more; a machine that also compiles is three times slower.
const BOOT_TIMEOUT: Duration = Duration::from_secs(100);

/// Boots `kernel` with `base` and `archives` in one initrd, as boot loaders join them, and
/// returns how the tree that the guest's init finds differs from `expected`.
///
/// # Panics
///
/// Panics, with all that the guest said, if it does not get as far as its report.
#[track_caller]
pub fn boot_with_overlays(
    kernel: &Path,
    base: &Path,
    archives: &[&Path],
    expected: &Listing,
) -> Vec<String> {
    let folder = support::scratch();
    let joined = folder.path().join("initrd");
    let parts = [base].into_iter().chain(archives.iter().copied());
    let bytes: Vec<u8> = parts.flat_map(|part| std::fs::read(part).unwrap()).collect();
    std::fs::write(&joined, bytes).unwrap();

    let turn = Turn::wait_for_one();
    let mut guest = Guest::start(&turn, kernel, &joined);
    let report = guest
        .lines_between(initrd::REPORT_BEGINS, initrd::REPORT_ENDS, BOOT_TIMEOUT)
        .unwrap_or_else(|failure| panic!("{failure}"));
    guest.quit();
    listing::differences(expected, &initrd::listing_of(&report, expected))
}

/// A base initrd of odd length for [`boot_with_overlays`]: a kernel ignores an uncompressed
/// archive behind it, and takes a compressed one (init/initramfs.c, `unpack_to_rootfs`).
#[track_caller]
pub fn base_of_odd_length(folder: &Path) -> std::path::PathBuf {
    initrd::base_of_odd_length(folder)
}

#[test]
fn a_kernel_finds_compressed_overlays_behind_a_base_of_odd_length() {
    if support::lacks(&NEEDS) {
        return;
    }
    let folder = support::scratch();
    let base = base_of_odd_length(folder.path());
    let tree = sample_tree();
    let [overlay, later] = ["overlay", "later"].map(|name| folder.path().join(name));
    stand_in_cpio(tree.path(), &overlay);
    support::write(tree.path(), "etc/empty", "not any more");
    support::set_mode(tree.path(), "etc/daos", 0o750);
    stand_in_cpio(tree.path(), &later);

    let expected = listing::of_folder(tree.path());
    let found = boot_with_overlays(&support::guest_kernel(), &base, &[&overlay, &later], &expected);
    assert_eq!(found, [""; 0]);
}

#[test]
fn a_kernel_loses_an_uncompressed_overlay_behind_a_base_of_odd_length() {
    if support::lacks(&NEEDS) {
        return;
    }
    let folder = support::scratch();
    let base = base_of_odd_length(folder.path());
    let tree = sample_tree();
    let [compressed, plain] = ["overlay.gz", "overlay"].map(|name| folder.path().join(name));
    stand_in_cpio(tree.path(), &compressed);
    let output = support::run("gzip", &["-d", "-c", compressed.to_str().unwrap()]);
    assert!(output.status.success());
    std::fs::write(&plain, output.stdout).unwrap();

    let expected = listing::of_folder(tree.path());
    let found = boot_with_overlays(&support::guest_kernel(), &base, &[&plain], &expected);
    let all_missing: Vec<String> =
        expected.iter().map(|(path, listed)| format!("{path}: missing ({listed})")).collect();
    assert_eq!(found, all_missing);
}

#[test]
fn a_kernel_finds_the_overlay_and_the_installer_files_of_a_built_node() {
    if support::lacks(&NEEDS) || support::lacks(&["bsdtar"]) {
        return;
    }
    let folder = support::scratch();
    let base = base_of_odd_length(folder.path());
    for archive in ["overlay.cpio.gz", "install.cpio.gz"] {
        let archive = crate::examples::lab3().current().join("nodes/node0").join(archive);
        let tree = support::scratch();
        extract(&archive, tree.path());
        let expected = listing::of_folder(tree.path());
        let found = boot_with_overlays(&support::guest_kernel(), &base, &[&archive], &expected);
        assert_eq!(found, [""; 0], "{}", archive.display());
    }
}

#[test]
fn a_guest_that_dies_is_told_with_what_it_said() {
    if support::lacks(&NEEDS) {
        return;
    }
    let folder = support::scratch();
    let archive = folder.path().join("no-init");
    stand_in_cpio(sample_tree().path(), &archive);
    let turn = Turn::wait_for_one();
    let mut guest = Guest::start(&turn, &support::guest_kernel(), &archive);
    let failure = guest.lines_between("never", "said", BOOT_TIMEOUT).unwrap_err();
    assert!(failure.starts_with("the guest ended before it said `never`\n"), "{failure}");
    assert!(failure.contains("Kernel panic"), "{failure}");
}
