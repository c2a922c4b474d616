//! Tests of generations whose tokens the device draws: the same tokens as from logits, and nothing cached
//! that was not accepted.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use amoeba_backend::{
    DeviceSampler, Drawn, Error as BackendError, Executable, Probe, Row, forward_executable,
};
use amoeba_kernels::sample::cpu::Sampler;
use amoeba_plan::{Cache, CacheKind, Plan};
use amoeba_text::Format;

use crate::{Finish, LoadOptions, Model, Prompt, Request, Sampling, Stats};

/// A device that draws, made of one that does not: what is asked for is done at once.
struct Draw {
    inner: Box<dyn Executable>,
    plan: Plan,
    /// By slot: how it draws, and its tokens.
    sequences: Vec<Option<(Sampler, Vec<u32>)>>,
    /// The rows of the last step that want logits.
    rows: Vec<Row>,
    steps: VecDeque<Vec<Drawn>>,
    taken: Vec<Drawn>,
    /// Most steps that were not taken.
    ahead: Arc<AtomicUsize>,
}

impl Draw {
    fn of(inner: Box<dyn Executable>, plan: Plan, ahead: Arc<AtomicUsize>) -> Draw {
        Draw {
            sequences: (0..inner.limits().slots).map(|_| None).collect(),
            inner,
            plan,
            rows: Vec::new(),
            steps: VecDeque::new(),
            taken: Vec::new(),
            ahead,
        }
    }
}

impl Executable for Draw {
    forward_executable!(inner: limits, kind, describe, path, logits, memory);

    fn plan(&self) -> &Plan {
        &self.plan
    }
    fn step(&mut self, rows: &[Row], probe: Option<&mut dyn Probe>) -> Result<(), BackendError> {
        (self.rows, self.steps) = Default::default();
        self.inner.step(rows, probe)
    }
    fn sampler(&mut self) -> Option<&mut dyn DeviceSampler> {
        Some(self)
    }
}

impl DeviceSampler for Draw {
    fn rows_max(&self) -> usize {
        self.sequences.len()
    }
    fn refusal(&self, sampling: &Sampling) -> Option<String> {
        (sampling.min_p > 0.5).then(|| "too likely".to_owned())
    }
    fn begin(&mut self, slot: usize, sampling: &Sampling, recent: &[u32]) -> Result<(), BackendError> {
        self.sequences[slot] = Some((Sampler::new(*sampling, self.plan.spec.vocab), recent.to_vec()));
        Ok(())
    }
    fn enqueue(&mut self, rows: &[Row]) -> Result<(), BackendError> {
        self.steps.clear();
        self.put(rows)
    }
    fn enqueue_next(&mut self) -> Result<(), BackendError> {
        let next = self.rows.iter().map(|row| Row { position: row.position + 1, ..*row });
        let next: Vec<Row> = next.collect();
        assert!(!next.is_empty(), "nothing was enqueued");
        self.put(&next)
    }
    fn take(&mut self) -> Result<&[Drawn], BackendError> {
        self.taken = self.steps.pop_front().unwrap();
        Ok(&self.taken)
    }
}

impl Draw {
    fn put(&mut self, rows: &[Row]) -> Result<(), BackendError> {
        let ran = self.inner.step(rows, None);
        if !matches!(ran, Ok(()) | Err(BackendError::NotFinite { .. })) {
            return ran;
        }
        self.rows = rows.iter().copied().filter(|row| row.logits).collect();
        let mut step = Vec::new();
        for (n, row) in self.rows.iter_mut().enumerate() {
            let (sampler, tokens) = self.sequences[row.slot].as_mut().unwrap();
            assert_eq!(tokens.len(), row.position + 1, "all that was drawn is run");
            let logits = self.inner.logits(n);
            let not_finite = logits.iter().position(|x| !x.is_finite()).map(|at| (at, logits[at]));
            row.token = sampler.sample(logits, tokens);
            tokens.push(row.token);
            step.push(Drawn { token: row.token, not_finite });
        }
        self.steps.push_back(step);
        self.ahead.fetch_max(self.steps.len(), Ordering::Relaxed);
        Ok(())
    }
}

/// The bundled model; on a device that draws, with the most tokens that were under way.
fn model(draws: bool, recurrent: bool) -> (Model, Arc<AtomicUsize>) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny-chat-moe-4bit");
    let options = LoadOptions { context: Some(64), rows: 8, threads: Some(1), ..LoadOptions::default() };
    let model = Model::load(&dir, &options, &mut |_, _| {}).unwrap();
    if !draws {
        return (model, Arc::default());
    }
    let (mut model, ahead) = on_device(model);
    if recurrent {
        let mut plan = model.plan().clone();
        plan.caches.push(Cache { layer: 0, kind: CacheKind::State { heads: 1, rows: 1, cols: 1 } });
        model.executable = Box::new(Draw::of(model.executable, plan, Arc::clone(&ahead)));
    }
    (model, ahead)
}

