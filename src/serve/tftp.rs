//! TFTP, read-only: boot programs and boot menus for firmware that knows nothing better.
//!
//! RFC 1350 with the options of RFC 2347: `blksize` (2348), `tsize` and `timeout` (2349),
//! `windowsize` (7440). Mode `octet` only. What a name stands for is the caller's to say
//! ([`Answer`]): no path of a request ever reaches a disk.
//!
//! [`Transfer`] is the protocol without clock or socket; [`serve`] carries it. A block is sent
//! again on a timeout only, never because an acknowledgement came twice (RFC 1123 §4.2.3.1,
//! the "sorcerer's apprentice").

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

/// The port of TFTP servers.
pub const PORT: u16 = 69;

/// The block size without options (RFC 1350 §2).
const DEFAULT_BLOCK: usize = 512;
/// What fits into an Ethernet frame: IP and UDP take 28 bytes, TFTP 4. Fragments are lost on
/// firmware's small buffers.
const LARGEST_BLOCK: usize = 1468;
/// A longer window is no faster in a network without losses, and memory in one with.
const LARGEST_WINDOW: u16 = 16;
/// Files larger than this are more than the block counter of a client can be trusted with.
const LARGEST_REQUEST: usize = 1024;

/// What a name stands for.
#[derive(Debug)]
pub enum Content {
    Bytes(Bytes),
    /// An open file and its size in bytes.
    File(File, u64),
}

/// What to send for a request.
#[derive(Debug)]
pub enum Answer {
    Content(Content),
    /// There is no such file.
    Unknown,
    /// It is there, and not for this client; the text is sent along.
    Refused(&'static str),
}

/// How much is served, and how patiently.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Transfers at a time; a request beyond them is dropped, and firmware asks again.
    pub n_transfers: usize,
    /// Transfers at a time to one address.
    pub n_transfers_per_client: usize,
    /// How long to wait for the first acknowledgement of a block; it doubles, up to
    /// [`Limits::longest_wait`]. A client's `timeout` option replaces both.
    pub first_wait: Duration,
    pub longest_wait: Duration,
    /// How often a block is sent before the client is given up.
    pub n_tries: u32,
}

impl Default for Limits {
    /// 23 seconds for a client to say something, as firmware that resets its NIC needs.
    fn default() -> Self {
        Self {
            n_transfers: 1024,
            n_transfers_per_client: 8,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(4),
            n_tries: 7,
        }
    }
}

/// What happened, for the log and the counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The file arrived; bytes of it.
    Sent {
        client: SocketAddr,
        name: String,
        bytes: u64,
    },
    /// The client asked only how large it is, or changed its mind.
    Aborted {
        client: SocketAddr,
        name: String,
    },
    /// Nothing came back any more.
    Lost {
        client: SocketAddr,
        name: String,
    },
    /// The file cannot be read.
    Broken {
        client: SocketAddr,
        name: String,
        cause: String,
    },
    Unknown {
        client: SocketAddr,
        name: String,
    },
    Refused {
        client: SocketAddr,
        reason: &'static str,
    },
    /// Over a limit: dropped.
    Busy {
        client: SocketAddr,
    },
}

/// The numbers of RFC 1350's packets and RFC 2347's.
mod opcode {
    pub const RRQ: u16 = 1;
    pub const WRQ: u16 = 2;
    pub const DATA: u16 = 3;
    pub const ACK: u16 = 4;
    pub const ERROR: u16 = 5;
    pub const OACK: u16 = 6;
}

/// The codes of RFC 1350's error packets and RFC 2347's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ErrorCode {
    Undefined = 0,
    NotFound = 1,
    AccessViolation = 2,
    IllegalOperation = 4,
    OptionNegotiation = 8,
}

/// A read request, its options checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// As a clean relative path.
    pub name: String,
    options: Options,
}

/// What a client asks for beside the file; `None` for what it does not speak of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Options {
    block: Option<usize>,
    wants_size: bool,
    timeout_secs: Option<u8>,
    window: Option<u16>,
}

