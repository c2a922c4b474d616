//! CUDA device code that ops share, and what of it launches are made with. Start reading at `device.cuh`.

pub mod floor;
pub(crate) mod gemm;
mod shape;
pub mod trace;
pub(crate) mod unit;

pub(crate) use shape::{Tiling, Work, format_of};
