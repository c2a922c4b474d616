//! Two processes on one model, and a process that is killed.
use crate::model::{Model, Seen, hub, part_of};
use crate::server::{Fault, Server};
use amoeba_hub::PullOptions;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CHILD: &str = "AMOEBA_HUB_TEST_CHILD";

/// Not a test of its own: started by the others as a process that pulls.
#[test]
fn child() {
    let Ok(arguments) = std::env::var(CHILD) else { return };
    let (url, cache) = arguments.split_once(' ').unwrap();
    hub(Path::new(cache), url).pull("o/m", &PullOptions::default(), &mut ()).unwrap();
}

/// The child inherits nothing but what its command line gives it.
fn start(server: &Server, cache: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["processes::child", "--exact"])
        .env(CHILD, format!("{} {}", server.url, cache.display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_killed_pull_is_resumed_by_the_next() {
    let (cache, model) = (tempfile::tempdir().unwrap(), Model::small());
    let server = Server::new(model.clone());
    server.fault(Model::WEIGHTS, Fault::Stall(300_000));
    let mut child = start(&server, cache.path());
    let part = part_of(cache.path(), &model);
    wait_until("the child has written", || part.metadata().is_ok_and(|m| m.len() == 300_000));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!cache.path().join("models--o--m/refs/main").exists());

    let mut seen = Seen::default();
    let dir = hub(cache.path(), &server.url).pull("o/m", &PullOptions::default(), &mut seen).unwrap();
    assert_eq!(std::fs::read(dir.join(Model::WEIGHTS)).unwrap(), model.weights());
    let ranges: Vec<_> = server.requests(Model::WEIGHTS).iter().map(|r| r.range).collect();
    assert_eq!(ranges, [None, Some(300_000)]);
    assert!(seen.notes.is_empty(), "the lock of a killed process is free: {:?}", seen.notes);
}

#[test]
fn two_processes_fetch_each_file_once() {
    let (cache, model) = (tempfile::tempdir().unwrap(), Model::small());
    let server = Server::new(model.clone());
    // The first to come holds the lock until its connection is given up and resumed.
    server.fault(Model::WEIGHTS, Fault::Stall(1000));
    let mut children = [start(&server, cache.path()), start(&server, cache.path())];
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    let ranges: Vec<_> = server.requests(Model::WEIGHTS).iter().map(|r| r.range).collect();
    assert_eq!(ranges, [None, Some(1000)]);
    assert_eq!(server.requests("config.json").len(), 1);
}

#[test]
fn who_waits_is_told() {
    let (cache, model) = (tempfile::tempdir().unwrap(), Model::small());
    let server = Server::new(model.clone());
    server.fault(Model::WEIGHTS, Fault::Stall(1000));
    let mut child = start(&server, cache.path());
    wait_until("the child has the lock", || part_of(cache.path(), &model).exists());
    let mut seen = Seen::default();
    hub(cache.path(), &server.url).pull("o/m", &PullOptions::default(), &mut seen).unwrap();
    assert!(seen.notes[0].contains("waiting"), "{:?}", seen.notes);
    assert_eq!(seen.plan.unwrap().fetch_bytes, 0, "the plan is made after the wait");
    assert!(child.wait().unwrap().success());
}
