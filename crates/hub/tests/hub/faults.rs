//! Pulling from a server that does not behave: cut, slow, wrong, busy or hostile.
use crate::model::{Model, Seen, hub, part_of, put_part};
use crate::server::{Fault, Server};
use amoeba_hub::{Error, PullOptions};
use std::path::Path;

fn pull(cache: &Path, server: &Server, seen: &mut Seen) -> Result<std::path::PathBuf, Error> {
    hub(cache, &server.url).pull("o/m", &PullOptions::default(), seen)
}

/// Pulls with these faults on the weights and checks the result; the ranges that were asked for.
fn ranges_after(earlier: &[u8], faults: &[Fault]) -> (Vec<usize>, Seen) {
    let (cache, model) = (tempfile::tempdir().unwrap(), Model::small());
    let server = Server::new(model.clone());
    put_part(cache.path(), &model, earlier);
    for fault in faults {
        server.fault(Model::WEIGHTS, fault.clone());
    }
    let mut seen = Seen::default();
    let dir = pull(cache.path(), &server, &mut seen).unwrap();
    assert_eq!(std::fs::read(dir.join(Model::WEIGHTS)).unwrap(), model.weights());
    assert!(!part_of(cache.path(), &model).exists());
    (server.requests(Model::WEIGHTS).iter().map(|r| r.range.unwrap_or(0)).collect(), seen)
}

#[test]
fn a_cut_connection_is_resumed_where_it_broke() {
    let (ranges, seen) = ranges_after(&[], &[Fault::Cut(1000), Fault::Cut(500_000)]);
    assert_eq!(ranges, [0, 1000, 501_000]);
    assert_eq!(seen.notes.len(), 2, "{:?}", seen.notes);
}

#[test]
fn a_silent_server_is_left_and_resumed() {
    let (ranges, _) = ranges_after(&[], &[Fault::Stall(3000)]);
    assert_eq!(ranges, [0, 3000]);
}

#[test]
fn a_server_that_drips_is_left() {
    let (ranges, seen) = ranges_after(&[], &[Fault::Drip(200_000)]);
    assert!(
        ranges[1] >= 200_000 && seen.notes[0].contains("bytes arrived in 2 s"),
        "{ranges:?} {:?}",
        seen.notes
    );
    for (path, fault) in [("/api/", Fault::Drip(9)), (Model::WEIGHTS, Fault::Cut(1))] {
        let (cache, server) = (tempfile::tempdir().unwrap(), Server::new(Model::small()));
        (0..3).for_each(|_| _ = server.fault(path, fault.clone()));
        let error = pull(cache.path(), &server, &mut Seen::default()).unwrap_err();
        assert!(matches!(error, Error::Network { attempts: 3, .. }), "{error}");
    }
}

/// Without digests only the tag of the file tells that two connections saw two files.
#[test]
fn a_file_that_changes_between_two_connections_is_not_spliced() {
    let (cache, model) = (tempfile::tempdir().unwrap(), Model { no_digests: true, ..Model::small() });
    let server = Server::new(model.clone());
    server.fault(Model::WEIGHTS, Fault::Cut(1000)).fault(Model::WEIGHTS, Fault::Changed);
    let options = PullOptions { no_verify: true, ..PullOptions::default() };
    let dir = hub(cache.path(), &server.url).pull("o/m", &options, &mut ()).unwrap();
    assert_eq!(std::fs::read(dir.join(Model::WEIGHTS)).unwrap(), model.weights());
    let asked = server.requests(Model::WEIGHTS);
    let asked: Vec<_> = asked.iter().map(|r| (r.range.unwrap_or(0), r.if_range.as_deref())).collect();
    assert_eq!(asked, [(0, None), (1000, Some("\"old\"")), (0, None)]);
}

#[test]
fn what_an_earlier_run_left_is_used() {
    let model = Model::small();
    let (ranges, seen) = ranges_after(&model.weights()[..600_000], &[]);
    assert_eq!(ranges, [600_000]);
    let plan = seen.plan.unwrap();
    assert_eq!(plan.total_bytes - plan.fetch_bytes, 600_000);
    assert!(ranges_after(model.weights(), &[]).0.is_empty(), "whole already: only verified");
}

#[test]
fn a_part_that_is_too_long_starts_again() {
    assert_eq!(ranges_after(&vec![7; 1_000_001], &[]).0, [0]);
}

