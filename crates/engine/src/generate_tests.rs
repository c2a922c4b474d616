//! Tests of what a generation keeps of the one before.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use amoeba_backend::{Error as BackendError, Executable, Probe, Row, forward_executable};
use amoeba_plan::{Cache, CacheKind, Plan};
use amoeba_text::Format;

use super::*;
use crate::{LoadOptions, Sampling};

/// A model that says it is recurrent, holds its caller to that, and fails when asked to.
struct Recurrent {
    inner: Box<dyn Executable>,
    plan: Plan,
    next: Option<usize>,
    fail: Arc<AtomicBool>,
}

impl Executable for Recurrent {
    forward_executable!(inner: limits, kind, describe, path, logits, memory);

    fn plan(&self) -> &Plan {
        &self.plan
    }
    fn step(&mut self, rows: &[Row], probe: Option<&mut dyn Probe>) -> Result<(), BackendError> {
        let position = rows[0].position;
        assert!(position == 0 || Some(position) == self.next, "at {position}, not {:?}", self.next);
        self.next = None;
        if self.fail.swap(false, Ordering::Relaxed) {
            return Err(BackendError::NotFinite { row: 0, token: 0, value: f32::NAN });
        }
        self.inner.step(rows, probe)?;
        self.next = Some(position + rows.len());
        Ok(())
    }
}

/// A model with small chunks, and the switch that makes its next step fail.
fn model() -> (Model, Arc<AtomicBool>) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny-chat-moe-4bit");
    let options = LoadOptions { context: Some(64), rows: 4, threads: Some(1), ..LoadOptions::default() };
    let mut model = Model::load(&dir, &options, &mut |_, _| {}).unwrap();
    let mut plan = model.plan().clone();
    plan.caches.push(Cache { layer: 0, kind: CacheKind::State { heads: 1, rows: 1, cols: 1 } });
    let fail = Arc::new(AtomicBool::new(false));
    let inner = model.executable;
    model.executable = Box::new(Recurrent { inner, plan, next: None, fail: Arc::clone(&fail) });
    (model, fail)
}

fn prompt(tokens: &[u32]) -> Prompt {
    Prompt { tokens: tokens.to_vec(), format: Format::default() }
}

/// Generates some tokens; tokens reused and generated.
fn generate(model: &mut Model, tokens: &[u32], n: usize) -> (usize, Vec<u32>) {
    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    let request = Request { sampling, max_tokens: Some(n), ignore_eos: true, ..Request::default() };
    let mut generation = model.generate(&prompt(tokens), &request).unwrap();
    generation.by_ref().for_each(|piece| drop(piece.unwrap()));
    (generation.stats().reused_tokens, generation.tokens().to_vec())
}

#[test]
fn a_recurrent_model_goes_on_with_a_conversation_and_starts_another_from_the_beginning() {
    let (mut model, _) = model();
    let first = [5, 6, 7, 8, 9, 10];
    let (reused, answer) = generate(&mut model, &first, 4);
    assert_eq!((reused, answer.len()), (0, 4));
    // The last token was drawn, not run.
    let next = [&first[..], &answer, &[11, 12]].concat();
    assert_eq!(generate(&mut model, &next, 3).0, first.len() + answer.len() - 1);
    // What the first prompt shares with that cannot be reused.
    assert_eq!(generate(&mut model, &first, 4), (0, answer.clone()));
    assert_eq!(generate(&mut model, &first, 4), (0, answer));
}

#[test]
fn after_a_step_that_failed_a_recurrent_model_starts_from_the_beginning() {
    let (mut model, fail) = model();
    let tokens = [5, 6, 7, 8, 9, 10];
    let (_, answer) = generate(&mut model, &tokens, 4);
    let longer = [&tokens[..], &answer, &[11]].concat();
    for fail_at in 0..3 {
        let request = Request { ignore_eos: true, ..Request::default() };
        let mut generation = model.generate(&prompt(&longer), &request).unwrap();
        for _ in 0..fail_at {
            generation.next().unwrap().unwrap();
        }
        fail.store(true, Ordering::Relaxed);
        let error = generation.find_map(Result::err).unwrap();
        assert!(matches!(error, Error::Backend(BackendError::NotFinite { .. })), "{error}");
        assert!(generation.next().is_none());
        assert_eq!(generate(&mut model, &tokens, 4), (0, answer.clone()), "failed after {fail_at} pieces");
    }
}

#[test]
fn a_recurrent_model_goes_on_after_a_cancelled_answer() {
    let (mut model, _) = model();
    let tokens = [5, 6, 7, 8, 9, 10];
    let cancel = Arc::new(AtomicBool::new(false));
    let request = Request { cancel: Some(Arc::clone(&cancel)), ignore_eos: true, ..Request::default() };
    let mut generation = model.generate(&prompt(&tokens), &request).unwrap();
    generation.next().unwrap().unwrap();
    cancel.store(true, Ordering::Relaxed);
    assert!(generation.by_ref().all(|piece| piece.is_ok()));
    assert_eq!(generation.finish(), Some(Finish::Cancelled));
    let read = [&tokens[..], generation.tokens()].concat();
    // All but the last token were run.
    assert_eq!(generate(&mut model, &[&read[..], &[11]].concat(), 1).0, read.len() - 1);
}
