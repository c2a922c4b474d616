//! `amoeba run`: one answer, or a chat when there is no prompt and somebody sits at the terminal.
mod prompt;
mod tools;

use std::io::IsTerminal;
use std::path::PathBuf;

use amoeba::{Conversation, Finish, Message, bundled_model, stream_within};

use super::chat::{Printer, Reasoning, SamplingArgs, Screen, Settings, TemplateArgs, summary};
use super::common::{self, DeviceArgs};
use super::console::Console;
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::{console, render, repl};

/// Flags of `run`.
#[derive(clap::Args, Debug, Default)]
pub struct Args {
    /// Folder, owner/name in the Hugging Face cache, or name of mlx-community [default: the bundled model]
    #[arg(value_name = "MODEL")]
    first: Option<String>,
    /// Prompt; an only argument that names no model is the prompt
    #[arg(value_name = "PROMPT")]
    second: Option<String>,
    /// Model, as the first argument
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// Prompt; `-` reads standard input
    #[arg(short, long, value_name = "TEXT", conflicts_with = "file", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Read the prompt from a file
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// System prompt
    #[arg(long, value_name = "TEXT", conflicts_with = "raw", allow_hyphen_values = true)]
    system: Option<String>,
    /// Give the model the prompt as it is, without chat template
    #[arg(long)]
    raw: bool,
    /// Tools the model may call: a JSON array as in the chat completions interface. Calls are printed, not
    /// made
    #[arg(long, value_name = "FILE", conflicts_with = "raw")]
    tools: Option<PathBuf>,
    /// Show what the model thinks before it answers (on standard error)
    #[arg(long)]
    show_reasoning: bool,
    /// Positions of context to reserve; 0 is the model's own
    #[arg(short, long, value_name = "N")]
    ctx_size: Option<usize>,
    /// Load the model even if the memory looks too small
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    template: TemplateArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Answers, or chats.
pub fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let at_terminal = std::io::stdin().is_terminal();
    let decision = prompt::decide(args, at_terminal, &prompt::is_model)?;
    let text = prompt::read(&decision.source)?;
    let tools = args.tools.as_deref().map(tools::read).transpose()?;
    if tools.is_some() && text.is_none() {
        return Err(Failure::usage(
            "--tools needs a prompt: a chat at the terminal has nobody to make the calls",
        ));
    }
    let (dir, how) = match &decision.model {
        Some(name) => common::find(name).map_err(|failure| prompt::advise(args, failure))?,
        None => {
            let dir = bundled_model()?;
            let how = format!("the bundled model, {}", dir.display());
            (dir, how)
        }
    };
    if decision.model.as_deref().is_none_or(|name| name != dir.to_string_lossy()) {
        console.note(&format!("[model: {how}]"));
    }
    let interrupt = Interrupt::install()?;
    let mut model = common::load(
        &dir,
        &args.device.options(args.ctx_size.filter(|size| *size > 0)),
        args.force,
        console,
    )?;
    let mut settings = Settings::new(model.defaults(), &args.sampling, args.show_reasoning)?;
    settings.reasoning = Reasoning::new(&args.template);
    if let Some(file) = &args.template.chat_template {
        model.set_template(render::template(&dir, Some(file))?);
    }
    let mut conversation = Conversation::new(args.system.clone());
    settings.reasoning.apply(&model, &mut conversation)?;
    let Some(text) = text else {
        return repl::run(&mut model, conversation, settings, &interrupt, args.raw, console);
    };
    if text.is_empty() {
        return Err(Failure::usage(
            "the prompt is empty: give one as argument, with -p, or on standard input",
        ));
    }

    // Until the flag is armed Ctrl-C ends the program: neither template nor tokenizer would look at it.
    let prompt = if args.raw {
        model.raw_prompt(&text)?
    } else {
        if let Some(tools) = tools {
            tools::check(&model)?;
            conversation.set_tools(Some(tools));
        }
        conversation.push(Message::new("user", text));
        conversation.prompt(&model, None)?
    };
    let request = settings.request(interrupt.arm());
    let mut screen = Streams(console);
    let mut printer = Printer::new(&mut screen, settings.show_reasoning);
    let most = conversation.thought_tokens();
    let reply = stream_within(&mut model, &prompt, &request, most, &mut |piece| printer.take(piece));
    printer.finish()?;
    let reply = reply?;
    interrupt.disarm();
    console.note(&summary(&model, &reply, &request.sampling));
    match reply.finish {
        Some(Finish::Cancelled) => Err(Failure::interrupted()),
        _ => Ok(()),
    }
}

/// The answer goes to standard output, everything else to standard error.
pub struct Streams<'a>(pub &'a Console);

impl Screen for Streams<'_> {
    fn answer(&mut self, text: &str) -> Result<(), Failure> {
        console::print(text)
    }

    fn thought(&mut self, text: &str) {
        console::say(&self.0.grey(text));
    }

    fn note(&mut self, text: &str) {
        self.0.note(text);
    }
}
