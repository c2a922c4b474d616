//! Texts for the compiler of kernels.

/// A text to compile: the source of an op, specialised by macros.
///
/// [`Unit::source`] includes nothing that NVRTC does not have built in. With `AMOEBA_EMULATE` defined it is
/// C++17 for the host compiler instead, and needs `cuda-emulation/` of this crate on the include path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Unit {
    /// What is before the macros: device code that ops share, by name and text.
    pub headers: &'static [(&'static str, &'static str)],
    /// Text of the op, by name and text.
    pub op: (&'static str, &'static str),
    /// Macros and what they stand for.
    pub defines: Vec<(&'static str, String)>,
}

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
