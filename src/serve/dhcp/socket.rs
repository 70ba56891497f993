//! The sockets of [`super::Desk`]: one interface each, so that an answer leaves where the
//! question came in and other networks of the machine hear nothing.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::{BOOT_SERVICE_PORT, Desk, Outcome, Port, SERVER_PORT, Service, Silence, Told};

/// A network interface and our address there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub address: Ipv4Addr,
}

/// The interface that has `address`.
///
/// # Errors
///
/// Fails, naming the addresses there are, if none has it.
pub fn interface_with(address: Ipv4Addr) -> Result<Interface> {
    let interfaces = if_addrs::get_if_addrs().context("listing the network interfaces")?;
    let of_v4 = interfaces.into_iter().filter_map(|interface| match interface.ip() {
        std::net::IpAddr::V4(address) => Some(Interface { name: interface.name, address }),
        std::net::IpAddr::V6(_) => None,
    });
    let all: Vec<Interface> = of_v4.collect();
    match all.iter().find(|interface| interface.address == address) {
        Some(found) => Ok(found.clone()),
        None => {
            let have: Vec<String> =
                all.iter().map(|one| format!("{} ({})", one.address, one.name)).collect();
            bail!("no interface of this machine has {address}; it has {}", have.join(", "))
        }
    }
}

/// What happened at a socket.
#[derive(Debug)]
pub enum Event {
    Told(Told),
    Silence(Silence),
    /// An answer could not be sent.
    Unsent(Told, io::Error),
}

/// The open sockets of one interface.
#[derive(Debug)]
pub struct Sockets {
    server: UdpSocket,
    boot_service: Option<UdpSocket>,
}

impl Sockets {
    /// Opens what `service` needs at `interface`. Wants a runtime of tokio.
    ///
    /// # Errors
    ///
    /// Fails without the right to it, and where another server has the port.
    pub fn open(interface: &Interface, service: Service) -> Result<Self> {
        let boot_service = match service {
            Service::Proxy => Some(open(interface, BOOT_SERVICE_PORT)?),
            Service::Addresses => None,
        };
        Ok(Self { server: open(interface, SERVER_PORT)?, boot_service })
    }

    /// Answers until it is dropped; `desk` gives what answers depend on at that moment.
    pub async fn serve(self, desk: impl Fn() -> Arc<Desk>, tell: impl Fn(Event)) {
        let at_boot_service = async {
            match &self.boot_service {
                Some(socket) => answer_at(socket, Port::BootService, &desk, &tell).await,
                None => std::future::pending().await,
            }
        };
        tokio::join!(answer_at(&self.server, Port::Server, &desk, &tell), at_boot_service);
    }
}

fn open(interface: &Interface, port: u16) -> Result<UdpSocket> {
    let open = || -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_broadcast(true)?;
        socket.bind_device(Some(interface.name.as_bytes()))?;
        // Not our address: broadcasts would not arrive.
        socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
        UdpSocket::from_std(socket.into())
    };
    open().map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another DHCP server runs on this machine (`ss -lunp`): stop it, or leave DHCP to it"
            }
            io::ErrorKind::PermissionDenied => {
                "DHCP wants root, or the capabilities net_bind_service and net_raw"
            }
            _ => "the interface may be down or gone",
        };
        let place = format!("opening UDP port {port} of {}: {advice}", interface.name);
        anyhow::Error::new(error).context(place)
    })
}

async fn answer_at(
    socket: &UdpSocket,
    port: Port,
    desk: &impl Fn() -> Arc<Desk>,
    tell: &impl Fn(Event),
) {
    // Longer ones are cut, which loses no option that decides anything.
    let mut datagram = [0; 1500];
    loop {
        let (length, from) = match socket.recv_from(&mut datagram).await {
            Ok((length, SocketAddr::V4(from))) => (length, from),
            // Errors of earlier answers are reported here, such as an unreachable port.
            Ok(_) | Err(_) => continue,
        };
        match desk().answer(&datagram[..length], from, port) {
            Outcome::Silence(silence) => tell(Event::Silence(silence)),
            Outcome::Reply { datagram, to, told } => {
                match socket.send_to(&datagram, SocketAddr::V4(to)).await {
                    Ok(_) => tell(Event::Told(told)),
                    Err(error) => tell(Event::Unsent(told, error)),
                }
            }
        }
    }
}
