//! Outputs cut anywhere, and outputs made to hurt.
#![allow(clippy::unwrap_used)]

mod common;

use amoeba_text::{DIALECTS, Dialect, Format, Piece, Splitter};
use common::*;
use proptest::prelude::*;
use serde_json::Value;

/// Cuts between all characters, and each single cut.
fn cuts(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let all = text.char_indices().map(|(at, char)| &text[at..at + char.len_utf8()]).collect();
    let once = text.char_indices().map(|(at, _)| vec![&text[..at], &text[at..]]);
    std::iter::once(all).chain(once)
}

#[test]
fn cuts_change_nothing() {
    let examples = DIALECTS.iter().map(|dialect| (dialect, dialect.example.to_owned()));
    for (dialect, text) in outputs().into_iter().map(|(dialect, text, _)| (dialect, text)).chain(examples) {
        let format = format(dialect);
        let whole = split(&format, [text.as_str()]);
        for parts in cuts(&text) {
            assert_eq!(split(&format, parts.iter().copied()), whole, "{}: {parts:?}", dialect.name);
        }
    }
}

/// Then the first marker to be complete is the first to begin.
#[test]
fn no_marker_holds_another() {
    for dialect in DIALECTS {
        let open = dialect.open.iter().chain(dialect.drop).chain(dialect.close).copied();
        let open = open.chain(dialect.alone.map(|[begin, _]| begin));
        let open: Vec<&str> = open.chain(dialect.thoughts.map(|(open, _)| open)).collect();
        let sets = if dialect.name == "harmony" { vec![] } else { vec![open] };
        for set in sets.into_iter().chain([dialect.close.to_vec()]) {
            for (index, marker) in set.iter().enumerate() {
                let others = set.iter().enumerate().filter(|(other, _)| *other != index);
                for (_, other) in others {
                    assert!(!other.contains(marker), "{}: {other} holds {marker}", dialect.name);
                }
            }
        }
    }
}

/// Text made of markers, pieces of calls and noise.
fn noise(dialect: &'static Dialect) -> impl Strategy<Value = Vec<String>> {
    let mut parts: Vec<String> = dialect.markers().map(str::to_owned).collect();
    parts.extend(
        dialect.markers().map(|marker| marker[..marker.ceil_char_boundary(marker.len() / 2)].to_owned()),
    );
    let plain = r#"<think> </think> f { } " \ ' [ ] ( ) a=1 é analysis : ,"#;
    parts.extend(plain.split(' ').chain([" to=functions.f", "\n"]).map(String::from));
    parts.extend(
        ["{\"a\": 1}", "{\"name\": \"f\", \"arguments\": {\"b\": \"x\"}}", dialect.example].map(String::from),
    );
    prop::collection::vec(prop::sample::select(parts), 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn any_text_cut_anywhere(
        (dialect, parts) in
            (0..DIALECTS.len()).prop_flat_map(|which| (Just(&DIALECTS[which]), noise(&DIALECTS[which]))),
        lengths in prop::collection::vec(1..9usize, 1..40),
        inside: bool,
    ) {
        let text = parts.concat();
        let format = Format { starts_inside: inside, ..format(dialect) };
        let chars = text.char_indices().map(|(at, char)| &text[at..at + char.len_utf8()]);
        let chars: Vec<&str> = chars.collect();
        let mut pieces = Vec::new();
        let (mut rest, mut lengths) = (chars.as_slice(), lengths.iter().cycle());
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(rest.len().min(*lengths.next().unwrap()));
            pieces.push(head.concat());
            rest = tail;
        }
        let whole = split(&format, [text.as_str()]);
        prop_assert_eq!(&split(&format, pieces.iter().map(String::as_str)), &whole, "{}: {:?}", dialect.name,
            text);
        for piece in whole {
            if let Piece::Call(call) = piece {
                let arguments: Value = serde_json::from_str(&call.arguments).unwrap();
                prop_assert!(arguments.is_object() && !call.arguments.contains('\n'));
            }
        }
    }
}

/// Megabytes of the worst: all comes out again, in time linear in the text.
#[test]
fn hostile_output_is_bounded() {
    for dialect in DIALECTS {
        let format = format(dialect);
        let open = dialect.open[0];
        let inner: Vec<&str> = dialect.markers().collect();
        let deep = |pair: [&str; 2]| format!("{open}{}{}", pair[0].repeat(30_000), pair[1].repeat(30_000));
        let nested = |value: String| dialect.example.replacen('1', &value, 1);
        for text in [
            open.repeat(40_000),
            format!("{open}{}", "x".repeat(9 << 18)),
            format!("{open}{}", "\"</tool_call>".repeat(40_000)),
            inner.concat().repeat(4_000),
            inner.iter().map(|marker| marker.repeat(2_000)).collect(),
            dialect.example.repeat(4_000),
            deep(["[", "]"]),
            deep(["{\"a\":", "}"]),
            nested(format!("{}{}", "[".repeat(30_000), "]".repeat(30_000))),
            nested(format!("{}1{}", "{\"a\":".repeat(30_000), "}".repeat(30_000))),
            dialect.example.replace('f', &"f".repeat(30_000)),
            nested("9".repeat(30_000)),
        ] {
            let whole = split(&format, [text.as_str()]);
            let calls = whole.iter().filter(|piece| matches!(piece, Piece::Call(_))).count();
            assert!(calls <= 128, "{}: {calls} calls", dialect.name);
            let mut splitter = Splitter::new(&format);
            let mut at = 0;
            while at < text.len() {
                let end = text.ceil_char_boundary((at + 7).min(text.len()));
                splitter.push(&text[at..end]);
                at = end;
            }
            splitter.finish();
        }
    }
}
