//! Pulling from a server that behaves: what is fetched, where it lies, and what is reported.
use crate::model::{Model, Seen, hub, sha256};
use crate::server::{Fault, Server};
use amoeba_hub::{Error, PullOptions};
use std::path::Path;

fn options() -> PullOptions {
    PullOptions::default()
}

#[test]
fn a_pull_fills_the_cache_as_python_would() {
    let (cache, model) = (tempfile::tempdir().unwrap(), Model::small());
    let server = Server::new(model.clone());
    let dir = hub(cache.path(), &server.url).pull("o/m", &options(), &mut ()).unwrap();

    let root = cache.path().join("models--o--m");
    assert_eq!(dir, root.join("snapshots").join(Model::COMMIT));
    assert_eq!(std::fs::read_to_string(root.join("refs/main")).unwrap(), Model::COMMIT);
    assert_eq!(std::fs::read(dir.join(Model::WEIGHTS)).unwrap(), model.weights());
    let target = std::fs::read_link(dir.join(Model::WEIGHTS)).unwrap();
    assert_eq!(target, Path::new("../../blobs").join(sha256(model.weights())));

    let mut names: Vec<_> =
        std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["chat_template.jinja", "config.json", Model::WEIGHTS, "tokenizer.json"]);
    for unwanted in ["README", "pytorch", "sub/"] {
        assert!(server.requests(unwanted).is_empty(), "{unwanted} was fetched");
    }
}

#[test]
fn the_plan_and_the_progress_are_told() {
    let (cache, model) = (tempfile::tempdir().unwrap(), Model::small());
    let server = Server::new(model.clone());
    let mut seen = Seen::default();
    hub(cache.path(), &server.url).pull("o/m", &options(), &mut seen).unwrap();
    let plan = seen.plan.unwrap();
    assert_eq!((plan.id.as_str(), plan.commit.as_str(), plan.files), ("o/m", Model::COMMIT, 4));
    assert_eq!(plan.total_bytes, plan.fetch_bytes);
    assert!(plan.total_bytes > 1_000_000 && plan.free_bytes.is_some());
    let size = model.weights().len() as u64;
    let weights: Vec<_> = seen.bytes.iter().filter(|b| b.0 == Model::WEIGHTS).map(|b| b.1).collect();
    assert_eq!((weights.first(), weights.last()), (Some(&0), Some(&size)));
    assert!(weights.is_sorted());
}

#[test]
fn a_second_pull_fetches_the_listing_only() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::new(Model::small());
    let hub = hub(cache.path(), &server.url);
    let first = hub.pull("o/m", &options(), &mut ()).unwrap();
    let files = server.requests("/resolve/").len();
    let mut seen = Seen::default();
    assert_eq!(hub.pull("o/m", &options(), &mut seen).unwrap(), first);
    assert_eq!(server.requests("/resolve/").len(), files);
    assert_eq!(seen.plan.unwrap().fetch_bytes, 0);
}

#[test]
fn a_damaged_blob_is_fetched_again() {
    let (cache, model) = (tempfile::tempdir().unwrap(), Model::small());
    let server = Server::new(model.clone());
    let hub = hub(cache.path(), &server.url);
    let dir = hub.pull("o/m", &options(), &mut ()).unwrap();
    std::fs::write(dir.join(Model::WEIGHTS), b"short").unwrap();
    hub.pull("o/m", &options(), &mut ()).unwrap();
    assert_eq!(std::fs::read(dir.join(Model::WEIGHTS)).unwrap(), model.weights());
}

