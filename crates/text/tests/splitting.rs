//! Stop strings and reasoning tags: every way of splitting the text gives what a search of the whole gives.
#![allow(clippy::unwrap_used)]

mod common;

use amoeba_text::{Format, Piece, Splitter, StopMatcher, reasoning_markers, starts_inside};
use common::*;
use proptest::prelude::*;

/// What is shown of a whole text: up to the stop string that is complete first, the longest of those.
fn naive_stop(text: &str, stops: &[String]) -> (String, bool) {
    let found =
        stops.iter().filter_map(|stop| text.find(stop.as_str()).map(|at| (at + stop.len(), at))).min();
    found.map_or((text.into(), false), |(_, at)| (text[..at].into(), true))
}

fn check_stops(parts: &[&str], stops: &[String]) {
    let text = parts.concat();
    let (expected, stopped) = naive_stop(&text, stops);
    let mut matcher = StopMatcher::new(stops.to_vec()).unwrap();
    let (mut shown, mut done) = (String::new(), false);
    for part in parts {
        let result = matcher.push(part);
        shown += &result.text;
        done = result.stopped;
        assert!(expected.starts_with(&shown), "{parts:?} {stops:?}");
    }
    if !done {
        shown += &matcher.finish();
    }
    assert_eq!((shown, done), (expected, stopped), "{parts:?} {stops:?}");
}

/// All texts of some length over some letters.
fn texts(letters: &[&str], length: usize) -> Vec<String> {
    (0..length).fold(vec![String::new()], |texts, _| {
        texts.iter().flat_map(|text| letters.iter().map(move |letter| format!("{text}{letter}"))).collect()
    })
}

/// All ways to cut a text, by the bits of a number.
fn cuts(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let inner: Vec<usize> = text.char_indices().map(|(at, _)| at).skip(1).collect();
    (0..1u32 << inner.len()).map(move |bits| {
        let mut parts = Vec::new();
        let mut start = 0;
        for (index, &at) in inner.iter().enumerate() {
            if bits >> index & 1 == 1 {
                parts.push(&text[start..at]);
                start = at;
            }
        }
        parts.push(&text[start..]);
        parts
    })
}

#[test]
fn stops_exhaustively() {
    let stop_sets = [
        &["ab"][..],
        &["aab"],
        &["aba", "b"],
        &["abab"],
        &["bab", "aa"],
        &["abaab", "baa"],
        &[],
        &["é", "aéa"],
    ];
    for stops in stop_sets {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let letters = if stops.iter().any(|stop| stop.contains('é')) { &["a", "é"] } else { &["a", "b"] };
        for text in (0..=8).flat_map(|length| texts(letters, length)) {
            cuts(&text).for_each(|parts| check_stops(&parts, &stops));
        }
    }
}

#[test]
fn stop_strings_hold_back_little() {
    let mut matcher = StopMatcher::new(vec!["\n\nUser:".into()]).unwrap();
    assert_eq!(matcher.push("Hello\n").text, "Hello");
    assert_eq!(matcher.push("World").text, "\nWorld");
    assert_eq!(matcher.push("!\n\nUse").text, "!");
    let result = matcher.push("r: more");
    assert!(result.stopped && result.text.is_empty());
    assert!(matcher.push("x").stopped && matcher.finish().is_empty());
    assert!(StopMatcher::new(vec!["a".into(), String::new()]).is_err());
}

/// Thoughts and answers of a whole text.
fn naive_split(mut text: &str, open: &str, close: &str, mut inside: bool) -> (String, String) {
    let (mut answer, mut thought) = (String::new(), String::new());
    loop {
        let (end, rest) = match text.split_once(if inside { close } else { open }) {
            Some((before, after)) => (before, Some(after)),
            None => (text, None),
        };
        if inside { &mut thought } else { &mut answer }.push_str(end);
        let Some(rest) = rest else { return (answer, thought) };
        (text, inside) = (rest, !inside);
    }
}

fn check_split(parts: &[&str], open: &str, close: &str, inside: bool) {
    let mut splitter = Splitter::new(&Format::thoughts(open, close, inside));
    let mut pieces: Vec<Piece> = parts.iter().flat_map(|part| splitter.push(part)).collect();
    pieces.extend(splitter.finish());
    let (mut answer, mut thought) = (String::new(), String::new());
    for piece in pieces {
        match piece {
            Piece::Answer(text) => answer += &text,
            Piece::Thought(text) => thought += &text,
            Piece::Call(call) => panic!("{call:?}"),
        }
    }
    assert_eq!((answer, thought), naive_split(&parts.concat(), open, close, inside), "{parts:?}");
}

#[test]
fn reasoning_exhaustively() {
    for text in (0..=8).flat_map(|length| texts(&["<", ">"], length)) {
        for parts in cuts(&text) {
            for inside in [false, true] {
                check_split(&parts, "<>", "><", inside);
                check_split(&parts, "<<>", "<>", inside);
            }
        }
    }
}

proptest! {
    #[test]
    fn reasoning_in_text(
        parts in prop::collection::vec("(<think>|</think>|<thi|nk>|[a<é/]){0,4}", 0..8),
        inside: bool,
    ) {
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        check_split(&parts, "<think>", "</think>", inside);
    }

    #[test]
    fn stops_in_text(
        parts in prop::collection::vec("[ab🙂é]{0,5}", 0..8),
        stops in prop::collection::vec("[ab🙂é]{1,4}", 0..4),
    ) {
        check_stops(&parts.iter().map(String::as_str).collect::<Vec<_>>(), &stops);
    }
}

#[test]
fn markers() {
    let qwen = tokenizer("qwen");
    let think = Some(("<think>".to_owned(), "</think>".to_owned()));
    assert_eq!(reasoning_markers(template("qwen").source(), &qwen), think);
    assert_eq!(reasoning_markers("{{ messages }}", &qwen), None);
    assert_eq!(reasoning_markers("<think>…</think>", &tokenizer("spm")), think);
    assert!(starts_inside("<|im_start|>assistant\n<think>\n", "<think>"));
    assert!(!starts_inside("<|im_start|>assistant\n<think>\n\n</think>\n\n", "<think>"));
}
