//! The hub against a fake server on 127.0.0.1, and against a cache made by hand. Nothing else is ever
//! contacted.
#![allow(clippy::unwrap_used, reason = "a helper of tests may panic as a test may")]
mod faults;
mod model;
mod processes;
mod pull;
mod redirects;
mod resolve;
mod server;
