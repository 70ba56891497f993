//! `POST /events`: what nodes say of themselves.
//!
//! One JSON object a request, with the node's event token. An installed node numbers its
//! events (docs/firstboot.md), so that one that comes twice counts once; the installer's have
//! no number and no boot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde::Deserialize;

use crate::serve::http::body::Body;
use crate::serve::http::{bearer, refused, respond};
use crate::serve::machine::{Event, Origin};
use crate::serve::store::{Entry, Store};
use crate::serve::token::Token;
use crate::serve::{Refusal, Server, now, token};

/// The largest event of a node is some 12 KiB: 20 lines of log, each escaped.
const MAX_EVENT_BYTES: usize = 32 << 10;

/// How long the body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

const MAX_MESSAGE: usize = 4000;
const MAX_LOG_LINES: usize = 50;
const MAX_LOG_LINE: usize = 500;

/// The states that docs/firstboot.md and the kickstart's scripts know.
const STATES: [&str; 9] =
    ["started", "done", "warning", "failed", "waiting", "reboot", "ready", "ended", "refused"];

/// An event as it is posted.
#[derive(Debug, Deserialize)]
struct Posted {
    node: String,
    #[serde(default)]
    boot_id: Option<String>,
    #[serde(default)]
    seq: Option<u32>,
    step: String,
    state: String,
    #[serde(default)]
    time: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    log: Vec<String>,
}

/// Takes one event, or refuses and counts it.
pub async fn take(server: &Arc<Server>, request: Request<Incoming>) -> Response<Body> {
    let counts = &server.counts;
    let Some(token) = bearer(request.headers()).map(token::digest) else {
        add_one(&counts.events_without_token);
        return refused(&Refusal::NoToken("this needs a node's event token".to_owned()));
    };
    let body = Limited::new(request.into_body(), MAX_EVENT_BYTES).collect();
    let body = match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(fault)) if fault.is::<LengthLimitError>() => {
            add_one(&counts.events_oversized);
            let why = format!("an event has at most {MAX_EVENT_BYTES} bytes\n");
            return respond(StatusCode::PAYLOAD_TOO_LARGE, "text/plain", why);
        }
        Ok(Err(_)) | Err(_) => {
            add_one(&counts.events_malformed);
            return respond(StatusCode::REQUEST_TIMEOUT, "text/plain", "the event did not come\n");
        }
    };
    let posted = match read(&body, |node| server.tokens_of(node)) {
        Ok(posted) => posted,
        Err(why) => {
            add_one(&counts.events_malformed);
            return respond(StatusCode::BAD_REQUEST, "text/plain", format!("{why}\n"));
        }
    };
    if server.store.refresh().await.is_err() {
        return not_written();
    }
    let may_report = |node: &str| {
        server.store.with_record(node, |record| record.is_some_and(|it| it.may_report(&token)))
    };
    if !may_report(&posted.node) {
        add_one(&counts.events_foreign);
        return refused(&Refusal::Forbidden("this token is not that node's".to_owned()));
    }
    match write(&server.store, posted, token).await {
        Ok(true) => {
            add_one(&counts.events);
            respond(StatusCode::NO_CONTENT, "text/plain", Bytes::new())
        }
        Ok(false) => {
            add_one(&counts.events_foreign);
            refused(&Refusal::Forbidden("this token is not that node's".to_owned()))
        }
        Err(_) => not_written(),
    }
}

fn add_one(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

fn not_written() -> Response<Body> {
    refused(&Refusal::NotReady("the event cannot be written now".to_owned()))
}

/// Reads an event and checks what of it ends in a database, on a page and in a log: for all to see,
/// so without the node's `tokens`.
fn read(body: &[u8], tokens: impl Fn(&str) -> Vec<Token>) -> Result<Posted, String> {
    let mut posted: Posted =
        serde_json::from_slice(body).map_err(|fault| format!("this is no event: {fault}"))?;
    let is_word = |text: &str, most: usize| {
        !text.is_empty() && text.len() <= most && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if !is_word(&posted.step, 64) {
        return Err("step: 1 to 64 characters without blanks".to_owned());
    }
    if !STATES.contains(&posted.state.as_str()) {
        return Err(format!("state: one of {}", STATES.join(", ")));
    }
    if posted.boot_id.as_ref().is_some_and(|id| !is_word(id, 64)) || posted.time.len() > 40 {
        return Err("boot_id: up to 64 characters without blanks; time: up to 40".to_owned());
    }
    if posted.boot_id.is_some() != posted.seq.is_some() {
        return Err("boot_id and seq belong together".to_owned());
    }
    let tokens = tokens(&posted.node);
    let tidy = |text: &mut String, most| {
        for token in tokens.iter().map(Token::expose) {
            if text.contains(token) {
                *text = text.replace(token, "(token)");
            }
        }
        clean(text, most);
    };
    tidy(&mut posted.message, MAX_MESSAGE);
    posted.log.truncate(MAX_LOG_LINES);
    posted.log.iter_mut().for_each(|line| tidy(line, MAX_LOG_LINE));
    Ok(posted)
}

/// Control characters could repaint a terminal or break a line of the log.
fn clean(text: &mut String, most: usize) {
    *text = text.chars().take(most).map(|c| if c.is_control() { ' ' } else { c }).collect();
}

/// Writes the event; whether the token was still the node's.
async fn write(
    store: &Store,
    posted: Posted,
    token: crate::format::digest::Digest,
) -> anyhow::Result<bool> {
    let change = store.change(move |change| {
        let mut record = change.record(&posted.node);
        if !record.may_report(&token) {
            return Ok(false);
        }
        let once = posted.boot_id.clone().zip(posted.seq.map(i64::from));
        let origin = if once.is_some() { Origin::Node } else { Origin::Installer };
        let entry = Entry {
            time: now(),
            source: if origin == Origin::Node { "node" } else { "installer" }.to_owned(),
            step: posted.step.clone(),
            state: posted.state.clone(),
            detail: posted.message.clone(),
            log: posted.log,
            once,
        };
        if change.note(&posted.node, &entry)? {
            let event = Event {
                origin,
                step: posted.step,
                state: posted.state,
                message: posted.message,
                boot_id: posted.boot_id.unwrap_or_default(),
            };
            record.event(&event, now());
            change.put(&posted.node, record)?;
        }
        Ok(true)
    });
    change.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_strictly_and_cleaned() {
        let good = r#"{"node":"n","boot_id":"b","seq":1,"step":"s","state":"failed","time":"t","message":"a\u001b[2Jb","log":["x\ny"]}"#;
        let posted = read(good.as_bytes(), |_| Vec::new()).unwrap();
        assert_eq!((posted.message.as_str(), posted.log[0].as_str()), ("a [2Jb", "x y"));
        for (from, to) in [
            ("\"failed\"", "\"exploded\""),
            ("\"s\"", "\"s s\""),
            ("\"s\"", "\"\""),
            ("\"seq\":1,", ""),
            ("\"seq\":1", "\"seq\":-1"),
            ("\"seq\":1", "\"seq\":1e30"),
            ("\"node\":\"n\",", ""),
            ("[\"x\\ny\"]", "{}"),
            ("}", ""),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert!(read(bad.as_bytes(), |_| Vec::new()).is_err(), "{bad}");
        }
    }
}
