//! HTTP with the Hub: requests, redirects that keep the token at home, and patience with a busy server.
use crate::hub::Retry;
use crate::name::{ModelId, is_hex};
use crate::{Error, Hub, Progress, roots};
use amoeba_checkpoint::shown as escaped;
use std::io::Read;
use std::time::{Duration, Instant};
use ureq::http::{Response, StatusCode, Uri, header};
use ureq::tls::TlsConfig;
use ureq::{Agent, Body};

const REDIRECTS_MAX: usize = 5;
/// Most bytes of a listing.
const LISTING_BYTES_MAX: u64 = 16 << 20;
/// Fewer bytes than this in the longest silence count as silence: a server must not hold a pull by drips.
pub(crate) const DRIP_BYTES: u64 = 64 << 10;

/// Why one attempt failed.
pub(crate) enum Failure {
    /// Another attempt may succeed, after the given time if the server named one.
    Again { why: String, after: Option<Duration> },
    /// Trying again is of no use.
    Fatal(Error),
}

impl Failure {
    /// What may succeed at once; `why` may quote the server.
    pub(crate) fn again(why: &str) -> Failure {
        Failure::Again { why: escaped(why), after: None }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Fatal(error)
    }
}

/// A connection to one endpoint, on behalf of one model.
pub(crate) struct Remote<'a> {
    hub: &'a Hub,
    id: &'a ModelId,
    agent: Agent,
    home: Uri,
}

