//! Files over HTTP: conditions and parts (RFC 9110 §13, §14).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue,
    IF_NONE_MATCH, IF_RANGE, RANGE,
};
use hyper::{Method, Response, StatusCode};

use crate::serve::catalog::Catalog;
use crate::serve::http::body::Body;
use crate::serve::http::{Asked, asker, refused, respond};
use crate::serve::{Asker, Contents, Refusal, Served, Server};

/// Answers with the file of `path`, or says why not.
pub async fn send(server: &Arc<Server>, path: &str, asked: &Asked) -> Response<Body> {
    let asker = asker(asked.request.headers(), asked.request.method(), asked.peer);
    let by_mac;
    let path = match path {
        "kickstart" => match kickstart_of(&server.catalog(), &asker) {
            Ok(path) => {
                by_mac = path;
                by_mac.as_str()
            }
            Err(refusal) => return refused(&refusal),
        },
        path => path,
    };
    match server.fetch(path, &asker).await {
        Ok(served) => respond_with(server, path, served, asked),
        Err(refusal) => refused(&refusal),
    }
}

/// The path of the kickstart of the machine that says who it is by `X-RHN-Provisioning-MAC-0`.
fn kickstart_of(catalog: &Catalog, asker: &Asker<'_>) -> Result<String, Refusal> {
    if asker.macs.is_empty() {
        let why = "this needs X-RHN-Provisioning-MAC-0: inst.ks.sendmac on the kernel line";
        return Err(Refusal::Forbidden(why.to_owned()));
    }
    let node = asker.macs.iter().find_map(|mac| catalog.node_of_mac(*mac));
    let node = node.ok_or_else(|| Refusal::Forbidden("no node has such a NIC".to_owned()))?;
    Ok(format!("nodes/{node}/kickstart.ks"))
}