/// A packet that is answered with an error, or with nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum BadRequest {
    /// Not a request at all. An answer could be sent to somebody who never asked.
    Ignored,
    Refused(ErrorCode, &'static str),
}

impl Request {
    fn parse(datagram: &[u8]) -> Result<Self, BadRequest> {
        let (code, rest) = datagram.split_at_checked(2).ok_or(BadRequest::Ignored)?;
        match u16::from_be_bytes([code[0], code[1]]) {
            opcode::RRQ => {}
            opcode::WRQ => {
                let reason = "this server is read-only";
                return Err(BadRequest::Refused(ErrorCode::AccessViolation, reason));
            }
            _ => return Err(BadRequest::Ignored),
        }
        let malformed =
            || BadRequest::Refused(ErrorCode::IllegalOperation, "the request is malformed");
        let texts = rest.strip_suffix(&[0]).ok_or_else(malformed)?;
        let texts: Option<Vec<&str>> =
            texts.split(|byte| *byte == 0).map(|text| std::str::from_utf8(text).ok()).collect();
        let texts = texts.ok_or_else(malformed)?;
        let [name, mode, options @ ..] = texts.as_slice() else { return Err(malformed()) };
        if !mode.eq_ignore_ascii_case("octet") {
            let reason = "only mode octet (binary) is served: netascii damages programs";
            return Err(BadRequest::Refused(ErrorCode::IllegalOperation, reason));
        }
        let name = clean(name).ok_or(BadRequest::Refused(
            ErrorCode::AccessViolation,
            "the name leads out of what is served",
        ))?;
        Ok(Self { name, options: Options::parse(options)? })
    }
}

/// A name without empty parts: GRUB and PXELINUX put slashes before and between.
fn clean(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let is_inside = parts.iter().all(|part| *part != ".." && !part.contains('\\'));
    is_inside.then(|| parts.join("/"))
}

impl Options {
    /// Unknown options are passed over, values out of range lowered or refused as the RFCs say.
    fn parse(words: &[&str]) -> Result<Self, BadRequest> {
        let mut options = Self::default();
        let mut pairs = words.chunks_exact(2);
        for pair in &mut pairs {
            let (name, value) = (pair[0].to_ascii_lowercase(), pair[1]);
            let number: Option<u64> = value.parse().ok();
            let refused = BadRequest::Refused(
                ErrorCode::OptionNegotiation,
                "the value of an option is out of its range",
            );
            match (name.as_str(), number) {
                ("blksize", Some(8..=65464)) => {
                    let asked = number.and_then(|number| usize::try_from(number).ok());
                    options.block = asked.map(|asked| asked.min(LARGEST_BLOCK));
                }
                ("windowsize", Some(1..=65535)) => {
                    let asked = number.and_then(|number| u16::try_from(number).ok());
                    options.window = asked.map(|asked| asked.min(LARGEST_WINDOW));
                }
                ("timeout", Some(1..=255)) => {
                    options.timeout_secs = number.and_then(|number| u8::try_from(number).ok());
                }
                ("tsize", Some(_)) => options.wants_size = true,
                ("blksize" | "windowsize" | "timeout" | "tsize", _) => return Err(refused),
                _ => {}
            }
        }
        Ok(options)
    }

    /// The packet that says which options hold; `None` if none was asked for.
    fn acknowledgement(self, size: u64) -> Option<Vec<u8>> {
        let texts = [
            ("blksize", self.block.map(|block| block.to_string())),
            ("tsize", self.wants_size.then(|| size.to_string())),
            ("timeout", self.timeout_secs.map(|seconds| seconds.to_string())),
            ("windowsize", self.window.map(|window| window.to_string())),
        ];
        if texts.iter().all(|(_, value)| value.is_none()) {
            return None;
        }
        let mut packet = opcode::OACK.to_be_bytes().to_vec();
        for (name, value) in texts {
            for text in value.iter().flat_map(|value| [name, value]) {
                packet.extend(text.bytes().chain([0]));
            }
        }
        Some(packet)
    }
}

