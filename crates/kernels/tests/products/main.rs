//! Cases of the ops that multiply weights. The files lie with their ops; they are a crate of their own, or
//! the products of all formats, most of the library, would be compiled a second time for its unit tests.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../src/experts/cases.rs"]
mod experts;
#[cfg(feature = "ladder")]
#[path = "../../src/experts/ladder/cases.rs"]
mod ladder;
#[path = "../../src/linear/cases.rs"]
mod linear;
#[path = "../../src/linear/tiles/cases.rs"]
mod tiles;
