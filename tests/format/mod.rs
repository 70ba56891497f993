//! The formatting admin, /usr/libexec/nodeforge/format, against made-up clusters: it formats
//! when and only when it should.
//!
//! The script runs as it is, with a clock that does not wait; its `dmg` is the stand-in of
//! tests/fakes, whose cluster stands in a file and changes as it is asked. Every test says
//! how often `dmg storage format` was called, with what exit code the script ended, what it
//! said and what it left on disk.

mod after;
mod before;
mod crash;
mod formatted;
mod hostset;
mod machine;
mod plan;
mod pools;
mod random;

/// The stand-ins' own test is a program of its own, which `cargo test --test suite` leaves out.
#[test]
fn the_stand_ins_answer_as_the_real_programs_were_recorded() {
    let output = std::process::Command::new(crate::support::fakes()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
}
