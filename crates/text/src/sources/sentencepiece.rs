//! `tokenizer.model` of sentencepiece: a protocol buffer of pieces with scores, and how text is prepared.
//! Fields: `sentencepiece_model.proto` of google/sentencepiece.

use std::collections::HashMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use super::{added, added_tokens, class};
use crate::{files, limits};

/// Stands for a blank.
const BLANK: &str = "\u{2581}";

struct Piece {
    text: String,
    score: f32,
    kind: u64,
}

/// Kinds of pieces that text does not become.
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

/// Models.
const UNIGRAM: u64 = 1;
const BPE: u64 = 2;

struct Model {
    pieces: Vec<Piece>,
    kind: u64,
    byte_fallback: bool,
    unknown: u64,
    blank_in_front: bool,
    single_blanks: bool,
    charsmap: Vec<u8>,
}

/// The file as `tokenizer.json` has it.
pub fn convert(bytes: &[u8], config: &Map<String, Value>) -> Result<Value, String> {
    let model = read(bytes).ok_or("it is not a model of sentencepiece")?;
    if model.pieces.is_empty() {
        return Err("it has no pieces".into());
    }
    let mut added_list: Vec<Value> = Vec::new();
    for (id, piece) in (0u64..).zip(&model.pieces) {
        if matches!(piece.kind, UNKNOWN | CONTROL | USER_DEFINED) {
            added_list.push(added(id, &piece.text, piece.kind != USER_DEFINED));
        }
    }
    for (id, token) in added_tokens(config) {
        match added_list.iter_mut().find(|known| known["id"] == id) {
            Some(known) => *known = token,
            None => added_list.push(token),
        }
    }
    let (vocabulary, decoder) = match model.kind {
        BPE => (merging(&model), decoder(&model)),
        UNIGRAM => (unigram(&model), decoder(&model)),
        other => return Err(format!("its model type {other} is neither unigram nor BPE")),
    };
    let (normalizer, pre_tokenizer) = preparation(&model, config);
    Ok(json!({
        "version": "1.0",
        "added_tokens": added_list,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": front(&model, config),
        "decoder": decoder,
        "model": vocabulary,
    }))
}

fn merging(model: &Model) -> Value {
    let ids: HashMap<&str, usize> =
        model.pieces.iter().enumerate().rev().map(|(id, piece)| (piece.text.as_str(), id)).collect();
    let mut merges = Vec::new();
    for piece in model.pieces.iter().filter(|piece| piece.text.len() <= limits::TOKEN_BYTES) {
        let splits = piece.text.char_indices().skip(1).filter_map(|(at, _)| {
            let (left, right) = piece.text.split_at(at);
            Some((*ids.get(left)?, *ids.get(right)?, left, right))
        });
        let mut splits: Vec<_> = splits.collect();
        splits.sort_by_key(|(left, right, ..)| (*left, *right));
        merges.extend(splits.into_iter().map(|(_, _, left, right)| (piece.score, left, right)));
    }
    // The best score first; of the same score the one with the longer parts.
    merges.sort_by(|a, b| {
        let lengths = |(_, left, right): &(f32, &str, &str)| (left.chars().count(), right.chars().count());
        b.0.total_cmp(&a.0).then_with(|| lengths(b).cmp(&lengths(a)))
    });
    let merges: Vec<Value> = merges.into_iter().map(|(_, left, right)| json!([left, right])).collect();
    let vocabulary: Map<String, Value> =
        ids.iter().map(|(text, id)| ((*text).to_owned(), (*id).into())).collect();
    let unknown = model.pieces.get(model.unknown as usize).map(|piece| piece.text.as_str());
    json!({
        "type": "BPE", "vocab": vocabulary, "merges": merges, "unk_token": unknown, "fuse_unk": true,
        "byte_fallback": model.byte_fallback,
    })
}

fn unigram(model: &Model) -> Value {
    let pieces: Vec<Value> = model.pieces.iter().map(|piece| json!([piece.text, piece.score])).collect();
    json!({
        "type": "Unigram", "vocab": pieces, "unk_id": model.unknown, "byte_fallback": model.byte_fallback,
    })
}

