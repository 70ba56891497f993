use super::*;

use dhcproto::v4::Flags;

const NODE: [u8; 6] = [0x52, 0x54, 0, 3, 0, 0x11];
const STRANGER: [u8; 6] = [0x52, 0x54, 0, 9, 9, 9];
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 3, 1);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 3, 11);
const NOBODY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT);

fn desk(service: Service) -> Desk {
    let lease = Lease {
        address: ADDRESS,
        subnet: "192.168.3.0/24".parse().unwrap(),
        gateway: Some(Ipv4Addr::new(192, 168, 3, 254)),
        dns: vec![SERVER],
    };
    let host = Host { name: "node0".into(), lease: Some(lease) };
    Desk {
        service,
        strangers: Strangers::Ignored,
        server: SERVER,
        programs: Programs {
            bios: Some("undionly.kpxe".into()),
            uefi: Some("grub/shimx64.efi".into()),
            uefi_http: Some("http://192.168.3.1:8080/pxe/snponly.efi".into()),
            script: "http://192.168.3.1:8080/pxe/boot.ipxe".into(),
        },
        hosts: BTreeMap::from([(MacAddr::from_octets(NODE), host)]),
        domain: "lab.local".into(),
        ntp: vec![SERVER],
    }
}

/// A request byte by byte, by no encoder of the product: BOOTP's header, the cookie, options
/// as (code, value), the end.
fn packet(mac: [u8; 6], options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 4, 0x80, 0];
    bytes.resize(28, 0);
    bytes.extend(mac);
    bytes.resize(236, 0);
    bytes.extend([99, 130, 83, 99]);
    for (code, value) in options {
        bytes.extend([*code, u8::try_from(value.len()).unwrap()]);
        bytes.extend(*value);
    }
    bytes.push(255);
    bytes
}

const DISCOVER: (u8, &[u8]) = (53, &[1]);
const REQUEST: (u8, &[u8]) = (53, &[3]);
const IPXE: (u8, &[u8]) = (77, b"iPXE");

/// What firmware says of itself: as QEMU's BIOS, OVMF and iPXE were seen to.
const BIOS: [(u8, &[u8]); 2] = [(60, b"PXEClient:Arch:00000:UNDI:002001"), (93, &[0, 0])];
const UEFI: [(u8, &[u8]); 2] = [(60, b"PXEClient:Arch:00007:UNDI:003001"), (93, &[0, 7])];
const HTTP: [(u8, &[u8]); 2] = [(60, b"HTTPClient:Arch:00016:UNDI:003001"), (93, &[0, 16])];

fn with(first: &[(u8, &'static [u8])], rest: &[(u8, &'static [u8])]) -> Vec<(u8, &'static [u8])> {
    [first, rest].concat()
}

#[track_caller]
fn reply_of(outcome: Outcome) -> (Message, Vec<u8>, SocketAddrV4, Told) {
    match outcome {
        Outcome::Reply { datagram, to, told } => {
            let message = Message::decode(&mut Decoder::new(&datagram)).unwrap();
            (message, datagram, to, told)
        }
        Outcome::Silence(silence) => panic!("{silence:?}"),
    }
}

#[track_caller]
fn silence_of(outcome: Outcome) -> Silence {
    match outcome {
        Outcome::Silence(silence) => silence,
        Outcome::Reply { told, .. } => panic!("{told:?}"),
    }
}

/// The value of an option in raw bytes.
fn option(datagram: &[u8], code: u8) -> Option<&[u8]> {
    let mut rest = &datagram[240..];
    while let [found, length, after @ ..] = rest {
        if *found == 255 {
            return None;
        }
        let (value, next) = after.split_at(usize::from(*length));
        if *found == code {
            return Some(value);
        }
        rest = next;
    }
    None
}

fn file_name(datagram: &[u8]) -> &str {
    let field = &datagram[108..236];
    let end = field.iter().position(|byte| *byte == 0).unwrap();
    std::str::from_utf8(&field[..end]).unwrap()
}

