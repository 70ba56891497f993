//! HTTP: connections, limits, and which request goes where.
//!
//! Everything a stranger can make us hold is bounded: connections, header bytes and the time
//! they may take, bodies, and how long a reader may stand still.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::net::MacAddr;
use crate::serve::http::body::Body;
use crate::serve::http::direct::{Direct, Parts};
use crate::serve::http::patient::Patient;
use crate::serve::{Asker, Refusal, Server};

mod api;
mod body;
mod direct;
mod events;
mod files;
mod patient;

/// How long a connection may take for its headers, and stand idle between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(20);

/// How long TLS may take to agree.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a reader may take nothing at all.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Request line and headers together.
const MAX_HEADER_BYTES: usize = 16 << 10;

/// The page, all in one file.
const PAGE: &str = include_str!("../page/index.html");

/// How HTTP is served.
pub struct Settings {
    pub tls: Option<TlsAcceptor>,
    /// The path of `boot.url`, without a slash at the end: empty for most.
    pub prefix: String,
    /// One for each connection that may be open at once.
    pub slots: Arc<Semaphore>,
}

/// Serves until `stop` says true, then finishes what is being sent.
///
/// # Errors
///
/// Fails if the listener does.
pub async fn serve(
    server: Arc<Server>,
    listener: TcpListener,
    settings: Arc<Settings>,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let slot = tokio::select! {
            slot = Arc::clone(&settings.slots).acquire_owned() => slot?,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            // Out of file descriptors, or gone before it was accepted: others may do better.
            Err(fault) => {
                eprintln!("warning: accepting a connection: {fault}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (server, settings, stop) = (Arc::clone(&server), Arc::clone(&settings), stop.clone());
        connections.spawn(async move {
            let _slot = slot;
            match &settings.tls {
                None => {
                    let parts = Parts::default();
                    let stream = Direct::new(stream, parts.clone());
                    talk(server, &settings, stream, Some(parts), peer, stop).await;
                }
                Some(tls) => {
                    let agreed = tokio::time::timeout(TLS_TIMEOUT, tls.accept(stream)).await;
                    match agreed {
                        Ok(Ok(stream)) => talk(server, &settings, stream, None, peer, stop).await,
                        Ok(Err(fault)) => tell_of_tls(&server, peer, &fault),
                        Err(_) => {}
                    }
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// A node that does not trust the certificate looks like one that is switched off. Told ever more
/// rarely: port scanners and health checks come here, too.
fn tell_of_tls(server: &Server, peer: SocketAddr, fault: &std::io::Error) {
    let n_failed = server.counts.tls_failed.fetch_add(1, Ordering::Relaxed) + 1;
    if n_failed.is_power_of_two() {
        eprintln!(
            "warning: TLS with {} failed ({n_failed} in all): {fault}",
            peer.ip().to_canonical()
        );
    }
}

/// One connection, to its end. `parts` are what `stream` sends by itself.
async fn talk<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    server: Arc<Server>,
    settings: &Arc<Settings>,
    stream: S,
    parts: Option<Parts>,
    peer: SocketAddr,
    mut stop: watch::Receiver<bool>,
) {
    let stream = TokioIo::new(Patient::new(stream, WRITE_TIMEOUT));
    let until_stop = stop.clone();
    let service = service_fn(move |request| {
        let (server, settings) = (Arc::clone(&server), Arc::clone(settings));
        let (parts, stop) = (parts.clone(), until_stop.clone());
        async move {
            let asked = Asked { request, peer: peer.ip(), parts };
            Ok::<_, std::convert::Infallible>(answer(&server, &settings, asked, stop).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // GRUB 2.02 to 2.06 know `Content-Length` in this spelling only, and otherwise take a
        // file for one of unknown size: "overflow is detected" (grub-core/net/http.c).
        .title_case_headers(true)
        .writev(true)
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(stream, service);
    let mut connection = std::pin::pin!(connection);
    let is_over = tokio::select! {
        // What goes wrong on a connection is between its two ends.
        _ = connection.as_mut() => true,
        _ = stop.wait_for(|stop| *stop) => false,
    };
    if !is_over {
        connection.as_mut().graceful_shutdown();
        _ = connection.await;
    }
}

/// A request, and the connection it came by.
struct Asked {
    request: Request<Incoming>,
    peer: IpAddr,
    parts: Option<Parts>,
}

async fn answer(
    server: &Arc<Server>,
    settings: &Settings,
    asked: Asked,
    stop: watch::Receiver<bool>,
) -> Response<Body> {
    let request = &asked.request;
    server.counts.requests.fetch_add(1, Ordering::Relaxed);
    let Some(path) = path_of(request.uri().path(), &settings.prefix) else {
        return refused(&Refusal::Unknown);
    };
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if path == "metrics" || path.starts_with("api/") {
        // What another process has just changed is better told late than not at all.
        _ = server.store.refresh().await;
    }
    let response = match path.as_str() {
        "events" if request.method() == Method::POST => events::take(server, asked.request).await,
        "events" => only("POST"),
        _ if !is_read => only("GET, HEAD"),
        "" => text("text/html; charset=utf-8", PAGE),
        "metrics" => api::metrics(server),
        "api/v1/cluster" => api::cluster(server),
        "api/v1/nodes" => api::nodes(server),
        "api/v1/failures" => beside(server, api::failures).await,
        "api/v1/events" => api::events(server, stop),
        path => match path.strip_prefix("api/v1/nodes/") {
            Some(node) => {
                let node = node.to_owned();
                beside(server, move |server| api::node(server, &node)).await
            }
            None => files::send(server, path, &asked).await,
        },
    };
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        server.counts.refused.fetch_add(1, Ordering::Relaxed);
    }
    response
}

/// Answers by a thread of its own: what asks the database would have all connections of this thread
/// wait for it.
async fn beside(
    server: &Arc<Server>,
    answer: impl FnOnce(&Server) -> Response<Body> + Send + 'static,
) -> Response<Body> {
    let server = Arc::clone(server);
    let answered = tokio::task::spawn_blocking(move || answer(&server)).await;
    answered.unwrap_or_else(|fault| refused(&Refusal::NotReady(fault.to_string())))
}

/// The path below `boot.url` that is asked for: decoded (RFC 3986 §2.1), without slashes at its
/// start, as boot loaders put some there. It is a key for the manifest and nothing more.
fn path_of(path: &str, prefix: &str) -> Option<String> {
    let rest = path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
    let mut bytes = Vec::with_capacity(rest.len());
    let mut left = rest.trim_start_matches('/').bytes();
    while let Some(byte) = left.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [left.next()?, left.next()?];
                let digit = |byte: u8| char::from(byte).to_digit(16);
                u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?
            }
            byte => byte,
        });
    }
    let path = String::from_utf8(bytes).ok()?;
    Some(path.replace("//", "/"))
}

/// What follows `Authorization: Bearer` (RFC 6750 §2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Of `X-RHN-Provisioning-MAC-0: eth0 52:54:00:12:34:56`, one for each NIC, which anaconda
/// sends with `inst.ks.sendmac`.
fn provisioning_macs(headers: &HeaderMap) -> Vec<MacAddr> {
    let named =
        headers.iter().filter(|(name, _)| name.as_str().starts_with("x-rhn-provisioning-mac-"));
    let mac = |value: &HeaderValue| value.to_str().ok()?.split_whitespace().last()?.parse().ok();
    named.filter_map(|(_, value)| mac(value)).collect()
}

fn asker<'a>(headers: &'a HeaderMap, method: &Method, peer: IpAddr) -> Asker<'a> {
    Asker {
        address: Some(peer.to_canonical()),
        macs: provisioning_macs(headers),
        node: headers.get("x-nodeforge-node").and_then(|value| value.to_str().ok()),
        token: bearer(headers),
        protocol: "http",
        only_looks: *method == Method::HEAD,
    }
}

fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<bytes::Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Body::whole(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn text(content_type: &'static str, body: &'static str) -> Response<Body> {
    respond(StatusCode::OK, content_type, body)
}

fn only(methods: &'static str) -> Response<Body> {
    let mut response =
        respond(StatusCode::METHOD_NOT_ALLOWED, "text/plain", format!("only {methods}\n"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

fn refused(refusal: &Refusal) -> Response<Body> {
    let status = match refusal {
        Refusal::Unknown => StatusCode::NOT_FOUND,
        Refusal::NoToken(_) => StatusCode::UNAUTHORIZED,
        Refusal::Forbidden(_) => StatusCode::FORBIDDEN,
        Refusal::NotReady(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = respond(status, "text/plain; charset=utf-8", format!("{refusal}\n"));
    let headers = response.headers_mut();
    match refusal {
        Refusal::NotReady(_) => _ = headers.insert(RETRY_AFTER, HeaderValue::from_static("2")),
        Refusal::NoToken(_) => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        _ => {}
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_and_never_resolved() {
        for (asked, prefix, path) in [
            ("/pxe/boot.ipxe", "", Some("pxe/boot.ipxe")),
            ("//pxe//boot.ipxe", "", Some("pxe/boot.ipxe")),
            ("/boot/pxe/boot.ipxe", "/boot", Some("pxe/boot.ipxe")),
            ("/bootpxe/boot.ipxe", "/boot", None),
            ("/pxe/repos/a/x%2By.rpm", "", Some("pxe/repos/a/x+y.rpm")),
            ("/pxe/../secret/node0.tar.gz", "", Some("pxe/../secret/node0.tar.gz")),
            ("/%2e%2e/etc/shadow", "", Some("../etc/shadow")),
            ("/%zz", "", None),
            ("/%c", "", None),
            ("/%ff", "", None),
            ("/", "", Some("")),
        ] {
            assert_eq!(path_of(asked, prefix).as_deref(), path, "{asked}");
        }
    }

    #[test]
    fn macs_and_tokens_are_read_from_the_headers() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer abc"));
        headers
            .insert("X-RHN-Provisioning-MAC-0", HeaderValue::from_static("eth0 52:54:00:12:34:56"));
        headers.insert("X-RHN-Provisioning-MAC-1", HeaderValue::from_static("ib0 80:00:02"));
        assert_eq!(bearer(&headers), Some("abc"));
        assert_eq!(provisioning_macs(&headers), ["52:54:00:12:34:56".parse().unwrap()]);
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Basic abc"));
        assert_eq!(bearer(&headers), None);
    }
}
