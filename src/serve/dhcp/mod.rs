//! DHCP for nodes that boot: the packets, and none of the sockets.
//!
//! Two services. [`Service::Proxy`] stands beside the site's DHCP server and says what to
//! boot, never an address (PXE 2.1 §2.2.1). [`Service::Addresses`] gives each node of the
//! cluster the address that the cluster file says, and nobody else any. [`Desk::answer`] maps
//! one datagram to at most one; [`socket`] carries them.
//!
//! Start with [`Desk`]. What a client boots follows from [`Client`].

pub mod socket;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result};
use dhcproto::v4::{Architecture, DhcpOption, HType, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable};

use crate::manifest::{BootNet, Manifest};
use crate::net::{Ipv4Net, MacAddr};
use crate::serve::programs::Programs;

/// The port of servers (RFC 2131 §4.1).
pub const SERVER_PORT: u16 = 67;
/// The port of clients.
pub const CLIENT_PORT: u16 = 68;
/// The port of PXE boot servers (PXE 2.1 §2.2.3).
pub const BOOT_SERVICE_PORT: u16 = 4011;

/// BOOTP's smallest packet, which some firmware and relays still insist on (RFC 1542 §2.1).
const SMALLEST_PACKET: usize = 300;
/// Where the options begin, with this cookie (RFC 2131 §3).
const COOKIE: (usize, [u8; 4]) = (236, [99, 130, 83, 99]);
/// The field `file` holds so many bytes and a zero.
const LONGEST_FILE_NAME: usize = 127;
/// `PXE_DISCOVERY_CONTROL` with bit 3: load the named file, ask no boot server, show no menu;
/// then the end (PXE 2.1 table 2-1).
const USE_THIS_FILE: [u8; 4] = [6, 1, 8, 255];
/// As dnsmasq.conf of the boot tree: an address is the node's for as long as the file says so.
const LEASE_SECS: u32 = 3600;
/// iPXE's own options, by which it is known where no user class is sent.
const IPXE_OPTIONS: OptionCode = OptionCode::Unknown(175);

/// All options of a request that change an answer or come back in it.
const OPTIONS_WE_READ: [OptionCode; 10] = [
    OptionCode::RequestedIpAddress,
    OptionCode::MessageType,
    OptionCode::ServerIdentifier,
    OptionCode::ClassIdentifier,
    OptionCode::ClientIdentifier,
    OptionCode::UserClass,
    OptionCode::RelayAgentInformation,
    OptionCode::ClientSystemArchitecture,
    OptionCode::ClientMachineIdentifier,
    IPXE_OPTIONS,
];

/// What is answered at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// What to boot, beside the site's own server.
    Proxy,
    /// Addresses as well, to the nodes of the cluster only.
    Addresses,
}

/// What a proxy says to machines that are not of the cluster. [`Service::Addresses`] has
/// nothing to say to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strangers {
    /// Nothing: their firmware goes on with its boot order.
    Ignored,
    /// What to boot, as to a node; the boot script then sends them to their disk.
    Answered,
}

/// A node, as DHCP sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    /// `None` for a node without an address in the cluster file: it is told what to boot only.
    pub lease: Option<Lease>,
}

/// The address of a node and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub address: Ipv4Addr,
    pub subnet: Ipv4Net,
    pub gateway: Option<Ipv4Addr>,
    pub dns: Vec<Ipv4Addr>,
}

/// The nodes of a build that boot from a known NIC, by its MAC address, with the address that
/// the node's name stands for.
///
/// # Errors
///
/// Fails for a manifest with addresses that are none.
pub fn hosts(manifest: &Manifest) -> Result<BTreeMap<MacAddr, Host>> {
    let nets = manifest.boot.as_ref().map_or(&[][..], |boot| boot.nets.as_slice());
    let mut hosts = BTreeMap::new();
    for (name, node) in &manifest.nodes {
        // The first address is that of the boot NIC, where there is one.
        let (Some(boot), Some(mac)) = (&node.boot, node.macs.first()) else { continue };
        let mac = mac.parse().with_context(|| format!("the manifest's node {name}"))?;
        let lease = boot.address.and_then(|address| lease(address, nets).transpose());
        let lease = lease.transpose().with_context(|| format!("the subnet of node {name}"))?;
        hosts.insert(mac, Host { name: name.clone(), lease });
    }
    Ok(hosts)
}

