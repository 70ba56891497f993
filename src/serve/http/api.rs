//! What the status page, `status` and monitoring read. Public, and read-only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};

use crate::serve::http::body::Body;
use crate::serve::http::{refused, respond};
use crate::serve::status::{self, ClusterStatus};
use crate::serve::{Refusal, Server};

/// How many may follow the events at once.
const MAX_FOLLOWERS: u64 = 256;

/// A follower hears something at least this often, so that a dead one is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// `GET /api/v1/cluster`.
pub fn cluster(server: &Server) -> Response<Body> {
    json(&ClusterStatus::of(&server.catalog(), |node| server.store.record(node)))
}

/// `GET /api/v1/nodes`.
pub fn nodes(server: &Server) -> Response<Body> {
    json(&status::rows(&server.catalog(), |node| server.store.record(node)))
}

/// `GET /api/v1/nodes/NAME`.
pub fn node(server: &Server, name: &str) -> Response<Body> {
    let catalog = server.catalog();
    let Some(entry) = catalog.node(name) else { return refused(&Refusal::Unknown) };
    let record = server.store.record(name);
    match server.store.timeline(name) {
        Ok(timeline) => json(&status::NodeStatus::of(name, entry, &record, timeline)),
        Err(fault) => refused(&Refusal::NotReady(format!("{fault:#}"))),
    }
}

/// `GET /api/v1/failures`: the nodes that failed, with the reason and the end of the log.
pub fn failures(server: &Server) -> Response<Body> {
    #[derive(Serialize)]
    struct Failure<'a> {
        #[serde(flatten)]
        row: status::Row<'a>,
        log: Vec<String>,
    }
    let catalog = server.catalog();
    let rows = status::rows(&catalog, |node| server.store.record(node));
    let failed = rows.into_iter().filter(|row| row.state == crate::serve::machine::State::Failed);
    let log = |node: &str| {
        let timeline = server.store.timeline(node).unwrap_or_default();
        status::log_of(&timeline)
    };
    json(&failed.map(|row| Failure { log: log(row.name), row }).collect::<Vec<_>>())
}

/// `GET /api/v1/events`: server-sent events (HTML Standard §9.2). `event: node` has one node's
/// row whenever it changes; `event: reload` says that some were missed, or that another
/// generation is served now.
pub fn events(server: &Arc<Server>, stop: watch::Receiver<bool>) -> Response<Body> {
    if server.followers.fetch_add(1, Ordering::Relaxed) >= MAX_FOLLOWERS {
        server.followers.fetch_sub(1, Ordering::Relaxed);
        return refused(&Refusal::NotReady("too many follow the events already".to_owned()));
    }
    let (send, receive) = mpsc::channel(16);
    let (for_task, changes) = (Arc::clone(server), server.store.changes());
    tokio::spawn(async move {
        follow(&for_task, changes, &send, stop).await;
        for_task.followers.fetch_sub(1, Ordering::Relaxed);
    });
    let mut response = respond(StatusCode::OK, "text/event-stream", Bytes::new());
    *response.body_mut() = Body::Events(receive);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn follow(
    server: &Server,
    mut changes: broadcast::Receiver<Arc<str>>,
    send: &mpsc::Sender<Bytes>,
    mut stop: watch::Receiver<bool>,
) {
    let mut generation = server.catalog().number();
    // The browser comes back after this many milliseconds.
    if send.send(Bytes::from_static(b"retry: 2000\n\n")).await.is_err() {
        return;
    }
    loop {
        let change = tokio::select! {
            change = tokio::time::timeout(HEARTBEAT, changes.recv()) => change,
            _ = stop.wait_for(|stop| *stop) => return,
            () = send.closed() => return,
        };
        let catalog = server.catalog();
        let mut text = String::new();
        if catalog.number() != generation {
            generation = catalog.number();
            text.push_str("event: reload\ndata: {}\n\n");
        }
        match change {
            Err(_) => text.push_str(": still there\n\n"),
            Ok(Err(RecvError::Closed)) => return,
            Ok(Err(RecvError::Lagged(_))) => text.push_str("event: reload\ndata: {}\n\n"),
            Ok(Ok(node)) => {
                let mut nodes = BTreeSet::from([node]);
                while let Ok(node) = changes.try_recv() {
                    nodes.insert(node);
                }
                for node in nodes {
                    let Some(entry) = catalog.node(&node) else { continue };
                    let record = server.store.record(&node);
                    let row = serde_json::to_string(&status::row(&node, entry, &record));
                    _ = write!(text, "event: node\ndata: {}\n\n", row.expect("a row is JSON"));
                }
            }
        }
        if send.send(text.into()).await.is_err() {
            return;
        }
    }
}

/// `GET /metrics`: Prometheus's text format, version 0.0.4.
pub fn metrics(server: &Server) -> Response<Body> {
    let counts = &server.counts;
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let cluster = ClusterStatus::of(&server.catalog(), |node| server.store.record(node));
    let mut text = String::new();
    metric(
        &mut text,
        "nodeforge_nodes",
        "gauge",
        "Nodes by state.",
        &labelled("state", &cluster.counts),
    );
    let plain = |value| vec![(String::new(), value)];
    for (name, help, value) in [
        ("nodeforge_http_requests_total", "Requests answered.", of(&counts.requests)),
        ("nodeforge_http_refused_total", "Requests answered with 4xx or 5xx.", of(&counts.refused)),
        (
            "nodeforge_tls_failed_total",
            "Connections that did not agree on TLS.",
            of(&counts.tls_failed),
        ),
        ("nodeforge_http_bytes_total", "Bytes of files sent.", of(&counts.bytes_sent)),
        ("nodeforge_generations_total", "Generations taken up.", of(&counts.generations)),
    ] {
        metric(&mut text, name, "counter", help, &plain(value));
    }
    let events = [
        ("taken", of(&counts.events)),
        ("without_token", of(&counts.events_without_token)),
        ("foreign", of(&counts.events_foreign)),
        ("malformed", of(&counts.events_malformed)),
        ("oversized", of(&counts.events_oversized)),
    ];
    let events: Vec<(String, u64)> = events
        .into_iter()
        .map(|(outcome, value)| (format!("{{outcome=\"{outcome}\"}}"), value))
        .collect();
    metric(&mut text, "nodeforge_events_total", "counter", "Events posted, by outcome.", &events);
    for (name, help, value) in [
        ("nodeforge_downloads", "Files being sent in pieces.", of(&counts.downloads)),
        ("nodeforge_generation", "The generation that is served.", server.catalog().number()),
    ] {
        metric(&mut text, name, "gauge", help, &plain(value));
    }
    respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
}

fn labelled(label: &str, counts: &BTreeMap<&'static str, u64>) -> Vec<(String, u64)> {
    counts.iter().map(|(value, count)| (format!("{{{label}=\"{value}\"}}"), *count)).collect()
}

fn metric(text: &mut String, name: &str, kind: &str, help: &str, values: &[(String, u64)]) {
    _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in values {
        _ = writeln!(text, "{name}{labels} {value}");
    }
}

fn json(value: &impl Serialize) -> Response<Body> {
    let text = serde_json::to_vec(value).expect("what is told of nodes is JSON");
    let mut response = respond(StatusCode::OK, "application/json", text);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