fn respond_with(server: &Arc<Server>, path: &str, served: Served, asked: &Asked) -> Response<Body> {
    let request = &asked.request;
    let size = served.file.size;
    let digest = served.file.sha256.to_string();
    let etag = format!("\"{}\"", &digest[..32]);
    let is_private = served.is_script || path.starts_with("secret/");
    let headers = request.headers();
    let part = match wanted(headers, &etag, size) {
        Wanted::Whole => None,
        Wanted::Part(start, end) => Some((start, end)),
        Wanted::Nothing => return unchanged(&etag),
        Wanted::Impossible => return impossible(size),
    };
    let (start, length) = part.map_or((0, size), |(start, end)| (start, end - start + 1));
    let is_head = *request.method() == Method::HEAD;
    let body = match served.body {
        Contents::Bytes(bytes) => {
            let range = usize::try_from(start)
                .and_then(|start| Ok(start..start + usize::try_from(length)?));
            Body::whole(bytes.slice(range.expect("a part of what is in memory")))
        }
        Contents::File(file) => {
            match Body::of_file(server, asked.parts.as_ref(), file, start, length) {
                Ok(body) => body,
                Err(fault) => {
                    return refused(&Refusal::NotReady(format!("reading {path}: {fault}")));
                }
            }
        }
    };
    if !is_head {
        server.counts.bytes_sent.fetch_add(length, Ordering::Relaxed);
    }
    let mut response = respond(StatusCode::OK, content_type(path), bytes::Bytes::new());
    *response.body_mut() = body;
    let headers = response.headers_mut();
    put(headers, ETAG, &etag);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if is_private {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if let Some((start, end)) = part {
        put(headers, CONTENT_RANGE, &format!("bytes {start}-{end}/{size}"));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

/// How much of a file a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    /// From the first to the last byte, both included.
    Part(u64, u64),
    /// It has it.
    Nothing,
    Impossible,
}

/// RFC 9110 §13.2.2: first what the client has, then the part it wants.
fn wanted(headers: &HeaderMap, etag: &str, size: u64) -> Wanted {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if let Some(known) = text(IF_NONE_MATCH) {
        let is_known = |tag: &str| tag.trim() == "*" || tag.trim().trim_start_matches("W/") == etag;
        if known.split(',').any(is_known) {
            return Wanted::Nothing;
        }
    }
    let is_of_this = text(IF_RANGE).is_none_or(|tag| tag == etag);
    match text(RANGE).filter(|_| is_of_this) {
        Some(range) => part(range, size),
        None => Wanted::Whole,
    }
}

/// One part; several, and what nobody understands, are answered with the whole (RFC 9110 §14.2).
fn part(range: &str, size: u64) -> Wanted {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-'))
    else {
        return Wanted::Whole;
    };
    let number = |digits: &str| {
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse::<u64>().unwrap_or(u64::MAX))
    };
    match (number(first), number(last)) {
        (Some(first), None) if last.is_empty() => from_to(first, u64::MAX, size),
        (Some(first), Some(last)) if first <= last => from_to(first, last, size),
        (None, Some(0)) if first.is_empty() => Wanted::Impossible,
        (None, Some(n_last)) if first.is_empty() => {
            from_to(size.saturating_sub(n_last), u64::MAX, size)
        }
        _ => Wanted::Whole,
    }
}

fn from_to(first: u64, last: u64, size: u64) -> Wanted {
    match first < size {
        true => Wanted::Part(first, last.min(size - 1)),
        false => Wanted::Impossible,
    }
}

fn unchanged(etag: &str) -> Response<Body> {
    let mut response = respond(StatusCode::NOT_MODIFIED, "text/plain", bytes::Bytes::new());
    response.headers_mut().remove(CONTENT_TYPE);
    put(response.headers_mut(), ETAG, etag);
    response
}

fn impossible(size: u64) -> Response<Body> {
    let mut response =
        respond(StatusCode::RANGE_NOT_SATISFIABLE, "text/plain", "there is no such part\n");
    put(response.headers_mut(), CONTENT_RANGE, &format!("bytes */{size}"));
    response
}

fn put(headers: &mut HeaderMap, name: hyper::header::HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("digits and quotes make a header");
    headers.insert(name, value);
}

/// UEFI's HTTP boot takes a boot program by its type or its name (UEFI 2.10 §24.7.3.1).
fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "efi" => "application/efi",
        "json" => "application/json",
        "ks" | "ipxe" | "cfg" | "conf" | "default" | "sha256" => "text/plain; charset=utf-8",
        "gz" => "application/gzip",
        "xml" => "application/xml",
        "rpm" => "application/x-rpm",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_rfc_9110() {
        for (range, wanted) in [
            ("bytes=0-0", Wanted::Part(0, 0)),
            ("bytes=0-", Wanted::Part(0, 9)),
            ("bytes=3-5", Wanted::Part(3, 5)),
            ("bytes=3-99", Wanted::Part(3, 9)),
            ("bytes=-4", Wanted::Part(6, 9)),
            ("bytes=-40", Wanted::Part(0, 9)),
            ("bytes=-0", Wanted::Impossible),
            ("bytes=10-", Wanted::Impossible),
            ("bytes=99999999999999999999-", Wanted::Impossible),
            ("bytes=5-3", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
        ] {
            assert_eq!(part(range, 10), wanted, "{range}");
        }
        assert_eq!(part("bytes=0-", 0), Wanted::Impossible);
    }

    #[test]
    fn what_is_known_is_not_sent_again_and_parts_are_of_what_is_known() {
        type Pairs = Vec<(hyper::header::HeaderName, &'static str)>;
        let headers = |pairs: &Pairs| -> HeaderMap {
            let pair = |(name, value): &(hyper::header::HeaderName, &'static str)| {
                (name.clone(), HeaderValue::from_static(value))
            };
            pairs.iter().map(pair).collect()
        };
        for (pairs, expected) in [
            (vec![], Wanted::Whole),
            (vec![(IF_NONE_MATCH, "\"x\", W/\"tag\"")], Wanted::Nothing),
            (vec![(IF_NONE_MATCH, "\"x\"")], Wanted::Whole),
            (vec![(RANGE, "bytes=1-2"), (IF_RANGE, "\"tag\"")], Wanted::Part(1, 2)),
            (vec![(RANGE, "bytes=1-2"), (IF_RANGE, "\"old\"")], Wanted::Whole),
            (vec![(RANGE, "bytes=1-2"), (IF_NONE_MATCH, "\"tag\"")], Wanted::Nothing),
        ] {
            assert_eq!(wanted(&headers(&pairs), "\"tag\"", 10), expected, "{pairs:?}");
        }
    }
}
