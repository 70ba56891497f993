//! Downloads: bounded retries, resuming, and nothing believed but a digest.
//!
//! Proxies are taken from the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`,
//! `NO_PROXY`), certificates are judged by the system's trust store, so that a site's own
//! authority counts. A redirect never leads from https to http.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use ureq::Agent;
use ureq::http::{Response, StatusCode, header};
use ureq::tls::{RootCerts, TlsConfig};

use super::Note;
use super::location::Location;
use super::part::Part;
use crate::format::digest::Digest;
use crate::progress::{Progress, Unit};

/// How often a request is made before we give up, and how long to wait in between.
#[derive(Clone, Copy, Debug)]
pub struct Retries {
    /// Tries in a row without progress, at least 1.
    pub tries: u32,
    /// The wait after the first failure; it doubles with each further one, up to 30 seconds.
    pub first_delay: Duration,
}

impl Retries {
    /// Six tries within about half a minute.
    pub const DEFAULT: Self = Self { tries: 6, first_delay: Duration::from_secs(1) };

    fn delay(self, failures: u32) -> Duration {
        let doubled = self.first_delay.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled.min(Duration::from_secs(30))
    }
}

/// Reads URLs and local files; says what it does while it does it.
pub struct Client<'a> {
    agent: Agent,
    retries: Retries,
    tell: &'a dyn Fn(Note),
}

/// A file to download, and how to know it.
#[derive(Clone, Copy, Debug)]
pub struct Download<'a> {
    pub from: &'a Location,
    pub sha256: Digest,
    /// Bytes; a longer file is refused before it fills the disk.
    pub max_bytes: u64,
}

/// What to do about a failure.
enum Failure {
    /// Another try may succeed.
    Passing(anyhow::Error),
    Final(anyhow::Error),
}

/// With this many new bytes a try counts as progress, so that a long file over a bad line
/// arrives, while a server that trickles does not keep us for ever.
const PROGRESS_BYTES: u64 = 1 << 20;