fn error_packet(code: ErrorCode, text: &str) -> Vec<u8> {
    let mut packet = opcode::ERROR.to_be_bytes().to_vec();
    packet.extend((code as u16).to_be_bytes());
    packet.extend(text.bytes().chain([0]));
    packet
}

/// Bytes in order.
enum Reader {
    Bytes(Bytes, usize),
    File(io::BufReader<File>),
}

impl Reader {
    fn of(content: Content) -> (Self, u64) {
        match content {
            Content::Bytes(bytes) => {
                let size = bytes.len() as u64;
                (Self::Bytes(bytes, 0), size)
            }
            Content::File(file, size) => {
                (Self::File(io::BufReader::with_capacity(1 << 16, file)), size)
            }
        }
    }

    fn read(&mut self, block: &mut Vec<u8>, n_bytes: usize) -> io::Result<()> {
        match self {
            Self::Bytes(bytes, at) => {
                let end = bytes.len().min(*at + n_bytes);
                block.extend(&bytes[*at..end]);
                *at = end;
                Ok(())
            }
            Self::File(file) => file.by_ref().take(n_bytes as u64).read_to_end(block).map(|_| ()),
        }
    }
}

/// One file on its way to one client: what was sent and not acknowledged, and what comes next.
///
/// Blocks are counted from 1 without end; on the wire their numbers wrap (a 90 MB initrd in
/// blocks of 512 bytes has 180,000).
struct Transfer {
    reader: Reader,
    block_size: usize,
    window: usize,
    /// The number of the first packet in `unacknowledged`; 0 for the options' own.
    first: u64,
    unacknowledged: VecDeque<Vec<u8>>,
    /// How many of `unacknowledged` the client was sent since its last word.
    n_sent: usize,
    has_ended: bool,
    bytes: u64,
}

/// What a client's packet means to a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Something new was acknowledged: there is more to send.
    Onward,
    /// The last block was acknowledged.
    Done,
    /// A duplicate, a stray or nonsense: nothing to do.
    Nothing,
    /// The client sent an error.
    Aborted,
}

impl Transfer {
    /// # Errors
    ///
    /// Fails if the content cannot be read.
    fn new(options: Options, content: Content) -> io::Result<Self> {
        let (reader, size) = Reader::of(content);
        let acknowledgement = options.acknowledgement(size);
        let mut transfer = Self {
            reader,
            block_size: options.block.unwrap_or(DEFAULT_BLOCK),
            window: usize::from(options.window.unwrap_or(1)),
            first: u64::from(acknowledgement.is_none()),
            unacknowledged: acknowledgement.into_iter().collect(),
            n_sent: 0,
            has_ended: false,
            bytes: 0,
        };
        // Options are acknowledged alone (RFC 2347, "Negotiation Protocol").
        if transfer.unacknowledged.is_empty() {
            transfer.fill()?;
        }
        Ok(transfer)
    }

    /// Reads blocks until the window is full or the file ends.
    fn fill(&mut self) -> io::Result<()> {
        while !self.has_ended && self.unacknowledged.len() < self.window {
            let number = self.first + self.unacknowledged.len() as u64;
            let mut packet = Vec::with_capacity(4 + self.block_size);
            packet.extend(opcode::DATA.to_be_bytes());
            packet.extend(on_wire(number).to_be_bytes());
            self.reader.read(&mut packet, self.block_size)?;
            let length = packet.len() - 4;
            self.bytes += length as u64;
            // A short block is the last one, also an empty one.
            self.has_ended = length < self.block_size;
            self.unacknowledged.push_back(packet);
        }
        Ok(())
    }

    /// The packets that are due now.
    fn due(&mut self) -> impl Iterator<Item = &[u8]> {
        let n_sent = std::mem::replace(&mut self.n_sent, self.unacknowledged.len());
        self.unacknowledged.iter().skip(n_sent).map(Vec::as_slice)
    }

