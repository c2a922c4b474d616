//! The vocabulary model, shared by the tokenizers that read text with and without control tokens.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use tokenizers::models::TrainerWrapper;
use tokenizers::{Model, ModelWrapper, Result, Token};

/// A reference-counted model. A derived tokenizer gives it fixed ids for its added tokens and the ids that
/// text must never become, even where the base vocabulary happens to spell them.
#[derive(Clone)]
pub(crate) struct SharedModel {
    inner: Arc<ModelWrapper>,
    names: Arc<HashMap<String, u32>>,
    control: Arc<HashSet<u32>>,
}

impl SharedModel {
    /// The same vocabulary, with `names` at fixed ids and without the `control` ids.
    pub fn without(&self, control: Arc<HashSet<u32>>, names: HashMap<String, u32>) -> SharedModel {
        SharedModel { inner: self.inner.clone(), names: Arc::new(names), control }
    }

    /// The cut points that keep `tokens` from containing a control token: inside each, after one character.
    fn cuts(&self, text: &str, tokens: &[Token]) -> Result<Vec<usize>> {
        let mut cuts = Vec::new();
        for token in tokens.iter().filter(|token| self.control.contains(&token.id)) {
            let (start, end) = token.offsets;
            let first = text.get(start..end).and_then(|spelling| spelling.chars().next());
            match first.map(|first| start + first.len_utf8()).filter(|&cut| cut < end) {
                Some(cut) => cuts.push(cut),
                None => {
                    return Err(
                        format!("{:?} is a control token and cannot be plain text", token.value).into()
                    );
                }
            }
        }
        Ok(cuts)
    }

    fn tokenize_plain(&self, text: &str) -> Result<Vec<Token>> {
        let mut done = Vec::new();
        let mut open = vec![(0, text)];
        while let Some((offset, part)) = open.pop() {
            let tokens = self.inner.tokenize(part)?;
            let cuts = self.cuts(part, &tokens)?;
            if cuts.is_empty() {
                done.extend(tokens.into_iter().map(|mut token| {
                    token.offsets = (token.offsets.0 + offset, token.offsets.1 + offset);
                    token
                }));
                continue;
            }
            let mut end = part.len();
            for &cut in cuts.iter().rev() {
                open.push((offset + cut, &part[cut..end]));
                end = cut;
            }
            open.push((offset, &part[..end]));
        }
        Ok(done)
    }
}

impl<'de> Deserialize<'de> for SharedModel {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<SharedModel, D::Error> {
        let inner = Arc::new(ModelWrapper::deserialize(from)?);
        Ok(SharedModel { inner, names: Arc::default(), control: Arc::default() })
    }
}

impl Model for SharedModel {
    type Trainer = TrainerWrapper;

    fn tokenize(&self, text: &str) -> Result<Vec<Token>> {
        if self.control.is_empty() { self.inner.tokenize(text) } else { self.tokenize_plain(text) }
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.names.get(token).copied().or_else(|| self.inner.token_to_id(token))
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        self.inner.get_vocab()
    }

    fn get_vocab_size(&self) -> usize {
        self.inner.get_vocab_size()
    }

    fn save(&self, folder: &Path, prefix: Option<&str>) -> Result<Vec<PathBuf>> {
        self.inner.save(folder, prefix)
    }

    fn get_trainer(&self) -> TrainerWrapper {
        self.inner.get_trainer()
    }
}
