//! Stand-ins for the programs of DAOS 2.6.0, one binary that goes by the name it is called:
//! `daos_server`, `daos_engine`, `daos_agent`, `dmg`, `daos`.
//!
//! They know states and answers, not data: what awaits a format, what is formatted, who
//! joined; dmg's words, codes and JSON as recorded from the real one (tests/fixtures/dmg).
//!
//! * [`cluster`]: the state of servers and what they answer; the same code in both of:
//! * [`net`]: servers that are processes, on real machines or virtual ones, over TCP.
//! * [`world`]: a whole cluster in a file, that tests write and `dmg` reads and changes
//!   (`DAOS_FAKE_WORLD`).
//! * [`dmg`]: the command lines, and answers for people and for programs.
//!
//! Called by another name it tests itself against the recorded answers.

mod agent;
mod cluster;
mod dmg;
mod hostset;
mod net;
mod selftest;
mod world;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let called = arguments.next().unwrap_or_default();
    let arguments: Vec<String> = arguments.collect();
    let name = Path::new(&called).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let code = match name {
        "daos_server" => net::daos_server(&called, &arguments),
        "daos_engine" => net::daos_engine(),
        "daos_agent" => agent::daos_agent(&arguments),
        "dmg" | "daos" => match std::env::var_os("DAOS_FAKE_WORLD") {
            Some(world) => world::answer(Path::new(&world), name, &arguments),
            None => dmg::run(name, &arguments, &mut net::Tcp::default()).print(),
        },
        _ => selftest::run(),
    };
    ExitCode::from(code)
}
