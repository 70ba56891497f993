//! What firmware, installers and cloud images expect: boot files by MAC address, the installer's
//! initrd, and media that a machine is installed from.

pub mod all_nodes;
pub mod boot_config;
pub mod boot_tree;
pub mod embed;
pub mod install_archive;
pub mod node;
pub mod seed;
