//! Chat templates: a chat in, prompt text or token ids out.

use std::path::Path;
use std::sync::Arc;

use minijinja::ErrorKind;
use serde_json::{Map, Value};

use crate::chat::Arguments;
use crate::files;
use crate::jinja::{self, Failed, Job, Raised, prepare};
use crate::{Chat, Dialect, Error, Stop, Tokenizer, limits, recognise};

/// A chat template, with the variant for tools when the model has one.
pub struct ChatTemplate {
    default: Variant,
    tool_use: Option<Variant>,
    named_tokens: Vec<(&'static str, String)>,
    time: Option<u64>,
}

/// One template.
struct Variant {
    /// The file it came from, for messages.
    file: String,
    source: String,
    /// What is compiled of it.
    prepared: Arc<str>,
}

impl ChatTemplate {
    /// Opens the template of a model folder: `chat_template.jinja`, else `chat_template` in
    /// `tokenizer_config.json` or `chat_template.json`; chats with tools take
    /// `additional_chat_templates/tool_use.jinja` if there is one. `None` when there is no template.
    pub fn open(dir: &Path) -> Result<Option<ChatTemplate>, Error> {
        let Some((default, tool_use)) = files::templates(dir)? else { return Ok(None) };
        ChatTemplate::new(default, tool_use, files::named_tokens(dir)?).map(Some)
    }

    /// Compiles a template from its source, as a user may supply it. `file` is for messages.
    pub fn from_source(file: &str, source: &str) -> Result<ChatTemplate, Error> {
        ChatTemplate::new((file.to_owned(), source.to_owned()), None, Vec::new())
    }

    /// This template with another source, as a user may supply it for a model. `file` is for messages.
    pub fn with_source(dir: &Path, file: &str, source: &str) -> Result<ChatTemplate, Error> {
        ChatTemplate::new((file.to_owned(), source.to_owned()), None, files::named_tokens(dir)?)
    }

    fn new(
        default: (String, String),
        tool_use: Option<(String, String)>,
        named_tokens: Vec<(&'static str, String)>,
    ) -> Result<ChatTemplate, Error> {
        let tool_use = tool_use.map(Variant::new).transpose()?;
        Ok(ChatTemplate { default: Variant::new(default)?, tool_use, named_tokens, time: None })
    }

    /// Replaces the clock that `strftime_now` reads by a fixed time, in seconds since 1970, in UTC.
    pub fn set_time(&mut self, seconds: u64) {
        self.time = Some(seconds);
    }

    /// The source of the (default) template.
    pub fn source(&self) -> &str {
        &self.default.source
    }

    /// The sources of all variants.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.default).chain(&self.tool_use).map(|variant| variant.source.as_str())
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

    /// The variables that make a model think as asked: `on`, `off`, `low`, `medium` or `high`, in whichever
    /// way the template knows. `Err` says what it knows instead.
    pub fn reasoning(&self, how: &str) -> Result<Map<String, Value>, String> {
        let reads = |name: &&str| self.sources().any(|source| jinja::reads(source, name));
        let switch = ["enable_thinking", "thinking"].into_iter().find(reads);
        let effort = Some("reasoning_effort").filter(reads);
        let (name, value) = match (how, switch, effort) {
            ("on" | "off", Some(switch), _) => (switch, Value::from(how == "on")),
            ("low" | "medium" | "high", _, Some(effort)) => (effort, Value::from(how)),
            (_, Some(switch), None) => {
                return Err(format!("its template reads {switch} only: say on or off"));
            }
            (_, None, Some(effort)) => {
                return Err(format!("its template reads {effort}: say low, medium or high"));
            }
            _ => return Err("its template reads no variable for it".into()),
        };
        Ok(Map::from_iter([(name.to_owned(), value)]))
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
        let variant = self.tool_use.as_ref().filter(|_| with_tools).unwrap_or(&self.default);
        variant.run(Some(context), self.time, chat.stop.as_ref())
    }
}

impl Variant {
    fn new((file, source): (String, String)) -> Result<Variant, Error> {
        let (size, limit) = (source.len() as u64, limits::TEMPLATE_BYTES);
        if size > limit {
            return Err(Error::TooLarge { path: file.into(), size, limit });
        }
        if source.trim().is_empty() {
            return Err(Error::Template { file, line: 0, message: "it is empty".into(), raised: false });
        }
        let prepared = prepare(&source).map_err(|(line, error)| at_line(explain(&file, &error), line))?;
        let variant = Variant { file, source, prepared: prepared.into() };
        variant.run(None, None, None)?;
        Ok(variant)
    }

    fn run(
        &self,
        context: Option<Map<String, Value>>,
        time: Option<u64>,
        stop: Option<&Stop>,
    ) -> Result<String, Error> {
        let job = Job { source: Arc::clone(&self.prepared), context, time };
        jinja::render(&job, &|| stop.is_some_and(Stop::is_set)).map_err(|failed| match failed {
            Failed::Template(error) => explain(&self.file, &error),
            Failed::Thread(reason) => Error::Thread(reason),
            Failed::Stopped => Error::Stopped,
        })
    }
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
