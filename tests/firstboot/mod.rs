//! The first boot, without a machine: its scripts on made-up ones.

mod preflight;
mod runner;
mod spool;
mod status;
mod world;

use crate::support;

/// Compares `text` with golden/firstboot/`name`; `UPDATE_GOLDEN=1` writes it anew.
#[track_caller]
fn assert_golden(name: &str, text: &str) {
    let path = support::repository().join("tests/golden/firstboot").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, golden, "{name}; UPDATE_GOLDEN=1 writes it anew");
}
