//! Tests of what a generation makes of a text that the model is made to write.

use std::path::Path;

use amoeba_backend::{Error as BackendError, Executable, Probe, Row, forward_executable};
use amoeba_text::{DIALECTS, Format, Piece};

use crate::{LoadOptions, Model, Prompt, Request, Sampling};

/// A model that writes a given text.
struct Scripted {
    inner: Box<dyn Executable>,
    script: Vec<u32>,
    logits: Vec<f32>,
}

impl Executable for Scripted {
    forward_executable!(inner: plan, limits, kind, describe, path, memory);

    fn step(&mut self, _rows: &[Row], _probe: Option<&mut dyn Probe>) -> Result<(), BackendError> {
        self.logits.fill(0.0);
        self.logits[self.script.remove(0) as usize] = 1.0;
        Ok(())
    }
    fn logits(&self, _n: usize) -> &[f32] {
        &self.logits
    }
}

/// The pieces of an answer that consists of these tokens.
fn pieces(script: &dyn Fn(&Model) -> Vec<u32>, format: Format) -> Vec<Piece> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny-chat-moe-4bit");
    let options = LoadOptions { context: Some(256), threads: Some(1), ..LoadOptions::default() };
    let mut model = Model::load(&dir, &options, &mut |_, _| {}).unwrap();
    let mut script = script(&model);
    script.extend(model.tokenizer().eos_ids().first());
    let logits = vec![0.0; model.plan().spec.vocab];
    model.executable = Box::new(Scripted { inner: model.executable, script, logits });
    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    let request = Request { sampling, ..Request::default() };
    let prompt = Prompt { tokens: vec![5], format };
    model.generate(&prompt, &request).unwrap().map(|piece| piece.unwrap()).collect()
}

#[test]
fn calls_come_as_pieces() {
    let dialect = DIALECTS.iter().find(|dialect| dialect.name == "hermes");
    let format = Format { dialect, ..Format::default() };
    let text = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>\n<tool_call>{";
    let pieces = pieces(&|model| model.tokenizer().encode_plain(text).unwrap(), format);
    let [Piece::Call(call), Piece::Answer(rest)] = pieces.as_slice() else { panic!("{pieces:?}") };
    assert_eq!(
        (call.name.as_str(), call.arguments.as_str(), rest.as_str()),
        ("f", "{\"a\":1}", "<tool_call>{")
    );
}

#[test]
fn tags_may_be_special_tokens() {
    let tag = "<|im_start|>";
    let script = |model: &Model| {
        let text = |text: &str| model.tokenizer().encode_plain(text).unwrap();
        let special = model.tokenizer().token_id(tag).unwrap();
        [vec![special], text("hm"), vec![special], text("yes")].concat()
    };
    let text = |pieces: &[Piece], thoughts: bool| -> String {
        let of = |piece: &Piece| match piece {
            Piece::Answer(text) => (!thoughts).then(|| text.clone()),
            Piece::Thought(text) => thoughts.then(|| text.clone()),
            Piece::Call(call) => panic!("{call:?}"),
        };
        pieces.iter().filter_map(of).collect()
    };
    let plain = pieces(&script, Format::default());
    assert_eq!([text(&plain, false), text(&plain, true)], ["hmyes", ""]);
    let found = pieces(&script, Format::thoughts(tag, tag, false));
    assert_eq!([text(&found, false), text(&found, true)], ["yes", "hm"]);
}