#[test]
fn each_firmware_is_told_its_program() {
    let script = "http://192.168.3.1:8080/pxe/boot.ipxe";
    for (says, program) in [
        (with(&BIOS, &[]), "undionly.kpxe"),
        (with(&UEFI, &[]), "grub/shimx64.efi"),
        (with(&UEFI[..1], &[(93, &[0, 9])]), "grub/shimx64.efi"),
        (with(&UEFI[..1], &[]), "grub/shimx64.efi"),
        (with(&HTTP, &[]), "http://192.168.3.1:8080/pxe/snponly.efi"),
        (with(&BIOS, &[IPXE]), script),
        (with(&UEFI, &[(77, b"\x04iPXE")]), script),
        (with(&UEFI, &[(175, &[1, 1, 1])]), script),
    ] {
        for service in [Service::Proxy, Service::Addresses] {
            let asked = packet(NODE, &with(&[DISCOVER], &says));
            let (message, datagram, ..) =
                reply_of(desk(service).answer(&asked, NOBODY, Port::Server));
            assert_eq!(file_name(&datagram), program, "{says:?} {service:?}");
            assert_eq!(message.siaddr(), SERVER, "{says:?} {service:?}");
            assert_eq!(message.xid(), 0xdead_beef);
        }
    }
}

#[test]
fn a_node_is_offered_its_address_and_what_goes_with_it() {
    let asked = packet(NODE, &with(&[DISCOVER], &with(&BIOS, &[(61, b"\x01mine")])));
    let (message, datagram, to, told) =
        reply_of(desk(Service::Addresses).answer(&asked, NOBODY, Port::Server));
    assert_eq!(message.yiaddr(), ADDRESS);
    assert_eq!(to, SocketAddrV4::new(Ipv4Addr::BROADCAST, 68));
    for (code, value) in [
        (53, &[2][..]),
        (54, &[192, 168, 3, 1]),
        (1, &[255, 255, 255, 0]),
        (3, &[192, 168, 3, 254]),
        (6, &[192, 168, 3, 1]),
        (12, b"node0"),
        (15, b"lab.local"),
        (28, &[192, 168, 3, 255]),
        (42, &[192, 168, 3, 1]),
        (51, &[0, 0, 14, 16]),
        (61, b"\x01mine"),
    ] {
        assert_eq!(option(&datagram, code), Some(value), "option {code}");
    }
    // A server that says it is a PXE one would be asked for a menu.
    assert_eq!((option(&datagram, 60), option(&datagram, 43)), (None, None));
    assert_eq!(told.node.as_deref(), Some("node0"));
    assert_eq!(told.address, Some(ADDRESS));
}

#[test]
fn an_offer_for_http_boot_says_so() {
    for service in [Service::Proxy, Service::Addresses] {
        let asked = packet(NODE, &with(&[DISCOVER], &HTTP));
        let (_, datagram, ..) = reply_of(desk(service).answer(&asked, NOBODY, Port::Server));
        assert_eq!(option(&datagram, 60), Some(&b"HTTPClient"[..]), "{service:?}");
        let url = &b"http://192.168.3.1:8080/pxe/snponly.efi"[..];
        assert_eq!(option(&datagram, 67), Some(url), "{service:?}");
    }
}

#[test]
fn only_the_address_of_the_cluster_file_is_acknowledged() {
    let right = (50, &[192, 168, 3, 11][..]);
    let wrong = (50, &[192, 168, 3, 12][..]);
    let ours = (54, &[192, 168, 3, 1][..]);
    for (options, answer) in [
        (vec![REQUEST, ours, right], Some(MessageType::Ack)),
        (vec![REQUEST, right], Some(MessageType::Ack)),
        (vec![REQUEST, ours, wrong], Some(MessageType::Nak)),
        (vec![REQUEST, wrong], Some(MessageType::Nak)),
        (vec![REQUEST, (54, &[192, 168, 3, 2]), right], None),
        (vec![(53, &[7])], None),
    ] {
        let outcome =
            desk(Service::Addresses).answer(&packet(NODE, &options), NOBODY, Port::Server);
        let Some(answer) = answer else {
            assert_eq!(silence_of(outcome), Silence::NotForUs, "{options:?}");
            continue;
        };
        let (message, _, to, _) = reply_of(outcome);
        assert_eq!(message.opts().msg_type(), Some(answer), "{options:?}");
        let expected = if answer == MessageType::Ack { ADDRESS } else { Ipv4Addr::UNSPECIFIED };
        assert_eq!(message.yiaddr(), expected, "{options:?}");
        assert_eq!(to, SocketAddrV4::new(Ipv4Addr::BROADCAST, 68));
    }
}

#[test]
fn a_renewal_is_answered_to_the_address_it_came_from() {
    let mut asked = packet(NODE, &[REQUEST]);
    asked[12..16].copy_from_slice(&ADDRESS.octets());
    let from = SocketAddrV4::new(ADDRESS, 68);
    let (message, _, to, _) = reply_of(desk(Service::Addresses).answer(&asked, from, Port::Server));
    assert_eq!((message.ciaddr(), message.yiaddr(), to), (ADDRESS, ADDRESS, from));
}

