//! How a model is made to think: flags, and what they mean to its template.
use std::path::PathBuf;

use amoeba::{Conversation, Model};
use serde_json::{Map, Value};

use crate::cli::failure::Failure;
use crate::cli::render;

/// Flags about the chat template and about thoughts.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Template and thoughts")]
pub struct TemplateArgs {
    /// Chat template instead of the model's own
    #[arg(long, value_name = "FILE", conflicts_with = "raw")]
    pub chat_template: Option<PathBuf>,
    /// Variables of the template, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = render::kwargs, conflicts_with = "raw")]
    chat_template_kwargs: Option<Map<String, Value>>,
    /// Whether, or how much, the model thinks, if its template knows: on, off, low, medium or high
    #[arg(long, value_name = "HOW", value_parser = LEVELS, conflicts_with = "raw")]
    reasoning: Option<String>,
    /// Most tokens inside a thought, then it is closed; 0 for no thought, -1 for any number
    #[arg(long, value_name = "N", allow_negative_numbers = true, conflicts_with = "raw")]
    #[arg(value_parser = clap::value_parser!(i64).range(-1..))]
    reasoning_budget: Option<i64>,
}

const LEVELS: [&str; 5] = ["on", "off", "low", "medium", "high"];

/// What the next answer is to be like.
#[derive(Clone, Debug, Default)]
pub struct Reasoning {
    kwargs: Map<String, Value>,
    level: Option<String>,
    budget: Option<usize>,
}

impl Reasoning {
    /// What the flags say.
    pub fn new(args: &TemplateArgs) -> Reasoning {
        Reasoning {
            kwargs: args.chat_template_kwargs.clone().unwrap_or_default(),
            level: args.reasoning.clone(),
            budget: args.reasoning_budget.and_then(|most| usize::try_from(most).ok()),
        }
    }

    /// Changes one setting by the name of its flag; `None` if it is none of these.
    pub fn set(&mut self, name: &str, value: &str) -> Option<Result<(), String>> {
        let changed = match name {
            "reasoning" if LEVELS.contains(&value) => {
                self.level = Some(value.to_owned());
                Ok(())
            }
            "reasoning" => Err(format!("`{value}` is none of {}", LEVELS.join(", "))),
            "reasoning-budget" => match value.parse::<i64>() {
                Ok(most @ -1..) => {
                    self.budget = usize::try_from(most).ok();
                    Ok(())
                }
                _ => Err(format!("`{value}` is neither a number of tokens nor -1")),
            },
            "chat-template-kwargs" => render::kwargs(value).map(|kwargs| self.kwargs = kwargs),
            _ => return None,
        };
        Some(changed)
    }

    /// The settings, one a line.
    pub fn list(&self) -> String {
        let level = self.level.as_deref().unwrap_or("as the template has it");
        let budget = self.budget.map_or("-1".to_owned(), |most| most.to_string());
        let kwargs = Value::Object(self.kwargs.clone());
        format!("  reasoning {level}\n  reasoning-budget {budget}\n  chat-template-kwargs {kwargs}")
    }

    /// Applies them to a conversation.
    ///
    /// # Errors
    /// The model's template knows nothing of it.
    pub fn apply(&self, model: &Model, conversation: &mut Conversation) -> Result<(), Failure> {
        let mut variables = self.kwargs.clone();
        let Some(template) = model.template() else { return Ok(()) };
        if let Some(level) = &self.level {
            let known = template.reasoning(level);
            let refused =
                |reason| Failure::usage(format!("this model cannot be told --reasoning {level}: {reason}"));
            variables.extend(known.map_err(refused)?);
        }
        if self.budget.is_some()
            && amoeba_text::reasoning_markers(template.source(), model.tokenizer()).is_none()
        {
            return Err(Failure::usage(
                "--reasoning-budget: it is not known how thoughts of this model end; leave it out",
            ));
        }
        if self.budget == Some(0) && self.level.is_none() {
            let off = template.reasoning("off").unwrap_or_default();
            for (name, value) in off {
                variables.entry(name).or_insert(value);
            }
        }
        conversation.set_variables(variables);
        conversation.set_thought_tokens(self.budget);
        Ok(())
    }
}
