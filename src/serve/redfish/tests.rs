use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

use super::*;

/// A BMC of the tests: TLS, one request a connection, and the manners that real ones have.
struct Fake {
    url: String,
    authority: Vec<u8>,
    state: Arc<Mutex<State>>,
}

#[derive(Clone)]
struct Manners {
    has_sessions: bool,
    /// Refuses a change without the current ETag, and the first one in any case.
    etags: Etags,
    targets: Vec<&'static str>,
    power: &'static str,
    mode: Option<&'static str>,
    keeps_override: bool,
    n_systems: usize,
    resets: Vec<&'static str>,
}

#[derive(Clone, Copy, PartialEq)]
enum Etags {
    None,
    Wanted,
    /// The machine changes between the first read and the first change.
    Moving,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            has_sessions: true,
            etags: Etags::Wanted,
            targets: vec!["None", "Pxe", "Hdd", "UefiHttp"],
            power: "On",
            mode: Some("UEFI"),
            keeps_override: true,
            n_systems: 1,
            resets: vec!["On", "ForceRestart", "ForceOff"],
        }
    }
}

struct State {
    manners: Manners,
    boot: Value,
    version: u32,
    n_sessions: i32,
    /// Method, path and body of all that changed something.
    changes: Vec<(String, String, Value)>,
}

struct Asked {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Value,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        let is_it = |(found, _): &&(String, String)| found.eq_ignore_ascii_case(name);
        self.headers.iter().find(is_it).map(|(_, value)| value.as_str())
    }
}

impl Fake {
    fn start(manners: Manners) -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let boot = json!({
            "BootSourceOverrideEnabled": "Disabled",
            "BootSourceOverrideTarget": "None",
            "BootSourceOverrideTarget@Redfish.AllowableValues": manners.targets,
        });
        let state = State { manners, boot, version: 1, n_sessions: 0, changes: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                // A client that does not trust us hangs up.
                let _ = talk(rustls::StreamOwned::new(tls, stream.unwrap()), &shared);
            }
        });
        Self { url, authority: made.cert.pem().into_bytes(), state }
    }

    fn order(&self, password: &str, order: &Order<'_>) -> Result<Done, Failure> {
        let bmc = Bmc {
            url: self.url.clone(),
            user: "admin",
            password: &SecretText::new(password.to_owned()),
            trust: Trust::Authorities(self.authority.clone()),
        };
        boot_once(&bmc, order)
    }

    fn changes(&self) -> Vec<(String, String, Value)> {
        self.state.lock().unwrap().changes.clone()
    }

    fn n_sessions(&self) -> i32 {
        self.state.lock().unwrap().n_sessions
    }
}

type Stream = rustls::StreamOwned<rustls::ServerConnection, std::net::TcpStream>;

fn talk(mut stream: Stream, state: &Mutex<State>) -> std::io::Result<()> {
    let asked = {
        let mut reader = BufReader::new(&mut stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.push((name.to_owned(), value.to_owned()));
        }
        let mut asked = Asked { method, path, headers, body: Value::Null };
        let length = asked.header("content-length").and_then(|length| length.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
        asked.body = serde_json::from_slice(&body).unwrap_or_default();
        asked
    };
    let (status, headers, body) = answer(&asked, &mut state.lock().unwrap());
    let body = body.to_string();
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} x\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}"
    )?;
    stream.conn.send_close_notify();
    stream.flush()
}

const SYSTEM: &str = "/redfish/v1/Systems/";
const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
/// `admin:secret`.
const BASIC: &str = "Basic YWRtaW46c2VjcmV0";

