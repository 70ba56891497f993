//! TFTP and DHCP of the boot server: the protocols' sockets on one side, [`Server`] on the
//! other.
//!
//! Both follow the generation that is served: a build that is published while they run changes
//! the next answer.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use tokio::net::UdpSocket;

use crate::serve::dhcp::socket::{self, Interface, Sockets};
use crate::serve::dhcp::{self, Desk, Service, Silence, Strangers, Told};
use crate::serve::programs::{self, Finding, Programs};
use crate::serve::tftp::{self, Answer, Content};
use crate::serve::{Asker, Contents, Refusal, Server};

/// What is asked for beside HTTP.
#[derive(Clone, Debug)]
pub struct NetworkOptions {
    pub tftp: Tftp,
    /// `None` for no DHCP, the default.
    pub dhcp: Option<(Service, Strangers)>,
}

/// Whether and where TFTP is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tftp {
    Off,
    /// At port 69 of HTTP's address.
    BesideHttp,
    At(SocketAddr),
}

impl NetworkOptions {
    /// The addresses that follow from where HTTP listens and from the host of boot.url.
    ///
    /// # Errors
    ///
    /// Fails if DHCP is asked for and neither names our address in the nodes' network.
    pub fn resolve(&self, http: SocketAddr, host: &str) -> Result<Settings> {
        let tftp = match self.tftp {
            Tftp::Off => None,
            Tftp::BesideHttp => Some(SocketAddr::new(http.ip(), tftp::PORT)),
            Tftp::At(address) => Some(address),
        };
        let Some((service, strangers)) = self.dhcp else {
            return Ok(Settings { tftp, dhcp: None });
        };
        let address = match http.ip() {
            IpAddr::V4(address) if !address.is_unspecified() => Some(address),
            _ => host.parse().ok(),
        };
        let address = address.with_context(|| {
            format!(
                "DHCP needs to know our own address in the nodes' network, and boot.url says \
                 `{host}`: add `--listen ADDRESS:PORT`"
            )
        })?;
        Ok(Settings { tftp, dhcp: Some(DhcpSettings { service, strangers, address }) })
    }
}

/// Says what each firmware is told to boot, before anything listens.
///
/// # Errors
///
/// Fails, naming all of it, if DHCP would send machines to programs that cannot work, or has
/// none at all to send them to.
pub fn check_programs(server: &Server, settings: &Settings) -> Result<()> {
    if settings.tftp.is_none() && settings.dhcp.is_none() {
        return Ok(());
    }
    let catalog = server.catalog();
    let head = |name: &str| {
        let item = catalog.find(&format!("pxe/{name}")).context("it is not in the manifest")?;
        let mut head = Vec::new();
        catalog.open(&item)?.take(4096).read_to_end(&mut head)?;
        anyhow::Ok(head)
    };
    let manifest = catalog.manifest();
    let programs = match &settings.dhcp {
        Some(dhcp) => dhcp::programs(manifest, dhcp.service),
        None => Programs::of(manifest),
    };
    let mut broken = Vec::new();
    for finding in programs::findings(manifest, &programs, head) {
        match finding {
            Finding::Told(text) => eprintln!("boot program of {text}"),
            Finding::Missing(text) => eprintln!("note: {text}"),
            Finding::Broken(text) => broken.push(text),
        }
    }
    if settings.dhcp.is_some() && !programs.are_any() {
        broken.push(
            "there is no boot program at all: see \"DHCP and TFTP\" in docs/network-boot.md".into(),
        );
    }
    match (broken.is_empty(), &settings.dhcp) {
        (true, _) => Ok(()),
        (false, Some(_)) => bail!("{}", broken.join("\n")),
        (false, None) => {
            broken.iter().for_each(|text| eprintln!("warning: {text}"));
            Ok(())
        }
    }
}

/// What is served beside HTTP.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where TFTP listens; `None` for not at all.
    pub tftp: Option<SocketAddr>,
    /// `None` for no DHCP, the default.
    pub dhcp: Option<DhcpSettings>,
}