#[test]
fn what_a_relay_sent_goes_back_to_it_with_its_information() {
    let information: &[u8] = b"\x01\x04eth7";
    let mut asked = packet(NODE, &[DISCOVER, (82, information)]);
    let relay = Ipv4Addr::new(10, 1, 1, 1);
    asked[24..28].copy_from_slice(&relay.octets());
    let (message, datagram, to, _) =
        reply_of(desk(Service::Addresses).answer(&asked, NOBODY, Port::Server));
    assert_eq!(to, SocketAddrV4::new(relay, 67));
    assert_eq!(message.giaddr(), relay);
    assert_eq!(option(&datagram, 82), Some(information));
}

#[test]
fn strangers_get_no_address_whatever_the_policy() {
    for strangers in [Strangers::Ignored, Strangers::Answered] {
        let desk = Desk { strangers, ..desk(Service::Addresses) };
        for first in [DISCOVER, REQUEST, (53, &[8])] {
            let asked = packet(STRANGER, &with(&[first], &BIOS));
            let silence = silence_of(desk.answer(&asked, NOBODY, Port::Server));
            assert_eq!(silence, Silence::Stranger(MacAddr::from_octets(STRANGER)));
        }
    }
}

#[test]
fn a_proxy_answers_strangers_only_if_it_is_to() {
    let asked = packet(STRANGER, &with(&[DISCOVER], &BIOS));
    let mut desk = desk(Service::Proxy);
    let silence = silence_of(desk.answer(&asked, NOBODY, Port::Server));
    assert_eq!(silence, Silence::Stranger(MacAddr::from_octets(STRANGER)));
    desk.strangers = Strangers::Answered;
    let (.., told) = reply_of(desk.answer(&asked, NOBODY, Port::Server));
    assert_eq!(told.node, None);
}

#[test]
fn a_proxy_says_what_to_boot_and_gives_no_address() {
    let guid = [&[0][..], &[7; 16]].concat();
    let mut options = with(&[DISCOVER], &BIOS);
    options.push((97, guid.leak()));
    let (message, datagram, to, told) =
        reply_of(desk(Service::Proxy).answer(&packet(NODE, &options), NOBODY, Port::Server));
    assert_eq!(message.opts().msg_type(), Some(MessageType::Offer));
    assert_eq!(message.yiaddr(), Ipv4Addr::UNSPECIFIED);
    assert_eq!(to, SocketAddrV4::new(Ipv4Addr::BROADCAST, 68));
    assert_eq!(option(&datagram, 60), Some(&b"PXEClient"[..]));
    assert_eq!(option(&datagram, 43), Some(&[6, 1, 8, 255][..]));
    assert_eq!(option(&datagram, 97).map(<[u8]>::len), Some(17));
    assert_eq!((option(&datagram, 51), option(&datagram, 1)), (None, None));
    assert_eq!(told.address, None);
}

#[test]
fn a_proxy_leaves_requests_and_systems_to_the_sites_server() {
    for options in
        [with(&[REQUEST], &BIOS), vec![DISCOVER], vec![DISCOVER, (60, b"anaconda-Linux")]]
    {
        let outcome = desk(Service::Proxy).answer(&packet(NODE, &options), NOBODY, Port::Server);
        assert_eq!(silence_of(outcome), Silence::NotForUs, "{options:?}");
    }
}

#[test]
fn the_boot_service_acknowledges_to_where_it_was_asked_from() {
    let from = SocketAddrV4::new(Ipv4Addr::new(192, 168, 3, 77), 4011);
    let mut asked = packet(NODE, &with(&[REQUEST], &BIOS));
    asked[12..16].copy_from_slice(&from.ip().octets());
    let (message, datagram, to, _) =
        reply_of(desk(Service::Proxy).answer(&asked, from, Port::BootService));
    assert_eq!(to, from);
    assert_eq!(message.opts().msg_type(), Some(MessageType::Ack));
    assert_eq!(file_name(&datagram), "undionly.kpxe");
    let outcome = desk(Service::Addresses).answer(&asked, from, Port::BootService);
    assert_eq!(silence_of(outcome), Silence::NotForUs);
}

