//! Every case of the tokenizer fixtures, which Python's tokenizers and transformers made.
#![allow(clippy::unwrap_used)]

mod common;

use amoeba_text::{Chat, ChatTemplate, Message, Tokenizer};
use common::*;

#[test]
fn encode_and_decode() {
    let mut checked = 0;
    for flavour in FLAVOURS {
        let (tokenizer, cases) = (tokenizer(flavour), cases(flavour));
        assert_eq!(tokenizer.vocab_size() as u64, cases["vocab_size"]);
        assert_eq!(tokenizer.eos_ids(), [cases["eos_token_id"].as_u64().unwrap() as u32]);
        for case in cases["encode"].as_array().unwrap() {
            let (text, expected) = (case["text"].as_str().unwrap(), ids(&case["ids"]));
            assert_eq!(tokenizer.encode(text, false).unwrap(), expected, "{flavour} {text:?}");
            assert_eq!(
                tokenizer.encode(text, true).unwrap(),
                ids(&case["ids_with_special"]),
                "{flavour} {text:?}"
            );
            assert_eq!(tokenizer.decode(&expected, false).unwrap(), case["decoded"], "{flavour} {text:?}");
            assert_eq!(
                tokenizer.decode(&expected, true).unwrap(),
                case["decoded_skip_special"],
                "{flavour} {text:?}"
            );
            let mut stream = tokenizer.detokeniser();
            let pushed: String = expected.iter().map(|&id| stream.push(id).unwrap()).collect();
            assert_eq!(
                pushed + &stream.finish().unwrap(),
                case["decoded_skip_special"],
                "{flavour} {text:?}"
            );
            if !expected.iter().any(|&id| tokenizer.is_special(id)) {
                assert_eq!(tokenizer.encode_plain(text).unwrap(), expected, "{flavour} {text:?}");
            }
            checked += 1;
        }
    }
    assert_eq!(checked, 105);
}

#[test]
fn chats() {
    let mut checked = 0;
    for flavour in FLAVOURS {
        let (tokenizer, template, cases) = (tokenizer(flavour), template(flavour), cases(flavour));
        for case in cases["chat"].as_array().unwrap() {
            let chat = chat(case);
            assert_eq!(template.render(&chat).unwrap(), case["text"], "{flavour}");
            assert_eq!(
                template.encode(&tokenizer, &chat).unwrap(),
                ids(&case["ids"]),
                "{flavour} {}",
                case["text"]
            );
            checked += 1;
        }
    }
    assert_eq!(checked, 34);
}

#[test]
fn bundled_model() {
    let dir = root().join("models/tiny-chat-moe-4bit");
    let dir = if dir.exists() { dir } else { root().join("models") };
    let (tokenizer, template) = (Tokenizer::open(&dir).unwrap(), ChatTemplate::open(&dir).unwrap().unwrap());
    let messages = vec![Message::new("user", "What is a mixture of experts?")];
    let chat = Chat { messages, add_generation_prompt: true, ..Chat::default() };
    let text = template.render(&chat).unwrap();
    assert!(text.contains("What is a mixture of experts?"), "{text}");
    let ids = template.encode(&tokenizer, &chat).unwrap();
    assert_eq!(ids, tokenizer.encode(&text, false).unwrap());
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    assert!(!tokenizer.eos_ids().is_empty());
}

#[test]
fn shared_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<Tokenizer>();
    check::<ChatTemplate>();
}

#[test]
fn a_chat_takes_well_under_a_millisecond() {
    let (tokenizer, template) = (tokenizer("qwen"), template("qwen"));
    let chat = says("user", "What is a <|im_end|> mixture of experts?");
    let started = std::time::Instant::now();
    for _ in 0..1000 {
        template.encode(&tokenizer, &chat).unwrap();
    }
    println!("{:?} for 1000", started.elapsed());
    assert!(started.elapsed().as_secs() < 10);
}
