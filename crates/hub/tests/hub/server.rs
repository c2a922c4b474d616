//! A fake Hub on 127.0.0.1: a listing, files with ranges, redirects, and faults on demand.
use crate::model::Model;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the server does instead of a proper answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status with these extra header lines and no body.
    Status(u16, String),
    /// Close after this many bytes of the body.
    Cut(usize),
    /// Send this many bytes of the body, then neither send nor close.
    Stall(usize),
    /// Flip the bits of the first byte.
    Corrupt,
    /// Send more bytes than there are.
    TooLong,
    /// Answer 200 and the whole file to a range.
    NoRange,
    /// Answer 206 with another range than asked for.
    OtherRange,
    /// Answer 206 with bytes and tag of another state of the file, as a server that ignores If-Range.
    Changed,
    /// Send this many bytes, then one every tenth of a second.
    Drip(usize),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    pub range: Option<usize>,
    pub if_range: Option<String>,
    pub authorization: Option<String>,
}

struct State {
    model: Model,
    faults: Mutex<Vec<(String, Fault)>>,
    log: Mutex<Vec<Request>>,
}

/// The server; its threads end with the test process.
pub struct Server {
    pub url: String,
    state: Arc<State>,
}

impl Server {
    pub fn new(model: Model) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State { model, faults: Mutex::default(), log: Mutex::default() });
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                std::thread::spawn(move || serve(&state, stream));
            }
        });
        Server { url, state }
    }

    /// The next request whose path contains `path` meets this fault; faults on one path queue up.
    pub fn fault(&self, path: &str, fault: Fault) -> &Self {
        self.state.faults.lock().unwrap().push((path.to_owned(), fault));
        self
    }

    /// The requests so far whose path contains `path`.
    pub fn requests(&self, path: &str) -> Vec<Request> {
        self.state.log.lock().unwrap().iter().filter(|r| r.path.contains(path)).cloned().collect()
    }
}

fn serve(state: &State, mut stream: TcpStream) {
    let Some(request) = read_request(&stream) else { return };
    state.log.lock().unwrap().push(request.clone());
    let fault = {
        let mut faults = state.faults.lock().unwrap();
        let at = faults.iter().position(|(path, _)| request.path.contains(path.as_str()));
        at.map(|at| faults.remove(at).1)
    };
    let _ = match fault {
        Some(Fault::Status(status, headers)) => head(&mut stream, status, &headers, 0),
        fault => answer(state, &request, fault, &mut stream),
    };
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let mut request = Request { path, range: None, if_range: None, authorization: None };
    for line in lines.take_while(|line| !line.is_empty()) {
        let Some((name, value)) = line.split_once(": ") else { continue };
        match name.to_ascii_lowercase().as_str() {
            "range" => request.range = value.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok(),
            "if-range" => request.if_range = Some(value.to_owned()),
            "authorization" => request.authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    Some(request)
}

fn answer(
    state: &State,
    request: &Request,
    fault: Option<Fault>,
    out: &mut TcpStream,
) -> std::io::Result<()> {
    let Some(mut body) = state.model.body(&request.path) else { return head(out, 404, "", 0) };
    let total = body.len();
    let mut start = request.range.unwrap_or(0);
    match fault {
        Some(Fault::NoRange) => start = 0,
        Some(Fault::OtherRange) => start -= 1,
        Some(Fault::Corrupt) => body[0] ^= 0xff,
        Some(Fault::TooLong) => body.push(0),
        Some(Fault::Changed) => body.iter_mut().for_each(|byte| *byte ^= 0xff),
        _ => {}
    }
    if start > total {
        return head(out, 416, "", 0);
    }
    let body = &body[start..];
    let tag = format!("ETag: \"{}\"\r\n", if matches!(fault, Some(Fault::Changed)) { "new" } else { "old" });
    match start {
        0 => head(out, 200, &tag, body.len())?,
        _ => {
            let range = format!("{tag}Content-Range: bytes {start}-{}/{total}\r\n", total - 1);
            head(out, 206, &range, body.len())?;
        }
    }
    match fault {
        Some(Fault::Cut(bytes)) => out.write_all(&body[..bytes.min(body.len())]),
        Some(Fault::Stall(bytes)) => {
            out.write_all(&body[..bytes.min(body.len())])?;
            std::thread::sleep(Duration::from_secs(30));
            Ok(())
        }
        Some(Fault::Drip(bytes)) => {
            out.write_all(&body[..bytes.min(body.len())])?;
            body[bytes.min(body.len())..].chunks(1).try_for_each(|byte| {
                std::thread::sleep(Duration::from_millis(100));
                out.write_all(byte)
            })
        }
        _ => out.write_all(body),
    }
}

fn head(out: &mut TcpStream, status: u16, headers: &str, length: usize) -> std::io::Result<()> {
    write!(out, "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n")
}