/// `address` with what its subnet says; `None` outside of all of `nets`.
fn lease(address: Ipv4Addr, nets: &[BootNet]) -> Result<Option<Lease>> {
    for net in nets {
        let subnet = Ipv4Net::with_netmask(net.network, net.netmask)?;
        if subnet.contains(&address) {
            let (gateway, dns) = (net.gateway, net.dns.clone());
            return Ok(Some(Lease { address, subnet, gateway, dns }));
        }
    }
    Ok(None)
}

/// What clients of `service` are to load.
pub fn programs(manifest: &Manifest, service: Service) -> Programs {
    let programs = Programs::of(manifest);
    match service {
        Service::Addresses => programs,
        Service::Proxy => programs.beside_another_dhcp(manifest),
    }
}

/// Everything that answers depend on.
#[derive(Clone, Debug)]
pub struct Desk {
    pub service: Service,
    pub strangers: Strangers,
    /// Our own address in the network that is answered to: the server's identity, and where
    /// TFTP is.
    pub server: Ipv4Addr,
    pub programs: Programs,
    pub hosts: BTreeMap<MacAddr, Host>,
    /// Empty if there is none.
    pub domain: String,
    pub ntp: Vec<Ipv4Addr>,
}

/// Where a datagram came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// [`SERVER_PORT`].
    Server,
    /// [`BOOT_SERVICE_PORT`].
    BootService,
}

/// Who asks, as far as it decides what to boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    Bios,
    /// UEFI on x86-64, by TFTP.
    Uefi,
    /// UEFI on x86-64, by HTTP.
    UefiHttp,
    Ipxe,
    /// Firmware of a machine that nodeforge has nothing for (RFC 4578 §2.1).
    Foreign(u16),
    /// No firmware: an installer, or an installed system.
    System,
}

/// What happened, for the log and the node's timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub mac: MacAddr,
    /// The node's name; `None` for a stranger.
    pub node: Option<String>,
    pub client: Client,
    /// The message sent: an offer, an acknowledgement or a refusal.
    pub answer: MessageType,
    /// The address given, if one was.
    pub address: Option<Ipv4Addr>,
    /// What the client was told to load.
    pub program: Option<String>,
}

/// What a datagram led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Reply { datagram: Vec<u8>, to: SocketAddrV4, told: Told },
    Silence(Silence),
}

/// Why nothing is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Silence {
    /// It is no DHCP request of an Ethernet station.
    Malformed(&'static str),
    /// It is for another server, or needs no answer.
    NotForUs,
    /// The machine is not of the cluster.
    Stranger(MacAddr),
    /// There is nothing that this client could boot.
    NoProgram(MacAddr, Client),
    /// Another machine has the address of this node; who it is the node cannot say.
    Declined { node: String, address: Ipv4Addr },
}

/// A request, parsed.
struct Request {
    message: Message,
    kind: MessageType,
    mac: MacAddr,
    client: Client,
    from: SocketAddrV4,
}

impl Desk {
    /// A desk for the nodes of `manifest`, in the network where we are `server`.
    ///
    /// # Errors
    ///
    /// As [`hosts`].
    pub fn of(
        manifest: &Manifest,
        service: Service,
        strangers: Strangers,
        server: Ipv4Addr,
    ) -> Result<Self> {
        let boot = manifest.boot.as_ref();
        let programs = programs(manifest, service);
        Ok(Self {
            service,
            strangers,
            server,
            programs,
            hosts: hosts(manifest)?,
            domain: boot.map_or_else(String::new, |boot| boot.domain.clone()),
            ntp: boot.map_or_else(Vec::new, |boot| boot.ntp.clone()),
        })
    }

