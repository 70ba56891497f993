//! What firmware and installers expect: boot files by MAC address, the installer's initrd.

pub mod boot_tree;
pub mod install_archive;
