//! Tests of sequences that share an engine: each gets what it gets alone, whatever comes and goes.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use std::sync::{Arc, Mutex};

use amoeba_backend::{Error as BackendError, Executable, Probe, Row, forward_executable};
use amoeba_text::Format;

use crate::draw_tests::on_device;
use crate::{
    Engine, EngineOptions, Error, Event, Finish, LoadOptions, Model, Progress, Prompt, Request, Sampling,
    SessionId,
};

/// What came of every sequence of tokens that was ever run: it must be the same bits each time.
#[derive(Default)]
struct Seen {
    logits: BTreeMap<Vec<u32>, Vec<u32>>,
    compared: usize,
    /// Rows of each step.
    steps: Vec<usize>,
}

/// An executable that holds all logits against those seen before.
struct Watched {
    inner: Box<dyn Executable>,
    /// What each slot has read.
    read: Vec<Vec<u32>>,
    seen: Arc<Mutex<Seen>>,
    /// The token whose logits are not finite.
    poison: Option<u32>,
    /// Logits of the last step.
    logits: Vec<Vec<f32>>,
    /// Whether steps of other sizes are said to give other bits, and the least size.
    sized: Option<usize>,
}

impl Executable for Watched {
    forward_executable!(inner: plan, limits, kind, describe, path, memory);

    fn bit_identical_sizes(&self, rows: usize) -> RangeInclusive<usize> {
        match self.sized {
            Some(least) if rows <= least => 1..=least,
            Some(_) => rows..=rows,
            None => 1..=usize::MAX,
        }
    }
    fn set_rows_min(&mut self, rows: usize) {
        self.sized = self.sized.map(|_| rows);
    }
    fn step(&mut self, rows: &[Row], probe: Option<&mut dyn Probe>) -> Result<(), BackendError> {
        self.inner.step(rows, probe)?;
        let mut seen = self.seen.lock().unwrap();
        seen.steps.push(rows.len());
        self.logits.clear();
        let mut found = Ok(());
        for (i, row) in rows.iter().enumerate() {
            let read = &mut self.read[row.slot];
            assert!(row.position <= read.len(), "a gap in slot {}", row.slot);
            read.truncate(row.position);
            read.push(row.token);
            if !row.logits {
                continue;
            }
            let mut logits = self.inner.logits(self.logits.len()).to_vec();
            let bits: Vec<u32> = logits.iter().map(|x| x.to_bits()).collect();
            if let Some(before) = seen.logits.get(read) {
                assert!(*before == bits, "other bits after {read:?}");
                seen.compared += 1;
            }
            seen.logits.insert(read.clone(), bits);
            if Some(row.token) == self.poison {
                logits[3] = f32::NAN;
                found = found.and(Err(BackendError::NotFinite { row: i, token: 3, value: f32::NAN }));
            }
            self.logits.push(logits);
        }
        found
    }
    fn logits(&self, n: usize) -> &[f32] {
        &self.logits[n]
    }
}

#[path = "../../../tests/support/speaking.rs"]
mod support;

const SLOTS: usize = 3;

/// A model with three slots and prefill in chunks of at most 8 rows.
fn load(model: &str) -> (Model, Arc<Mutex<Seen>>) {
    let folder = support::speaking(model);
    let options =
        LoadOptions { context: Some(64), rows: 8, slots: SLOTS, threads: Some(1), ..LoadOptions::default() };
    let mut model = Model::load(folder.path(), &options, &mut |_, _| {}).unwrap();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let read = vec![Vec::new(); SLOTS];
    let (inner, seen_too, logits) = (model.executable, Arc::clone(&seen), Vec::new());
    model.executable = Box::new(Watched { inner, read, seen: seen_too, poison: None, logits, sized: None });
    (model, seen)
}

/// Prompt and request of the n-th session.
fn session(n: usize) -> (Prompt, Request) {
    let tokens =
        (0..[5, 19, 1, 9, 30, 3, 12][n % 7]).map(|i| ((i * 37 + n * 101) % 500 + 5) as u32).collect();
    let sampling = match n % 3 {
        0 => Sampling::greedy(),
        1 => Sampling { temperature: 1.3, seed: n as u64, repeat_penalty: 1.2, ..Sampling::default() },
        _ => Sampling { temperature: 0.9, top_k: 0, seed: n as u64, ..Sampling::default() },
    };
    let request = Request { sampling, max_tokens: Some(8 + n), ignore_eos: true, ..Request::default() };
    (Prompt { tokens, format: Format::default() }, request)
}

