//! Model ids, revisions and file names from outside: what is allowed to become part of a path or a URL.
use crate::Error;
use std::fmt;

/// The owner that a bare name belongs to.
pub const DEFAULT_OWNER: &str = "mlx-community";
/// The revision when none is named.
pub const DEFAULT_REVISION: &str = "main";

const PART_BYTES_MAX: usize = 96;
const REVISION_BYTES_MAX: usize = 200;

/// A checked `owner/name` and the revision wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelId {
    repo: String,
    revision: String,
}

impl ModelId {
    /// Reads `owner/name`, `owner/name@revision`, a bare `name` (of [`DEFAULT_OWNER`]), or the address of the
    /// model's page.
    ///
    /// # Errors
    /// [`Error::BadName`] when a part is empty, too long, holds other characters than `A-Za-z0-9._-`, starts
    /// with `-` or `.`, or contains `..` or `--`.
    pub fn parse(name: &str) -> Result<Self, Error> {
        let bad = |why| Error::BadName { name: name.to_owned(), why };
        let page = page(name);
        let name = page.as_deref().unwrap_or(name);
        let (repo, revision) = name.split_once('@').unwrap_or((name, DEFAULT_REVISION));
        let (owner, model) = repo.split_once('/').unwrap_or((DEFAULT_OWNER, repo));
        check_part(owner).and(check_part(model)).map_err(bad)?;
        check_revision(revision).map_err(bad)?;
        Ok(ModelId { repo: format!("{owner}/{model}"), revision: revision.to_owned() })
    }

    /// The same model at another revision (branch, tag or commit).
    ///
    /// # Errors
    /// [`Error::BadName`] when it cannot be a revision.
    pub fn at(mut self, revision: &str) -> Result<Self, Error> {
        check_revision(revision).map_err(|why| Error::BadName { name: revision.to_owned(), why })?;
        self.revision = revision.to_owned();
        Ok(self)
    }

    /// `owner/name`.
    pub fn repo(&self) -> &str {
        &self.repo
    }

    /// Branch, tag or commit.
    pub fn revision(&self) -> &str {
        &self.revision
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repo)?;
        if self.revision == DEFAULT_REVISION { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

/// `owner/name@revision` of the address of a model's page or of one of its files, as browsers show it.
pub(crate) fn page(address: &str) -> Option<String> {
    let rest = address.strip_prefix("https://").or(address.strip_prefix("http://")).unwrap_or(address);
    let rest = rest.strip_prefix("www.").unwrap_or(rest);
    let path = rest.strip_prefix("huggingface.co/").or(rest.strip_prefix("hf.co/"))?;
    let mut parts = path.split(['?', '#']).next()?.trim_end_matches('/').split('/');
    let (owner, model) = (parts.next()?, parts.next().unwrap_or_default());
    let revision = match parts.next() {
        Some("tree" | "blob" | "resolve") => parts.next().unwrap_or(DEFAULT_REVISION),
        _ => DEFAULT_REVISION,
    };
    Some(format!("{owner}/{model}@{revision}"))
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

fn check_part(part: &str) -> Result<(), &'static str> {
    match part {
        "" => Err("a part of it is empty"),
        p if p.len() > PART_BYTES_MAX => Err("a part of it is longer than 96 bytes"),
        p if !p.chars().all(is_word) => Err("only letters, digits and . _ - may stand around one slash"),
        p if p.starts_with(['-', '.']) => Err("a part of it starts with `-` or `.`"),
        p if p.contains("..") || p.contains("--") => Err("it contains `..` or `--`"),
        _ => Ok(()),
    }
}

fn check_revision(revision: &str) -> Result<(), &'static str> {
    if revision.len() > REVISION_BYTES_MAX {
        return Err("the revision is longer than 200 bytes");
    }
    let good =
        |s: &str| !s.is_empty() && s.chars().all(is_word) && !s.starts_with(['-', '.']) && !s.contains("..");
    if revision.split('/').all(good) { Ok(()) } else { Err("the revision is not a branch, tag or commit") }
}

/// Whether a file that a server lists belongs to a model; anything else, pickles above all, is never fetched.
pub(crate) fn is_wanted(file: &str) -> bool {
    let template = file.strip_prefix(TEMPLATES).filter(|rest| rest.ends_with(".jinja"));
    let name = template.unwrap_or(file);
    let plain = name.chars().all(is_word) && !name.starts_with(['-', '.']) && file.len() <= 200;
    let config = file.ends_with(".json") || file.ends_with(".jinja");
    let vocabulary = matches!(file, "merges.txt" | "vocab.txt" | "tiktoken.model" | "spiece.model")
        || file.starts_with("tokenizer") && [".model", ".txt"].iter().any(|e| file.ends_with(e))
        || file.starts_with("sentencepiece") && file.ends_with(".model");
    plain && (config || vocabulary || is_tiktoken(file) || is_weights(file))
}

/// The folder of named templates.
const TEMPLATES: &str = "additional_chat_templates/";

/// Whether the file is a vocabulary of ranks.
pub(crate) fn is_tiktoken(file: &str) -> bool {
    file == "tiktoken.model" || file.ends_with(".tiktoken")
}

/// Whether the file holds weights of the model.
pub(crate) fn is_weights(file: &str) -> bool {
    file.starts_with("model") && file.ends_with(".safetensors")
}

/// Whether `text` is a digest of `digits` hexadecimal digits, and so safe as a file name.
pub(crate) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_are_read() {
        let id = ModelId::parse("mlx-community/Qwen3-30B-A3B-4bit").unwrap();
        assert_eq!((id.repo(), id.revision()), ("mlx-community/Qwen3-30B-A3B-4bit", "main"));
        assert_eq!(ModelId::parse("Qwen3_0.6B").unwrap().repo(), "mlx-community/Qwen3_0.6B");
        assert_eq!(ModelId::parse("a/b@refs/pr/1").unwrap().revision(), "refs/pr/1");
        assert_eq!(ModelId::parse("a/b@v1.0").unwrap().to_string(), "a/b@v1.0");
        assert_eq!(ModelId::parse("a/b").unwrap().at("dev").unwrap().to_string(), "a/b@dev");
        for page in ["https://huggingface.co/a/b", "hf.co/a/b/", "http://www.huggingface.co/a/b?library=mlx"]
        {
            assert_eq!(ModelId::parse(page).unwrap().to_string(), "a/b", "{page}");
        }
        let file = ModelId::parse("https://huggingface.co/a/b/blob/v1/config.json#L3").unwrap();
        assert_eq!(file.to_string(), "a/b@v1");
        assert!(ModelId::parse("https://huggingface.co/datasets").is_err());
    }

