//! One network boot by Redfish, for machines whose disk comes first in the boot order.
//!
//! An installed UEFI machine has its disk first and never asks the network again. Its BMC can
//! say otherwise for one boot (DMTF DSP0266, the protocol; DSP2046, `ComputerSystem.Boot`).
//! Where there is no BMC to ask, [`by_hand`] says what a person does.
//!
//! Blocking, as the verbs that call it are.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::{Method, Request, Response, StatusCode, header};
use ureq::tls::{RootCerts, TlsConfig, parse_pem};

use crate::cluster::Firmware;
use crate::progress::Progress;
use crate::secrets::SecretText;

/// The service's root (DSP0266 §6.2).
const ROOT: &str = "/redfish/v1/";
/// More than any answer that is read here.
const MAX_BYTES: u64 = 1 << 20;
/// BMCs are slow computers.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A BMC and who we are to it.
pub struct Bmc<'a> {
    /// Scheme and host, such as `https://10.30.1.7`.
    pub url: String,
    pub user: &'a str,
    pub password: &'a SecretText,
    pub trust: Trust,
}

/// Which BMCs are believed to be who they say.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Those whose certificate the system's trust store knows.
    System,
    /// Those whose certificate comes from one of these authorities, in PEM.
    Authorities(Vec<u8>),
    /// All: whoever is in between gets the password.
    Anyone,
}

/// What the machine boots from once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    Pxe,
    UefiHttp,
}

impl Network {
    /// The word for it (DSP2046, `BootSource`).
    fn target(self) -> &'static str {
        match self {
            Self::Pxe => "Pxe",
            Self::UefiHttp => "UefiHttp",
        }
    }
}

/// What happens to a machine that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It boots from the network whenever it is started next.
    Leave,
    /// It is reset now, and started if it is off.
    Restart,
}

/// What is to be done to a machine.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    pub network: Network,
    pub power: Power,
    pub firmware: Firmware,
    /// The machine's serial number, for a BMC that has several machines.
    pub serial: Option<&'a str>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The path of the machine at its BMC.
    pub system: String,
    /// The kind of reset, as Redfish calls it; `None` where power was left alone.
    pub reset: Option<String>,
    /// The BMC takes the order for every boot from now on, not for one.
    pub stays: bool,
}