/// What became of a session: its tokens and how it ended.
type Outcome = (Vec<u32>, Result<Option<Finish>, Error>);

fn collect(engine: &mut Engine<'_>, outcomes: &mut BTreeMap<SessionId, Outcome>) {
    while let Some((id, event)) = engine.next_event() {
        let outcome = match event {
            Event::Piece(_) => continue,
            Event::Finished(session) => (session.generated().to_vec(), Ok(session.finish())),
            Event::Failed(session, error) => (session.generated().to_vec(), Err(error)),
        };
        assert!(outcomes.insert(id, outcome).is_none(), "{id:?} ended twice");
    }
}

/// Runs what was submitted to its end.
fn run(engine: &mut Engine<'_>) -> BTreeMap<SessionId, Outcome> {
    let mut outcomes = BTreeMap::new();
    while !engine.is_idle() {
        engine.step().unwrap();
        collect(engine, &mut outcomes);
    }
    collect(engine, &mut outcomes);
    outcomes
}

fn alone(model: &mut Model, n: usize) -> Vec<u32> {
    let mut engine = Engine::new(model, &EngineOptions::default());
    let (prompt, request) = session(n);
    let id = engine.submit(&prompt, &request).unwrap();
    run(&mut engine).remove(&id).unwrap().0
}

/// Seven sessions come one after another; some are cancelled while they wait, read or write. The tokens of
/// each.
fn company(model: &mut Model) -> Vec<Outcome> {
    let mut engine = Engine::new(model, &EngineOptions { prefill_rows: Some(5), ..EngineOptions::default() });
    let (mut ids, mut outcomes) = (Vec::new(), BTreeMap::new());
    for step in 0.. {
        if step % 2 == 0 && ids.len() < 7 {
            let (prompt, request) = session(ids.len());
            ids.push(engine.submit(&prompt, &request).unwrap());
        }
        match step {
            7 => engine.cancel(ids[1]),
            11 => engine.cancel(ids[4]),
            12 => engine.cancel(ids[6]),
            _ => {}
        }
        engine.step().unwrap();
        collect(&mut engine, &mut outcomes);
        if engine.is_idle() && ids.len() == 7 {
            break;
        }
    }
    ids.iter().map(|id| outcomes.remove(id).unwrap()).collect()
}

/// Plain attention, windows, a latent cache, delta rules, a state space, short convolutions.
const MODELS: [&str; 6] = [
    "models/tiny-chat-moe-4bit",
    "fixtures/gemma4-q4g64",
    "fixtures/deepseek_v3-q4g64",
    "fixtures/qwen3_next-q4g64",
    "fixtures/jamba-q4g64",
    "fixtures/lfm2_moe-q4g64",
];

#[test]
fn company_changes_neither_tokens_nor_bits() {
    for name in MODELS {
        let (mut model, seen) = load(name);
        let expected: Vec<Vec<u32>> = (0..7).map(|n| alone(&mut model, n)).collect();
        // From here on the same in company, and once more with what is cached by then.
        for _ in 0..2 {
            let compared = seen.lock().unwrap().compared;
            for (n, (tokens, ended)) in company(&mut model).into_iter().enumerate() {
                let cancelled = [1, 4, 6].contains(&n);
                let finish = if cancelled { Finish::Cancelled } else { Finish::Length };
                assert_eq!(ended.unwrap(), Some(finish), "{name}, session {n}");
                assert!(expected[n].starts_with(&tokens), "{name}, session {n}");
                assert!(cancelled || tokens.len() == expected[n].len(), "{name}, session {n}");
            }
            assert!(seen.lock().unwrap().compared > compared + 40, "{name}");
        }
        assert!(seen.lock().unwrap().steps.contains(&SLOTS), "{name} never decoded three together");
    }
}