/// How DHCP is served.
#[derive(Clone, Debug)]
pub struct DhcpSettings {
    pub service: Service,
    pub strangers: Strangers,
    /// Our own address in the nodes' network, which names the interface too.
    pub address: Ipv4Addr,
}

/// Sockets that are open and not served yet: whatever can fail has not failed.
#[derive(Debug)]
pub struct Network {
    tftp: Option<UdpSocket>,
    dhcp: Option<(Sockets, DhcpSettings, Interface)>,
}

impl Network {
    /// Opens what `settings` ask for. Wants a runtime of tokio.
    ///
    /// # Errors
    ///
    /// Fails where a port is taken, a right is missing, or no interface has the address.
    pub async fn open(settings: &Settings) -> Result<Self> {
        let tftp = match settings.tftp {
            None => None,
            Some(address) => {
                let socket = UdpSocket::bind(address).await;
                let place = || format!("listening for TFTP at UDP {address}: {TFTP_ADVICE}");
                Some(socket.with_context(place)?)
            }
        };
        let dhcp = match &settings.dhcp {
            None => None,
            Some(dhcp) => {
                let interface = socket::interface_with(dhcp.address)?;
                Some((Sockets::open(&interface, dhcp.service)?, dhcp.clone(), interface))
            }
        };
        Ok(Self { tftp, dhcp })
    }

    /// Says where what is served.
    pub fn announce(&self) {
        if let Some(address) = self.tftp.as_ref().and_then(|socket| socket.local_addr().ok()) {
            eprintln!("TFTP listens on {address}");
        }
        if let Some((_, settings, Interface { name, address })) = &self.dhcp {
            let what = match settings.service {
                Service::Addresses => "DHCP gives the nodes their addresses",
                Service::Proxy => "proxy DHCP says what to boot, and leaves addresses to others,",
            };
            eprintln!("{what} on {name} ({address})");
        }
    }

    /// Serves until it is dropped, and tells what happens, a line each.
    ///
    /// # Errors
    ///
    /// Fails if the manifest cannot be served by DHCP.
    pub async fn serve(
        self,
        server: Arc<Server>,
        tell: impl Fn(String) + Clone + Send + Sync + 'static,
    ) -> Result<()> {
        let tftp = async {
            match self.tftp {
                Some(socket) => serve_tftp(socket, Arc::clone(&server), tell.clone()).await,
                None => std::future::pending().await,
            }
        };
        let dhcp = async {
            match self.dhcp {
                Some((sockets, settings, interface)) => {
                    let server = Arc::clone(&server);
                    serve_dhcp(sockets, &settings, interface.address, server, tell.clone()).await
                }
                None => std::future::pending().await,
            }
        };
        tokio::try_join!(tftp, dhcp).map(|_: ((), ())| ())
    }
}

const TFTP_ADVICE: &str = "it wants root or the capability net_bind_service, and no other TFTP \
                           server on this machine";

async fn serve_tftp(
    socket: UdpSocket,
    server: Arc<Server>,
    tell: impl Fn(String) + Send + Sync + 'static,
) -> Result<()> {
    let look_up = move |name: String, client: IpAddr| {
        let server = Arc::clone(&server);
        async move { look_up(&server, &name, client).await }
    };
    let tell = move |event: tftp::Event| tell(line_of_tftp(&event));
    let server = tftp::Server { look_up, tell, limits: tftp::Limits::default() };
    tftp::serve(socket, server).await.context("serving TFTP")
}

/// What is below `pxe/`, and a boot menu by what its machine is to do.
async fn look_up(server: &Server, name: &str, client: IpAddr) -> Answer {
    // Menus name secret files by the path below boot.url; those go by HTTP alone.
    let asker = Asker { address: Some(client), protocol: "tftp", ..Asker::default() };
    match server.fetch(&format!("pxe/{name}"), &asker).await {
        Ok(served) => Answer::Content(match served.body {
            Contents::Bytes(bytes) => Content::Bytes(bytes),
            Contents::File(file) => Content::File(file, served.file.size),
        }),
        Err(Refusal::Unknown) => Answer::Unknown,
        Err(Refusal::Forbidden(_) | Refusal::NoToken(_)) => Answer::Refused("this is not for you"),
        Err(Refusal::NotReady(_)) => Answer::Refused("not ready: try again later"),
    }
}

