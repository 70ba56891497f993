//! `daos_agent`: listens on its socket and tells systemd that it is ready.

use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::Path;

const RUNTIME_DIR: &str = "/var/run/daos_agent";

pub fn daos_agent(arguments: &[String]) -> u8 {
    if arguments.first().map(String::as_str) == Some("version") {
        println!("DAOS Agent v2.6.0");
        return 0;
    }
    let socket = Path::new(RUNTIME_DIR).join("daos_agent.sock");
    // Left by one that was killed.
    let _ = std::fs::remove_file(&socket);
    let listener = match UnixListener::bind(&socket) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("ERROR: daos_agent: unable to create socket {}: {error}", socket.display());
            return 1;
        }
    };
    println!("DAOS Agent v2.6.0 (pid {}) listening on {}", std::process::id(), socket.display());
    if let Err(error) = tell_systemd() {
        eprintln!("ERROR: daos_agent: sd_notify: {error}");
    }
    for mut client in listener.incoming().flatten() {
        // Nobody speaks dRPC here.
        let _ = client.write_all(b"");
    }
    0
}

/// `READY=1`, as its unit of `Type=notify` waits for.
fn tell_systemd() -> std::io::Result<()> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let path = path.to_string_lossy();
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path.as_ref())?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address).map(drop)
}