    /// Makes all that is not acknowledged due again.
    fn timed_out(&mut self) {
        self.n_sent = 0;
    }

    fn received(&mut self, packet: &[u8]) -> io::Result<Progress> {
        let [code_high, code_low, number_high, number_low, ..] = *packet else {
            return Ok(Progress::Nothing);
        };
        match u16::from_be_bytes([code_high, code_low]) {
            opcode::ERROR => return Ok(Progress::Aborted),
            opcode::ACK => {}
            _ => return Ok(Progress::Nothing),
        }
        let number = u16::from_be_bytes([number_high, number_low]);
        let is_this = |at: &usize| on_wire(self.first + *at as u64) == number;
        let Some(at) = (0..self.unacknowledged.len()).find(is_this) else {
            return Ok(Progress::Nothing);
        };
        self.unacknowledged.drain(..=at);
        self.first += at as u64 + 1;
        if self.has_ended && self.unacknowledged.is_empty() {
            return Ok(Progress::Done);
        }
        // An acknowledgement inside the window says that what follows was lost (RFC 7440 §4).
        self.n_sent = 0;
        self.fill()?;
        Ok(Progress::Onward)
    }
}

/// The block after 65535 is 0, as clients of large files expect.
fn on_wire(number: u64) -> u16 {
    (number & 0xffff) as u16
}

/// Transfers under way, by the client's address and port.
#[derive(Debug, Default)]
struct Running {
    /// With the request, a number of its own, and whether the client has said anything yet.
    transfers: BTreeMap<SocketAddr, (Vec<u8>, u64, bool)>,
    last_number: u64,
}

/// Whether a request starts a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    Start(u64),
    /// The same request again while its transfer waits for a first word: that one will say
    /// itself again what was lost.
    Repeated,
    Busy,
}

impl Running {
    /// A client that asks from a port it used before (many PXE ROMs know one port only) has
    /// given up the older transfer.
    fn admit(&mut self, client: SocketAddr, request: &[u8], limits: &Limits) -> Admission {
        if let Some((earlier, _, has_spoken)) = self.transfers.get(&client)
            && earlier == request
            && !has_spoken
        {
            return Admission::Repeated;
        }
        let is_same_client = |other: &&SocketAddr| other.ip() == client.ip() && **other != client;
        let n_of_client = self.transfers.keys().filter(is_same_client).count();
        let n_others = self.transfers.len() - usize::from(self.transfers.contains_key(&client));
        if n_others >= limits.n_transfers || n_of_client >= limits.n_transfers_per_client {
            return Admission::Busy;
        }
        self.last_number += 1;
        self.transfers.insert(client, (request.to_owned(), self.last_number, false));
        Admission::Start(self.last_number)
    }

    /// Notes that the client has spoken; `false` if a newer transfer has taken the place.
    fn spoke(&mut self, client: SocketAddr, number: u64) -> bool {
        match self.transfers.get_mut(&client) {
            Some((_, current, has_spoken)) if *current == number => {
                *has_spoken = true;
                true
            }
            _ => false,
        }
    }

    fn is_current(&self, client: SocketAddr, number: u64) -> bool {
        self.transfers.get(&client).is_some_and(|(_, current, _)| *current == number)
    }

    fn end(&mut self, client: SocketAddr, number: u64) {
        if self.is_current(client, number) {
            self.transfers.remove(&client);
        }
    }
}

/// What a server needs to know of the world.
pub struct Server<L, T> {
    /// What a name stands for, to the client at an address: `async fn(String, IpAddr) -> Answer`.
    pub look_up: L,
    pub tell: T,
    pub limits: Limits,
}

