//! Chat templates: a chat in, prompt text or token ids out.

use std::io;
use std::path::Path;

use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, Value as Jinja};
use serde_json::{Map, Value};

use crate::chat::Arguments;
use crate::environment::{Raised, environment, prepare};
use crate::files::{self, invalid};
use crate::{Chat, Dialect, Error, Tokenizer, limits, recognise};

/// The name under which the tool variant is kept.
const TOOL_USE: &str = "tool_use";
const DEFAULT: &str = "default";

/// A compiled chat template, with the variant for tools when the model has one.
pub struct ChatTemplate {
    env: Environment<'static>,
    /// The file the template came from, for messages.
    file: String,
    source: String,
    tool_use: Option<String>,
    named_tokens: Vec<(&'static str, String)>,
}

impl ChatTemplate {
    /// Opens the template of a model folder: `chat_template.jinja`, else `chat_template` in
    /// `tokenizer_config.json`. `None` when there is neither.
    pub fn open(dir: &Path) -> Result<Option<ChatTemplate>, Error> {
        let path = dir.join("chat_template.jinja");
        let named = files::named_tokens(dir)?;
        if let Some(bytes) = files::read(&path, limits::TEMPLATE_BYTES)? {
            let source = String::from_utf8(bytes).map_err(|error| invalid(&path, error))?;
            return ChatTemplate::new("chat_template.jinja", source, None, named).map(Some);
        }
        let path = dir.join("tokenizer_config.json");
        let config = files::object(&path)?;
        let (source, tool_use) = match config.get("chat_template") {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(source)) => (source.clone(), None),
            Some(Value::Array(list)) => {
                let default = variant(list, DEFAULT).or_else(|| list.first()?.get("template")?.as_str());
                let default =
                    default.ok_or_else(|| invalid(&path, "its list of chat templates holds none"))?;
                (default.to_owned(), variant(list, TOOL_USE).map(str::to_owned))
            }
            Some(_) => return Err(invalid(&path, "chat_template is neither text nor a list")),
        };
        ChatTemplate::new("tokenizer_config.json chat_template", source, tool_use, named).map(Some)
    }

    /// Compiles a template from its source, as a user may supply it. `file` is for messages.
    pub fn from_source(file: &str, source: &str) -> Result<ChatTemplate, Error> {
        ChatTemplate::new(file, source.to_owned(), None, Vec::new())
    }

    fn new(
        file: &str,
        source: String,
        tool_use: Option<String>,
        named_tokens: Vec<(&'static str, String)>,
    ) -> Result<ChatTemplate, Error> {
        let wrong = |error| explain(file, &error);
        let mut env = environment(None).map_err(wrong)?;
        for (name, source) in [(DEFAULT, Some(&source)), (TOOL_USE, tool_use.as_ref())] {
            let Some(source) = source else { continue };
            let (size, limit) = (source.len() as u64, limits::TEMPLATE_BYTES);
            if size > limit {
                return Err(Error::TooLarge { path: file.into(), size, limit });
            }
            let source = prepare(source).map_err(|(line, error)| at_line(explain(file, &error), line))?;
            roomy(|| env.add_template_owned(name, source))?.map_err(wrong)?;
        }
        Ok(ChatTemplate { env, file: file.into(), source, tool_use, named_tokens })
    }

    /// Replaces the clock that `strftime_now` reads by a fixed time, in seconds since 1970.
    pub fn set_time(&mut self, seconds: u64) {
        self.env.add_function("strftime_now", move |format: &str| crate::clock::strftime(seconds, format));
    }

    /// The source of the (default) template.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The sources of all variants.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.source.as_str()).chain(self.tool_use.as_deref())
    }

