//! `amoeba render`: the prompt that a chat becomes, without weights.
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use amoeba::{Chat, ChatTemplate, Tokenizer};
use serde_json::{Map, Value, json};

use super::common;
use super::console::print;
use super::failure::Failure;

/// Largest file of a chat, of tools or of a template, and longest line of `--jsonl`, in bytes.
const BYTES_MAX: u64 = 32 << 20;

/// Flags of `render`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Model folder or name; its tokenizer and template are enough [default: the bundled model]
    #[arg(value_name = "MODEL")]
    model: Option<String>,
    /// Chat: a JSON list of messages, or an object with `messages`, `tools` …; `-` reads standard input
    #[arg(long, value_name = "FILE", required_unless_present = "jsonl")]
    chat: Option<PathBuf>,
    /// Template instead of the model's own
    #[arg(long, visible_alias = "chat-template", value_name = "FILE")]
    template: Option<PathBuf>,
    /// Tools the model may call: a JSON array as in the chat completions interface
    #[arg(long, value_name = "FILE")]
    tools: Option<PathBuf>,
    /// Variables of the template, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = kwargs)]
    kwargs: Option<Map<String, Value>>,
    /// Print the tokens, one a line: id and text
    #[arg(long)]
    tokens: bool,
    /// Read chats from standard input, one JSON object a line (dir, messages, tools, agp, vars, time), and
    /// write {"text": …} or {"error": …} for each
    #[arg(long, conflicts_with_all = ["model", "chat", "template", "tools", "kwargs", "tokens"])]
    jsonl: bool,
}

/// Reads variables of a template.
pub fn kwargs(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("it is not a JSON object: {error}"))
}

/// Prints the prompt.
pub fn run(args: &Args) -> Result<(), Failure> {
    let Some(file) = &args.chat else { return lines() };
    // A folder does without config.json and weights.
    let folder = args.model.as_deref().map(PathBuf::from).filter(|path| path.is_dir());
    let dir = folder.map_or_else(|| common::find_or_bundled(args.model.as_deref()), Ok)?;
    let mut chat = Chat::from_json(&json_file(file)?)?;
    if let Some(tools) = &args.tools {
        chat.tools = Some(json_file(tools)?);
    }
    chat.variables.extend(args.kwargs.clone().unwrap_or_default());
    let template = template(&dir, args.template.as_deref())?;
    if !args.tokens {
        return print(&template.render(&chat)?);
    }
    let tokenizer = Tokenizer::open(&dir)?;
    template.encode(&tokenizer, &chat)?.into_iter().try_for_each(|id| {
        let text = tokenizer.decode(&[id], false)?;
        print(&format!("{id}\t{}\n", Value::from(text)))
    })
}

/// The template of a model, or another one with the model's named tokens.
pub fn template(dir: &Path, other: Option<&Path>) -> Result<ChatTemplate, Failure> {
    match other {
        Some(path) => Ok(ChatTemplate::with_source(dir, &path.display().to_string(), &read(path)?)?),
        None => ChatTemplate::open(dir)?.ok_or_else(|| {
            Failure::usage(format!("{} has no chat template: give one with --template FILE", dir.display()))
        }),
    }
}

fn json_file(path: &Path) -> Result<Value, Failure> {
    let wrong = |error| Failure::usage(format!("{} is not JSON: {error}", path.display()));
    serde_json::from_str(&read(path)?).map_err(wrong)
}

fn read(path: &Path) -> Result<String, Failure> {
    let wrong = |reason: String| Failure::usage(format!("cannot read {}: {reason}", path.display()));
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(BYTES_MAX + 1).read_to_string(&mut text)
    } else {
        let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
        file.take(BYTES_MAX + 1).read_to_string(&mut text)
    };
    match read {
        Ok(length) if length as u64 > BYTES_MAX => Err(wrong(format!("it has more than {BYTES_MAX} bytes"))),
        Ok(_) => Ok(text),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// Answers line by line; what is wrong with one chat does not end the others.
fn lines() -> Result<(), Failure> {
    let mut input = std::io::stdin().lock();
    loop {
        let mut line = String::new();
        let read = input.by_ref().take(BYTES_MAX).read_line(&mut line);
        if read.map_err(|error| Failure::usage(format!("standard input: {error}")))? == 0 {
            return Ok(());
        }
        let answer = match one(&line) {
            Ok(text) => json!({ "text": text }),
            Err(failure) => json!({ "error": failure.message }),
        };
        print(&format!("{answer}\n"))?;
    }
}

fn one(line: &str) -> Result<String, Failure> {
    let request: Value = serde_json::from_str(line).map_err(Failure::usage)?;
    let dir = request["dir"].as_str().ok_or_else(|| Failure::usage("`dir` names no model folder"))?;
    let mut chat = Chat::from_json(&request)?;
    chat.add_generation_prompt = request["agp"].as_bool().unwrap_or(true);
    chat.variables = request["vars"].as_object().cloned().unwrap_or_default();
    let mut template = template(Path::new(dir), None)?;
    if let Some(time) = request["time"].as_u64() {
        template.set_time(time);
    }
    Ok(template.render(&chat)?)
}