/// Answers requests at `socket` until it is dropped. Wants a runtime of tokio with time and
/// net; transfers run as tasks of their own and end by themselves.
///
/// # Errors
///
/// Fails only if the socket's own address cannot be told.
pub async fn serve<L, F, T>(socket: UdpSocket, server: Server<L, T>) -> io::Result<()>
where
    L: Fn(String, IpAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send,
    T: Fn(Event) + Send + Sync + 'static,
{
    let own = socket.local_addr()?;
    let server = Arc::new(server);
    let running = Arc::new(Mutex::new(Running::default()));
    let mut datagram = [0; LARGEST_REQUEST];
    loop {
        // Errors here are of answers sent earlier.
        let Ok((length, client)) = socket.recv_from(&mut datagram).await else { continue };
        let datagram = &datagram[..length];
        let request = match Request::parse(datagram) {
            Ok(request) => request,
            Err(BadRequest::Ignored) => continue,
            Err(BadRequest::Refused(code, reason)) => {
                // One that does not arrive is asked for again.
                let _ = socket.send_to(&error_packet(code, reason), client).await;
                (server.tell)(Event::Refused { client, reason });
                continue;
            }
        };
        let number = match lock(&running).admit(client, datagram, &server.limits) {
            Admission::Start(number) => number,
            Admission::Repeated => continue,
            Admission::Busy => {
                (server.tell)(Event::Busy { client });
                continue;
            }
        };
        let (server, running) = (Arc::clone(&server), Arc::clone(&running));
        tokio::spawn(async move {
            let is_current = |word| match word {
                Word::Spoken => lock(&running).spoke(client, number),
                Word::Silent => lock(&running).is_current(client, number),
            };
            let event = answer(own.ip(), client, request, &server, is_current).await;
            lock(&running).end(client, number);
            (server.tell)(event);
        });
    }
}

fn lock(running: &Mutex<Running>) -> std::sync::MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the client said something since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Spoken,
    Silent,
}

async fn answer<L, F, T>(
    own: IpAddr,
    client: SocketAddr,
    request: Request,
    server: &Server<L, T>,
    is_current: impl Fn(Word) -> bool,
) -> Event
where
    L: Fn(String, IpAddr) -> F,
    F: Future<Output = Answer>,
{
    let Request { name, options } = request;
    let broken =
        |cause: io::Error| Event::Broken { client, name: name.clone(), cause: cause.to_string() };
    // A port of its own for each transfer (RFC 1350 §4); connected, so that the kernel drops
    // what others send to it.
    let socket = match UdpSocket::bind((own, 0)).await {
        Ok(socket) => socket,
        Err(error) => return broken(error),
    };
    if let Err(error) = socket.connect(client).await {
        return broken(error);
    }
    let refuse = async |code, text: &str| {
        // One that does not arrive is asked for again.
        let _ = socket.send(&error_packet(code, text)).await;
    };
    let content = match (server.look_up)(name.clone(), client.ip()).await {
        Answer::Content(content) => content,
        Answer::Unknown => {
            refuse(ErrorCode::NotFound, "there is no such file").await;
            return Event::Unknown { client, name };
        }
        Answer::Refused(reason) => {
            refuse(ErrorCode::AccessViolation, reason).await;
            return Event::Refused { client, reason };
        }
    };
    let waits = Waits::new(&server.limits, options);
    let outcome = match Transfer::new(options, content) {
        Ok(mut transfer) => {
            let end = carry(&socket, &mut transfer, waits, is_current).await;
            end.map(|end| (end, transfer.bytes))
        }
        Err(error) => Err(error),
    };
    match outcome {
        Ok((End::Done, bytes)) => Event::Sent { client, name, bytes },
        Ok((End::Aborted, _)) => Event::Aborted { client, name },
        Ok((End::Lost, _)) => Event::Lost { client, name },
        Err(error) => {
            refuse(ErrorCode::Undefined, "the file cannot be read").await;
            broken(error)
        }
    }
}

/// How long to wait for a client, by how often it was waited for already.
#[derive(Clone, Copy, Debug)]
struct Waits {
    first: Duration,
    longest: Duration,
    n_tries: u32,
}

impl Waits {
    fn new(limits: &Limits, options: Options) -> Self {
        let asked = options.timeout_secs.map(|seconds| Duration::from_secs(seconds.into()));
        Self {
            first: asked.unwrap_or(limits.first_wait),
            longest: asked.unwrap_or(limits.longest_wait),
            n_tries: limits.n_tries,
        }
    }

