//! What the checks share: the model, how to load it in which form, prompts, and how much work is worth doing.

use std::sync::Arc;

use amoeba_backend::{Executable, Limits, Reference, Row};
use amoeba_checkpoint::Checkpoint;
use amoeba_engine::LoadOptions;
use amoeba_plan::{FEW_ROWS_MAX, Op, PathChoice, PathKind, Plan};

use super::{GateOptions, Loader, Prompt};
use crate::Error;
use crate::bench::BenchModel;

/// Most tokens of a prompt that are used.
const PROMPT_MAX: usize = 48;
/// Most rows of a step that are asked about.
const ROWS_MAX: usize = 64;

/// The model under test.
pub struct Lab<'a> {
    /// What was asked for.
    pub options: &'a GateOptions<'a>,
    /// The files.
    pub checkpoint: &'a Arc<Checkpoint>,
    /// The program.
    pub plan: Plan,
    /// Hash, formats, costs.
    pub model: BenchModel,
    /// Prompts, cut to size.
    pub prompts: Vec<Prompt>,
    /// Most rows of a step that the candidate says it runs fused; rows of a step where nothing is fused.
    pub chunk: usize,
    /// How much to do.
    pub effort: Effort,
    loader: Loader<'a>,
    context: usize,
}

/// How much to do.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Tokens generated after each prompt.
    pub generated: usize,
    /// Tokens of each repetition of the bench, and pairs of repetitions.
    pub bench: [usize; 2],
    /// Rows of the wide step and single steps that are compared op by op.
    pub judged: [usize; 2],
    /// Tokens whose bits are compared.
    pub bits: usize,
    /// Tokens that the reference may compute as the other side of a comparison.
    pub reference_tokens: usize,
}

impl<'a> Lab<'a> {
    /// Looks at the model; loads it once to ask for its paths.
    pub fn new(
        checkpoint: &'a Arc<Checkpoint>,
        options: &'a GateOptions<'a>,
        loader: Loader<'a>,
    ) -> Result<Lab<'a>, Error> {
        let plan = Plan::of(checkpoint)?;
        let model = BenchModel::new(&options.name, checkpoint, &plan)?;
        let mut effort = Effort::new(options.fast, model.products().iter().sum());
        let longest = (PROMPT_MAX + effort.generated.max(effort.bench[0])).max(effort.bits) + 1;
        let context = plan.spec.context_max.min(longest);
        effort.generated = effort.generated.min(context / 2);
        effort.bench[0] = effort.bench[0].min(context / 2);
        let longest = (context - effort.generated).min(PROMPT_MAX);
        let mut prompts = options.prompts.clone();
        prompts.retain(|prompt| !prompt.tokens.is_empty());
        if let Some(token) = prompts.iter().flat_map(|p| &p.tokens).find(|t| **t as usize >= plan.spec.vocab)
        {
            return Err(amoeba_backend::Error::UnknownToken { token: *token, vocab: plan.spec.vocab }.into());
        }
        prompts.push(Prompt { name: "random tokens".to_owned(), tokens: random(24, 1, plan.spec.vocab) });
        prompts.iter_mut().for_each(|prompt| prompt.tokens.truncate(longest));
        let mut lab =
            Lab { options, checkpoint, plan, model, prompts, chunk: FEW_ROWS_MAX, effort, loader, context };
        let candidate = lab.candidate(|_| {})?;
        if lab.has_experts() {
            let fused = (1..=ROWS_MAX).rev().find(|&rows| candidate.path(rows).kind == PathKind::Fused);
            lab.chunk = fused.unwrap_or(1);
        }
        Ok(lab)
    }

    /// Whether there is anything to fuse.
    pub fn has_experts(&self) -> bool {
        self.expert_ops().next().is_some()
    }

    /// Indices of the ops of routed experts.
    pub fn expert_ops(&self) -> impl Iterator<Item = usize> {
        let experts = |(i, step): (usize, &amoeba_plan::Step)| matches!(step.op, Op::Experts(_)).then_some(i);
        self.plan.program.iter().enumerate().filter_map(experts)
    }

    /// Loads what is to be judged, with changed options.
    pub fn candidate(&self, change: impl FnOnce(&mut LoadOptions)) -> Result<Box<dyn Executable>, Error> {
        let mut load = self.load_options();
        change(&mut load);
        (self.loader)(&load)
    }

    /// Loads the unfused path of the same device.
    pub fn unfused(&self) -> Result<Box<dyn Executable>, Error> {
        self.candidate(|load| load.path = PathChoice::Unfused)
    }

    /// Loads the exact reference.
    pub fn reference(&self) -> Result<Reference, Error> {
        let limits = Limits { slots: 2, context: self.context, rows: ROWS_MAX };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Reference::load(self.plan.clone(), Arc::clone(self.checkpoint), limits)?.with_threads(threads))
    }

    fn load_options(&self) -> LoadOptions {
        let load = self.options.load.clone();
        LoadOptions { context: Some(self.context), rows: ROWS_MAX, slots: 2, ..load }
    }

    /// Products of a weight and a number that a token takes.
    pub fn products(&self) -> f64 {
        self.model.products().iter().sum()
    }

    /// Tokens for runs that need no meaning, different for each `seed`.
    pub fn random(&self, n: usize, seed: u32) -> Vec<u32> {
        random(n.min(self.context), seed, self.plan.spec.vocab)
    }
}

impl Effort {
    fn new(fast: bool, products: f64) -> Effort {
        // A thread of the reference does some 10^8 products a second. Op by op it computes 4 × (8 + 4) rows,
        // and the blocks twice.
        let [all, some, budget] = if fast { [3e7, 3e8, 6e8] } else { [1e8, 1e9, 1e10] };
        let judged = match products {
            few if few <= all => [8, 4],
            more if more <= some => [2, 1],
            _ => [1, 1],
        };
        let reference_tokens = (budget / products.max(1.0)) as usize;
        let generated = if fast { 16 } else { 48 };
        let bench = if fast { [16, 7] } else { [48, 15] };
        // More than one chunk of attention, but not in a hurry.
        let bits = if fast { 24 } else { 300 };
        Effort { generated, bench, judged, bits, reference_tokens }
    }
}

/// Spread over the vocabulary and, through the router, over the experts.
fn random(n: usize, seed: u32, vocab: usize) -> Vec<u32> {
    let mixed = |i: usize| (i as u32 + 1).wrapping_add(seed.wrapping_mul(977)).wrapping_mul(2_654_435_761);
    (0..n).map(|i| (mixed(i) >> 5) % vocab as u32).collect()
}

/// Rows of consecutive tokens of a sequence, all with logits.
pub fn rows(tokens: &[u32], slot: usize, first: usize) -> Vec<Row> {
    let row = |(i, &token): (usize, &u32)| Row { token, slot, position: first + i, logits: true };
    tokens.iter().enumerate().map(row).collect()
}