    #[test]
    fn bad_names_are_refused_with_a_reason() {
        let long = "x".repeat(97);
        for name in [
            "", "/", "a/", "/b", "a/b/c", "../b", "a/..", "a/b..c", "-a/b", "a/-b", ".a/b", "a/.b", "a b/c",
            "a/b\n", "a/b\0", "a\\b/c", "C:/b", "a/b@", "a/b@../x", "a/b@/x", "a/b@x//y", "a/b@-x", "a/b@.x",
            "a/b@c@d", "a--b/c", "é/b", "a/b?x", "a/b#x", "a/%2e%2e", "~/b", &long,
        ] {
            let error = ModelId::parse(name).unwrap_err().to_string();
            assert!(error.contains("is not a model name: "), "{name:?}: {error}");
        }
        assert!(ModelId::parse("a/b").unwrap().at("x/../y").is_err());
        assert!(ModelId::parse("a/b").unwrap().at(&"x".repeat(201)).is_err());
    }

    #[test]
    fn only_files_of_a_model_are_wanted() {
        for file in "config.json tokenizer.json tokenizer.model chat_template.jinja model.safetensors \
            model-00001-of-00002.safetensors model.safetensors.index.json tiktoken.model hy.tiktoken \
            merges.txt vocab.json chat_template.json additional_chat_templates/tool_use.jinja"
            .split_whitespace()
        {
            assert!(is_wanted(file), "{file}");
        }
        for file in "README.md pytorch_model.bin model.pkl tokenizer.pickle tokenizer.py adapter.safetensors \
            sub/config.json ../config.json ..json .json -x.json a%2f.json x.txt x.model \
            additional_chat_templates/../x.jinja additional_chat_templates/x.json x.jinja/x.jinja"
            .split_whitespace()
            .chain(["a b.json", "x\\y.json"])
        {
            assert!(!is_wanted(file), "{file}");
        }
    }

    #[test]
    fn digests_are_lower_case_hexadecimal_of_full_length() {
        assert!(is_hex(&"0af9".repeat(10), 40));
        assert!(!is_hex(&"0AF9".repeat(10), 40));
        assert!(!is_hex("abc", 40));
        assert!(!is_hex("../../../../../../../../../../../../../x", 40));
    }
}
