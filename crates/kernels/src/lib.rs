//! The ops of the decode program, one folder each: contract (`mod.rs`), scalar reference in f64
//! (`reference.rs`, see [`mod@reference`]), CPU kernel (`cpu.rs`), cases (`cases.rs`). Names follow
//! `amoeba_plan::Op`.
//!
//! Invariant: all maths of the engine is here, none in backends. A kernel is written once over `simd::Simd`
//! and gives the same bits on every instruction set.

pub mod activate;
pub mod attention;
pub mod conv;
pub mod cuda;
pub mod delta_net;
pub mod elementwise;
pub mod embed;
pub mod experts;
pub mod gpu;
pub mod linear;
pub mod memory;
pub mod norm;
pub mod quant;
pub mod reference;
pub mod rope;
pub mod router;
pub mod sample;
pub mod simd;
pub mod ssm;
#[doc(hidden)]
pub mod testing;

use amoeba_plan::Op;

use gpu::{Call, Site, Unsupported, misplaced};

/// Launches of an op by itself. Experts are always a group, with stages.
pub(crate) fn launches(site: &Site<'_>, op: &Op) -> Result<Vec<Call>, Unsupported> {
    Ok(match op {
        Op::Embed(op) => vec![embed::cuda::embed(site, op)],
        Op::Norm(op) => vec![norm::cuda::norm(site, op)],
        Op::Linear(op) => linear::cuda::linear(site, op)?,
        Op::HeadLinear(op) => linear::cuda::head_linear(site, op)?,
        Op::Copy(op) => vec![elementwise::cuda::copy(site, op)],
        Op::Rope(op) => vec![rope::cuda::rope(site, op)],
        Op::KvAppend(op) => vec![attention::cuda::append(site, op)],
        Op::Attention(op) => vec![attention::cuda::attention(site, op)],
        Op::Conv(op) => vec![conv::cuda::conv(site, op)],
        Op::DeltaNet(op) => vec![delta_net::cuda::delta_net(site, op)],
        Op::Ssm(op) => vec![ssm::cuda::ssm(site, op)],
        Op::Temperature(op) => vec![elementwise::cuda::temperature(site, op)],
        Op::Activate(op) => vec![activate::cuda::activate(site, op)],
        Op::Router(op) => vec![router::cuda::route(site, op)?],
        Op::Experts(_) => return Err(misplaced(op)),
        Op::HeadGate(op) => vec![elementwise::cuda::head_gate(site, op)],
        Op::Add(op) => vec![elementwise::cuda::add(site, op)],
        Op::Scale(op) => vec![elementwise::cuda::scale(site, op)],
    })
}
