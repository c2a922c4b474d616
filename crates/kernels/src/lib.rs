//! The ops of the decode program, one folder each: contract (`mod.rs`), scalar reference in f64
//! (`reference.rs`), CPU kernel (`cpu.rs`), cases (`cases.rs`). Names follow `amoeba_plan::Op`.
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
pub mod linear;
pub mod memory;
pub mod norm;
pub mod quant;
pub mod rope;
pub mod router;
pub mod sample;
pub mod simd;
pub mod ssm;
#[doc(hidden)]
pub mod testing;
