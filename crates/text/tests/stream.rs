//! The incremental detokeniser against decoding all at once.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::LazyLock;

use amoeba_text::Tokenizer;
use common::*;
use proptest::prelude::*;

static ALL: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| FLAVOURS.map(tokenizer).into());

/// Pushes, checking that what is shown is always a beginning of the decoded text.
fn stream(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let whole = tokenizer.decode(ids, true).unwrap();
    let mut stream = tokenizer.detokeniser();
    let mut shown = String::new();
    for &id in ids {
        shown += &stream.push(id).unwrap();
        assert!(whole.starts_with(&shown), "{shown:?} is not the beginning of {whole:?}");
    }
    shown + &stream.finish().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn random_ids(which in 0..5usize, ids in prop::collection::vec(0..540u32, 0..60)) {
        prop_assert_eq!(stream(&ALL[which], &ids), ALL[which].decode(&ids, true).unwrap());
    }

    #[test]
    fn random_text(which in 0..5usize, text in any::<String>()) {
        let ids = ALL[which].encode_plain(&text).unwrap();
        prop_assert_eq!(stream(&ALL[which], &ids), ALL[which].decode(&ids, true).unwrap());
    }

    #[test]
    fn byte_tokens(ids in prop::collection::vec(3..262u32, 0..30)) {
        prop_assert_eq!(stream(&ALL[4], &ids), ALL[4].decode(&ids, true).unwrap());
    }
}

#[test]
fn characters_arrive_whole() {
    let text = "naïve 你好 🙂👨‍👩‍👧‍👦 end";
    for tokenizer in ALL.iter() {
        let mut stream = tokenizer.detokeniser();
        for id in tokenizer.encode_plain(text).unwrap() {
            assert!(!stream.push(id).unwrap().contains('\u{FFFD}'));
        }
        assert_eq!(stream.finish().unwrap(), "");
    }
}

#[test]
fn unfinished_and_reused() {
    let tokenizer = &ALL[3];
    let ids = tokenizer.encode_plain("a🙂").unwrap();
    let mut stream = tokenizer.detokeniser();
    for round in 0..2 {
        let text: String = ids[..ids.len() - 1].iter().map(|&id| stream.push(id).unwrap()).collect();
        assert_eq!(text, "a", "round {round}");
        assert_eq!(stream.finish().unwrap(), "\u{FFFD}");
    }
    assert_eq!(stream.push(9_999).unwrap(), "", "an id without a token");
}

#[test]
fn long_streams_take_linear_time() {
    for tokenizer in ALL.iter() {
        let ids = tokenizer.encode_plain("the quick brown fox 🙂 ").unwrap();
        let started = std::time::Instant::now();
        let mut stream = tokenizer.detokeniser();
        for &id in ids.iter().cycle().take(200_000) {
            stream.push(id).unwrap();
        }
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    }
}