    /// What to send for `datagram`, which came from `from` in at `port`.
    pub fn answer(&self, datagram: &[u8], from: SocketAddrV4, port: Port) -> Outcome {
        let request = match Request::parse(datagram, from) {
            Ok(request) => request,
            Err(reason) => return Outcome::Silence(Silence::Malformed(reason)),
        };
        let answered = match (self.service, port) {
            (Service::Proxy, _) => self.answer_as_proxy(&request, port),
            (Service::Addresses, Port::Server) => self.answer_with_address(&request),
            (Service::Addresses, Port::BootService) => Err(Silence::NotForUs),
        };
        answered.unwrap_or_else(Outcome::Silence)
    }

    fn answer_as_proxy(&self, request: &Request, port: Port) -> Result<Outcome, Silence> {
        if request.client == Client::System {
            return Err(Silence::NotForUs);
        }
        let answer = match (port, request.kind) {
            (Port::Server, MessageType::Discover) => MessageType::Offer,
            (Port::BootService, MessageType::Request | MessageType::Inform) => MessageType::Ack,
            _ => return Err(Silence::NotForUs),
        };
        let host = self.hosts.get(&request.mac);
        if host.is_none() && self.strangers == Strangers::Ignored {
            return Err(Silence::Stranger(request.mac));
        }
        let program =
            self.program(request).ok_or(Silence::NoProgram(request.mac, request.client))?;
        let mut message = self.reply(request, answer);
        name_program(&mut message, request.client, program, self.server);
        if request.client != Client::UefiHttp {
            let options = message.opts_mut();
            options.insert(DhcpOption::ClassIdentifier(b"PXEClient".to_vec()));
            options.insert(DhcpOption::VendorExtensions(USE_THIS_FILE.to_vec()));
        }
        let to = match port {
            Port::Server => destination(request, answer),
            Port::BootService => request.from,
        };
        Ok(sent(&message, to, request, host, answer, Some(program)))
    }

    fn answer_with_address(&self, request: &Request) -> Result<Outcome, Silence> {
        let stranger = || Silence::Stranger(request.mac);
        let host = self.hosts.get(&request.mac).ok_or_else(stranger)?;
        let lease = host.lease.as_ref().ok_or_else(stranger)?;
        let answer = self.verdict(request, host, lease)?;
        let mut message = self.reply(request, answer);
        if answer == MessageType::Nak {
            // The relay agent is to broadcast it (RFC 2131 §4.3.2).
            let is_relayed = !request.message.giaddr().is_unspecified();
            if is_relayed {
                message.set_flags(request.message.flags().set_broadcast());
            }
            message.opts_mut().insert(DhcpOption::Message(format!(
                "{} has {}, by the cluster file",
                host.name, lease.address
            )));
            return Ok(sent(
                &message,
                destination(request, answer),
                request,
                Some(host),
                answer,
                None,
            ));
        }
        self.add_settings(&mut message, host, lease);
        if request.kind != MessageType::Inform {
            message.set_yiaddr(lease.address);
            message.opts_mut().insert(DhcpOption::AddressLeaseTime(LEASE_SECS));
        }
        let program = self.program(request);
        if let Some(program) = program {
            name_program(&mut message, request.client, program, self.server);
        }
        Ok(sent(&message, destination(request, answer), request, Some(host), answer, program))
    }

    /// RFC 2131 §4.3: what a message of a node that we have an address for calls for.
    fn verdict(
        &self,
        request: &Request,
        host: &Host,
        lease: &Lease,
    ) -> Result<MessageType, Silence> {
        let server = match request.message.opts().get(OptionCode::ServerIdentifier) {
            Some(DhcpOption::ServerIdentifier(server)) => Some(*server),
            _ => None,
        };
        let requested = match request.message.opts().get(OptionCode::RequestedIpAddress) {
            Some(DhcpOption::RequestedIpAddress(address)) => Some(*address),
            _ => None,
        };
        let is_ours = server.is_none_or(|server| server == self.server);
        match request.kind {
            MessageType::Discover => Ok(MessageType::Offer),
            MessageType::Inform => Ok(MessageType::Ack),
            MessageType::Request if !is_ours => Err(Silence::NotForUs),
            MessageType::Request => {
                let wanted = requested.unwrap_or(request.message.ciaddr());
                Ok(if wanted == lease.address { MessageType::Ack } else { MessageType::Nak })
            }
            MessageType::Decline if is_ours => {
                Err(Silence::Declined { node: host.name.clone(), address: lease.address })
            }
            _ => Err(Silence::NotForUs),
        }
    }

