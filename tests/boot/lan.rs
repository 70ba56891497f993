//! An Ethernet switch in the test's own process: it needs neither root nor a network
//! namespace, and nothing leaves it.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::support;

/// A switch with a port for each of the names it was made with.
pub struct Lan {
    folder: TempDir,
}

impl Lan {
    /// Makes the ports and a thread for each, which ends with the process.
    pub fn new(names: &[&str]) -> Self {
        let lan = Self { folder: support::scratch() };
        for name in names {
            let port = UnixDatagram::bind(lan.switch_end(name)).unwrap();
            let others: Vec<PathBuf> = names
                .iter()
                .filter(|other| *other != name)
                .map(|other| lan.guest_end(other))
                .collect();
            std::thread::spawn(move || flood(&port, &others));
        }
        lan
    }

    /// QEMU's argument for the other end of the cable of `name`; one datagram is one frame.
    pub fn netdev(&self, name: &str) -> String {
        format!(
            "dgram,id=lan,local.type=unix,local.path={},remote.type=unix,remote.path={}",
            self.guest_end(name).display(),
            self.switch_end(name).display()
        )
    }

    fn switch_end(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.switch"))
    }

    fn guest_end(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.guest"))
    }
}

/// Sends each frame to all others: three guests need no table of addresses.
fn flood(port: &UnixDatagram, others: &[PathBuf]) {
    let sender = UnixDatagram::unbound().unwrap();
    // A guest that takes no frames loses them, as at a real switch, and holds up nobody.
    sender.set_nonblocking(true).unwrap();
    let mut frame = vec![0; 1 << 16];
    while let Ok(length) = port.recv(&mut frame) {
        for other in others {
            // It fails where the guest is off.
            let _ = sender.send_to(&frame[..length], other);
        }
    }
}
