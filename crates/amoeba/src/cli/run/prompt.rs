//! Which of the words is the model, where the prompt comes from, and reading it.
use std::io::Read;
use std::path::{Path, PathBuf};

use amoeba::Hub;
use amoeba::hub::ModelId;

use super::Args;
use crate::cli::failure::{self, Failure};

/// Largest prompt, in bytes; far beyond any context.
const PROMPT_BYTES_MAX: u64 = 8 << 20;

/// Where the prompt comes from.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    /// It is this.
    Text(String),
    /// Standard input, after the text if there is one.
    Stdin(Option<String>),
    /// A file.
    File(PathBuf),
    /// Somebody at a terminal.
    Chat,
}

/// What the words on the command line mean.
#[derive(Debug, PartialEq, Eq)]
pub struct Decision {
    /// The model; `None` is the bundled one.
    pub model: Option<String>,
    /// The prompt.
    pub source: Source,
}

/// Sorts the words out. `is_model` tells for a single word whether it names a model rather than being the
/// prompt.
pub fn decide(args: &Args, at_terminal: bool, is_model: &dyn Fn(&str) -> bool) -> Result<Decision, Failure> {
    let dash = args.prompt.as_deref() == Some("-");
    let elsewhere = (args.prompt.is_some() && !dash) || args.file.is_some();
    let (model, word) = match (args.model.clone(), args.first.clone(), args.second.clone()) {
        (model, None, _) => (model, None),
        (Some(model), Some(word), None) => (Some(model), Some(word)),
        (None, Some(word), None) if elsewhere || is_model(&word) => (Some(word), None),
        (None, Some(word), None) => (None, Some(word)),
        (None, model, word) => (model, word),
        (Some(_), _, Some(_)) => {
            return Err(Failure::usage("two models: one with -m and one as argument; leave one out"));
        }
    };
    let source = match (&args.prompt, &args.file, word) {
        (Some(_), _, Some(_)) if !dash => {
            return Err(Failure::usage("two prompts: one with -p and one as argument"));
        }
        (_, Some(_), Some(_)) => return Err(Failure::usage("two prompts: one with -f and one as argument")),
        (_, Some(file), None) => Source::File(file.clone()),
        (Some(_), _, word) if dash => Source::Stdin(word),
        (Some(text), _, _) => Source::Text(text.clone()),
        (None, None, Some(word)) => Source::Text(word),
        (None, None, None) if at_terminal => Source::Chat,
        (None, None, None) => Source::Stdin(None),
    };
    Ok(Decision { model, source })
}

/// Whether a word names a model: it is a folder, is in the cache, or is spelled like a model's name.
pub fn is_model(word: &str) -> bool {
    looks_like_model(word)
        || Path::new(word).is_dir()
        || (is_one_word(word) && Hub::from_env().resolve(word).is_ok())
}

fn is_one_word(word: &str) -> bool {
    !word.is_empty() && !word.contains(char::is_whitespace)
}

fn looks_like_model(word: &str) -> bool {
    let is_name = ModelId::parse(word).is_ok();
    let is_path = ["./", "../", "/", "~/"].iter().any(|start| word.starts_with(start));
    let bare = word.contains('-') && word.contains(|c: char| c.is_ascii_digit());
    is_one_word(word) && (is_path || (is_name && (word.contains('/') || bare)))
}

/// The prompt; `None` when there is to be a chat. One line break at the end of a file or of standard input is
/// not part of it.
pub fn read(source: &Source) -> Result<Option<String>, Failure> {
    match source {
        Source::Chat => Ok(None),
        Source::Text(text) => Ok(Some(text.clone())),
        Source::File(path) => {
            let name = path.display().to_string();
            let file = std::fs::File::open(path).map_err(|error| unreadable(&name, &error))?;
            read_all(file, &name).map(Some)
        }
        Source::Stdin(before) => {
            let text = read_all(std::io::stdin().lock(), "standard input")?;
            Ok(Some(match before {
                Some(before) => format!("{before}\n\n{text}"),
                None => text,
            }))
        }
    }
}

fn read_all(from: impl Read, name: &str) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    from.take(PROMPT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| unreadable(name, &error))?;
    if bytes.len() as u64 > PROMPT_BYTES_MAX {
        return Err(Failure::usage(format!(
            "{name} holds more than {PROMPT_BYTES_MAX} bytes: shorten the prompt"
        )));
    }
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::usage(format!("{name} is not UTF-8 text (byte {at}): convert it first"))
    })?;
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    if text.ends_with('\n') {
        text.pop();
        text.truncate(text.strip_suffix('\r').unwrap_or(&text).len());
    }
    Ok(text)
}