/// Why a machine was not told to boot from the network.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("asking {url}")]
    Unreachable {
        url: String,
        #[source]
        source: Box<ureq::Error>,
    },
    #[error("the certificates to trust cannot be read")]
    Authorities(#[source] Box<ureq::Error>),
    #[error("the BMC does not accept the user or the password: see bmc.user and bmc.password")]
    Login,
    #[error("{what} is refused with {status}{}{message}", if message.is_empty() { "" } else { ": " })]
    Refused { what: String, status: u16, message: String },
    #[error("the answer of {0} is not what Redfish says")]
    Answer(String),
    #[error("the BMC has {} machines and none with the serial number {wanted}: {}", have.len(), have.join(", "))]
    Serial { wanted: String, have: Vec<String> },
    #[error("the BMC has {} machines; give the node its `serial`, to tell which: {}", have.len(), have.join(", "))]
    Several { have: Vec<String> },
    #[error("the machine cannot be told to boot by {wanted}, only by {}", have.join(", "))]
    NoSuchTarget { wanted: &'static str, have: Vec<String> },
    #[error("the BMC said yes, and still has {0} as what to boot from")]
    NotKept(String),
}

/// Tells one machine to boot from the network once, and restarts it if `order` says so.
///
/// # Errors
///
/// [`Failure`]; where it fails, the machine was not reset.
pub fn boot_once(bmc: &Bmc<'_>, order: &Order<'_>) -> Result<Done, Failure> {
    let mut service = Service::connect(bmc)?;
    let done = order_system(&service, order);
    service.end();
    done
}

/// What a person does who cannot ask a BMC.
pub fn by_hand(node: &str, firmware: Firmware) -> String {
    let order = match firmware {
        Firmware::Uefi => {
            "after an installation UEFI starts the disk first, and does not ask the network"
        }
        Firmware::Bios => "if the disk comes first in its boot order, it does not ask the network",
    };
    format!(
        "{node}: {order}. Restart it, and choose the network for this one boot: F12 on most \
         machines (Dell F12, HPE F12, Lenovo F12, Supermicro F11 or F12), or a one-time boot \
         device in the BMC's own pages, or `ipmitool -I lanplus -H BMC -U USER -E chassis bootdev \
         pxe{}` and then `chassis power cycle`",
        match firmware {
            Firmware::Uefi => " options=efiboot",
            Firmware::Bios => "",
        }
    )
}

fn order_system(service: &Service, order: &Order<'_>) -> Result<Done, Failure> {
    let system = find_system(service, order.serial)?;
    let stays = set_override(service, &system, order)?;
    let reset = match order.power {
        Power::Leave => None,
        Power::Restart => Some(restart(service, &system)?),
    };
    Ok(Done { system: system.path, reset, stays })
}

/// A resource as it was read.
struct Resource {
    path: String,
    value: Value,
    etag: Option<String>,
}

impl Resource {
    /// The texts of an array such as `ResetType@Redfish.AllowableValues`; empty if it is not
    /// there, which means that nothing is known.
    fn allowed(&self, pointer: &str) -> Vec<String> {
        let values = self.value.pointer(pointer).and_then(Value::as_array);
        let texts = values.into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    }

    fn text(&self, pointer: &str) -> Option<&str> {
        self.value.pointer(pointer).and_then(Value::as_str)
    }

    fn link(&self, pointer: &str) -> Result<&str, Failure> {
        self.text(pointer).ok_or_else(|| Failure::Answer(self.path.clone()))
    }
}

fn find_system(service: &Service, serial: Option<&str>) -> Result<Resource, Failure> {
    let root = service.get(ROOT)?;
    let systems = service.get(root.link("/Systems/@odata.id")?)?;
    let members = systems.value["Members"].as_array().cloned().unwrap_or_default();
    let links = members.iter().filter_map(|member| member["@odata.id"].as_str());
    let mut found = links.map(|link| service.get(link)).collect::<Result<Vec<_>, _>>()?;
    let names = |found: &[Resource]| -> Vec<String> {
        let name = |one: &Resource| {
            format!(
                "{} (serial number {})",
                one.path,
                one.text("/SerialNumber").unwrap_or("unknown")
            )
        };
        found.iter().map(name).collect()
    };
    match (found.len(), serial) {
        (0, _) => Err(Failure::Answer(systems.path)),
        (1, _) => Ok(found.remove(0)),
        (_, None) => Err(Failure::Several { have: names(&found) }),
        (_, Some(serial)) => {
            let is_it = |one: &Resource| one.text("/SerialNumber") == Some(serial);
            match found.iter().position(is_it) {
                Some(at) => Ok(found.swap_remove(at)),
                None => Err(Failure::Serial { wanted: serial.to_owned(), have: names(&found) }),
            }
        }
    }
}

/// `PATCH` of the boot override, and a look whether the BMC kept it; whether it did so for good.
fn set_override(service: &Service, system: &Resource, order: &Order<'_>) -> Result<bool, Failure> {
    let target = order.network.target();
    let allowed = system.allowed("/Boot/BootSourceOverrideTarget@Redfish.AllowableValues");
    if !allowed.is_empty() && !allowed.iter().any(|one| one == target) {
        return Err(Failure::NoSuchTarget { wanted: target, have: allowed });
    }
    let mut boot = json!({
        "BootSourceOverrideEnabled": "Once",
        "BootSourceOverrideTarget": target,
    });
    // A BMC without the property would refuse it; one with it may have the wrong one.
    let mode = match order.firmware {
        Firmware::Uefi => "UEFI",
        Firmware::Bios => "Legacy",
    };
    if system.text("/Boot/BootSourceOverrideMode").is_some_and(|current| current != mode) {
        boot["BootSourceOverrideMode"] = mode.into();
    }
    let body = json!({ "Boot": boot });
    let what = "setting the boot override";
    let mut status = service.patch(&system.path, &body, system.etag.as_deref())?;
    if status.0 == StatusCode::PRECONDITION_FAILED {
        // Something else changed the machine since it was read: once more, as it is now.
        let newer = service.get(&system.path)?;
        status = service.patch(&system.path, &body, newer.etag.as_deref())?;
    }
    let (status, message) = status;
    if !status.is_success() {
        return Err(Failure::Refused { what: what.to_owned(), status: status.as_u16(), message });
    }
    if status == StatusCode::ACCEPTED {
        // A task does it later; there is nothing to look at yet (DSP0266 §12.2).
        return Ok(false);
    }
    let now = service.get(&system.path)?;
    let (kept, how_long) = (
        now.text("/Boot/BootSourceOverrideTarget").unwrap_or("nothing"),
        now.text("/Boot/BootSourceOverrideEnabled").unwrap_or("nothing"),
    );
    if kept != target || !["Once", "Continuous"].contains(&how_long) {
        return Err(Failure::NotKept(format!("{kept} ({how_long})")));
    }
    Ok(how_long == "Continuous")
}

/// Resets the machine; returns how.
fn restart(service: &Service, system: &Resource) -> Result<String, Failure> {
    let action = "/Actions/#ComputerSystem.Reset";
    let target = system.link(&format!("{action}/target"))?;
    let allowed = system.allowed(&format!("{action}/ResetType@Redfish.AllowableValues"));
    let is_off = system.text("/PowerState") == Some("Off");
    let wishes: &[&str] = if is_off {
        &["On", "ForceOn"]
    } else {
        &["ForceRestart", "PowerCycle", "GracefulRestart"]
    };
    let reset = wishes
        .iter()
        .find(|wish| allowed.is_empty() || allowed.iter().any(|one| one == *wish))
        .ok_or_else(|| Failure::Refused {
            what: format!("resetting (it knows {})", allowed.join(", ")),
            status: 400,
            message: String::new(),
        })?;
    let (status, message) = service.post(target, &json!({ "ResetType": reset }))?;
    if !status.is_success() {
        let what = format!("the boot override is set, but the reset {reset}");
        return Err(Failure::Refused { what, status: status.as_u16(), message });
    }
    Ok((*reset).to_owned())
}

/// An open Redfish service.
struct Service {
    agent: Agent,
    url: String,
    /// Name and value of the header that says who we are.
    authorization: (&'static str, SecretText),
    /// The session to end, if there is one.
    session: Option<String>,
}

impl Service {
    /// Logs in by a session; by HTTP Basic where a BMC has none (DSP0266 §13.3).
    fn connect(bmc: &Bmc<'_>) -> Result<Self, Failure> {
        let agent = agent(&bmc.trust)?;
        let basic = format!("{}:{}", bmc.user, bmc.password.expose());
        let basic = SecretText::new(format!("Basic {}", BASE64_STANDARD.encode(basic)));
        let url = bmc.url.trim_end_matches('/').to_owned();
        let mut service =
            Self { agent, url, authorization: ("Authorization", basic), session: None };
        // The root is public; the rest is not.
        let root = service.read(Method::GET, ROOT, Who::Anyone)?;
        let sessions = root.text("/Links/Sessions/@odata.id").map(str::to_owned);
        let Some(sessions) = sessions else { return Ok(service) };
        let body = json!({ "UserName": bmc.user, "Password": bmc.password.expose() });
        let request = service.request(Method::POST, &sessions, Who::Anyone);
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let mut response = service.send(request.body(body.to_string()), &sessions)?;
        match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
                return Err(Failure::Login);
            }
            StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_IMPLEMENTED => {
                return Ok(service);
            }
            status if !status.is_success() => {
                let what = "opening a session".to_owned();
                let message = message_of(&mut response);
                return Err(Failure::Refused { what, status: status.as_u16(), message });
            }
            _ => {}
        }
        let text = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let token = text("X-Auth-Token").ok_or(Failure::Answer(sessions))?;
        service.authorization = ("X-Auth-Token", SecretText::new(token));
        // A path, or a whole URL of the BMC's own making.
        service.session = text("Location").map(|place| match place.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or_else(String::new, |at| rest[at..].to_owned()),
            None => place,
        });
        Ok(service)
    }

    /// Ends the session. A BMC has room for a few only; one that is left ends by itself.
    fn end(&mut self) {
        if let Some(session) = self.session.take() {
            let request = self.request(Method::DELETE, &session, Who::User);
            let _ = self.send(request.body(String::new()), &session);
        }
    }

    fn get(&self, path: &str) -> Result<Resource, Failure> {
        self.read(Method::GET, path, Who::User)
    }

    fn read(&self, method: Method, path: &str, who: Who) -> Result<Resource, Failure> {
        let request = self.request(method, path, who);
        let mut response = self.send(request.body(String::new()), path)?;
        match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(Failure::Login),
            status if !status.is_success() => {
                let what = format!("reading {path}");
                let message = message_of(&mut response);
                return Err(Failure::Refused { what, status: status.as_u16(), message });
            }
            _ => {}
        }
        let header = response.headers().get(header::ETAG);
        let header = header.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let wrong = || Failure::Answer(path.to_owned());
        let value: Value = serde_json::from_str(&text_of(&mut response).ok_or_else(wrong)?)
            .map_err(|_| wrong())?;
        let etag = header.or_else(|| value["@odata.etag"].as_str().map(str::to_owned));
        Ok(Resource { path: path.to_owned(), value, etag })
    }

    fn patch(
        &self,
        path: &str,
        body: &Value,
        etag: Option<&str>,
    ) -> Result<(StatusCode, String), Failure> {
        let mut request = self.request(Method::PATCH, path, Who::User);
        if let Some(etag) = etag {
            request = request.header(header::IF_MATCH, etag);
        }
        self.change(request, body, path)
    }

    fn post(&self, path: &str, body: &Value) -> Result<(StatusCode, String), Failure> {
        self.change(self.request(Method::POST, path, Who::User), body, path)
    }

    fn change(
        &self,
        request: ureq::http::request::Builder,
        body: &Value,
        path: &str,
    ) -> Result<(StatusCode, String), Failure> {
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let mut response = self.send(request.body(body.to_string()), path)?;
        let message = message_of(&mut response);
        Ok((response.status(), message))
    }

    fn request(&self, method: Method, path: &str, who: Who) -> ureq::http::request::Builder {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header(header::ACCEPT, "application/json")
            .header("OData-Version", "4.0");
        match who {
            Who::Anyone => request,
            Who::User => request.header(self.authorization.0, self.authorization.1.expose()),
        }
    }

    fn send(
        &self,
        request: Result<Request<String>, ureq::http::Error>,
        path: &str,
    ) -> Result<Response<ureq::Body>, Failure> {
        let request = request.map_err(|_| Failure::Answer(path.to_owned()))?;
        self.agent.run(request).map_err(|source| Failure::Unreachable {
            url: format!("{}{path}", self.url),
            source: Box::new(source),
        })
    }
}