/// One line of the log.
fn line_of_tftp(event: &tftp::Event) -> String {
    use tftp::Event;
    match event {
        Event::Sent { client, name, bytes } => format!("tftp: {client} has {name}, {bytes} bytes"),
        Event::Aborted { client, name } => {
            format!("tftp: {client} gave up {name}, as firmware does that asks for a size")
        }
        Event::Lost { client, name } => format!("tftp: {client} went silent over {name}"),
        Event::Broken { client, name, cause } => {
            format!("tftp: {name}, for {client}, cannot be read: {cause}")
        }
        Event::Unknown { client, name } => {
            format!("tftp: {client} asks for {name}, which is not there")
        }
        Event::Refused { client, reason } => format!("tftp: {client} is refused: {reason}"),
        Event::Busy { client } => format!("tftp: too many transfers, {client} has to ask again"),
    }
}

async fn serve_dhcp(
    sockets: Sockets,
    settings: &DhcpSettings,
    own: Ipv4Addr,
    server: Arc<Server>,
    tell: impl Fn(String) + Clone + Send + Sync + 'static,
) -> Result<()> {
    let make = |server: &Server| {
        let catalog = server.catalog();
        let desk = Desk::of(catalog.manifest(), settings.service, settings.strangers, own)?;
        anyhow::Ok((catalog.number(), Arc::new(desk)))
    };
    let desk = Mutex::new(make(&server)?);
    let current = || {
        let mut desk = desk.lock().unwrap_or_else(PoisonError::into_inner);
        if server.catalog().number() != desk.0 {
            match make(&server) {
                Ok(newer) => *desk = newer,
                Err(fault) => tell(format!("dhcp: answers stay as they were: {fault:#}")),
            }
        }
        Arc::clone(&desk.1)
    };
    let told = |event| {
        let note = match &event {
            socket::Event::Told(told) if told.node.is_some() => Some((told.mac, detail(told))),
            _ => None,
        };
        tell(line_of_dhcp(&event));
        if let Some((mac, detail)) = note {
            let (server, tell) = (Arc::clone(&server), tell.clone());
            tokio::spawn(async move {
                if let Err(fault) = server.note(mac, "dhcp", detail).await {
                    tell(format!("dhcp: {fault:#}"));
                }
            });
        }
    };
    sockets.serve(current, told).await;
    Ok(())
}

/// `192.168.3.11, undionly.kpxe`.
fn detail(told: &Told) -> String {
    let address = told.address.map(|address| address.to_string());
    let parts: Vec<String> = address.into_iter().chain(told.program.clone()).collect();
    parts.join(", ")
}

/// One line of the log.
fn line_of_dhcp(event: &socket::Event) -> String {
    let name = |told: &Told| {
        let node = told.node.clone().unwrap_or_else(|| "a stranger".to_owned());
        format!("{node} ({})", told.mac)
    };
    match event {
        socket::Event::Told(told) => {
            format!("dhcp: {:?} to {}: {}", told.answer, name(told), detail(told))
        }
        socket::Event::Unsent(told, error) => {
            format!("dhcp: {:?} to {} cannot be sent: {error}", told.answer, name(told))
        }
        socket::Event::Silence(silence) => match silence {
            Silence::Malformed(reason) => format!("dhcp: a packet is passed over: {reason}"),
            Silence::NotForUs => "dhcp: a packet for another server is passed over".to_owned(),
            Silence::Stranger(mac) => {
                format!("dhcp: {mac} is not of this cluster and gets no answer")
            }
            Silence::NoProgram(mac, client) => {
                format!("dhcp: there is nothing that {mac} ({client:?}) could boot")
            }
            Silence::Declined { node, address } => format!(
                "dhcp: {node} finds {address} in use by another machine and cannot take it; find \
                 that one with `arping {address}`"
            ),
        },
    }
}
