//! Independent judges of what a build wrote.

pub mod el8_tools;
pub mod kickstart;
pub mod scripts;
