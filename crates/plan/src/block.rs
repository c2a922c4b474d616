//! Blocks of layers as ranges of the program, written down by the lowering.

use std::ops::Range;

use crate::program::BufferId;

/// A block: its steps write what it adds to the residual stream. Branches of a sum are blocks of their own,
/// listed before the sum.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Layer it belongs to.
    pub layer: usize,
    /// What its body is.
    pub kind: BlockKind,
    /// Its steps, norms included. Before the first the residual stream is as the block found it.
    pub steps: Range<usize>,
    /// The step that adds the result, of branches their sum, to the residual stream: after it that is as the
    /// block left it.
    pub joins: usize,
    /// What the body reads: the residual stream, or that normed.
    pub input: BufferId,
    /// What the block writes.
    pub output: BufferId,
}

/// Kind of a block's body.
#[derive(Clone, Debug, PartialEq)]
pub enum BlockKind {
    /// Attention with grouped query heads.
    Attention,
    /// Multi-head latent attention.
    Latent,
    /// Gated delta rule.
    Delta,
    /// Selective state space.
    Mamba,
    /// Short convolution.
    ShortConv,
    /// Dense MLP.
    Mlp,
    /// Routed experts.
    Experts(RoutedBlock),
    /// The second embedding's share of a layer.
    PerLayer,
    /// Several bodies added up.
    Sum,
}

/// Where the steps of a block of routed experts are.
#[derive(Clone, Debug, PartialEq)]
pub struct RoutedBlock {
    /// The product that makes the router's logits.
    pub scores: usize,
    /// The choice.
    pub router: usize,
    /// The experts.
    pub experts: usize,
    /// One past the last step of the body: shared experts and a projection back from a latent width are in, a
    /// norm after it is not.
    pub end: usize,
    /// Whether the router reads the residual stream through a norm of its own.
    pub own_norm: bool,
}