#[test]
fn a_device_draws_the_same_for_each_in_company() {
    for name in ["models/tiny-chat-moe-4bit", "fixtures/qwen3_next-q4g64"] {
        let (mut model, _) = load(name);
        let expected: Vec<Vec<u32>> = (0..7).map(|n| alone(&mut model, n)).collect();
        let (mut model, ahead) = on_device(model);
        let recurrent = model.plan().recurrent();
        for _ in 0..2 {
            for (n, (tokens, ended)) in company(&mut model).into_iter().enumerate() {
                ended.unwrap();
                assert!(expected[n].starts_with(&tokens), "{name}, session {n}");
                let all = [1, 4, 6].contains(&n) || tokens.len() == expected[n].len();
                assert!(all, "{name}, session {n}");
            }
        }
        let ahead = ahead.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(ahead, if recurrent { 1 } else { 2 }, "{name}");
    }
}

#[test]
fn logits_that_are_not_finite_end_one_session() {
    for name in ["models/tiny-chat-moe-4bit", "fixtures/qwen3_next-q4g64"] {
        for device in [false, true] {
            let (mut model, seen) = load(name);
            let expected: Vec<Vec<u32>> = (0..3).map(|n| alone(&mut model, n)).collect();
            // A token that only the second generates, not as its last.
            let of_others = [&expected[0][..], &expected[2][..]].concat();
            let only = |token: &&u32| !of_others.contains(token);
            let poison = *expected[1][1..5].iter().find(only).unwrap();
            let at = expected[1].iter().position(|token| *token == poison).unwrap();
            let (inner, read) = (model.executable, vec![Vec::new(); SLOTS]);
            model.executable = Box::new(Watched {
                inner,
                read,
                seen,
                poison: Some(poison),
                logits: Vec::new(),
                sized: None,
            });
            model.cached.iter_mut().for_each(|slot| slot.truncate(0));
            if device {
                model = on_device(model).0;
            }
            let mut engine = Engine::new(&mut model, &EngineOptions::default());
            let ids: Vec<SessionId> =
                (0..3).map(session).map(|(p, r)| engine.submit(&p, &r).unwrap()).collect();
            let mut outcomes = run(&mut engine);
            for n in [0, 2] {
                let (tokens, ended) = outcomes.remove(&ids[n]).unwrap();
                assert_eq!((tokens, ended.unwrap()), (expected[n].clone(), Some(Finish::Length)));
            }
            let (tokens, ended) = outcomes.remove(&ids[1]).unwrap();
            assert_eq!(tokens, expected[1][..=at]);
            assert!(matches!(ended, Err(Error::Backend(BackendError::NotFinite { token: 3, .. }))));
            // Nobody reuses what it left.
            assert!(!model.cached.iter().any(|slot| slot.tokens.starts_with(&session(1).0.tokens)));
        }
    }
}

#[test]
fn prompts_are_read_in_chunks_between_which_others_decode() {
    let (mut model, _) = load("models/tiny-chat-moe-4bit");
    let mut engine =
        Engine::new(&mut model, &EngineOptions { prefill_rows: Some(4), ..EngineOptions::default() });
    let (prompt, request) = session(2);
    engine.submit(&prompt, &request).unwrap();
    engine.step().unwrap();
    let (prompt, request) = session(1);
    engine.submit(&prompt, &request).unwrap();
    for chunk in [4, 4, 4, 4, 3] {
        let last = chunk == 3;
        let progress = engine.step().unwrap();
        // The prompt's last chunk gives it a token.
        assert_eq!((progress.prefilled, progress.decoded), (chunk, if last { 2 } else { 1 }));
    }
    assert_eq!(engine.step().unwrap(), Progress { prefilled: 0, decoded: 2, running: 2, waiting: 0 });
}

