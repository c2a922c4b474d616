//! Turns of a chat, streamed into a closure.
use std::ops::ControlFlow;

use amoeba_engine::{Finish, Model, Prompt, Request, Stats};
use amoeba_text::{Chat, Message, Piece, ToolCall};
use serde_json::Value;

use crate::Error;

/// What became of one prompt.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// The answer.
    pub text: String,
    /// What the model said to itself, if it reasons.
    pub thoughts: String,
    /// Tools it wants called.
    pub calls: Vec<ToolCall>,
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
            Piece::Call(call) => reply.calls.push(call.clone()),
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
    tools: Option<Value>,
    turns: Vec<Message>,
}

impl Conversation {
    /// An empty conversation, with or without a system prompt.
    pub fn new(system: Option<String>) -> Conversation {
        Conversation { system, ..Conversation::default() }
    }

    /// Replaces the system prompt; the turns stay.
    pub fn set_system(&mut self, system: Option<String>) {
        self.system = system;
    }

    /// Tells the model of tools it may call; see [`amoeba_text::Tools::check`] for their form.
    pub fn set_tools(&mut self, tools: Option<Value>) {
        self.tools = tools;
    }

    /// Adds a message, such as [`Message::tool`], for the next [`Conversation::reply`].
    pub fn push(&mut self, message: Message) {
        self.turns.push(message);
    }

    /// Forgets the turns; the system prompt stays.
    pub fn clear(&mut self) {
        self.turns.clear();
    }

    /// What was said, without the system prompt.
    pub fn turns(&self) -> &[Message] {
        &self.turns
    }

    /// Says `text` and streams the answer into `on_piece`. What the prompt shares with the previous one is
    /// not computed again. A turn that fails, or that is ended before its first word, is forgotten.
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
        self.push(Message::new("user", text));
        self.reply(model, request, on_piece)
    }

    /// Streams the answer to what was pushed, as [`Conversation::ask`] does.
    ///
    /// # Errors
    /// As [`Conversation::ask`].
    pub fn reply(
        &mut self,
        model: &mut Model,
        request: &Request,
        on_piece: &mut dyn FnMut(&Piece) -> ControlFlow<()>,
    ) -> Result<Reply, Error> {
        let reply = model
            .chat_prompt(&self.chat())
            .map_err(Error::from)
            .and_then(|prompt| stream(model, &prompt, request, on_piece));
        match &reply {
            Ok(reply) if !reply.calls.is_empty() => {
                let mut turn = Message::calling(reply.text.trim(), &reply.calls);
                // Between calls and their results, models continue their earlier thoughts.
                if !reply.thoughts.is_empty() {
                    turn.extra.insert("reasoning_content".into(), reply.thoughts.trim().into());
                }
                self.turns.push(turn);
            }
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
        Chat { messages, tools: self.tools.clone(), add_generation_prompt: true, ..Chat::default() }
    }
}

#[cfg(test)]
mod tests {
    use amoeba_engine::Sampling;
    use amoeba_text::Format;

    use super::*;

    /// The format of a prompt decides what the pieces of its answer are.
    #[test]
    fn thoughts_come_apart_from_the_answer() {
        let mut model = crate::load(crate::bundled_model().unwrap()).unwrap();
        let sampling = Sampling { temperature: 0.0, ..model.defaults() };
        let request = Request { sampling, max_tokens: Some(24), ..Request::default() };
        let mut prompt = model.raw_prompt("The moon is").unwrap();
        let mut run =
            |prompt: &Prompt| stream(&mut model, prompt, &request, &mut |_| ControlFlow::Continue(()));
        let whole = run(&prompt).unwrap().text;
        let at = |n: usize| whole.char_indices().nth(n).unwrap().0;
        let tags = [&whole[at(4)..at(6)], &whole[at(9)..at(11)]];
        prompt.format = Format::thoughts(tags[0], tags[1], false);
        let reply = run(&prompt).unwrap();
        let (mut texts, mut rest, mut inside) = ([String::new(), String::new()], whole.as_str(), 0);
        while let Some((text, after)) = rest.split_once(tags[inside]) {
            texts[inside] += text;
            (rest, inside) = (after, 1 - inside);
        }
        texts[inside] += rest;
        assert!(!reply.thoughts.is_empty(), "{whole}");
        assert_eq!([reply.text, reply.thoughts], texts, "{whole}");
    }

    #[test]
    fn calls_and_their_results_are_turns() {
        let call = ToolCall { index: 1, name: "f".into(), arguments: "{}".into(), ..ToolCall::default() };
        let mut conversation = Conversation::new(Some("Be brief.".into()));
        conversation.set_tools(Some(serde_json::json!([])));
        conversation.push(Message::calling("", std::slice::from_ref(&call)));
        conversation.push(Message::tool(&call, "21"));
        let chat = conversation.chat();
        assert!(chat.tools.is_some() && chat.messages.len() == 3);
        assert_eq!(chat.messages[1].extra["tool_calls"][0]["id"], "call00001");
        assert_eq!(chat.messages[2].extra["tool_call_id"], "call00001");
    }
}
