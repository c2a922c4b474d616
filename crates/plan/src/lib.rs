//! From `config.json` to a [`Plan`]: what a model computes, as data and as a decode program.
//!
//! Pure: no device, no weights beyond their shapes. A family is a row of the table in `families/table.rs`;
//! [`read_spec`] turns config and row into a [`ModelSpec`], `lower.rs` turns that into the program
//! ([`Op`] by [`Op`]) that every backend runs. Start reading at [`Plan::new`].
//!
//! Invariant: nothing past `families/` knows a family's name.

mod account;
mod block;
mod error;
mod families;
mod group;
mod io;
mod lower;
mod op;
mod part;
mod path;
mod plan;
mod print;
mod program;
mod rope;
mod spec;
mod stage;

pub use block::{Block, BlockKind, RoutedBlock};
pub use error::Error;
pub use families::{families, family_names, read_spec};
pub use group::{
    Append, Capabilities, FEW_ROWS_MAX, Group, GroupKind, Heads, Sharing, StageOps, groups, print_groups,
};
pub use io::{Io, Region, WeightUse};
pub use op::*;
pub use part::{Part, parts};
pub use path::{Path, PathChoice, PathKind, Reason, select_path};
pub use plan::{Plan, Stored};
pub use program::{
    Buffer, BufferId, BufferKind, Cache, CacheId, CacheKind, Rope, RopeId, Step, Weight, WeightId,
    WeightShape,
};
pub use spec::{
    Activation, AttentionSpec, BlockSpec, Body, ConvSpec, DeltaProjections, DeltaSpec, ExpertSpec,
    GROUPS_MAX, GateKind, Groups, HeadSpec, Inner, LatentExperts, LatentForm, LatentQuery, LatentSpec,
    LayerSpec, LinearSpec, MambaSpec, MlpSpec, ModelSpec, MoeSpec, NormKind, NormSpec, OutputGate,
    PerLayerSpec, Projections, QkNormSpec, QkNormWidth, RopeSpec, RouterRule, Score, SharedSpec,
    ShortConvSpec, SsmInputs, TemperatureSpec, Window,
};
pub use stage::Stage;
