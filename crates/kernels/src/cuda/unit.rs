//! Texts for the CUDA C++ compiler.

/// A text to compile: the source of an op, specialised by macros.
///
/// [`Unit::source`] includes nothing that NVRTC does not have built in. With `AMOEBA_EMULATE` defined it is C++17 for the
/// host compiler instead, and needs `cuda-emulation/` of this crate on the include path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Unit {
    /// What is before the macros: device code that ops share, by name and text.
    pub headers: &'static [(&'static str, &'static str)],
    /// Text of the op, by name and text.
    pub op: (&'static str, &'static str),
    /// Macros and what they stand for.
    pub defines: Vec<(&'static str, String)>,
}

/// Types, lanes, instructions.
pub(crate) const DEVICE: (&str, &str) = ("cuda/device.cuh", include_str!("device.cuh"));
/// Stored numbers.
pub(crate) const QUANT: (&str, &str) = ("cuda/quant.cuh", include_str!("quant.cuh"));
/// Products with a few rows.
pub(crate) const MATVEC: (&str, &str) = (
    "cuda/matvec.cuh",
    concat!(include_str!("matvec_layout.cuh"), include_str!("matvec_x.cuh"), include_str!("matvec.cuh")),
);
/// Products with many rows.
pub(crate) const GEMM: (&str, &str) = ("cuda/gemm.cuh", include_str!("gemm.cuh"));
/// A product among those of a launch.
pub(crate) const PRODUCT: (&str, &str) = ("linear/product.cuh", include_str!("../linear/product.cuh"));
/// The choice of experts.
pub(crate) const CHOOSE: (&str, &str) = ("router/choose.cuh", include_str!("../router/choose.cuh"));
/// Matrices of experts.
pub(crate) const STACK: (&str, &str) = ("experts/stack.cuh", include_str!("../experts/stack.cuh"));
/// Rotations.
pub(crate) const TURN: (&str, &str) = ("rope/turn.cuh", include_str!("../rope/turn.cuh"));
/// Activations.
pub(crate) const ACTIVATE: (&str, &str) = ("activate/activate.cuh", include_str!("../activate/activate.cuh"));

impl Unit {
    /// The whole text, macros included.
    pub fn source(&self) -> String {
        let mut text = String::new();
        let mut append = |(name, part): &(&str, &str)| {
            text.push_str(&format!("#line 1 \"{name}\"\n{part}\n"));
        };
        self.headers.iter().for_each(&mut append);
        let defines: String =
            self.defines.iter().map(|(name, value)| format!("#define {name} {value}\n")).collect();
        append(&("macros", &defines));
        append(&self.op);
        text
    }
}