    fn program(&self, request: &Request) -> Option<&str> {
        let programs = &self.programs;
        match request.client {
            Client::Bios => programs.bios.as_deref(),
            Client::Uefi => programs.uefi.as_deref(),
            Client::UefiHttp => programs.uefi_http.as_deref(),
            Client::Ipxe => Some(&programs.script),
            Client::Foreign(_) | Client::System => None,
        }
    }

    /// A reply with what all of them have (RFC 2131 table 3).
    fn reply(&self, request: &Request, answer: MessageType) -> Message {
        let asked = &request.message;
        let mut message = Message::default();
        message
            .set_opcode(Opcode::BootReply)
            .set_htype(HType::Eth)
            .set_xid(asked.xid())
            .set_flags(asked.flags())
            .set_giaddr(asked.giaddr())
            .set_chaddr(asked.chaddr());
        if answer == MessageType::Ack {
            message.set_ciaddr(asked.ciaddr());
        }
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(answer));
        options.insert(DhcpOption::ServerIdentifier(self.server));
        // Client identifier: RFC 6842 §3. Relay agent: RFC 3046 §2.2. Machine identifier: RFC
        // 4578 §2.3.
        for code in [
            OptionCode::ClientIdentifier,
            OptionCode::RelayAgentInformation,
            OptionCode::ClientMachineIdentifier,
        ] {
            options_copy(asked, code, options);
        }
        message
    }

    fn add_settings(&self, message: &mut Message, host: &Host, lease: &Lease) {
        let options = message.opts_mut();
        options.insert(DhcpOption::SubnetMask(lease.subnet.netmask()));
        options.insert(DhcpOption::BroadcastAddr(lease.subnet.broadcast()));
        options.insert(DhcpOption::Hostname(host.name.clone()));
        if let Some(gateway) = lease.gateway {
            options.insert(DhcpOption::Router(vec![gateway]));
        }
        if !lease.dns.is_empty() {
            options.insert(DhcpOption::DomainNameServer(lease.dns.clone()));
        }
        if !self.domain.is_empty() {
            options.insert(DhcpOption::DomainName(self.domain.clone()));
        }
        if !self.ntp.is_empty() {
            options.insert(DhcpOption::NtpServers(self.ntp.clone()));
        }
    }
}

fn options_copy(asked: &Message, code: OptionCode, options: &mut dhcproto::v4::DhcpOptions) {
    if let Some(option) = asked.opts().get(code) {
        options.insert(option.clone());
    }
}

impl Request {
    fn parse(datagram: &[u8], from: SocketAddrV4) -> Result<Self, &'static str> {
        let (at, cookie) = COOKIE;
        if datagram.get(at..at + cookie.len()) != Some(&cookie) {
            return Err("no DHCP packet");
        }
        // The decoder takes any length here, and its accessor then reads beyond its 16 bytes.
        let is_ethernet = datagram[1..3] == [1, 6];
        if !is_ethernet {
            return Err("no Ethernet address");
        }
        let datagram = with_options_we_read(datagram);
        let message = Message::decode(&mut Decoder::new(&datagram)).map_err(|_| "cut short")?;
        if message.opcode() != Opcode::BootRequest {
            return Err("no request");
        }
        let kind = message.opts().msg_type().ok_or("no message type")?;
        let octets = message.chaddr().try_into().map_err(|_| "no Ethernet address")?;
        let mac = MacAddr::from_octets(octets);
        if mac.is_multicast_or_zero() {
            return Err("no address of a single station");
        }
        let client = Client::of(&message);
        Ok(Self { message, kind, mac, client, from })
    }
}