/// Whether a request says who we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Anyone,
    User,
}

fn agent(trust: &Trust) -> Result<Agent, Failure> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
    let tls = match trust {
        Trust::System => tls.root_certs(RootCerts::PlatformVerifier),
        Trust::Authorities(pem) => {
            let items = parse_pem(pem).collect::<Result<Vec<_>, _>>();
            let items = items.map_err(|error| Failure::Authorities(Box::new(error)))?;
            let certificates: Vec<_> = items
                .into_iter()
                .filter_map(|item| match item {
                    ureq::tls::PemItem::Certificate(certificate) => Some(certificate),
                    _ => None,
                })
                .collect();
            tls.root_certs(RootCerts::new_with_certs(&certificates))
        }
        Trust::Anyone => tls.disable_verification(true),
    };
    let config = Agent::config_builder()
        .tls_config(tls.build())
        .http_status_as_error(false)
        // A password is for the one it was meant for.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .allow_non_standard_methods(true)
        // BMCs are reached directly or not at all.
        .proxy(None)
        .user_agent(concat!("nodeforge/", env!("CARGO_PKG_VERSION")))
        .timeout_global(Some(TIMEOUT))
        .build();
    Ok(config.new_agent())
}

fn text_of(response: &mut Response<ureq::Body>) -> Option<String> {
    response.body_mut().with_config().limit(MAX_BYTES).read_to_string().ok()
}