fn answer(asked: &Asked, state: &mut State) -> (u16, String, Value) {
    let none = String::new;
    let error = |text: &str| json!({ "error": { "@Message.ExtendedInfo": [{ "Message": text }] } });
    let manners = state.manners.clone();
    if asked.path == "/redfish/v1/" {
        let mut root = json!({ "Systems": { "@odata.id": "/redfish/v1/Systems" } });
        if manners.has_sessions {
            root["Links"] = json!({ "Sessions": { "@odata.id": SESSIONS } });
        }
        return (200, none(), root);
    }
    if asked.method == "POST" && asked.path == SESSIONS {
        if asked.body != json!({ "UserName": "admin", "Password": "secret" }) {
            return (401, none(), error("no"));
        }
        state.n_sessions += 1;
        let headers = format!("X-Auth-Token: t0ken\r\nLocation: {SESSIONS}/1\r\n");
        return (201, headers, json!({}));
    }
    let is_known = match manners.has_sessions {
        true => asked.header("x-auth-token") == Some("t0ken"),
        false => asked.header("authorization") == Some(BASIC),
    };
    if !is_known {
        return (401, none(), error("who are you?"));
    }
    let etag = format!("W/\"{}\"", state.version);
    let path = asked.path.as_str();
    match (asked.method.as_str(), path) {
        ("DELETE", _) => {
            state.n_sessions -= 1;
            (204, none(), Value::Null)
        }
        ("GET", "/redfish/v1/Systems") => {
            let member = |number| json!({ "@odata.id": format!("{SYSTEM}{number}") });
            let members: Vec<Value> = (1..=manners.n_systems).map(member).collect();
            (200, none(), json!({ "Members": members }))
        }
        ("GET", path) => {
            let number = path.strip_prefix(SYSTEM).unwrap();
            let mut boot = state.boot.clone();
            if let Some(mode) = manners.mode {
                boot["BootSourceOverrideMode"] = mode.into();
            }
            let headers =
                if manners.etags == Etags::None { none() } else { format!("ETag: {etag}\r\n") };
            let system = json!({
                "SerialNumber": format!("SN{number}"),
                "PowerState": manners.power,
                "Boot": boot,
                "Actions": { "#ComputerSystem.Reset": {
                    "target": format!("{path}/Actions/ComputerSystem.Reset"),
                    "ResetType@Redfish.AllowableValues": manners.resets,
                } },
            });
            (200, headers, system)
        }
        ("PATCH", path) => {
            if manners.etags == Etags::Moving && state.version == 1 {
                state.version = 2;
                return (412, none(), error("the machine has changed"));
            }
            if manners.etags != Etags::None && asked.header("if-match") != Some(&etag) {
                return (428, none(), error("If-Match is wanted"));
            }
            state.changes.push(("PATCH".to_owned(), path.to_owned(), asked.body.clone()));
            if manners.keeps_override {
                for (name, value) in asked.body["Boot"].as_object().unwrap() {
                    state.boot[name] = value.clone();
                }
            }
            state.version += 1;
            (200, none(), json!({}))
        }
        (method, path) => {
            state.changes.push((method.to_owned(), path.to_owned(), asked.body.clone()));
            (204, none(), Value::Null)
        }
    }
}

fn order() -> Order<'static> {
    Order { network: Network::Pxe, power: Power::Restart, firmware: Firmware::Uefi, serial: None }
}

fn change(method: &str, path: &str, body: Value) -> (String, String, Value) {
    (method.to_owned(), path.to_owned(), body)
}

#[test]
fn a_machine_boots_from_the_network_once_and_is_reset() {
    for etags in [Etags::None, Etags::Wanted, Etags::Moving] {
        for has_sessions in [true, false] {
            let fake = Fake::start(Manners { etags, has_sessions, ..Manners::default() });
            let done = fake.order("secret", &order()).unwrap();
            let system = format!("{SYSTEM}1");
            assert_eq!(
                done,
                Done { system: system.clone(), reset: Some("ForceRestart".into()), stays: false }
            );
            let boot = json!({ "Boot": {
                "BootSourceOverrideEnabled": "Once",
                "BootSourceOverrideTarget": "Pxe",
            } });
            let reset = json!({ "ResetType": "ForceRestart" });
            let action = format!("{system}/Actions/ComputerSystem.Reset");
            assert_eq!(
                fake.changes(),
                [change("PATCH", &system, boot), change("POST", &action, reset)]
            );
            assert_eq!(fake.n_sessions(), 0, "the session is ended");
        }
    }
}

#[test]
fn many_machines_are_told_and_each_has_its_own_answer() {
    let fakes: Vec<Fake> = (0..40)
        .map(|number| {
            let power = if number % 2 == 0 { "On" } else { "Off" };
            Fake::start(Manners { power, ..Manners::default() })
        })
        .collect();
    let passwords = ["secret", "guess"].map(|text| SecretText::new(text.to_owned()));
    let machines: Vec<_> = fakes
        .iter()
        .enumerate()
        .map(|(number, fake)| {
            let bmc = Bmc {
                url: fake.url.clone(),
                user: "admin",
                password: &passwords[usize::from(number == 7)],
                trust: Trust::Authorities(fake.authority.clone()),
            };
            (bmc, order())
        })
        .collect();
    for (number, result) in boot_all(&machines, &Progress::hidden()).into_iter().enumerate() {
        match number {
            7 => assert!(matches!(result, Err(Failure::Login)), "{result:?}"),
            _ => {
                let reset = if number % 2 == 0 { "ForceRestart" } else { "On" };
                assert_eq!(result.unwrap().reset.as_deref(), Some(reset));
            }
        }
    }
}