    /// How a model with this template spells tool calls.
    pub fn dialect(&self, tokenizer: &Tokenizer) -> Option<&'static Dialect> {
        let token = |text: &str| tokenizer.token_id(text).is_some();
        self.sources().find_map(|source| recognise(source, &token))
    }

    /// Whether it looks at tools at all.
    pub fn takes_tools(&self) -> bool {
        self.sources().any(|source| source.contains("tools"))
    }

    /// The prompt text. Caller's text that spells control tokens comes out as it is: for ids use
    /// [`ChatTemplate::encode`].
    pub fn render(&self, chat: &Chat) -> Result<String, Error> {
        chat.check()?;
        self.run(chat, &mut |text| text.to_owned())
    }

    /// The prompt's ids. Spellings of special tokens in messages, tools and variables stay plain text;
    /// without any, the ids are those of the rendered text.
    pub fn encode(&self, tokenizer: &Tokenizer, chat: &Chat) -> Result<Vec<u32>, Error> {
        chat.check()?;
        let mut refused = None;
        let mut shielded = false;
        for message in &chat.messages {
            tokenizer.guard.check_role(&message.role)?;
        }
        let rendered = self.run(chat, &mut |text| match tokenizer.guard.shield(text) {
            Ok(safe) => {
                shielded |= safe.len() != text.len();
                safe.into_owned()
            }
            Err(error) => {
                refused.get_or_insert(error);
                String::new()
            }
        });
        match refused {
            Some(error) => Err(error),
            None if shielded => tokenizer.guard.encode(&rendered?),
            None => tokenizer.encode(&rendered?, false),
        }
    }

    /// Renders with the arguments of earlier calls as objects; if the template fails on them, as text.
    fn run(&self, chat: &Chat, text: &mut dyn FnMut(&str) -> String) -> Result<String, Error> {
        let rendered = self.run_with(chat, Arguments::Object, text);
        if rendered.is_err() && chat.has_calls() {
            return self.run_with(chat, Arguments::Text, text).or(rendered);
        }
        rendered
    }

    fn run_with(
        &self,
        chat: &Chat,
        arguments: Arguments,
        text: &mut dyn FnMut(&str) -> String,
    ) -> Result<String, Error> {
        let mut context = Map::new();
        for (name, token) in &self.named_tokens {
            context.insert((*name).into(), token.clone().into());
        }
        context.extend(chat.context(arguments, text));
        let with_tools = chat.tools.as_ref().is_some_and(|tools| !tools.is_null());
        let name = if with_tools && self.tool_use.is_some() { TOOL_USE } else { DEFAULT };
        let wrong = |error| explain(&self.file, &error);
        let template = self.env.get_template(name).map_err(wrong)?;
        let mut out = Capped(Vec::new());
        roomy(|| template.render_captured_to(Jinja::from(Serde(context)), &mut out).map(drop))?
            .map_err(wrong)?;
        let not_text = |_| Error::Chat("the template's output is not text".into());
        String::from_utf8(out.0).map_err(not_text)
    }
}

fn variant<'l>(list: &'l [Value], name: &str) -> Option<&'l str> {
    let entry = list.iter().find(|entry| entry.get("name").and_then(Value::as_str) == Some(name))?;
    entry.get("template")?.as_str()
}

/// Runs `work` with a stack for values and expressions as deep as the other limits let a template build them:
/// the engine compiles, prints, compares and frees them recursively. Only what is touched takes memory.
fn roomy<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("template".into()).stack_size(limits::TEMPLATE_STACK);
        let failed =
            |reason: String| Error::Chat(format!("no thread for its template: {reason}; free some memory"));
        let running = thread.spawn_scoped(scope, work).map_err(|error| failed(error.to_string()))?;
        running.join().map_err(|_| failed("it panicked".into()))
    })
}

/// Names the file and line of a template error, and the limit when it was one.
fn explain(file: &str, error: &minijinja::Error) -> Error {
    let mut sources = std::iter::successors(std::error::Error::source(error), |error| error.source());
    let raised = sources.find_map(|error| error.downcast_ref::<Raised>());
    let message = match (raised, error.kind()) {
        (Some(Raised(message)), _) => message.clone(),
        (None, ErrorKind::OutOfFuel) => {
            format!("it did not end within {} steps; is there an endless loop?", limits::TEMPLATE_STEPS)
        }
        (None, ErrorKind::WriteFailure) => format!("it wrote more than {} bytes", limits::OUTPUT_BYTES),
        (None, kind) => error.detail().map_or_else(|| kind.to_string(), |detail| format!("{kind}: {detail}")),
    };
    Error::Template { file: file.into(), line: error.line().unwrap_or(0), message, raised: raised.is_some() }
}

/// Adds the line to an error that has none.
fn at_line(error: Error, known: usize) -> Error {
    match error {
        Error::Template { file, line: 0, message, raised } => {
            Error::Template { file, line: known, message, raised }
        }
        other => other,
    }
}

/// Takes output up to the limit.
struct Capped(Vec<u8>);

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > limits::OUTPUT_BYTES {
            return Err(io::Error::other("too much output"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