#[test]
fn servers_without_or_with_odd_ranges_start_again() {
    let model = Model::small();
    assert_eq!(ranges_after(&model.weights()[..500], &[Fault::NoRange]).0, [500]);
    assert_eq!(ranges_after(&model.weights()[..500], &[Fault::OtherRange]).0, [500, 0]);
    assert_eq!(ranges_after(&model.weights()[..500], &[Fault::Status(416, String::new())]).0, [500, 0]);
}

#[test]
fn wrong_bytes_are_dropped_and_never_appear() {
    for file in [Model::WEIGHTS, "config.json"] {
        let (cache, model) = (tempfile::tempdir().unwrap(), Model::small());
        let server = Server::new(model.clone());
        server.fault(file, Fault::Corrupt);
        let error = pull(cache.path(), &server, &mut Seen::default()).unwrap_err();
        assert!(matches!(&error, Error::Checksum { file: f, .. } if f == file), "{error}");
        assert!(!part_of(cache.path(), &model).exists());
        let root = cache.path().join("models--o--m");
        assert!(!root.join("snapshots").join(Model::COMMIT).join(file).exists());
        assert!(!root.join("refs/main").exists(), "no reference to an unfinished snapshot");
        pull(cache.path(), &server, &mut Seen::default()).unwrap();
    }
}

#[test]
fn a_body_longer_than_listed_is_refused() {
    let (cache, model) = (tempfile::tempdir().unwrap(), Model::small());
    let server = Server::new(model);
    server.fault(Model::WEIGHTS, Fault::TooLong);
    let error = pull(cache.path(), &server, &mut Seen::default()).unwrap_err();
    assert!(error.to_string().contains("longer than the 1000000 bytes"), "{error}");
}

#[test]
fn a_busy_server_is_asked_again_when_it_says() {
    for (status, path) in [(429, "/api/"), (503, Model::WEIGHTS)] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::new(Model::small());
        server.fault(path, Fault::Status(status, "Retry-After: 1\r\n".to_owned()));
        let (start, mut seen) = (std::time::Instant::now(), Seen::default());
        pull(cache.path(), &server, &mut seen).unwrap();
        assert!(start.elapsed().as_millis() >= 1000);
        assert!(
            seen.notes[0].contains(&format!("answered {status}; trying again in 1.0 s")),
            "{:?}",
            seen.notes
        );
    }
}

#[test]
fn patience_ends_and_no_server_decides_how_long_it_lasts() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::new(Model::small());
    for _ in 0..3 {
        server.fault("/api/", Fault::Status(503, "Retry-After: 99999\r\n".to_owned()));
    }
    let start = std::time::Instant::now();
    let error = pull(cache.path(), &server, &mut Seen::default()).unwrap_err();
    assert!(matches!(error, Error::Network { attempts: 3, .. }), "{error}");
    assert!(error.to_string().contains("answered 503, after 3 attempts"), "{error}");
    assert!(start.elapsed().as_secs() < 10);
}

#[test]
fn refusals_are_not_repeated_and_say_what_to_do() {
    for (status, advice) in
        [(401, "HF_TOKEN"), (403, "accept its terms at http://127.0.0.1"), (404, "spelling")]
    {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::new(Model::small());
        server.fault("/api/", Fault::Status(status, String::new()));
        let error = pull(cache.path(), &server, &mut Seen::default()).unwrap_err().to_string();
        assert!(error.contains(advice) && error.contains("o/m"), "{error}");
        assert_eq!(server.requests("").len(), 1);
    }
}

#[test]
fn a_server_that_is_not_there_is_an_error_with_its_address() {
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(cache.path(), "http://127.0.0.1:1");
    let error = hub.pull("o/m", &PullOptions::default(), &mut ()).unwrap_err();
    assert!(error.to_string().starts_with("http://127.0.0.1:1/api/models/o/m"), "{error}");
}

#[test]
fn hostile_listings_are_refused() {
    let commit = Model::COMMIT;
    for listing in [
        String::new(),
        "[]".to_owned(),
        "{\"sha\": \"../../etc\", \"siblings\": []}".to_owned(),
        format!("{{\"sha\": \"{commit}\"}}"),
        format!(
            "{{\"sha\": \"{commit}\", \"siblings\": [{{\"rfilename\": \"config.json\", \"size\": -1}}]}}"
        ),
        format!("{{\"sha\": \"{commit}\", \"siblings\": [{}1]}}", "1,".repeat(10_001)),
        "[".repeat(100_000),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::new(Model { listing: Some(listing), ..Model::small() });
        let error = pull(cache.path(), &server, &mut Seen::default()).unwrap_err();
        assert!(matches!(error, Error::BadAnswer { .. }), "{error}");
    }
}
