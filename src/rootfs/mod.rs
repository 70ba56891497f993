//! Bootable disks assembled from a root tree: without root, a loop device or a mount.
//!
//! [`read`] takes the tree from a folder or an archive, [`node`] lays over it what `%post` of the
//! node's kickstart would put there, and [`disk`] makes a disk of it that BIOS and UEFI start:
//! [`ext4`] has mke2fs and debugfs fill the filesystem, [`loader`] has GRUB's own tool make the boot
//! loader. [`archive`] packs the tree for containers.

pub mod archive;
pub mod disk;
pub mod ext4;
pub mod loader;
pub mod node;
pub mod read;
pub mod tree;
pub mod units;
