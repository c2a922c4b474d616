//! Support for tests: executables that wrap another.

pub use amoeba_plan::{Path, Plan};

/// Within `impl Executable for T`: the named methods call those of a field of `T`.
#[macro_export]
#[doc(hidden)]
macro_rules! forward_executable {
    (@ $inner:ident plan) => { fn plan(&self) -> &$crate::testing::Plan { self.$inner.plan() } };
    (@ $inner:ident limits) => { fn limits(&self) -> $crate::Limits { self.$inner.limits() } };
    (@ $inner:ident kind) => { fn kind(&self) -> $crate::DeviceKind { self.$inner.kind() } };
    (@ $inner:ident describe) => { fn describe(&self) -> String { self.$inner.describe() } };
    (@ $inner:ident path) => {
        fn path(&self, rows: usize) -> $crate::testing::Path { self.$inner.path(rows) }
    };
    (@ $inner:ident logits) => { fn logits(&self, n: usize) -> &[f32] { self.$inner.logits(n) } };
    (@ $inner:ident memory) => { fn memory(&self) -> usize { self.$inner.memory() } };
    (@ $inner:ident record) => {
        fn record(&mut self, spans: usize) -> Result<(), $crate::Error> { self.$inner.record(spans) }
    };
    (@ $inner:ident recorded) => {
        fn recorded(&mut self) -> Result<$crate::Recording, $crate::Error> { self.$inner.recorded() }
    };
    ($inner:ident: $($method:ident),+) => { $($crate::forward_executable! { @ $inner $method })+ };
}
