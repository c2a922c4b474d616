//! Turns of a chat, streamed into a closure.
use std::ops::ControlFlow;

use amoeba_engine::{Finish, Model, Prompt, Request, Stats};
use amoeba_text::{Chat, Message, Piece, Stop, ToolCall};
use serde_json::{Map, Value};

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

impl Reply {
    fn take(&mut self, piece: &Piece) {
        match piece {
            Piece::Answer(text) => self.text += text,
            Piece::Thought(text) => self.thoughts += text,
            Piece::Call(call) => self.calls.push(call.clone()),
        }
    }
}

/// Runs one prompt as [`stream`] does, with at most so many tokens inside a thought: then its closing marker
/// is given to the model, and it goes on from there. Without a limit, or for a model whose closing marker is
/// not known, thoughts end by themselves.
///
/// # Errors
/// As [`stream`].
pub fn stream_within(
    model: &mut Model,
    prompt: &Prompt,
    request: &Request,
    thought_tokens: Option<usize>,
    on_piece: &mut dyn FnMut(&Piece) -> ControlFlow<()>,
) -> Result<Reply, Error> {
    let (Some(most), Some((_, close))) = (thought_tokens, prompt.format.reasoning.clone()) else {
        return stream(model, prompt, request, on_piece);
    };
    let mut thought = Reply::default();
    let mut written = Vec::new();
    if most > 0 || !prompt.format.starts_inside {
        let mut before = (!prompt.format.starts_inside).then_some(0);
        let mut generation = model.generate(prompt, request)?;
        let mut cut = false;
        while let Some(piece) = generation.next().transpose()? {
            thought.take(&piece);
            // What was written before the thought does not count.
            match piece {
                Piece::Thought(_) => before = before.or(Some(0)),
                _ => before = Some(generation.tokens().len()),
            }
            let inside = generation.tokens().len() - before.unwrap_or(0);
            cut = matches!(piece, Piece::Thought(_)) && inside >= most;
            if on_piece(&piece).is_break() || cut {
                break;
            }
        }
        thought.finish = generation.finish();
        thought.stats = generation.stats().clone();
        if !cut {
            return Ok(thought);
        }
        written = generation.tokens().to_vec();
    }
    let mut rest = prompt.clone();
    rest.tokens.extend(&written);
    rest.tokens.extend(model.tokenizer().encode(&close, false).map_err(amoeba_engine::Error::from)?);
    rest.format.starts_inside = false;
    let left = request.max_tokens.map(|most| most.saturating_sub(written.len()).max(1));
    let mut reply = stream(model, &rest, &Request { max_tokens: left, ..request.clone() }, on_piece)?;
    reply.text.insert_str(0, &thought.text);
    reply.thoughts.insert_str(0, &thought.thoughts);
    reply.calls.splice(0..0, thought.calls);
    let (all, first) = (&mut reply.stats, &thought.stats);
    if !written.is_empty() {
        (all.prompt_tokens, all.reused_tokens) = (first.prompt_tokens, first.reused_tokens);
        (all.prefill, all.first_token) = (first.prefill, first.first_token);
    }
    all.generated_tokens += first.generated_tokens;
    all.decode += first.decode;
    Ok(reply)
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
        reply.take(&piece);
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
    variables: Map<String, Value>,
    thought_tokens: Option<usize>,
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

    /// Switches of the template, such as `enable_thinking`.
    pub fn set_variables(&mut self, variables: Map<String, Value>) {
        self.variables = variables;
    }

    /// Most tokens inside a thought; see [`stream_within`].
    pub fn set_thought_tokens(&mut self, most: Option<usize>) {
        self.thought_tokens = most;
    }

    /// Most tokens inside a thought.
    pub fn thought_tokens(&self) -> Option<usize> {
        self.thought_tokens
    }

    /// The prompt of what was pushed; `stop` ends a template that takes long.
    ///
    /// # Errors
    /// The model's chat template refuses the conversation.
    pub fn prompt(&self, model: &Model, stop: Option<Stop>) -> Result<Prompt, Error> {
        Ok(model.chat_prompt(&Chat { stop, ..self.chat() })?)
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
        let reply = self
            .prompt(model, request.cancel.clone().map(Stop))
            .and_then(|prompt| stream_within(model, &prompt, request, self.thought_tokens, on_piece));
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
        let (tools, variables) = (self.tools.clone(), self.variables.clone());
        Chat { messages, tools, variables, add_generation_prompt: true, ..Chat::default() }
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