#[test]
fn the_queue_is_bounded_and_a_drained_engine_takes_no_more() {
    let (mut model, _) = load("models/tiny-chat-moe-4bit");
    let mut engine = Engine::new(&mut model, &EngineOptions { waiting_max: 2, ..EngineOptions::default() });
    let submit = |engine: &mut Engine<'_>, n| {
        let (prompt, request) = session(n);
        engine.submit(&prompt, &request)
    };
    let ids: Vec<SessionId> = (0..SLOTS + 2).map(|n| submit(&mut engine, n).unwrap()).collect();
    assert!(matches!(submit(&mut engine, 5), Err(Error::QueueFull { waiting: 5 })));
    engine.step().unwrap();
    assert!(matches!(submit(&mut engine, 5), Err(Error::QueueFull { waiting: 2 })));
    engine.cancel(ids[4]);
    let last = submit(&mut engine, 5).unwrap();
    engine.drain();
    assert!(matches!(submit(&mut engine, 5), Err(Error::Draining)));
    assert!(engine.session(last).unwrap().generated().is_empty());
    let outcomes = run(&mut engine);
    assert_eq!(outcomes.len(), 6);
    assert!(matches!(outcomes[&ids[4]], (_, Ok(Some(Finish::Cancelled)))));
    assert!(matches!(outcomes[&last], (_, Ok(Some(Finish::Length)))));
}

#[test]
fn a_conversation_returns_to_its_slot() {
    for name in ["models/tiny-chat-moe-4bit", "fixtures/qwen3_next-q4g64"] {
        let (mut model, _) = load(name);
        let mut engine = Engine::new(&mut model, &EngineOptions::default());
        let mut chats: Vec<Prompt> = [0, 1, 3].map(|n| session(n).0).into();
        for turn in 0..3 {
            let ids: Vec<SessionId> =
                chats.iter().map(|chat| engine.submit(chat, &session(0).1).unwrap()).collect();
            let mut reused = BTreeMap::new();
            while !engine.is_idle() {
                engine.step().unwrap();
                while let Some((id, event)) = engine.next_event() {
                    let Event::Finished(session) = event else { continue };
                    let chat = ids.iter().position(|other| *other == id).unwrap();
                    reused.insert(chat, (session.stats().reused_tokens, chats[chat].tokens.len()));
                    chats[chat].tokens.extend(session.generated());
                }
            }
            for (chat, (reused, prompt)) in reused {
                // All but what was drawn last, and what was said since.
                let expected = if turn == 0 { 0 } else { prompt - 2 };
                assert_eq!(reused, expected, "{name}, chat {chat}, turn {turn}");
            }
            chats.iter_mut().for_each(|chat| chat.tokens.push(7));
            chats.rotate_left(1);
        }
    }
}

/// On a device whose bits depend on the size of a step.
#[test]
fn steps_are_all_as_wide_and_prefixes_whole_chunks_where_bits_depend_on_them() {
    let (mut model, seen) = load("models/tiny-chat-moe-4bit");
    let (inner, read, logits) = (model.executable, vec![Vec::new(); SLOTS], Vec::new());
    model.executable =
        Box::new(Watched { inner, read, seen: Arc::clone(&seen), poison: None, logits, sized: Some(1) });
    let options = EngineOptions { decode_rows: Some(2), prefill_rows: Some(4), ..EngineOptions::default() };
    let mut engine = Engine::new(&mut model, &options);
    let (first, request) = session(3); // nine tokens
    let request = Request { max_tokens: Some(4), ..request };
    let next = |tokens: &[u32]| Prompt { tokens: [&first.tokens[..], tokens].concat(), ..first.clone() };
    for (prompt, expected) in [(first.clone(), 0), (next(&[1, 2, 3]), 8), (next(&[1, 2, 3, 4]), 12)] {
        let id = engine.submit(&prompt, &request).unwrap();
        while !engine.is_idle() {
            engine.step().unwrap();
            while let Some((_, event)) = engine.next_event() {
                let Event::Finished(session) = event else { continue };
                assert_eq!((session.id(), session.stats().reused_tokens), (id, expected));
            }
        }
    }
    for n in 0..3 {
        let (prompt, request) = session(n);
        engine.submit(&prompt, &request).unwrap();
    }
    seen.lock().unwrap().steps.clear();
    run(&mut engine);
    assert!(seen.lock().unwrap().steps.iter().all(|rows| *rows <= 4));
    assert_eq!(model.executable.bit_identical_sizes(1), 1..=2, "decode steps are two rows wide");
}
