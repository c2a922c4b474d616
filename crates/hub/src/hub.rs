//! [`Hub`]: where the cache is, whom to ask, and with which limits.
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A cache, an endpoint, and how to speak with it.
#[derive(Clone)]
pub struct Hub {
    pub(crate) cache: PathBuf,
    pub(crate) endpoint: String,
    pub(crate) token: Option<String>,
    /// Certificates to trust in place of the system's.
    pub(crate) roots: Option<PathBuf>,
    pub(crate) offline: bool,
    /// Bytes that must stay free on the disk.
    pub(crate) reserve_bytes: u64,
    pub(crate) retry: Retry,
}

/// How often a failed request is repeated, and how long to wait before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retry {
    /// Attempts in a row that bring nothing before giving up.
    pub(crate) attempts: u32,
    /// The first wait; it doubles each time.
    pub(crate) wait: Duration,
    /// The longest wait, whatever the server asks for.
    pub(crate) wait_max: Duration,
    /// Longest silence of the server.
    pub(crate) silence: Duration,
}

impl Hub {
    /// A hub with this cache folder, the public endpoint and no token.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        let seconds = Duration::from_secs;
        let retry = Retry { attempts: 6, wait: seconds(1), wait_max: seconds(120), silence: seconds(60) };
        Hub {
            cache: cache.into(),
            endpoint: "https://huggingface.co".to_owned(),
            token: None,
            roots: None,
            offline: false,
            reserve_bytes: 64 << 20,
            retry,
        }
    }

    /// As the environment says: `HF_HUB_CACHE` (else `hub` in `HF_HOME`, else `huggingface/hub` in
    /// `XDG_CACHE_HOME`, else in `~/.cache`), `HF_ENDPOINT`, `HF_TOKEN` (else the file that `HF_TOKEN_PATH`
    /// names, else `token` in `HF_HOME`), `HF_HUB_OFFLINE`; `SSL_CERT_FILE` as OpenSSL takes it.
    pub fn from_env() -> Self {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    /// As [`from_env`](Self::from_env), with the variables looked up by `var`.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| var(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let user = set("HOME").or_else(|| set("USERPROFILE")).map(PathBuf::from).unwrap_or_default();
        // A shell expands `~`, a file of variables does not; huggingface_hub takes it either way.
        let path = |name: &str, default: PathBuf| match set(name) {
            None => default,
            Some(text) if text == "~" => user.clone(),
            Some(text) => {
                text.strip_prefix("~/").map_or_else(|| PathBuf::from(&text), |rest| user.join(rest))
            }
        };
        let caches = path("XDG_CACHE_HOME", user.join(".cache"));
        let home = path("HF_HOME", caches.join("huggingface"));
        let cache = path("HF_HUB_CACHE", home.join("hub"));
        let token_file = path("HF_TOKEN_PATH", home.join("token"));
        let token = set("HF_TOKEN").or_else(|| std::fs::read_to_string(token_file).ok());
        let truthy = |v: String| matches!(v.to_ascii_lowercase().as_str(), "1" | "on" | "yes" | "true");
        let mut hub =
            Hub::new(cache).with_token(token).with_offline(set("HF_HUB_OFFLINE").is_some_and(truthy));
        hub.roots = set("SSL_CERT_FILE").map(PathBuf::from);
        if let Some(endpoint) = set("HF_ENDPOINT") {
            hub = hub.with_endpoint(&endpoint);
        }
        hub
    }

    /// Asks this server instead of `https://huggingface.co`.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: &str) -> Self {
        self.endpoint = endpoint.trim_end_matches('/').to_owned();
        self
    }

    /// The access token; blank means none.
    #[must_use]
    pub fn with_token(mut self, token: Option<String>) -> Self {
        self.token = token.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty());
        self
    }

    /// Whether every download is refused.
    #[must_use]
    pub fn with_offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    /// Refuses a download that would leave fewer bytes free than this (default: 64 MiB).
    #[must_use]
    pub fn with_disk_reserve(mut self, bytes: u64) -> Self {
        self.reserve_bytes = bytes;
        self
    }

    /// Attempts in a row that bring nothing before giving up (6), the first wait between them (1 s,
    /// doubling), the longest wait whatever `Retry-After` says (120 s), and the longest silence of the server
    /// (60 s).
    #[must_use]
    pub fn with_retries(
        mut self,
        attempts: u32,
        wait: Duration,
        wait_max: Duration,
        silence: Duration,
    ) -> Self {
        self.retry = Retry { attempts: attempts.max(1), wait, wait_max, silence };
        self
    }

    /// The cache folder.
    pub fn cache(&self) -> &std::path::Path {
        &self.cache
    }

    /// The server that a download would ask.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Whether downloads are refused.
    pub fn is_offline(&self) -> bool {
        self.offline
    }
}

/// Leaves the token out.
impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = if self.token.is_some() { "set" } else { "none" };
        let mut out = f.debug_struct("Hub");
        out.field("cache", &self.cache).field("endpoint", &self.endpoint).field("token", &token);
        out.field("offline", &self.offline).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(vars: &[(&str, &str)]) -> Hub {
        Hub::from_vars(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn the_cache_is_found_as_python_finds_it() {
        let cache = |vars: &[(&str, &str)]| hub(vars).cache.to_string_lossy().into_owned();
        assert_eq!(cache(&[("HOME", "/h")]), "/h/.cache/huggingface/hub");
        assert_eq!(cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), "/x/huggingface/hub");
        assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "/f")]), "/f/hub");
        assert_eq!(cache(&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")]), "/c");
        assert_eq!(cache(&[("HOME", "/h"), ("HF_HUB_CACHE", "~/c")]), "/h/c");
        assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "~")]), "/h/hub");
        assert_eq!(
            cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "~/x"), ("HF_HOME", " ")]),
            "/h/x/huggingface/hub"
        );
        assert_eq!(cache(&[("USERPROFILE", "/u"), ("HF_HUB_CACHE", "a~/b")]), "a~/b");
        assert_eq!(cache(&[("HOME", "/h"), ("HF_HUB_CACHE", "~other/c")]), "~other/c");
    }

    #[test]
    fn the_token_comes_from_the_variable_then_from_the_file() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "from-file\n").unwrap();
        let home = home.path().to_str().unwrap();
        assert_eq!(hub(&[("HF_HOME", home)]).token.as_deref(), Some("from-file"));
        assert_eq!(hub(&[("HF_HOME", home), ("HF_TOKEN", " t ")]).token.as_deref(), Some("t"));
        assert_eq!(hub(&[("HF_HOME", "/nowhere"), ("HF_TOKEN", " ")]).token, None);
    }

    #[test]
    fn endpoint_and_offline_are_read() {
        let h = hub(&[("HF_ENDPOINT", "http://127.0.0.1:1/"), ("HF_HUB_OFFLINE", "YES")]);
        assert_eq!((h.endpoint(), h.is_offline()), ("http://127.0.0.1:1", true));
        assert!(!hub(&[("HF_HUB_OFFLINE", "0")]).is_offline());
    }

    #[test]
    fn debug_output_hides_the_token() {
        let shown = format!("{:?}", hub(&[("HF_TOKEN", "hf_secret")]));
        assert!(shown.contains("token: \"set\"") && !shown.contains("secret"), "{shown}");
    }
}
