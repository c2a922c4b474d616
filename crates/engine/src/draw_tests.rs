//! Tests of generations whose tokens the device draws: the same tokens as from logits, and nothing cached that was not
//! accepted.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use amoeba_backend::{DeviceKind, Draws, Error as BackendError, Executable, Limits, Probe, Row};
use amoeba_kernels::sample::cpu::Sampler;
use amoeba_plan::{Cache, CacheKind, Path as ExpertPath, Plan};
use amoeba_text::Format;

use crate::{Finish, LoadOptions, Model, Prompt, Request, Sampling, Stats};

/// A device that draws, made of one that does not: what is asked for is done at once.
struct Draw {
    inner: Box<dyn Executable>,
    plan: Plan,
    sampler: Option<Sampler>,
    tokens: Vec<u32>,
    drawn: VecDeque<u32>,
    /// Most tokens that were drawn and not taken.
    ahead: Arc<AtomicUsize>,
}

impl Executable for Draw {
    fn plan(&self) -> &Plan {
        &self.plan
    }
    fn limits(&self) -> Limits {
        self.inner.limits()
    }
    fn kind(&self) -> DeviceKind {
        self.inner.kind()
    }
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn path(&self, rows: usize) -> ExpertPath {
        self.inner.path(rows)
    }
    fn step(&mut self, rows: &[Row], probe: Option<&mut dyn Probe>) -> Result<(), BackendError> {
        self.sampler = None;
        self.inner.step(rows, probe)
    }
    fn logits(&self, n: usize) -> &[f32] {
        self.inner.logits(n)
    }
    fn memory(&self) -> usize {
        self.inner.memory()
    }
    fn draws(&mut self) -> Option<&mut dyn Draws> {
        Some(self)
    }
}

impl Draw {
    fn draw(&mut self) {
        let token = self.sampler.as_mut().unwrap().sample(self.inner.logits(0), &self.tokens);
        self.tokens.push(token);
        self.drawn.push_back(token);
        self.ahead.fetch_max(self.drawn.len(), Ordering::Relaxed);
    }
}

impl Draws for Draw {
    fn refusal(&self, sampling: &Sampling) -> Option<String> {
        (sampling.min_p > 0.5).then(|| "too likely".to_owned())
    }
    fn begin(&mut self, sampling: &Sampling, recent: &[u32], slot: usize) -> Result<(), BackendError> {
        assert_eq!(slot, 0);
        self.sampler = Some(Sampler::new(*sampling, self.plan.spec.vocab));
        (self.tokens, self.drawn) = (recent.to_vec(), VecDeque::new());
        self.draw();
        Ok(())
    }
    fn go_on(&mut self) -> Result<(), BackendError> {
        let position = self.tokens.len() - 1;
        let row = Row { token: self.tokens[position], slot: 0, position, logits: true };
        self.inner.step(&[row], None)?;
        self.draw();
        Ok(())
    }
    fn token(&mut self) -> Result<u32, BackendError> {
        Ok(self.drawn.pop_front().unwrap())
    }
}

/// The bundled model; on a device that draws, with the most tokens that were under way.
fn model(draws: bool, recurrent: bool) -> (Model, Arc<AtomicUsize>) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny-chat-moe-4bit");
    let options = LoadOptions { context: Some(64), rows: 8, threads: Some(1), ..LoadOptions::default() };
    let mut model = Model::load(&dir, &options, &mut |_, _| {}).unwrap();
    let ahead = Arc::new(AtomicUsize::new(0));
    if draws {
        let mut plan = model.plan().clone();
        if recurrent {
            plan.caches.push(Cache { layer: 0, kind: CacheKind::State { heads: 1, rows: 1, cols: 1 } });
        }
        let inner = model.executable;
        let (sampler, tokens, drawn) = (None, Vec::new(), VecDeque::new());
        model.executable = Box::new(Draw { inner, plan, sampler, tokens, drawn, ahead: Arc::clone(&ahead) });
    }
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
    assert_eq!(model.cached, read[..read.len() - 1], "{finish:?}");
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
    assert_eq!(model.cached, read[..read.len() - 1]);
    let (_, _, stats) = generate(
        &mut model,
        &[&read[..], &[11]].concat(),
        &Request { max_tokens: Some(3), ..Request::default() },
    );
    assert_eq!(stats.reused_tokens, read.len() - 1);
}