#[test]
fn firmware_without_a_program_gets_an_address_and_nothing_to_boot() {
    let arm: [(u8, &[u8]); 2] = [(60, b"PXEClient:Arch:00011"), (93, &[0, 11])];
    let asked = packet(NODE, &with(&[DISCOVER], &arm));
    let (_, datagram, _, told) =
        reply_of(desk(Service::Addresses).answer(&asked, NOBODY, Port::Server));
    assert_eq!((file_name(&datagram), told.client), ("", Client::Foreign(11)));
    let silence = silence_of(desk(Service::Proxy).answer(&asked, NOBODY, Port::Server));
    assert_eq!(silence, Silence::NoProgram(MacAddr::from_octets(NODE), Client::Foreign(11)));
}

#[test]
fn a_declined_address_is_told_by_the_nodes_name() {
    let asked = packet(NODE, &[(53, &[4]), (50, &[192, 168, 3, 11])]);
    let silence = silence_of(desk(Service::Addresses).answer(&asked, NOBODY, Port::Server));
    assert_eq!(silence, Silence::Declined { node: "node0".into(), address: ADDRESS });
}

#[test]
fn every_reply_has_the_length_that_bootp_asks_for() {
    for service in [Service::Proxy, Service::Addresses] {
        let asked = packet(NODE, &with(&[DISCOVER], &BIOS));
        let (_, datagram, ..) = reply_of(desk(service).answer(&asked, NOBODY, Port::Server));
        assert!((300..=576).contains(&datagram.len()), "{}", datagram.len());
    }
}

#[test]
fn a_long_name_moves_from_the_field_to_the_option() {
    let long = format!("http://192.168.3.1/{}/boot.ipxe", "a".repeat(120));
    let mut desk = desk(Service::Addresses);
    desk.programs.script.clone_from(&long);
    let asked = packet(NODE, &with(&[DISCOVER], &with(&BIOS, &[IPXE])));
    let (_, datagram, ..) = reply_of(desk.answer(&asked, NOBODY, Port::Server));
    assert_eq!((file_name(&datagram), option(&datagram, 67)), ("", Some(long.as_bytes())));
}

#[test]
fn what_is_no_request_is_refused_with_its_reason() {
    let good = packet(NODE, &[DISCOVER]);
    let changed = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        bad
    };
    for (datagram, reason) in [
        (vec![], "no DHCP packet"),
        (good[..239].to_vec(), "no DHCP packet"),
        (changed(236, 0), "no DHCP packet"),
        (changed(0, 2), "no request"),
        (changed(1, 32), "no Ethernet address"),
        (changed(2, 255), "no Ethernet address"),
        (changed(28, 0xff), "no address of a single station"),
        (packet(NODE, &[]), "no message type"),
    ] {
        let silence = silence_of(desk(Service::Addresses).answer(&datagram, NOBODY, Port::Server));
        assert_eq!(silence, Silence::Malformed(reason), "{} bytes", datagram.len());
    }
}

#[test]
fn options_that_decide_nothing_cannot_hide_or_break_others() {
    // A host name that is no text, and an option 80 that dhcproto panics at.
    let asked = packet(NODE, &[(12, &[0xff, 0xfe]), (80, &[1]), DISCOVER]);
    let (message, ..) = reply_of(desk(Service::Addresses).answer(&asked, NOBODY, Port::Server));
    assert_eq!(message.yiaddr(), ADDRESS);
}

#[test]
fn the_flags_of_a_request_come_back() {
    let mut asked = packet(NODE, &[DISCOVER]);
    asked[10] = 0;
    let (message, ..) = reply_of(desk(Service::Addresses).answer(&asked, NOBODY, Port::Server));
    assert_eq!(message.flags(), Flags::new(0));
}

proptest::proptest! {
    #[test]
    fn no_datagram_breaks_the_desk(
        mut head in proptest::collection::vec(proptest::num::u8::ANY, 0..240),
        tail in proptest::collection::vec(proptest::num::u8::ANY, 0..700),
        is_plausible in proptest::bool::ANY,
    ) {
        if is_plausible {
            head.resize(240, 0);
            head[..3].copy_from_slice(&[1, 1, 6]);
            head[28..34].copy_from_slice(&NODE);
            head[236..].copy_from_slice(&[99, 130, 83, 99]);
        }
        head.extend(tail);
        for (service, port) in [
            (Service::Addresses, Port::Server),
            (Service::Proxy, Port::Server),
            (Service::Proxy, Port::BootService),
        ] {
            // Panics are the failure.
            let _ = desk(service).answer(&head, NOBODY, port);
        }
    }
}
