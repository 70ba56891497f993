//! The Ethernet between the guests of a lab: what comes in at one port goes out at all others.
//!
//! A port is a connection to a Unix socket, and carries frames as QEMU's `-netdev socket` and
//! `-netdev stream` write them: four bytes of length, big-endian, then the frame. A guest that
//! takes no frames loses them, as at a real switch, and holds up nobody.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result};

use crate::output::disk::named;

/// Frames that wait for a guest; more are lost.
const QUEUE: usize = 512;
/// QEMU sends none that is longer (net/socket.c, NET_BUFSIZE).
const MAX_FRAME: usize = 4096 + 65536;

/// The name of the socket of the network `net`.
pub fn socket_name(net: &str) -> String {
    format!("lan-{net}.switch")
}

/// Serves the sockets of `nets` in the current folder until the process is ended.
///
/// # Errors
///
/// Fails if a socket cannot be made.
pub fn run(nets: &[String]) -> Result<()> {
    let mut switches = Vec::new();
    for net in nets {
        let listener = listen(Path::new(&socket_name(net)))?;
        switches.push(thread::spawn(move || serve(&listener)));
    }
    for switch in switches {
        // It ends only where its socket fails.
        let _ = switch.join();
    }
    Ok(())
}

/// A new socket for this user only, in the place of one that nobody listens on any more.
fn listen(path: &Path) -> Result<UnixListener> {
    let listen = || {
        if path.exists() && UnixStream::connect(path).is_err() {
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok::<_, io::Error>(listener)
    };
    listen().with_context(|| named("listening on", path))
}

type Frame = Arc<[u8]>;

/// The ports that are plugged in, by number.
type Ports = Arc<Mutex<BTreeMap<u64, SyncSender<Frame>>>>;

fn serve(listener: &UnixListener) {
    let ports = Ports::default();
    for (number, port) in (0..).zip(listener.incoming()) {
        // Of a guest that hung up before it was let in.
        let Ok(port) = port else { continue };
        let Ok(out) = port.try_clone() else { continue };
        let (sender, frames) = sync_channel(QUEUE);
        locked(&ports).insert(number, sender);
        thread::spawn(move || send(out, &frames));
        let ports = Arc::clone(&ports);
        thread::spawn(move || {
            // However it ends, the port is unplugged.
            let _ = forward(port, number, &ports);
            locked(&ports).remove(&number);
        });
    }
}

fn locked(ports: &Ports) -> MutexGuard<'_, BTreeMap<u64, SyncSender<Frame>>> {
    ports.lock().unwrap_or_else(PoisonError::into_inner)
}

fn send(mut port: UnixStream, frames: &Receiver<Frame>) {
    for frame in frames {
        if port.write_all(&frame).is_err() {
            return;
        }
    }
}

/// Gives each frame of a port to all others.
fn forward(mut port: UnixStream, number: u64, ports: &Ports) -> io::Result<()> {
    loop {
        let mut length = [0; 4];
        port.read_exact(&mut length)?;
        let n_bytes = u32::from_be_bytes(length) as usize;
        if n_bytes > MAX_FRAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut frame = vec![0; 4 + n_bytes];
        frame[..4].copy_from_slice(&length);
        port.read_exact(&mut frame[4..])?;
        let frame = Frame::from(frame);
        for (_, other) in locked(ports).iter().filter(|(other, _)| **other != number) {
            // Full, or just unplugged.
            let _ = other.try_send(Arc::clone(&frame));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_reaches_every_other_port_and_a_port_that_leaves_holds_up_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lan");
        let listener = listen(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        thread::spawn(move || serve(&listener));
        let mut ports: Vec<UnixStream> =
            (0..3).map(|_| UnixStream::connect(&path).unwrap()).collect();
        // A port is plugged in once it is let in, which a connection does not wait for: each says
        // something until all others have heard it.
        for (at, port) in ports.iter().enumerate() {
            port.set_read_timeout(Some(std::time::Duration::from_millis(20))).unwrap();
            let hello = [&[0, 0, 0, 1][..], &[u8::try_from(at).unwrap()]].concat();
            for other in ports.iter().filter(|other| !std::ptr::eq(*other, port)) {
                other.set_read_timeout(Some(std::time::Duration::from_millis(20))).unwrap();
                let mut heard = [0; 5];
                for _ in 0..1000 {
                    (&*port).write_all(&hello).unwrap();
                    if (&*other).read_exact(&mut heard).is_ok() && heard[..] == hello {
                        break;
                    }
                }
                assert_eq!(heard[..], hello, "port {at}");
            }
        }
        drop(ports.remove(1));
        // From here on nothing is said twice: a busy machine may take its time.
        ports[1].set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
        let mut frame = vec![0, 0, 2, 0];
        frame.resize(4 + 512, 7);
        ports[0].write_all(&frame).unwrap();
        let mut rest = Vec::new();
        let mut piece = [0; 4096];
        while !rest.ends_with(&frame) {
            let n_read = ports[1].read(&mut piece).expect("the frame comes");
            rest.extend(&piece[..n_read]);
        }
    }
}