impl<'a> Client<'a> {
    /// A client that tells `tell` about retries and the like.
    pub fn new(retries: Retries, tell: &'a dyn Fn(Note)) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(provider)
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .user_agent(concat!("nodeforge/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .build();
        Self { agent: config.new_agent(), retries, tell }
    }

    /// Tells the user something.
    pub fn tell(&self, note: Note) {
        (self.tell)(note);
    }

    /// Reads a small file whole; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Fails if it has more than `max_bytes`, or if all tries fail.
    pub fn read(&self, from: &Location, max_bytes: u64) -> Result<Option<Vec<u8>>> {
        let url = match from {
            Location::Http(url) => url,
            Location::Local(path) => return read_local(path, max_bytes),
        };
        self.persist(|| {
            let response = self.get(url, None)?;
            if is_absent(response.status()) {
                return Ok(None);
            }
            ensure_ok(url, &response)?;
            let mut bytes = Vec::new();
            let body = response.into_body().into_with_config().limit(u64::MAX).reader();
            body.take(max_bytes + 1)
                .read_to_end(&mut bytes)
                .map_err(|e| Failure::Passing(anyhow!(e).context(format!("reading {url}"))))?;
            within(bytes.len() as u64, max_bytes, from).map_err(Failure::Final)?;
            Ok(Some(bytes))
        })
    }

    /// Downloads a file into `part_path`, going on with what is there of an earlier try; its
    /// digest is right when this returns. Returns its length in bytes.
    ///
    /// What was resumed and turns out wrong is thrown away and fetched anew, once.
    ///
    /// # Errors
    ///
    /// Fails with a wrong digest (the part file is removed), or if all tries fail (it is kept
    /// for the next run).
    pub fn download(&self, download: &Download, part_path: &Path) -> Result<u64> {
        let mut part = Part::open(part_path)?;
        if part.digest() == download.sha256 {
            return part.finish();
        }
        let was_resumed = part.length() > 0;
        self.fill(download, &mut part)?;
        if part.digest() != download.sha256 && was_resumed {
            self.tell(Note::Info(format!(
                "{}: what an earlier run left does not fit, fetching it anew",
                download.from
            )));
            part.restart()?;
            self.fill(download, &mut part)?;
        }
        let digest = part.digest();
        if digest == download.sha256 {
            return part.finish();
        }
        let length = part.length();
        part.discard()?;
        bail!(
            "{} has the wrong digest and was thrown away: {length} bytes with sha256 {digest}, \
             expected {}; the mirror is broken or in the middle of an update, or something on \
             the way changed the file: try again later or use another mirror",
            download.from,
            download.sha256
        )
    }

    /// Brings `part` to the end of the file, by as many tries as it takes.
    fn fill(&self, download: &Download, part: &mut Part) -> Result<()> {
        let url = match download.from {
            Location::Http(url) => url,
            Location::Local(path) => return copy_local(path, download, part),
        };
        let mut failures = 0;
        loop {
            let before = part.length();
            let error = match self.advance(url, download, part) {
                Ok(()) => return Ok(()),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(error)) => error,
            };
            if part.length().saturating_sub(before) >= PROGRESS_BYTES {
                failures = 0;
            }
            failures += 1;
            if failures >= self.retries.tries {
                return Err(error.context(format!(
                    "giving up on {url} after {failures} tries; {} bytes are kept, run it again \
                     to go on from there",
                    part.length()
                )));
            }
            self.wait(failures, &error);
        }
    }

    /// One request for what `part` lacks.
    fn advance(&self, url: &str, download: &Download, part: &mut Part) -> Result<(), Failure> {
        let response = self.get(url, Some(part))?;
        let total = match response.status() {
            StatusCode::PARTIAL_CONTENT => match content_range(&response) {
                Some((start, total)) if start == part.length() => total,
                _ => {
                    part.restart().map_err(Failure::Final)?;
                    return Err(Failure::Passing(anyhow!("{url} answered with another range")));
                }
            },
            // Nothing lies behind what we have: it is whole, or of another file. The digest
            // tells; either way there is nothing more to ask for.
            StatusCode::RANGE_NOT_SATISFIABLE if part.length() > 0 => return Ok(()),
            status if is_absent(status) => {
                return Err(Failure::Final(anyhow!("{url} does not exist ({status})")));
            }
            _ => {
                ensure_ok(url, &response)?;
                part.restart().map_err(Failure::Final)?;
                response.body().content_length()
            }
        };
        part.remember(url, validator(&response)).map_err(Failure::Final)?;
        if let Some(total) = total {
            within(total, download.max_bytes, download.from).map_err(Failure::Final)?;
            part.ensure_room(total - part.length().min(total)).map_err(Failure::Final)?;
        }
        let name = url.rsplit('/').next().unwrap_or(url);
        let progress = Progress::start(name, total, Unit::Bytes);
        progress.advance(part.length());
        let body = response.into_body().into_with_config().limit(u64::MAX).reader();
        let outcome = receive(body, url, download, part, &progress);
        progress.finish();
        outcome?;
        match total {
            Some(total) if part.length() < total => Err(Failure::Passing(anyhow!(
                "{url} ended after {} of {total} bytes",
                part.length()
            ))),
            _ => Ok(()),
        }
    }

    /// Sends a request; with a `part` that has bytes, for those behind them.
    fn get(&self, url: &str, part: Option<&Part>) -> Result<Response<ureq::Body>, Failure> {
        let is_https = url.to_ascii_lowercase().starts_with("https://");
        let mut request = self.agent.get(url).config().https_only(is_https).build();
        if let Some(part) = part.filter(|part| part.length() > 0) {
            request = request.header(header::RANGE, format!("bytes={}-", part.length()));
            if let Some(validator) = part.validator_for(url) {
                request = request.header(header::IF_RANGE, validator);
            }
        }
        request.call().map_err(|error| {
            let is_passing = is_passing(&error);
            let error = anyhow!(error).context(format!("asking for {url}"));
            if is_passing { Failure::Passing(error) } else { Failure::Final(error) }
        })
    }

    /// Repeats `request` while it fails in a way that may pass.
    fn persist<T>(&self, request: impl Fn() -> Result<T, Failure>) -> Result<T> {
        let mut failures = 0;
        loop {
            let error = match request() {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(error)) => error,
            };
            failures += 1;
            if failures >= self.retries.tries {
                return Err(error.context(format!("giving up after {failures} tries")));
            }
            self.wait(failures, &error);
        }
    }