/// Normaliser and cutting: blanks become a letter, and one may come in front.
fn preparation(model: &Model, config: &Map<String, Value>) -> (Value, Value) {
    let blanks = json!({ "type": "Replace", "pattern": { "String": " " }, "content": BLANK });
    let mut steps = Vec::new();
    if !model.charsmap.is_empty() {
        let map = BASE64_STANDARD.encode(&model.charsmap);
        steps.push(json!({ "type": "Precompiled", "precompiled_charsmap": map }));
    }
    if model.single_blanks {
        steps.push(json!({ "type": "Strip", "strip_left": true, "strip_right": true }));
        steps.push(json!({ "type": "Replace", "pattern": { "Regex": " {2,}" }, "content": " " }));
    }
    let flag = |key: &str| config.get(key).and_then(Value::as_bool);
    let in_front = flag("add_prefix_space").unwrap_or(model.blank_in_front);
    // Text after a special token gets no blank where the file says that it is not the old way.
    let first_only = in_front && flag("legacy") == Some(false);
    if in_front && !first_only {
        steps.push(json!({ "type": "Prepend", "prepend": BLANK }));
    }
    if !first_only {
        steps.push(blanks);
    }
    let normalizer =
        if steps.is_empty() { Value::Null } else { json!({ "type": "Sequence", "normalizers": steps }) };
    let cut = json!({
        "type": "Metaspace", "replacement": BLANK, "prepend_scheme": "first", "split": false,
    });
    (normalizer, if first_only { cut } else { Value::Null })
}

fn decoder(model: &Model) -> Value {
    let strip = usize::from(model.blank_in_front);
    json!({ "type": "Sequence", "decoders": [
        { "type": "Replace", "pattern": { "String": BLANK }, "content": " " },
        { "type": "ByteFallback" },
        { "type": "Fuse" },
        { "type": "Strip", "content": " ", "start": strip, "stop": 0 },
    ] })
}

/// The token that raw text begins with.
fn front(model: &Model, config: &Map<String, Value>) -> Value {
    let llama = class(config) == "LlamaTokenizer";
    let wanted = config.get("add_bos_token").and_then(Value::as_bool).unwrap_or(llama);
    let name = config.get("bos_token").and_then(files::token_text).unwrap_or("<s>");
    let id = model.pieces.iter().position(|piece| piece.text == name && piece.kind == CONTROL);
    let (true, Some(id)) = (wanted, id) else { return Value::Null };
    json!({
        "type": "TemplateProcessing",
        "single": [
            { "SpecialToken": { "id": name, "type_id": 0 } },
            { "Sequence": { "id": "A", "type_id": 0 } },
        ],
        "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
        "special_tokens": { name: { "id": name, "ids": [id], "tokens": [name] } },
    })
}

fn read(bytes: &[u8]) -> Option<Model> {
    let mut model = Model {
        pieces: Vec::new(),
        kind: UNIGRAM,
        byte_fallback: false,
        unknown: 0,
        blank_in_front: true,
        single_blanks: true,
        charsmap: Vec::new(),
    };
    for field in Fields(bytes) {
        match field? {
            (1, Field::Bytes(piece)) => {
                let mut found = Piece { text: String::new(), score: 0.0, kind: 1 };
                for field in Fields(piece) {
                    match field? {
                        (1, Field::Bytes(text)) => found.text = String::from_utf8(text.into()).ok()?,
                        (2, Field::Four(score)) => found.score = f32::from_le_bytes(score),
                        (3, Field::Number(kind)) => found.kind = kind,
                        _ => {}
                    }
                }
                if !found.score.is_finite() {
                    return None;
                }
                model.pieces.push(found);
            }
            (2, Field::Bytes(trainer)) => {
                for field in Fields(trainer) {
                    match field? {
                        (3, Field::Number(kind)) => model.kind = kind,
                        (35, Field::Number(flag)) => model.byte_fallback = flag != 0,
                        (40, Field::Number(id)) => model.unknown = id,
                        _ => {}
                    }
                }
            }
            (3, Field::Bytes(normalizer)) => {
                for field in Fields(normalizer) {
                    match field? {
                        (2, Field::Bytes(map)) => model.charsmap = map.into(),
                        (3, Field::Number(flag)) => model.blank_in_front = flag != 0,
                        (4, Field::Number(flag)) => model.single_blanks = flag != 0,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(model)
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Four([u8; 4]),
    Eight,
}

/// The fields of a message: number and value; `None` for what is no message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Field<'a>)> {
        let key = self.number()?;
        let value = match key & 7 {
            0 => Field::Number(self.number()?),
            1 => self.take(8).map(|_| Field::Eight)?,
            2 => {
                let length = usize::try_from(self.number()?).ok()?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Four(self.take(4)?.try_into().ok()?),
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Field<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}
