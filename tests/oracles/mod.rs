//! Independent judges of what a build wrote.

pub mod archives;
pub mod boot_menus;
pub mod build;
pub mod documents;
pub mod el8_tools;
mod ini;
pub mod kickstart;
pub mod node_files;
pub mod scripts;
pub mod systemd;
mod systemd239;
