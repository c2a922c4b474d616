//! The CUDA kernels, run on the CPU: every op's launches against its f64 reference.
//!
//! The host's C++ compiler builds each unit as it is, with `cuda-emulation/emulate.h` in the place of the
//! device: threads are fibers whose turns are shuffled, memory nobody wrote is NaN and has guard pages behind
//! it, vectors must be aligned. All results must be the same bits in every order of turns. Without a compiler
//! the tests say so and pass. `device.rs` runs the same on a GPU.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod attention;
mod bench;
mod chosen;
mod device;
mod elementwise;
mod experts;
mod floor;
mod fused;
mod linear;
mod memory;
mod module;
mod norm;
mod one_row;
mod persistent;
mod recurrent;
mod router;
mod sample;
