//! Text to ids and back: a Hugging Face `tokenizer.json` with the checks and views this program needs.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::{
    AddedToken, DecoderWrapper, Model, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    TokenizerImpl,
};

use crate::checks::{Head, ListedToken, cut};
use crate::files::{self, invalid};
use crate::guard::Guard;
use crate::model::SharedModel;
use crate::{Detokeniser, Error, sources};

pub(crate) type Inner =
    TokenizerImpl<SharedModel, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// A loaded tokenizer; cheap to share between threads by reference or `Arc`.
pub struct Tokenizer {
    pub(crate) inner: Inner,
    /// As `inner`, but spellings of control tokens are plain text.
    plain: Inner,
    pub(crate) guard: Guard,
    special: HashSet<u32>,
    eos: Vec<u32>,
    vocab_size: usize,
}

impl Tokenizer {
    /// Opens `tokenizer.json` in a model folder, or what stands for it (`sources`). End-of-sequence ids come
    /// from `config.json`, `generation_config.json` and `tokenizer_config.json` there.
    pub fn open(dir: &Path) -> Result<Tokenizer, Error> {
        let (path, bytes) = sources::read(dir)?;
        let head: Head = serde_json::from_slice(&bytes).map_err(|error| invalid(&path, error))?;
        head.check().map_err(|reason| invalid(&path, reason))?;
        let mut inner = parse(&bytes).map_err(|reason| invalid(&path, reason))?;
        drop(bytes);
        check_ids(&inner, &head).map_err(|reason| invalid(&path, reason))?;
        complete(&mut inner, &sources::added_tokens(&files::object(&dir.join("tokenizer_config.json"))?));

        let added: BTreeMap<u32, AddedToken> = inner.get_added_tokens_decoder().into_iter().collect();
        let special: HashSet<u32> =
            added.iter().filter(|(_, token)| token.special).map(|(&id, _)| id).collect();
        let unknown = head.model.unk_token.and_then(|token| inner.token_to_id(&token)).or(head.model.unk_id);
        let control: Arc<HashSet<u32>> =
            Arc::new(special.iter().copied().filter(|&id| Some(id) != unknown).collect());
        let view = |tokens: Vec<(u32, AddedToken)>| derive(&inner, &control, tokens);
        let plain = view(added.clone().into_iter().filter(|(_, token)| !token.special).collect());
        let guard = Guard::new(&added, view).map_err(|reason| invalid(&path, reason))?;
        let vocab_size = inner.get_vocab_size(true);
        let eos = eos_ids(dir, &inner)?;
        Ok(Tokenizer { inner, plain, guard, special, eos, vocab_size })
    }

    /// Text in which spellings of special tokens are control tokens: rendered templates and raw prompts.
    /// `add_special` adds what the post-processor adds (usually one token in front).
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, Error> {
        run(&self.inner, text, add_special)
    }

    /// Text in which spellings of special tokens are plain text: what users write.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, Error> {
        run(&self.plain, text, false)
    }

    /// The text of some ids; `skip_special` leaves special tokens out. Unknown ids have no text.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, Error> {
        let decode = || self.inner.decode(ids, skip_special).map_err(|error| error.to_string());
        guarded(decode).map_err(Error::Decode)
    }

    /// How many tokens there are, added ones included. A model's embedding may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The id of the token spelled exactly so.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }

    /// Whether `decode` leaves this token out when asked to skip special tokens.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// Ids and spellings of the special tokens.
    pub(crate) fn special_tokens(&self) -> impl Iterator<Item = (u32, String)> {
        self.special.iter().filter_map(|&id| Some((id, piece(&self.inner, id)?)))
    }

    /// The ids that end a sequence, each once, those of `config.json` first.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos
    }

    /// Starts decoding a stream of ids, special tokens left out.
    pub fn detokeniser(&self) -> Detokeniser<'_> {
        Detokeniser::new(self)
    }
}

pub(crate) fn run(inner: &Inner, text: &str, add_special: bool) -> Result<Vec<u32>, Error> {
    let encode = || inner.encode_fast(text, add_special).map_err(|error| error.to_string());
    Ok(guarded(encode).map_err(Error::Encode)?.get_ids().to_vec())
}

fn check_ids(inner: &Inner, head: &Head) -> Result<(), String> {
    for ListedToken { id, content } in &head.added_tokens {
        let given = inner.token_to_id(content);
        if given.is_some_and(|given| given != *id) {
            return Err(format!(
                "added token {:?} is listed with id {id} but the vocabulary gives it {given:?}",
                cut(content)
            ));
        }
    }
    Ok(())
}

/// Adds tokens that `tokenizer_config.json` lists and `tokenizer.json` does not, as transformers does: those
/// that are in the vocabulary, and those that come next after it. Others have no row that could be theirs.
fn complete(inner: &mut Inner, listed: &[(u64, Value)]) {
    let known = inner.get_added_tokens_decoder();
    for (id, token) in listed.iter().filter(|(id, _)| !known.contains_key(&(*id as u32))) {
        let Ok(token) = AddedToken::deserialize(token) else { continue };
        let id = *id as u32;
        let place = inner.token_to_id(&token.content).unwrap_or(inner.get_vocab_size(true) as u32);
        if place == id && !token.content.is_empty() {
            inner.add_tokens(&[token]);
        }
    }
}

/// The crate reads untrusted files with indexing and `unwrap`; `Head::check` refuses the cases known to
/// panic, and this keeps an unknown one from ending the process. A tokenizer is not changed by what it reads.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    done.unwrap_or_else(|_| Err("the tokenizers crate panicked on it".into()))
}

/// Parses, without the truncation and padding that only batch training wants.
fn parse(bytes: &[u8]) -> Result<Inner, String> {
    let mut inner = guarded(|| serde_json::from_slice::<Inner>(bytes).map_err(|error| error.to_string()))?;
    inner.with_truncation(None).map_err(|error| error.to_string())?;
    inner.with_padding(None);
    Ok(inner)
}

/// A tokenizer over the same vocabulary with other added tokens and no way to reach the `control` ids.
fn derive(inner: &Inner, control: &Arc<HashSet<u32>>, tokens: Vec<(u32, AddedToken)>) -> Inner {
    let names = tokens.iter().map(|(id, token)| (token.content.clone(), *id)).collect();
    let mut derived = Inner::new(inner.get_model().without(control.clone(), names));
    derived.with_normalizer(inner.get_normalizer().cloned());
    derived.with_pre_tokenizer(inner.get_pre_tokenizer().cloned());
    derived.add_tokens(&tokens.into_iter().map(|(_, token)| token).collect::<Vec<_>>());
    derived
}

fn eos_ids(dir: &Path, inner: &Inner) -> Result<Vec<u32>, Error> {
    let mut ids = files::eos_ids(&dir.join("config.json"))?;
    match files::eos_ids(&dir.join("generation_config.json")) {
        Ok(further) => ids.extend(further),
        Err(Error::File(_)) => {} // not needed: who loads the model says that it is left out
        Err(odd) => return Err(odd),
    }
    let named = files::named_tokens(dir)?;
    let eos = named.iter().find(|(name, _)| *name == "eos_token");
    ids.extend(eos.and_then(|(_, text)| inner.token_to_id(text)));
    let mut seen = HashSet::new();
    ids.retain(|id| seen.insert(*id));
    Ok(ids)
}

/// The text that one id stands for in the vocabulary, before the decoder.
pub(crate) fn piece(inner: &Inner, id: u32) -> Option<String> {
    inner.get_added_vocabulary().simple_id_to_token(id).or_else(|| inner.get_model().id_to_token(id))
}