#[test]
fn revisions_are_asked_for_and_referred_to() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::new(Model::small());
    let hub = hub(cache.path(), &server.url);
    hub.pull("o/m@refs/pr/1", &options(), &mut ()).unwrap();
    hub.pull("m", &PullOptions { revision: Some("v1".to_owned()), ..options() }, &mut ()).unwrap();
    assert_eq!(server.requests("/api/")[0].path, "/api/models/o/m/revision/refs%2Fpr%2F1?blobs=true");
    assert_eq!(server.requests("/api/")[1].path, "/api/models/mlx-community/m/revision/v1?blobs=true");
    assert!(cache.path().join("models--o--m/refs/refs/pr/1").is_file());
    assert!(hub.resolve("o/m@refs/pr/1").is_ok());
    assert!(matches!(hub.resolve("o/m"), Err(Error::NotFound { .. })));
    let at_commit = hub.resolve(&format!("o/m@{}", Model::COMMIT)).unwrap();
    assert_eq!(at_commit.dir, hub.resolve("o/m@refs/pr/1").unwrap().dir);
}

#[test]
fn offline_means_no_request_at_all() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::new(Model::small());
    let hub = hub(cache.path(), &server.url).with_offline(true);
    let error = hub.pull("o/m", &options(), &mut ()).unwrap_err();
    assert!(matches!(error, Error::Offline { .. }));
    assert!(error.to_string().contains("--offline"), "{error}");
    assert!(server.requests("").is_empty());
}

#[test]
fn a_disk_that_is_too_small_is_noticed_before_the_download() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::new(Model::small());
    let mut seen = Seen::default();
    let hub = hub(cache.path(), &server.url).with_disk_reserve(u64::MAX / 2);
    let error = hub.pull("o/m", &options(), &mut seen).unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    assert!(seen.plan.is_some(), "the sizes are reported before the refusal");
    assert!(server.requests("/resolve/").is_empty());
}

#[test]
fn without_checksums_the_length_is_compared_if_the_user_says_so() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::new(Model { no_digests: true, ..Model::small() });
    let mut seen = Seen::default();
    let error = hub(cache.path(), &server.url).pull("o/m", &options(), &mut seen).unwrap_err();
    assert!(matches!(error, Error::NoDigest { .. }) && error.to_string().contains("--no-verify"), "{error}");
    assert!(server.requests("/resolve/").is_empty(), "nothing was fetched");
    let options = PullOptions { no_verify: true, ..options() };
    let dir = hub(cache.path(), &server.url).pull("o/m", &options, &mut seen).unwrap();
    assert!(dir.join("config.json").is_file());
    assert_eq!(seen.notes.iter().filter(|n| n.contains("no checksum")).count(), 4);
}

#[test]
fn a_repository_that_cannot_run_is_refused_before_the_download() {
    for (file, missing) in [(Model::WEIGHTS, "model*.safetensors"), ("tokenizer.json", "tokenizer.json (or")]
    {
        let cache = tempfile::tempdir().unwrap();
        let mut model = Model::small();
        model.files.retain(|f| f.0 != file);
        let server = Server::new(model);
        let error = hub(cache.path(), &server.url).pull("o/m", &options(), &mut ()).unwrap_err();
        assert!(error.to_string().contains(&format!("o/m holds no {missing}")), "{error}");
        assert!(server.requests("/resolve/").is_empty());
    }
}

#[test]
fn named_templates_lie_in_their_folder_and_what_failed_is_not_listed() {
    let (cache, mut model) = (tempfile::tempdir().unwrap(), Model::small());
    let (rank, template) = ("hy.tiktoken", "additional_chat_templates/tool_use.jinja");
    model.files.retain(|f| f.0 != "tokenizer.json");
    model.files.extend([rank, template].map(|name| (name.to_owned(), b"x".to_vec(), false)));
    let server = Server::new(model);
    let hub = hub(cache.path(), &server.url);
    server.fault(Model::WEIGHTS, Fault::Status(403, String::new()));
    assert!(matches!(hub.pull("o/m", &options(), &mut ()), Err(Error::Forbidden { .. })));
    assert_eq!(hub.list().unwrap(), [], "nothing that could run");
    let dir = hub.pull("o/m", &options(), &mut ()).unwrap();
    assert_eq!(amoeba_checkpoint::read_small(&dir.join(template), 9).unwrap().unwrap(), b"x");
    assert_eq!(hub.list().unwrap().len(), 1);
}
