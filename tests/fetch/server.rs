//! A small HTTP server for tests: ranges, faults on request, and a record of what it served.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What is told of one answered request: the path, the status and the bytes of the body.
pub type Served = (String, u16, usize);

/// A fault that one request meets; the next one meets the next.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// An answer without the file.
    Status(u16),
    /// The connection ends after so many bytes of the body, whatever was announced.
    CutAfter(usize),
}

#[derive(Clone, Debug, Default)]
pub struct File {
    pub body: Vec<u8>,
    pub etag: Option<String>,
    /// Answers every request with the whole file.
    pub refuses_ranges: bool,
    pub faults: VecDeque<Fault>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, File>,
    served: Vec<Served>,
}

/// Serves until the test process ends, at an address of its own.
pub struct Server {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub fn start(files: BTreeMap<String, File>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State { files, served: Vec::new() }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&shared);
                thread::spawn(move || answer(&stream.unwrap(), &state));
            }
        });
        Self { url, state }
    }

    /// Changes one file, which is made if it is not there.
    pub fn change(&self, path: &str, change: impl FnOnce(&mut File)) {
        change(self.state.lock().unwrap().files.entry(path.to_owned()).or_default());
    }

    /// What was served since the last call, in the order of the answers.
    pub fn take_served(&self) -> Vec<Served> {
        std::mem::take(&mut self.state.lock().unwrap().served)
    }
}

/// Reads one request and answers it; then the connection is closed.
fn answer(mut stream: &TcpStream, state: &Mutex<State>) {
    let lines: Vec<String> = BufReader::new(stream)
        .lines()
        .map(|line| line.unwrap_or_default())
        .take_while(|line| !line.is_empty())
        .collect();
    let Some(path) = lines.first().and_then(|line| line.split(' ').nth(1)) else { return };
    let header = |name: &str| {
        let of_name = |line: &&String| line.to_lowercase().starts_with(&format!("{name}: "));
        lines.iter().find(of_name).map(|line| line[name.len() + 2..].to_owned())
    };
    let mut state = state.lock().unwrap();
    let (head, body, announced) =
        reply(state.files.get_mut(path), header("range"), header("if-range"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    state.served.push((path.to_owned(), status, body.len()));
    drop(state);
    let head = format!("{head}\r\nContent-Length: {announced}\r\nConnection: close\r\n\r\n");
    // The client may have gone away, which is its business.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}

/// The head of the answer, the body that is sent and the length that is announced.
fn reply(
    file: Option<&mut File>,
    range: Option<String>,
    if_range: Option<String>,
) -> (String, Vec<u8>, usize) {
    let Some(file) = file else { return ("HTTP/1.1 404 Not Found".to_owned(), Vec::new(), 0) };
    let mut cut = usize::MAX;
    match file.faults.pop_front() {
        Some(Fault::Status(status)) => {
            return (format!("HTTP/1.1 {status} Fault"), Vec::new(), 0);
        }
        Some(Fault::CutAfter(bytes)) => cut = bytes,
        None => {}
    }
    let etag = file.etag.as_ref().map_or(String::new(), |etag| format!("\r\nETag: {etag}"));
    let total = file.body.len();
    let is_same = if_range.is_none() || if_range == file.etag;
    let start = range
        .filter(|_| is_same && !file.refuses_ranges)
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let (head, body) = match start {
        Some(start) if start >= total => {
            let head = format!("HTTP/1.1 416 Range\r\nContent-Range: bytes */{total}{etag}");
            return (head, Vec::new(), 0);
        }
        Some(start) => {
            let range = format!("bytes {start}-{}/{total}", total - 1);
            let head = format!("HTTP/1.1 206 Partial\r\nContent-Range: {range}{etag}");
            (head, &file.body[start..])
        }
        None => (format!("HTTP/1.1 200 OK{etag}"), &file.body[..]),
    };
    (head, body[..body.len().min(cut)].to_vec(), body.len())
}
