//! Redirects: files may come from anywhere, the token goes home only.
use crate::model::{Model, hub, put_part};
use crate::server::{Fault, Server};
use amoeba_hub::{Error, PullOptions};

fn redirect(target: &str) -> Fault {
    Fault::Status(302, format!("Location: {target}\r\n"))
}

#[test]
fn the_token_is_not_sent_to_another_host_or_port() {
    let (cache, model) = (tempfile::tempdir().unwrap(), Model::small());
    let (home, other) = (Server::new(model.clone()), Server::new(model.clone()));
    put_part(cache.path(), &model, &model.weights()[..400]);
    home.fault(
        Model::WEIGHTS,
        redirect(&format!("{}/x/resolve/1/{}?signature=s", other.url, Model::WEIGHTS)),
    );
    home.fault(
        "config.json",
        redirect(&format!("{}/x/resolve/1/config.json", other.url.replace("127.0.0.1", "localhost"))),
    );
    let hub = hub(cache.path(), &home.url).with_token(Some("hf_secret".to_owned()));
    // The signed query is part of the file name for this fake server, so the other host answers 404 first.
    let error = hub.pull("o/m", &PullOptions::default(), &mut ()).unwrap_err();
    assert!(!error.to_string().contains("signature"), "{error}");
    home.fault(Model::WEIGHTS, redirect(&format!("{}/x/resolve/1/{}", other.url, Model::WEIGHTS)));
    hub.pull("o/m", &PullOptions::default(), &mut ()).unwrap();

    assert!(home.requests("").iter().all(|r| r.authorization.as_deref() == Some("Bearer hf_secret")));
    assert!(other.requests("").len() >= 3);
    assert!(other.requests("").iter().all(|r| r.authorization.is_none()));
    assert_eq!(other.requests(Model::WEIGHTS)[1].range, Some(400), "the range survives the redirect");
}

#[test]
fn a_redirect_at_home_keeps_the_token() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::new(Model::small());
    server.fault("/api/models/o/m", redirect("/api/models/new/name"));
    let hub = hub(cache.path(), &server.url).with_token(Some("hf_secret".to_owned()));
    hub.pull("o/m", &PullOptions::default(), &mut ()).unwrap();
    let renamed = server.requests("/api/models/new/name");
    assert_eq!(renamed[0].authorization.as_deref(), Some("Bearer hf_secret"));
}

#[test]
fn loops_and_nonsense_targets_end_in_an_error() {
    for target in ["/api/models/o/m", "ftp://x/y", "nowhere", "//", "http://[", ""] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::new(Model::small());
        for _ in 0..9 {
            server.fault("/api/models/o/m", redirect(target));
        }
        let error = hub(cache.path(), &server.url).pull("o/m", &PullOptions::default(), &mut ()).unwrap_err();
        assert!(matches!(error, Error::BadAnswer { .. }), "{target}: {error}");
        assert!(server.requests("").len() <= 6);
    }
}
