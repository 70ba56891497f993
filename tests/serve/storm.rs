//! Five hundred machines that are switched on at once.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use super::{Server, read_all, word};
use crate::examples::{copy_with_secrets, printed};
use crate::support;

/// Asks once over a connection of its own; the body of a good answer.
fn ask(address: &str, line: &str, token: &str, body: &str) -> Result<String, String> {
    let mut stream = TcpStream::connect(address).map_err(|fault| fault.to_string())?;
    let request = format!(
        "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).map_err(|fault| fault.to_string())?;
    let answer = String::from_utf8_lossy(&read_all(stream)).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    match head.split(' ').nth(1) {
        Some("200" | "204") => Ok(body.to_owned()),
        _ => Err(head.to_owned()),
    }
}

/// What one node does: script, kickstart, overlay, event.
fn boot(address: &str, node: &str, mac: &str) -> Result<(), String> {
    let get = |path: &str| ask(address, &format!("GET /{path}"), "-", "");
    let script = get(&format!("pxe/ipxe/{}.ipxe", mac.replace(':', "-")))?;
    let token = word(&script, "nodeforge.event_token").ok_or("no token")?;
    get(&format!("nodes/{node}/kickstart.ks"))?;
    get(&format!("nodes/{node}/overlay.tar.gz"))?;
    let event = format!(r#"{{"node":"{node}","step":"disk","state":"ended","message":"fresh"}}"#);
    ask(address, "POST /events", token, &event).map(|_| ())
}

#[test]
fn five_hundred_nodes_at_once_are_all_served() {
    let lab = support::scratch();
    copy_with_secrets(lab.path(), "titan.toml");
    printed(lab.path(), &["build", "titan.toml"]);
    let server =
        Server::start(lab.path(), &["serve", "out", "--forwarded", "--listen", "127.0.0.1:0"]);
    printed(lab.path(), &["arm", "srv[001-512]"]);
    let nodes = server.json("api/v1/nodes");
    let nodes: Vec<(String, String)> = nodes
        .as_array()
        .unwrap()
        .iter()
        .filter(|node| node["state"] == "armed")
        .map(|node| (node["name"].as_str().unwrap().into(), node["mac"].as_str().unwrap().into()))
        .collect();
    assert_eq!(nodes.len(), 512);
    let (address, faults) = (server.address(), Mutex::new(Vec::new()));
    let began = Instant::now();
    thread::scope(|scope| {
        for (node, mac) in &nodes {
            let faults = &faults;
            scope.spawn(move || {
                if let Err(fault) = boot(address, node, mac) {
                    faults.lock().unwrap().push(format!("{node}: {fault}"));
                }
            });
        }
    });
    eprintln!("512 nodes: {:.2} s", began.elapsed().as_secs_f64());
    assert_eq!(faults.into_inner().unwrap(), [""; 0]);
    assert_eq!(server.json("api/v1/cluster")["counts"]["installing"], 512);
}
