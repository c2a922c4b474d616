//! From `config.json` to a [`Plan`]: what a model computes, as data and as a decode program.
//!
//! Pure: no device, no weights beyond their shapes. A family is a row of the table in `families/table.rs`;
//! [`read_spec`] turns config and row into a [`ModelSpec`], `lower.rs` turns that into the program
//! ([`Op`] by [`Op`]) that every backend runs. Start reading at [`Plan::new`].
//!
//! Invariant: nothing past `families/` knows a family's name.

mod error;
mod families;
mod lower;
mod part;
mod path;
mod plan;
mod program;
mod rope;
mod spec;

pub use error::Error;
pub use families::{family_names, read_spec};
pub use part::{Part, parts};
pub use path::{Path, PathChoice, PathKind, Reason, select_path};
pub use plan::{Plan, Stored};
pub use program::{
    AttentionOp, Buffer, BufferId, Cache, CacheId, CacheKind, ExpertWeights, ExpertsOp, NormOp, Op, Rope,
    RopeId, Step, Weight, WeightId, WeightShape,
};
pub use spec::{
    Activation, AttentionSpec, BlockSpec, Body, ExpertSpec, Groups, HeadSpec, LayerSpec, LinearSpec, MlpSpec,
    ModelSpec, MoeSpec, NormKind, NormSpec, QkNormSpec, QkNormWidth, RopeSpec, RouterRule, Score, SharedSpec,
};
