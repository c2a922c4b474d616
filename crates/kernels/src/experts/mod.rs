//! `experts`: `out = Σ_k w_k · (down_k · act(gate_k·x + b, up_k·x + b) + b)` over the experts a router chose.
//!
//! Contract: `x [n, hidden]`, route `[n, 2·top_k]` (see `router`), `out [n, hidden]`.
//! - [`mod@reference`]: f64 end to end, expert outputs on request.
//! - [`cpu::fused_item`]: one expert × one slice of its inner width, gather to partial output in one pass;
//!   all items of a step are independent (`down` is sliced by columns:
//!   `y = Σ_slices down[:, slice]·act[slice]`).
//! - unfused ("SwitchGLU"): rows grouped by expert, three products, activation, weighted sum; built by the
//!   backend from `linear` and `activate`.
//! - Both add slices in order, then experts in ascending order with f32 partials ([`cpu::combine`]), so fused
//!   and unfused give the same bits.

pub mod cpu;
pub(crate) mod cuda;
mod grouped;
#[cfg(any(test, feature = "ladder"))]
pub mod ladder;
pub mod reference;

pub use cpu::{Bank, Partials, Projection, combine, fused_item};
