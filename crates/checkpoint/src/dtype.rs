//! Element types a safetensors header can name.

use crate::Float;
use std::fmt;

macro_rules! dtypes {
    ($($variant:ident $name:literal $bits:literal $doc:literal;)*) => {
        /// Element type of a stored tensor, named as in the safetensors format.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DType { $(#[doc = $doc] $variant,)* }

        impl DType {
            /// Bits per element.
            pub const fn bits(self) -> usize {
                match self { $(DType::$variant => $bits,)* }
            }

            /// The name used in headers, e.g. `BF16`.
            pub const fn name(self) -> &'static str {
                match self { $(DType::$variant => $name,)* }
            }

            /// The type of that name, if known.
            pub fn from_name(name: &str) -> Option<DType> {
                match name { $($name => Some(DType::$variant),)* _ => None }
            }
        }
    };
}

dtypes! {
    Bool "BOOL" 8 "One byte per truth value.";
    F4 "F4" 4 "E2M1, two to a byte.";
    F6E2M3 "F6_E2M3" 6 "6-bit float.";
    F6E3M2 "F6_E3M2" 6 "6-bit float.";
    U8 "U8" 8 "Unsigned byte; also the scales of the mx and nv modes.";
    I8 "I8" 8 "Signed byte.";
    F8E5M2 "F8_E5M2" 8 "8-bit float.";
    F8E4M3 "F8_E4M3" 8 "8-bit float.";
    F8E8M0 "F8_E8M0" 8 "Power of two.";
    I16 "I16" 16 "Signed 16-bit.";
    U16 "U16" 16 "Unsigned 16-bit.";
    F16 "F16" 16 "IEEE binary16.";
    BF16 "BF16" 16 "Upper half of a binary32.";
    I32 "I32" 32 "Signed 32-bit.";
    U32 "U32" 32 "Unsigned 32-bit; also the packed codes of quantised matrices.";
    F32 "F32" 32 "IEEE binary32.";
    C64 "C64" 64 "Pair of binary32.";
    F64 "F64" 64 "IEEE binary64.";
    I64 "I64" 64 "Signed 64-bit.";
    U64 "U64" 64 "Unsigned 64-bit.";
}

impl DType {
    /// The float type a matrix or vector may be stored in, if this is one.
    pub const fn float(self) -> Option<Float> {
        match self {
            DType::F32 => Some(Float::F32),
            DType::F16 => Some(Float::F16),
            DType::BF16 => Some(Float::BF16),
            _ => None,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
