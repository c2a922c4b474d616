//! Turns of a chat, streamed into a closure.
use std::ops::ControlFlow;

use amoeba_engine::{Finish, Model, Prompt, Request, Stats};
use amoeba_text::{Chat, Message, Piece};

use crate::Error;

/// What became of one prompt.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// The answer.
    pub text: String,
    /// What the model said to itself, if it reasons.
    pub thoughts: String,
    /// Why it ended; `None` when the closure ended it.
    pub finish: Option<Finish>,
    /// Numbers.
    pub stats: Stats,
}

/// Runs one prompt; `on_piece` gets the text as it becomes certain and may end the generation.
///
/// # Errors
/// As [`Model::generate`], or a step failed.
pub fn stream(
    model: &mut Model,
    prompt: &Prompt,
    request: &Request,
    on_piece: &mut dyn FnMut(&Piece) -> ControlFlow<()>,
) -> Result<Reply, Error> {
    let mut generation = model.generate(prompt, request)?;
    let mut reply = Reply::default();
    while let Some(piece) = generation.next().transpose()? {
        match &piece {
            Piece::Answer(text) => reply.text += text,
            Piece::Thought(text) => reply.thoughts += text,
        }
        if on_piece(&piece).is_break() {
            break;
        }
    }
    reply.finish = generation.finish();
    reply.stats = generation.stats().clone();
    Ok(reply)
}

/// A chat that remembers what was said.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    system: Option<String>,
    turns: Vec<Message>,
}

impl Conversation {
    /// An empty conversation, with or without a system prompt.
    pub fn new(system: Option<String>) -> Conversation {
        Conversation { system, turns: Vec::new() }
    }

    /// Replaces the system prompt; the turns stay.
    pub fn set_system(&mut self, system: Option<String>) {
        self.system = system;
    }

    /// Forgets the turns; the system prompt stays.
    pub fn clear(&mut self) {
        self.turns.clear();
    }

    /// What was said, without the system prompt.
    pub fn turns(&self) -> &[Message] {
        &self.turns
    }

    /// Says `text` and streams the answer into `on_piece`. What the prompt shares with the previous one is not
    /// computed again. A turn that fails, or that is ended before its first word, is forgotten.
    ///
    /// # Errors
    /// As [`stream`], or the model's chat template refuses the conversation.
    pub fn ask(
        &mut self,
        model: &mut Model,
        text: &str,
        request: &Request,
        on_piece: &mut dyn FnMut(&Piece) -> ControlFlow<()>,
    ) -> Result<Reply, Error> {
        self.turns.push(Message::new("user", text));
        let reply = model
            .chat_prompt(&self.chat())
            .map_err(Error::from)
            .and_then(|prompt| stream(model, &prompt, request, on_piece));
        match &reply {
            Ok(reply) if !reply.text.is_empty() => {
                self.turns.push(Message::new("assistant", reply.text.as_str()));
            }
            _ => drop(self.turns.pop()),
        }
        reply
    }

    fn chat(&self) -> Chat {
        let system = self.system.iter().map(|text| Message::new("system", text.as_str()));
        let messages = system.chain(self.turns.iter().cloned()).collect();
        Chat { messages, add_generation_prompt: true, ..Chat::default() }
    }
}
