//! `Model`: an executable with its tokenizer and template. It knows what its slots cache, but not what runs.

use std::path::Path;
use std::sync::Arc;

use amoeba_backend::{Executable, Limits};
use amoeba_checkpoint::{Checkpoint, Config};
use amoeba_plan::Plan;
use amoeba_text::{Chat, ChatTemplate, Format, Tokenizer};

use crate::load::Checked;
use crate::slots::Slot;
use crate::{Error, LoadOptions, Sampling};

/// A loaded model.
pub struct Model {
    pub(crate) executable: Box<dyn Executable>,
    pub(crate) tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    defaults: Sampling,
    /// What each slot of the executable caches.
    pub(crate) cached: Vec<Slot>,
}

/// A prompt, ready to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// How to tell thoughts and tool calls from the answer.
    pub format: Format,
}

impl Model {
    /// Loads a model folder. `progress` is called as `progress(done_bytes, total_bytes)`.
    ///
    /// # Errors
    /// Anything wrong with the folder, or sizes the model does not take.
    pub fn load(
        dir: &Path,
        options: &LoadOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Model, Error> {
        Model::load_checked(Checked::open(dir, options)?, progress)
    }

    /// Loads a model that was checked for its device, as [`Model::load`] does.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_checked(checked: Checked, progress: &mut dyn FnMut(usize, usize)) -> Result<Model, Error> {
        let checkpoint = Arc::clone(&checked.checkpoint);
        let dir = checkpoint.dir();
        let tokenizer = Tokenizer::open(dir)?;
        let template = ChatTemplate::open(dir)?;
        // Neither file is needed.
        let notice = checked.options().notice;
        let defaults = read_defaults(&checkpoint).unwrap_or_else(|why| {
            notice(&format!("the sampling of generation_config.json is left out: {why}"));
            Sampling::default()
        });
        if let Err(why) = checkpoint.json("special_tokens_map.json") {
            notice(&format!("left out: {why}"));
        }
        let executable = checked.load(progress)?;
        checkpoint.check_unchanged()?;
        let cached = vec![Slot::default(); executable.limits().slots];
        Ok(Model { executable, tokenizer, template, defaults, cached })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The chat template, if the folder has one.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// Takes another chat template than the folder's own.
    pub fn set_template(&mut self, template: ChatTemplate) {
        self.template = Some(template);
    }

    /// The plan being run.
    pub fn plan(&self) -> &Plan {
        self.executable.plan()
    }

    /// Sizes fixed at load.
    pub fn limits(&self) -> Limits {
        self.executable.limits()
    }

    /// Device, instruction set, workers.
    pub fn describe(&self) -> String {
        self.executable.describe()
    }

    /// Bytes of weights, caches and buffers.
    pub fn memory(&self) -> usize {
        self.executable.memory()
    }

    /// Sampling as the model's `generation_config.json` asks for it.
    pub fn defaults(&self) -> Sampling {
        self.defaults
    }

    /// Renders and tokenises a conversation. Control tokens come from the template alone.
    ///
    /// # Errors
    /// A model without a template, or one that refuses this conversation.
    pub fn chat_prompt(&self, chat: &Chat) -> Result<Prompt, Error> {
        let template = self.template.as_ref().ok_or(Error::NoTemplate)?;
        let tokens = template.encode(&self.tokenizer, chat)?;
        let tail = self.tokenizer.decode(&tokens[tokens.len().saturating_sub(16)..], false)?;
        Ok(Prompt { format: Format::of(template, &self.tokenizer, chat, &tail), tokens })
    }

    /// Tokenises text as it is: spelled-out special tokens count, and the tokenizer adds its own.
    ///
    /// # Errors
    /// The tokenizer refuses.
    pub fn raw_prompt(&self, text: &str) -> Result<Prompt, Error> {
        Ok(Prompt { tokens: self.tokenizer.encode(text, true)?, format: Format::default() })
    }
}

/// Sampling defaults of a model folder.
fn read_defaults(checkpoint: &Checkpoint) -> Result<Sampling, Error> {
    let defaults = Sampling::default();
    let Some(config) = checkpoint.json("generation_config.json")? else { return Ok(defaults) };
    let number = |key: &str, default: f32| -> Result<f32, Error> {
        let config: &Config = &config;
        Ok(config.f32_or(key, default, 0.0..=1e6)?)
    };
    let sampling = Sampling {
        temperature: number("temperature", defaults.temperature)?,
        top_p: number("top_p", defaults.top_p)?,
        top_k: match config.f32_or("top_k", defaults.top_k as f32, -1.0..=1e7)? {
            k if k <= 0.0 => 0, // some files write -1 for off
            k => k as usize,
        },
        min_p: number("min_p", defaults.min_p)?,
        repeat_penalty: number("repetition_penalty", defaults.repeat_penalty)?,
        ..defaults
    };
    sampling.check()?;
    Ok(if config.bool_or("do_sample", true)? { sampling } else { Sampling { temperature: 0.0, ..sampling } })
}
