//! The integration tests, one binary.
//!
//! * [`support`]: programs, folders, listings; nothing that judges.
//! * [`oracles`]: independent judges of what a build wrote. Each returns what it found
//!   wrong, one line a finding, and is itself tested on an input that it must refuse.
//! * [`boot`]: real kernels under QEMU.
//! * [`docs`]: what README.md and docs/ say of the program, against the program.
//! * [`corpus`]: cluster files good and bad, with what `check` says of each.
//! * [`crash`]: builds that are killed or meet a failing disk, and readers beside builds.
//! * [`daos`], [`fetch`], [`kickstart`], [`overlays`]: a part of the library from end to end.
//! * [`firstboot`]: what a node runs when it comes up, on made-up machines.
//! * [`format`]: the formatting admin against made-up clusters.
//! * [`fuzzing`]: the fuzzer's targets on what it found so far, and on random bytes.
//! * [`diff`]: `diff`, `generations` and `rollback`.
//! * [`examples`]: the examples before the judges.
//! * [`hardware`]: captures of real boxes and the blocks that are made of them.
//! * [`incremental`]: builds of what changed against builds of everything.
//! * [`media`]: ISOs, volumes and seeds before their judges.
//! * [`repositories`]: packages that come as an archive.
//! * [`rootfs`]: disks assembled from a root tree, before judges.
//! * [`serve`]: the boot server, over loopback and with real curl.
//! * [`lab`]: images of virtual machines before QEMU's and libvirt's judges, and a lab's processes.
//! * [`install_image`]: `image --install` with a script for QEMU.
//! * [`layers`]: the module order of `src/lib.rs`.
//! * [`verbs`]: the verbs as a user meets them.
//! * [`release`]: the check that a release binary runs on EL8.
//!
//! The programs the tests need come from `scripts/setup-tests`. Where one is missing a test
//! fails if `CI` is set, and otherwise says on the terminal that it was skipped.

mod boot;
mod corpus;
mod crash;
mod daos;
mod diff;
mod docs;
mod examples;
mod fetch;
mod firstboot;
mod format;
mod fuzzing;
mod hardware;
mod incremental;
mod install_image;
mod kickstart;
mod lab;
mod layers;
mod media;
mod oracles;
mod overlays;
mod release;
mod repositories;
mod rootfs;
mod serve;
mod support;
mod verbs;