    fn after(self, n_tries: u32) -> Duration {
        self.first.saturating_mul(1 << n_tries.min(16)).min(self.longest)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    Aborted,
    Lost,
}

/// Brings a file to its client.
///
/// # Errors
///
/// Fails if the content cannot be read.
async fn carry(
    socket: &UdpSocket,
    transfer: &mut Transfer,
    waits: Waits,
    is_current: impl Fn(Word) -> bool,
) -> io::Result<End> {
    let mut n_silent = 0;
    loop {
        for packet in transfer.due() {
            // What cannot be sent is like what is lost on the way.
            let _ = socket.send(packet).await;
        }
        let deadline = Instant::now() + waits.after(n_silent);
        match progress(socket, transfer, deadline).await? {
            Some(Progress::Onward) if is_current(Word::Spoken) => n_silent = 0,
            Some(Progress::Done) => return Ok(End::Done),
            Some(Progress::Aborted) => return Ok(End::Aborted),
            Some(Progress::Onward | Progress::Nothing) => return Ok(End::Lost),
            None => {
                n_silent += 1;
                if n_silent == waits.n_tries || !is_current(Word::Silent) {
                    return Ok(End::Lost);
                }
                transfer.timed_out();
            }
        }
    }
}

/// The next packet of the client that matters; `None` at the deadline, and
/// [`Progress::Aborted`] where its port is closed.
async fn progress(
    socket: &UdpSocket,
    transfer: &mut Transfer,
    deadline: Instant,
) -> io::Result<Option<Progress>> {
    let mut packet = [0; 512];
    loop {
        match timeout_at(deadline, socket.recv(&mut packet)).await {
            Err(_) => return Ok(None),
            Ok(Err(_)) => return Ok(Some(Progress::Aborted)),
            Ok(Ok(length)) => match transfer.received(&packet[..length])? {
                Progress::Nothing => {}
                progress => return Ok(Some(progress)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(texts: &[&str]) -> Vec<u8> {
        let mut packet = vec![0, 1];
        for text in texts {
            packet.extend(text.bytes().chain([0]));
        }
        packet
    }

    fn options(words: &[&str]) -> Options {
        Options::parse(words).unwrap()
    }

    fn transfer(words: &[&str], content: &[u8]) -> Transfer {
        Transfer::new(options(words), Content::Bytes(content.to_vec().into())).unwrap()
    }

    fn due(transfer: &mut Transfer) -> Vec<Vec<u8>> {
        transfer.due().map(<[u8]>::to_vec).collect()
    }

    fn data(number: u16, content: &[u8]) -> Vec<u8> {
        [&[0, 3], &number.to_be_bytes()[..], content].concat()
    }

    fn ack(number: u16) -> [u8; 4] {
        let [high, low] = number.to_be_bytes();
        [0, 4, high, low]
    }

    #[test]
    fn names_become_clean_paths_or_nothing() {
        for (name, path) in [
            ("undionly.kpxe", Some("undionly.kpxe")),
            ("/grub//grub.cfg", Some("grub/grub.cfg")),
            ("./pxelinux.cfg/default", Some("pxelinux.cfg/default")),
            ("../secret", None),
            ("a/../../b", None),
            ("..\\b", None),
        ] {
            let parsed = Request::parse(&request(&[name, "octet"])).ok();
            assert_eq!(parsed.map(|request| request.name).as_deref(), path, "{name:?}");
        }
    }

    #[test]
    fn what_is_no_read_request_is_refused_or_ignored() {
        let write = [&[0, 2][..], b"a\0octet\0"].concat();
        let access = ErrorCode::AccessViolation;
        let illegal = ErrorCode::IllegalOperation;
        for (datagram, code) in [
            (vec![], None),
            (vec![0], None),
            (ack(1).to_vec(), None),
            (data(1, b"x"), None),
            (error_packet(ErrorCode::Undefined, "x"), None),
            (write, Some(access)),
            (vec![0, 1], Some(illegal)),
            (b"\0\x01name".to_vec(), Some(illegal)),
            (b"\0\x01name\0octet".to_vec(), Some(illegal)),
            (b"\0\x01\xff\xfe\0octet\0".to_vec(), Some(illegal)),
            (request(&["a", "netascii"]), Some(illegal)),
            (request(&["a", "mail"]), Some(illegal)),
            (request(&["a", "octet", "blksize", "7"]), Some(ErrorCode::OptionNegotiation)),
            (request(&["a", "octet", "timeout", "0"]), Some(ErrorCode::OptionNegotiation)),
            (request(&["a", "octet", "windowsize", "x"]), Some(ErrorCode::OptionNegotiation)),
        ] {
            let found = match Request::parse(&datagram).unwrap_err() {
                BadRequest::Ignored => None,
                BadRequest::Refused(code, _) => Some(code),
            };
            assert_eq!(found, code, "{datagram:?}");
        }
    }

    #[test]
    fn options_are_acknowledged_as_far_as_they_hold() {
        for (words, expected) in [
            (&["blksize", "1408"][..], Some("blksize\x001408\0")),
            (&["BlkSize", "65464", "tsize", "0"], Some("blksize\x001468\0tsize\x005000\0")),
            (&["timeout", "3", "windowsize", "64"], Some("timeout\x003\0windowsize\x0016\0")),
            (&["multicast", "", "x", "y"], None),
            (&["blksize"], None),
            (&[], None),
        ] {
            let packet = options(words).acknowledgement(5000);
            let expected = expected.map(|text| [&[0, 6], text.as_bytes()].concat());
            assert_eq!(packet, expected, "{words:?}");
        }
    }

    #[test]
    fn a_file_goes_block_by_block_and_ends_with_a_short_one() {
        let mut transfer = transfer(&[], &[7; 1024]);
        assert_eq!(due(&mut transfer), [data(1, &[7; 512])]);
        assert_eq!(transfer.received(&ack(1)).unwrap(), Progress::Onward);
        assert_eq!(due(&mut transfer), [data(2, &[7; 512])]);
        assert_eq!(transfer.received(&ack(2)).unwrap(), Progress::Onward);
        assert_eq!(due(&mut transfer), [data(3, &[])]);
        assert_eq!(transfer.received(&ack(3)).unwrap(), Progress::Done);
        assert_eq!(transfer.bytes, 1024);
    }

    #[test]
    fn an_acknowledgement_that_comes_twice_sends_nothing() {
        let mut transfer = transfer(&[], &[7; 2000]);
        let _ = due(&mut transfer);
        assert_eq!(transfer.received(&ack(1)).unwrap(), Progress::Onward);
        assert_eq!(due(&mut transfer).len(), 1);
        for late in [ack(1), ack(0), ack(9)] {
            assert_eq!(transfer.received(&late).unwrap(), Progress::Nothing, "{late:?}");
            assert_eq!(due(&mut transfer), [[0; 0]; 0], "{late:?}");
        }
        transfer.timed_out();
        assert_eq!(due(&mut transfer), [data(2, &[7; 512])]);
    }

    #[test]
    fn options_wait_for_block_zero_to_be_acknowledged() {
        let mut transfer = transfer(&["tsize", "0"], b"abc");
        assert_eq!(due(&mut transfer), [b"\0\x06tsize\x003\0".to_vec()]);
        assert_eq!(transfer.received(&ack(0)).unwrap(), Progress::Onward);
        assert_eq!(due(&mut transfer), [data(1, b"abc")]);
    }

    #[test]
    fn a_window_goes_on_behind_what_arrived() {
        let mut transfer = transfer(&["blksize", "8", "windowsize", "4"], &[7; 100]);
        let _ = due(&mut transfer);
        let _ = transfer.received(&ack(0)).unwrap();
        assert_eq!(due(&mut transfer).len(), 4);
        // Blocks 3 and 4 were lost.
        let _ = transfer.received(&ack(2)).unwrap();
        let numbers: Vec<u8> = due(&mut transfer).iter().map(|packet| packet[3]).collect();
        assert_eq!(numbers, [3, 4, 5, 6]);
        assert_eq!(transfer.received(&ack(1)).unwrap(), Progress::Nothing);
        let _ = transfer.received(&ack(6)).unwrap();
        let numbers: Vec<u8> = due(&mut transfer).iter().map(|packet| packet[3]).collect();
        assert_eq!(numbers, [7, 8, 9, 10]);
    }

    #[test]
    fn block_numbers_wrap_to_zero() {
        let mut transfer = transfer(&["blksize", "8"], &vec![7; 8 * 65536]);
        let _ = due(&mut transfer);
        let _ = transfer.received(&ack(0)).unwrap();
        for number in (1..=u16::MAX).chain([0]) {
            let packets = due(&mut transfer);
            assert_eq!(packets, [data(number, &[7; 8])]);
            let _ = transfer.received(&ack(number)).unwrap();
        }
        assert_eq!(due(&mut transfer), [data(1, &[])]);
        assert_eq!(transfer.received(&ack(1)).unwrap(), Progress::Done);
    }

    #[test]
    fn a_client_that_asks_again_from_its_port_begins_anew_only_once_it_has_spoken() {
        let limits = Limits::default();
        let mut running = Running::default();
        let client = SocketAddr::from(([10, 0, 0, 1], 2070));
        let Admission::Start(first) = running.admit(client, b"a", &limits) else { panic!() };
        assert_eq!(running.admit(client, b"a", &limits), Admission::Repeated);
        assert!(running.spoke(client, first));
        let Admission::Start(second) = running.admit(client, b"a", &limits) else { panic!() };
        assert!(!running.spoke(client, first) && running.spoke(client, second));
        running.end(client, first);
        assert!(running.is_current(client, second));
    }

    #[test]
    fn requests_beyond_the_limits_are_dropped() {
        let limits = Limits { n_transfers: 3, n_transfers_per_client: 2, ..Limits::default() };
        let mut running = Running::default();
        let client = |last: u8, port: u16| SocketAddr::from(([10, 0, 0, last], port));
        let mut admit = |last, port| running.admit(client(last, port), b"a", &limits);
        assert!(matches!(admit(1, 1), Admission::Start(_)));
        assert!(matches!(admit(1, 2), Admission::Start(_)));
        assert_eq!(admit(1, 3), Admission::Busy);
        assert!(matches!(admit(2, 1), Admission::Start(_)));
        assert_eq!(admit(3, 1), Admission::Busy);
    }

    #[test]
    fn waits_double_unless_the_client_names_one() {
        let limits = Limits::default();
        let secs = |options| {
            let waits = Waits::new(&limits, options);
            [0, 1, 2, 3, 60].map(|n_tries| waits.after(n_tries).as_secs())
        };
        assert_eq!(secs(options(&[])), [1, 2, 4, 4, 4]);
        assert_eq!(secs(options(&["timeout", "9"])), [9, 9, 9, 9, 9]);
    }

    proptest::proptest! {
        #[test]
        fn no_packet_breaks_a_transfer(
            first in proptest::collection::vec(proptest::num::u8::ANY, 0..80),
            packets in proptest::collection::vec(
                proptest::collection::vec(proptest::num::u8::ANY, 0..8), 0..40),
        ) {
            // Panics are the failure.
            let _ = Request::parse(&[&[0, 1], &first[..]].concat());
            let mut transfer = transfer(&["windowsize", "3", "blksize", "8"], &[7; 300]);
            for mut packet in packets {
                if let Some(code) = packet.get_mut(..2) {
                    code.copy_from_slice(&[0, 4]);
                }
                let _ = transfer.received(&packet).unwrap();
                let _ = due(&mut transfer);
            }
            proptest::prop_assert!(transfer.bytes <= 300);
        }
    }
}
