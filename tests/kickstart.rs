//! See `kickstart/mod.rs`.

#[path = "kickstart/mod.rs"]
mod kickstart;