fn unreadable(name: &str, error: &std::io::Error) -> Failure {
    Failure::usage(format!("cannot read the prompt from {name}: {error}"))
}

/// Adds to "not found" that a single word can be meant as prompt.
pub fn advise(args: &Args, failure: Failure) -> Failure {
    match (&args.first, &args.second) {
        (Some(word), None)
            if args.model.is_none() && args.prompt.is_none() && failure.code == failure::NOT_FOUND =>
        {
            let message = format!("{}\n  if it is meant as prompt: amoeba run -p '{word}'", failure.message);
            Failure { message, ..failure }
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str], prompt: Option<&str>) -> Args {
        Args {
            first: words.first().map(|word| (*word).to_owned()),
            second: words.get(1).map(|word| (*word).to_owned()),
            prompt: prompt.map(str::to_owned),
            ..Args::default()
        }
    }

    fn decided(args: &Args, at_terminal: bool) -> (Option<String>, Source) {
        let decision = decide(args, at_terminal, &looks_like_model).unwrap();
        (decision.model, decision.source)
    }

    #[test]
    fn a_single_word_is_the_model_when_it_looks_like_one() {
        for word in ["mlx-community/Qwen3-30B-A3B-4bit", "a/b@main", "./here", "/there", "Qwen3-30B-A3B-4bit"]
        {
            assert!(looks_like_model(word), "{word}");
        }
        for word in ["Hello", "Tell me about the moon.", "and/or what?", "", "moon", "2+2", "1/2/3", "a-b"] {
            assert!(!looks_like_model(word), "{word}");
        }
    }

    #[test]
    fn words_and_flags_are_sorted_out() {
        let text = |text: &str| Source::Text(text.to_owned());
        let model = || Some("a/b".to_owned());
        assert_eq!(decided(&args(&[], None), true), (None, Source::Chat));
        assert_eq!(decided(&args(&[], None), false), (None, Source::Stdin(None)));
        assert_eq!(decided(&args(&["Hi there"], None), true), (None, text("Hi there")));
        assert_eq!(decided(&args(&["a/b"], None), true), (model(), Source::Chat));
        assert_eq!(decided(&args(&["a/b", "Hi"], None), false), (model(), text("Hi")));
        assert_eq!(decided(&args(&["a/b"], Some("Hi")), true), (model(), text("Hi")));
        assert_eq!(decided(&args(&["name"], Some("Hi")), true), (Some("name".to_owned()), text("Hi")));
        assert_eq!(decided(&args(&["a/b"], Some("-")), false), (model(), Source::Stdin(None)));
        assert_eq!(
            decided(&args(&["a/b", "Sum up:"], Some("-")), false),
            (model(), Source::Stdin(Some("Sum up:".into())))
        );
        assert_eq!(
            decided(&args(&["Sum up:"], Some("-")), false),
            (None, Source::Stdin(Some("Sum up:".into())))
        );
        let flagged = Args { model: model(), ..args(&["c/d"], None) };
        assert_eq!(decided(&flagged, true), (model(), text("c/d")));
        let file = Args { file: Some("f".into()), ..args(&["word"], None) };
        assert_eq!(decided(&file, true), (Some("word".to_owned()), Source::File("f".into())));
    }

    #[test]
    fn two_models_or_two_prompts_are_refused() {
        for args in [
            Args { model: Some("a/b".into()), ..args(&["c", "d"], None) },
            args(&["a/b", "Hi"], Some("Ho")),
            Args { file: Some("f".into()), ..args(&["a/b", "Hi"], None) },
        ] {
            assert_eq!(decide(&args, true, &looks_like_model).unwrap_err().code, failure::USAGE);
        }
    }

    #[test]
    fn input_is_bounded_and_must_be_text() {
        assert_eq!(read_all(&b"a\n\nb\r\n"[..], "x").unwrap(), "a\n\nb");
        assert_eq!(read_all(&b""[..], "x").unwrap(), "");
        assert!(read_all(&b"a\xff"[..], "x").unwrap_err().message.contains("byte 1"));
        assert!(read_all(std::io::repeat(b'a'), "x").unwrap_err().message.contains("more than"));
    }
}
