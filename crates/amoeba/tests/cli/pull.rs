//! `amoeba pull` from a server on 127.0.0.1, then `list` and `run` with what it brought.
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::{Ran, amoeba, repository};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Serves the files of a folder as the Hub does; its threads end with the test process.
fn serve(folder: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let folder = folder.clone();
            std::thread::spawn(move || answer(&folder, stream));
        }
    });
    url
}

fn answer(folder: &Path, mut stream: TcpStream) {
    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let path = lines.next().unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_owned();
    lines.for_each(drop);
    let body = match path.split_once("/resolve/").and_then(|(_, rest)| rest.split_once('/')) {
        Some((_, file)) => std::fs::read(folder.join(file)).ok(),
        None => path.starts_with("/api/models/me/tiny/").then(|| listing(folder).to_string().into_bytes()),
    };
    let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
    let body = body.unwrap_or_default();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}

fn listing(folder: &Path) -> Value {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| {
        let entry = entry.unwrap();
        json!({ "rfilename": entry.file_name().to_str().unwrap(), "size": entry.metadata().unwrap().len() })
    });
    json!({ "sha": COMMIT, "siblings": entries.collect::<Vec<_>>() })
}

#[test]
fn a_pulled_model_is_listed_and_runs_without_the_network() {
    let home = tempfile::tempdir().unwrap();
    let url = serve(PathBuf::from(repository("fixtures/qwen3_moe-q4g64")));
    let at_home = |args: &[&str]| -> Command {
        let mut command = amoeba(args);
        command.env("HF_HOME", home.path());
        command
    };
    let run = |mut command: Command| Ran::new(command.output().unwrap());

    let mut pull = at_home(&["pull", "me/tiny", "--no-verify"]);
    pull.env("HF_ENDPOINT", &url);
    let pulled =
        run(pull).expect(0, &["me/tiny at 01234567", "to fetch", "free on the disk", "model.safetensors: "]);
    let folder = pulled.out.trim_end();
    assert!(folder.ends_with(COMMIT) && Path::new(folder).join("config.json").is_file(), "{folder}");

    let mut wrong = at_home(&["pull", "me/other"]);
    wrong.env("HF_ENDPOINT", &url);
    run(wrong).expect(3, &["me/other", "404"]);

    let listed: Value = serde_json::from_str(&run(at_home(&["list", "--json"])).expect(0, &[]).out).unwrap();
    assert_eq!((&listed[0]["id"], &listed[0]["revision"]), (&json!("me/tiny"), &json!("main")));
    assert!(run(at_home(&["list"])).expect(0, &[]).out.contains("me/tiny  main"));

    let said = ["[model: me/tiny in the cache (commit 01234567)]"];
    run(at_home(&["run", "me/tiny", "Hi", "-n", "4"])).expect(0, &said);
    run(at_home(&["inspect", "me/tiny", "--check-tensors"])).expect(0, &[]);
}