/// The model on a device that draws, with the most steps that were under way.
pub(crate) fn on_device(mut model: Model) -> (Model, Arc<AtomicUsize>) {
    let ahead = Arc::new(AtomicUsize::new(0));
    let plan = model.plan().clone();
    model.executable = Box::new(Draw::of(model.executable, plan, Arc::clone(&ahead)));
    (model, ahead)
}

/// Tokens, end and numbers of a generation; what is cached then is the prompt and all of them but the last.
fn generate(model: &mut Model, prompt: &[u32], request: &Request) -> (Vec<u32>, Option<Finish>, Stats) {
    let prompt = Prompt { tokens: prompt.to_vec(), format: Format::default() };
    let mut generation = model.generate(&prompt, request).unwrap();
    generation.by_ref().for_each(|piece| drop(piece.unwrap()));
    let (tokens, finish, stats) =
        (generation.tokens().to_vec(), generation.finish(), generation.stats().clone());
    let read = [&prompt.tokens[..], &tokens].concat();
    assert_eq!(model.cached[0].tokens, read[..read.len() - 1], "{finish:?}");
    (tokens, finish, stats)
}

fn requests() -> Vec<Request> {
    let of =
        |sampling, max_tokens, ignore_eos| Request { sampling, max_tokens, ignore_eos, ..Request::default() };
    let hot = Sampling { temperature: 1.5, repeat_penalty: 1.2, seed: 3, ..Sampling::default() };
    let mut requests = vec![
        of(Sampling::greedy(), Some(1), true),
        of(Sampling::greedy(), Some(9), true),
        of(hot, Some(20), true),
        of(hot, None, true), // until the context is full
    ];
    // These end by themselves, at one token or another.
    requests.extend((0..12).map(|seed| of(Sampling { seed, ..hot }, None, false)));
    requests
}

#[test]
fn tokens_are_those_drawn_from_logits_and_the_cache_holds_what_was_accepted() {
    let ((mut host, _), (mut device, ahead)) = (model(false, false), model(true, false));
    let prompt = [5, 6, 7, 8, 9, 10];
    let mut ends = Vec::new();
    for request in requests() {
        let (expected, end, stats) = generate(&mut host, &prompt, &request);
        assert_eq!(stats.sampling, "host");
        let (tokens, finish, stats) = generate(&mut device, &prompt, &request);
        assert_eq!((tokens, finish, &*stats.sampling), (expected.clone(), end, "device"));
        ends.push(finish);
        // Going on uses what is cached.
        let longer = [&prompt[..], &expected, &[11]].concat();
        if longer.len() < 60 {
            let again = [&mut host, &mut device].map(|model| generate(model, &longer, &request));
            assert_eq!(again[0].0, again[1].0);
            assert_eq!(again[1].2.reused_tokens, longer.len() - 2);
        }
    }
    assert!(
        [Finish::Eos, Finish::Length, Finish::ContextFull].iter().all(|end| ends.contains(&Some(*end))),
        "{ends:?}"
    );
    assert_eq!(ahead.load(Ordering::Relaxed), 2, "one step ahead");
}

#[test]
fn a_recurrent_model_never_runs_ahead() {
    let ((mut host, _), (mut device, ahead)) = (model(false, false), model(true, true));
    for request in requests() {
        let found = [&mut host, &mut device].map(|model| generate(model, &[5, 6, 7], &request));
        assert_eq!(found[0].0, found[1].0);
    }
    assert_eq!(ahead.load(Ordering::Relaxed), 1);
}

#[test]
fn what_the_device_refuses_the_host_draws_and_says_so() {
    let (mut model, ahead) = model(true, false);
    let sampling = Sampling { min_p: 0.9, ..Sampling::default() };
    let request = Request { sampling, max_tokens: Some(4), ignore_eos: true, ..Request::default() };
    let (_, _, stats) = generate(&mut model, &[5, 6, 7], &request);
    assert_eq!(stats.sampling, "host (too likely)");
    assert_eq!(ahead.load(Ordering::Relaxed), 0);
}

#[test]
fn a_cancelled_generation_leaves_a_cache_to_go_on_from() {
    let (mut model, _) = model(true, false);
    let cancel = Arc::new(AtomicBool::new(false));
    let request = Request { cancel: Some(Arc::clone(&cancel)), ignore_eos: true, ..Request::default() };
    let prompt = Prompt { tokens: vec![5, 6, 7], format: Format::default() };
    let mut generation = model.generate(&prompt, &request).unwrap();
    generation.next().unwrap().unwrap();
    cancel.store(true, Ordering::Relaxed);
    assert!(generation.by_ref().all(|piece| piece.is_ok()));
    assert_eq!(generation.finish(), Some(Finish::Cancelled));
    let read = [&[5, 6, 7], generation.tokens()].concat();
    assert_eq!(model.cached[0].tokens, read[..read.len() - 1]);
    let (_, _, stats) = generate(
        &mut model,
        &[&read[..], &[11]].concat(),
        &Request { max_tokens: Some(3), ..Request::default() },
    );
    assert_eq!(stats.reused_tokens, read.len() - 1);
}