/// What the BMC says was wrong (DSP0266 §8.6), in one line.
fn message_of(response: &mut Response<ureq::Body>) -> String {
    let text = text_of(response).unwrap_or_default();
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    let details = value["error"]["@Message.ExtendedInfo"].as_array().cloned().unwrap_or_default();
    let details: Vec<&str> = details.iter().filter_map(|one| one["Message"].as_str()).collect();
    match details.is_empty() {
        true => value["error"]["message"].as_str().unwrap_or_default().to_owned(),
        false => details.join(" "),
    }
}

/// How many BMCs are asked at a time: each takes seconds.
const MAX_AT_ONCE: usize = 32;

/// [`boot_once`] for each of `machines`, many at a time; the results are in their order.
pub fn boot_all(
    machines: &[(Bmc<'_>, Order<'_>)],
    progress: &Progress,
) -> Vec<Result<Done, Failure>> {
    let next = AtomicUsize::new(0);
    let results: Vec<OnceLock<_>> = machines.iter().map(|_| OnceLock::new()).collect();
    std::thread::scope(|scope| {
        for _ in 0..machines.len().min(MAX_AT_ONCE) {
            scope.spawn(|| {
                while let Some((at, (bmc, order))) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    machines.get(at).map(|machine| (at, machine))
                } {
                    let _ = results[at].set(boot_once(bmc, order));
                    progress.advance(1);
                }
            });
        }
    });
    results.into_iter().map(|it| it.into_inner().expect("each was asked")).collect()
}

#[cfg(test)]
mod tests;