    fn wait(&self, failures: u32, error: &anyhow::Error) {
        let delay = self.retries.delay(failures);
        self.tell(Note::Info(format!(
            "{error:#}; trying again in {} s ({failures} of {})",
            delay.as_secs(),
            self.retries.tries - 1
        )));
        thread::sleep(delay);
    }
}

/// Appends `body` to `part`.
fn receive(
    mut body: impl Read,
    url: &str,
    download: &Download,
    part: &mut Part,
    progress: &Progress,
) -> Result<(), Failure> {
    let mut piece = vec![0; 128 * 1024];
    loop {
        let count = match body.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let place = format!("reading {url} at byte {}", part.length());
                return Err(Failure::Passing(anyhow!(error).context(place)));
            }
        };
        within(part.length() + count as u64, download.max_bytes, download.from)
            .map_err(Failure::Final)?;
        part.append(&piece[..count]).map_err(Failure::Final)?;
        progress.advance(count as u64);
    }
}

fn read_local(path: &Path, max_bytes: u64) -> Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.with_context(|| format!("opening {}", path.display()))?,
    };
    let mut bytes = Vec::new();
    file.take(max_bytes + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("reading {}", path.display()))?;
    within(bytes.len() as u64, max_bytes, &Location::Local(path.to_owned()))?;
    Ok(Some(bytes))
}

/// Copies a local file into `part`, from its beginning.
fn copy_local(path: &Path, download: &Download, part: &mut Part) -> Result<()> {
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let length = fs::metadata(path).with_context(|| format!("reading {}", path.display()))?.len();
    within(length, download.max_bytes, download.from)?;
    part.restart()?;
    part.ensure_room(length)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let progress = Progress::start(&name, Some(length), Unit::Bytes);
    let outcome = part.append_all(&mut file, &path.display().to_string(), &progress);
    progress.finish();
    outcome
}

fn within(length: u64, max_bytes: u64, from: &Location) -> Result<()> {
    if length > max_bytes {
        bail!("{from} is longer than the {max_bytes} bytes that such a file may have");
    }
    Ok(())
}

fn is_absent(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

fn ensure_ok(url: &str, response: &Response<ureq::Body>) -> Result<(), Failure> {
    let status = response.status();
    let is_passing = status.is_server_error()
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    let error = || anyhow!("{url}: the server answers {status}");
    match status {
        StatusCode::OK => Ok(()),
        _ if is_passing => Err(Failure::Passing(error())),
        _ => Err(Failure::Final(error())),
    }
}

/// Whether another try may end otherwise; a refused certificate or a broken URL stays so.
fn is_passing(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Io(error) => error.kind() != io::ErrorKind::InvalidData,
        ureq::Error::Timeout(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Protocol(_) => true,
        _ => false,
    }
}

/// What `If-Range` can name the file by: a strong entity tag, else its date (RFC 9110
/// §13.1.5 forbids weak tags there).
fn validator(response: &Response<ureq::Body>) -> Option<&str> {
    let value = |name| response.headers().get(name)?.to_str().ok();
    value(header::ETAG).filter(|tag| tag.starts_with('"')).or_else(|| value(header::LAST_MODIFIED))
}

/// The first byte and the whole length by `Content-Range: bytes 5-9/10` (RFC 9110 §14.4).
fn content_range(response: &Response<ureq::Body>) -> Option<(u64, Option<u64>)> {
    let value = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-')?.0.parse().ok()?;
    Some((start, total.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_half_a_minute() {
        let retries = Retries { tries: 9, first_delay: Duration::from_secs(1) };
        let delays: Vec<u64> = (1..=7).map(|failures| retries.delay(failures).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
    }
}