impl<'a> Remote<'a> {
    pub(crate) fn new(hub: &'a Hub, id: &'a ModelId) -> Result<Self, Error> {
        if hub.offline {
            return Err(Error::Offline { id: id.to_string() });
        }
        let home: Uri = hub.endpoint.parse().map_err(|_| bad(&hub.endpoint, "the endpoint is not a URL"))?;
        if home.host().is_none() || home.scheme().is_none() {
            return Err(bad(&hub.endpoint, "the endpoint is not a URL like https://host"));
        }
        let silence = Some(hub.retry.silence);
        let config = Agent::config_builder()
            .user_agent(concat!("amoeba/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .max_redirects(0)
            .http_status_as_error(false)
            .tls_config(TlsConfig::builder().root_certs(roots::of(hub)?).build())
            .timeout_connect(silence)
            .timeout_recv_response(silence)
            .timeout_per_read(silence);
        let local = matches!(home.host(), Some("127.0.0.1" | "localhost" | "[::1]"));
        let config = if local { config.proxy(None) } else { config };
        Ok(Remote { hub, id, agent: config.build().into(), home })
    }

    pub(crate) fn pace(&self) -> Pace {
        Pace { since: Instant::now(), bytes: 0, silence: self.hub.retry.silence }
    }

    pub(crate) fn patience(&self) -> Patience {
        Patience { retry: self.hub.retry, failures: 0 }
    }

    /// Where a file of a commit is.
    pub(crate) fn file_url(&self, commit: &str, file: &str) -> String {
        format!("{}/{}/resolve/{commit}/{file}", self.hub.endpoint, self.id.repo())
    }

    /// The listing of the repository at the wanted revision, and its URL.
    pub(crate) fn listing(&self, progress: &mut dyn Progress) -> Result<(String, serde_json::Value), Error> {
        let revision = self.id.revision().replace('/', "%2F");
        let url =
            format!("{}/api/models/{}/revision/{revision}?blobs=true", self.hub.endpoint, self.id.repo());
        let mut patience = self.patience();
        loop {
            match self.read_listing(&url) {
                Ok(value) => return Ok((url, value)),
                Err(failure) => patience.wait(&url, failure, progress)?,
            }
        }
    }

    fn read_listing(&self, url: &str) -> Result<serde_json::Value, Failure> {
        let response = self.get(url, 0, None, "the model or its revision")?;
        if response.status() != StatusCode::OK {
            return Err(self.status_error(url, response.status(), "the listing").into());
        }
        let mut body = Vec::new();
        let mut reader = response.into_body().into_reader().take(LISTING_BYTES_MAX + 1);
        let (mut block, mut pace) = (vec![0; 64 << 10], self.pace());
        loop {
            let n = reader.read(&mut block).map_err(|e| Failure::again(&e.to_string()))?;
            if n == 0 {
                break;
            }
            body.extend_from_slice(&block[..n]);
            pace.check(n)?;
        }
        if body.len() as u64 > LISTING_BYTES_MAX {
            return Err(bad(url, "the listing is longer than 16 MiB").into());
        }
        let value: serde_json::Value =
            serde_json::from_slice(&body).map_err(|e| bad(url, &format!("the listing is not JSON: {e}")))?;
        let commit = value.get("sha").and_then(|v| v.as_str()).unwrap_or_default();
        if is_hex(commit, 40) { Ok(value) } else { Err(bad(url, "the listing names no commit").into()) }
    }

    /// Asks for `url` from byte `start` on, following redirects; only statuses that a download understands
    /// return. A range is of the state of the file that `etag` names, if it is given: the server sends all of
    /// another.
    pub(crate) fn get(
        &self,
        url: &str,
        start: u64,
        etag: Option<&str>,
        what: &str,
    ) -> Result<Response<Body>, Failure> {
        let mut uri: Uri = url.parse().map_err(|_| bad(url, "this is not a URL"))?;
        for _ in 0..=REDIRECTS_MAX {
            let response = self.get_once(&uri, start, etag)?;
            let status = response.status();
            if status.is_redirection() {
                uri = redirected(&uri, &response)?;
            } else if is_busy(status) {
                let after =
                    response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
                let after = after.map(Duration::from_secs);
                return Err(Failure::Again {
                    why: format!("the server answered {}", status.as_u16()),
                    after,
                });
            } else if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
                return Ok(response);
            } else {
                return Err(if self.is_home(&uri) {
                    self.status_error(url, status, what).into()
                } else {
                    Error::Status { url: shown(&uri.to_string()), status: status.as_u16() }.into()
                });
            }
        }
        Err(bad(url, "too many redirects").into())
    }

    fn get_once(&self, uri: &Uri, start: u64, etag: Option<&str>) -> Result<Response<Body>, Failure> {
        let mut request = self.agent.get(uri);
        if start > 0 {
            request = request.header(header::RANGE, format!("bytes={start}-"));
            if let Some(etag) = etag {
                request = request.header(header::IF_RANGE, etag);
            }
        }
        if let Some(token) = self.hub.token.as_ref().filter(|_| self.is_home(uri)) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        request.call().map_err(|error| match error {
            ureq::Error::Http(_) | ureq::Error::BadUri(_) => {
                bad(&uri.to_string(), "the request is malformed").into()
            }
            // An untrusted certificate does not get better by waiting.
            other if other.to_string().contains("invalid peer certificate") => {
                let (url, why) = (shown(&uri.to_string()), escaped(&other.to_string()));
                Error::Untrusted { url, why }.into()
            }
            other => Failure::again(&other.to_string()),
        })
    }

    /// Whether the URL has the endpoint's own scheme, host and port: the only place that may see the token.
    fn is_home(&self, uri: &Uri) -> bool {
        uri.scheme() == self.home.scheme() && uri.authority() == self.home.authority()
    }

    fn status_error(&self, url: &str, status: StatusCode, what: &str) -> Error {
        let id = self.id.to_string();
        match status.as_u16() {
            401 => Error::Unauthorized { id },
            403 => Error::Forbidden { id, page: format!("{}/{}", self.hub.endpoint, self.id.repo()) },
            404 => Error::NoSuchModel { id, what: what.to_owned() },
            status => Error::Status { url: shown(url), status },
        }
    }
}

fn is_busy(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

fn redirected(from: &Uri, response: &Response<Body>) -> Result<Uri, Error> {
    let here = from.to_string();
    let target = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
    let target = target.ok_or_else(|| bad(&here, "a redirect without a target"))?;
    let absolute =
        match (target.starts_with('/') && !target.starts_with("//"), from.scheme_str(), from.authority()) {
            (true, Some(scheme), Some(authority)) => format!("{scheme}://{authority}{target}"),
            _ => target.to_owned(),
        };
    let to: Uri = absolute.parse().map_err(|_| bad(&here, "a redirect to something that is not a URL"))?;
    match (from.scheme_str(), to.scheme_str()) {
        (_, Some("https")) | (Some("http"), Some("http")) => Ok(to),
        _ => Err(bad(&here, "a redirect away from https")),
    }
}

/// An answer that breaks the rules.
pub(crate) fn bad(url: &str, why: &str) -> Error {
    Error::BadAnswer { url: shown(url), why: escaped(why) }
}

/// A URL for messages: without its query, which may hold a signature.
fn shown(url: &str) -> String {
    escaped(url.split('?').next().unwrap_or_default())
}

/// Tells a connection that drips from one that is slow.
pub(crate) struct Pace {
    since: Instant,
    bytes: u64,
    silence: Duration,
}

impl Pace {
    /// Counts what arrived.
    pub(crate) fn check(&mut self, bytes: usize) -> Result<(), Failure> {
        self.bytes += bytes as u64;
        if self.since.elapsed() < self.silence {
            return Ok(());
        }
        if self.bytes < DRIP_BYTES {
            let seconds = self.silence.as_secs_f64();
            return Err(Failure::again(&format!("only {} bytes arrived in {seconds:.0} s", self.bytes)));
        }
        (self.since, self.bytes) = (Instant::now(), 0);
        Ok(())
    }
}

/// Counts attempts that brought nothing, and waits between them.
pub(crate) struct Patience {
    retry: Retry,
    failures: u32,
}

impl Patience {
    /// Something arrived: start counting anew.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next attempt, or gives up.
    pub(crate) fn wait(
        &mut self,
        url: &str,
        failure: Failure,
        progress: &mut dyn Progress,
    ) -> Result<(), Error> {
        let (why, after) = match failure {
            Failure::Fatal(error) => return Err(error),
            Failure::Again { why, after } => (why, after),
        };
        self.failures += 1;
        if self.failures >= self.retry.attempts {
            return Err(Error::Network { url: shown(url), why, attempts: self.failures });
        }
        let doubled = self.retry.wait.saturating_mul(1 << (self.failures - 1).min(16));
        let wait = after.unwrap_or(doubled).min(self.retry.wait_max);
        progress.note(&format!("{}: {why}; trying again in {:.1} s", shown(url), wait.as_secs_f64()));
        std::thread::sleep(wait);
        Ok(())
    }
}