#[test]
fn a_machine_that_is_off_is_started_and_one_that_is_left_alone_is_not_reset() {
    for (power, order, reset) in
        [("Off", order(), Some("On")), ("On", Order { power: Power::Leave, ..order() }, None)]
    {
        let fake = Fake::start(Manners { power, ..Manners::default() });
        assert_eq!(fake.order("secret", &order).unwrap().reset.as_deref(), reset);
    }
}

#[test]
fn http_boot_and_the_mode_of_the_firmware_are_set() {
    let fake = Fake::start(Manners { mode: Some("Legacy"), ..Manners::default() });
    fake.order("secret", &Order { network: Network::UefiHttp, ..order() }).unwrap();
    let boot = &fake.changes()[0].2["Boot"];
    assert_eq!(boot["BootSourceOverrideTarget"], "UefiHttp");
    assert_eq!(boot["BootSourceOverrideMode"], "UEFI");
}

#[test]
fn a_wrong_password_says_which_keys_to_look_at() {
    for has_sessions in [true, false] {
        let fake = Fake::start(Manners { has_sessions, ..Manners::default() });
        let failure = fake.order("guess", &order()).unwrap_err();
        assert!(matches!(failure, Failure::Login), "{failure:?}");
        assert!(!format!("{failure:?} {failure}").contains("guess"));
        assert_eq!(fake.changes(), []);
    }
}

#[test]
fn one_of_several_machines_is_told_by_its_serial_number() {
    let fake = Fake::start(Manners { n_systems: 2, ..Manners::default() });
    let failure = fake.order("secret", &order()).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "the BMC has 2 machines; give the node its `serial`, to tell which: \
         /redfish/v1/Systems/1 (serial number SN1), /redfish/v1/Systems/2 (serial number SN2)"
    );
    let unknown = fake.order("secret", &Order { serial: Some("SN9"), ..order() }).unwrap_err();
    assert!(matches!(unknown, Failure::Serial { .. }), "{unknown}");
    assert_eq!(fake.changes(), []);
    let done = fake.order("secret", &Order { serial: Some("SN2"), ..order() }).unwrap();
    assert_eq!(done.system, "/redfish/v1/Systems/2");
}

#[test]
fn what_a_machine_cannot_do_is_told_before_it_is_reset() {
    let fake = Fake::start(Manners { targets: vec!["None", "Hdd"], ..Manners::default() });
    let failure = fake.order("secret", &order()).unwrap_err();
    assert_eq!(failure.to_string(), "the machine cannot be told to boot by Pxe, only by None, Hdd");
    let fake = Fake::start(Manners { keeps_override: false, ..Manners::default() });
    let failure = fake.order("secret", &order()).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "the BMC said yes, and still has None (Disabled) as what to boot from"
    );
    assert_eq!(fake.changes().len(), 1, "the order, and no reset");
}

#[test]
fn what_the_bmc_says_is_passed_on() {
    let fake = Fake::start(Manners { resets: vec!["ForceOff"], ..Manners::default() });
    let failure = fake.order("secret", &order()).unwrap_err();
    assert_eq!(failure.to_string(), "resetting (it knows ForceOff) is refused with 400");
}

#[test]
fn a_bmc_with_an_unknown_certificate_gets_no_password() {
    let fake = Fake::start(Manners::default());
    let bmc = |trust| Bmc {
        url: fake.url.clone(),
        user: "admin",
        password: Box::leak(Box::new(SecretText::new("secret".to_owned()))),
        trust,
    };
    let failure = boot_once(&bmc(Trust::System), &order()).unwrap_err();
    assert!(matches!(failure, Failure::Unreachable { .. }), "{failure:?}");
    assert_eq!(fake.changes(), []);
    boot_once(&bmc(Trust::Anyone), &order()).unwrap();
}

#[test]
fn a_person_is_told_what_to_press() {
    let text = by_hand("node0", Firmware::Uefi);
    assert!(text.starts_with("node0: after an installation UEFI starts the disk first"), "{text}");
    assert!(text.contains("F12") && text.contains("options=efiboot"), "{text}");
    assert!(!by_hand("node0", Firmware::Bios).contains("efiboot"));
}