/// `datagram`, which has a cookie, without the options that decide nothing here.
///
/// The decoder stops at the first option it does not like, such as a host name that is no
/// UTF-8, and panics at some (dhcproto 0.15.0: option 80 of a length other than 0).
fn with_options_we_read(datagram: &[u8]) -> Vec<u8> {
    let (head, mut rest) = datagram.split_at(COOKIE.0 + COOKIE.1.len());
    let mut kept = head.to_vec();
    while let Some((&code, after)) = rest.split_first() {
        rest = after;
        match OptionCode::from(code) {
            OptionCode::Pad => continue,
            OptionCode::End => break,
            _ => {}
        }
        let Some((value, next)) =
            after.split_first().and_then(|(length, rest)| rest.split_at_checked((*length).into()))
        else {
            break;
        };
        if OPTIONS_WE_READ.contains(&OptionCode::from(code)) {
            kept.extend([code, after[0]]);
            kept.extend(value);
        }
        rest = next;
    }
    kept.push(OptionCode::End.into());
    kept
}

impl Client {
    fn of(message: &Message) -> Self {
        let options = message.opts();
        let is_ipxe = match options.get(OptionCode::UserClass) {
            // As iPXE sends it, and as RFC 3004 §4 has it, with a length before each class.
            Some(DhcpOption::UserClass(class)) => class == b"iPXE" || class == b"\x04iPXE",
            _ => false,
        };
        if is_ipxe || options.contains(IPXE_OPTIONS) {
            return Self::Ipxe;
        }
        let class = match options.get(OptionCode::ClassIdentifier) {
            Some(DhcpOption::ClassIdentifier(class)) => class.as_slice(),
            _ => return Self::System,
        };
        let is_http = class.starts_with(b"HTTPClient");
        if !is_http && !class.starts_with(b"PXEClient") {
            return Self::System;
        }
        let architecture = match options.get(OptionCode::ClientSystemArchitecture) {
            Some(DhcpOption::ClientSystemArchitecture(Architecture(number))) => *number,
            _ => architecture_in(class).unwrap_or(0),
        };
        // 7 and 9 both are x86-64 in the field: RFC 4578's table and IANA's differ (erratum 4625).
        match (is_http, architecture) {
            (false, 0) => Self::Bios,
            (false, 7 | 9) => Self::Uefi,
            (true, 16) => Self::UefiHttp,
            (_, other) => Self::Foreign(other),
        }
    }
}

/// The number in `PXEClient:Arch:00007:UNDI:003016`.
fn architecture_in(class: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(class).ok()?;
    text.split_once(":Arch:")?.1.split(':').next()?.parse().ok()
}

/// Where the reply goes (RFC 2131 §4.1). A station without an address that wants no broadcast
/// gets one all the same: a frame to it alone would take a raw socket, and the RFC allows it.
fn destination(request: &Request, answer: MessageType) -> SocketAddrV4 {
    let message = &request.message;
    if !message.giaddr().is_unspecified() {
        return SocketAddrV4::new(message.giaddr(), SERVER_PORT);
    }
    let has_address = !message.ciaddr().is_unspecified() && answer != MessageType::Nak;
    let to = if has_address { message.ciaddr() } else { Ipv4Addr::BROADCAST };
    SocketAddrV4::new(to, CLIENT_PORT)
}

fn name_program(message: &mut Message, client: Client, program: &str, server: Ipv4Addr) {
    message.set_siaddr(server);
    let fits = program.len() <= LONGEST_FILE_NAME;
    if fits {
        message.set_fname_str(program);
    }
    if client == Client::UefiHttp {
        // UEFI 2.10 §24.7.2: the class is what makes an offer one for HTTP boot.
        message.opts_mut().insert(DhcpOption::ClassIdentifier(b"HTTPClient".to_vec()));
    }
    if client == Client::UefiHttp || !fits {
        message.opts_mut().insert(DhcpOption::BootfileName(program.as_bytes().to_vec()));
    }
}

fn sent(
    message: &Message,
    to: SocketAddrV4,
    request: &Request,
    host: Option<&Host>,
    answer: MessageType,
    program: Option<&str>,
) -> Outcome {
    let mut datagram = message.to_vec().expect("what we put together can be encoded");
    datagram.resize(datagram.len().max(SMALLEST_PACKET), 0);
    let address = Some(message.yiaddr()).filter(|address| !address.is_unspecified());
    let told = Told {
        mac: request.mac,
        node: host.map(|host| host.name.clone()),
        client: request.client,
        answer,
        address,
        program: program.map(str::to_owned),
    };
    Outcome::Reply { datagram, to, told }
}

#[cfg(test)]
mod tests;
