//! The spec: which shape, how many layers, which format.

use amoeba_checkpoint::{Float, Format};

use super::SynthError;

/// How a spec is written.
pub const GRAMMAR: &str = "\
a spec is SHAPE[:LAYERS][:FORMAT], for example `small`, `a3b:8`, `a3b:2:mxfp4` or `small:q8g64`
  SHAPE   tiny   hidden 128, 2 layers, 8 experts of 128, top-2, vocabulary 512 (for tests)
          small  hidden 1024, 16 layers, 64 experts of 512, top-8, vocabulary 32000
          a3b    Qwen3-30B-A3B: hidden 2048, 48 layers, 128 experts of 768, top-8, vocabulary 151936
  LAYERS  1 to 1024, where it is to differ
  FORMAT  qBgG with B 2, 3, 4, 5, 6 or 8 bits and G 32, 64 or 128 columns a group (default q4g64),
          mxfp4, mxfp8, nvfp4 or bf16";

/// Sizes of a qwen3_moe model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub experts: usize,
    pub top_k: usize,
    pub expert_width: usize,
    pub vocab: usize,
    pub context: usize,
}

const SHAPES: [(&str, Shape); 3] = [
    (
        "tiny",
        Shape {
            hidden: 128,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 32,
            experts: 8,
            top_k: 2,
            expert_width: 128,
            vocab: 512,
            context: 2048,
        },
    ),
    (
        "small",
        Shape {
            hidden: 1024,
            layers: 16,
            heads: 16,
            kv_heads: 4,
            head_dim: 64,
            experts: 64,
            top_k: 8,
            expert_width: 512,
            vocab: 32_000,
            context: 40_960,
        },
    ),
    (
        "a3b",
        Shape {
            hidden: 2048,
            layers: 48,
            heads: 32,
            kv_heads: 4,
            head_dim: 128,
            experts: 128,
            top_k: 8,
            expert_width: 768,
            vocab: 151_936,
            context: 40_960,
        },
    ),
];

/// A parsed spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spec {
    pub shape: Shape,
    pub format: Format,
}

/// The default, and of routers always.
pub(super) const fn affine(bits: u8, group: u16) -> Format {
    Format::Affine { bits, group, scale: Float::BF16 }
}

impl Spec {
    pub(super) fn parse(text: &str) -> Result<Spec, SynthError> {
        let fail = |what: String| SynthError::Spec { spec: text.to_owned(), what };
        let mut parts = text.split(':').peekable();
        let name = parts.next().unwrap_or_default();
        let Some((_, mut shape)) = SHAPES.into_iter().find(|(known, _)| *known == name) else {
            return Err(fail(format!("there is no shape `{name}`")));
        };
        if let Some(layers) = parts.next_if(|part| part.starts_with(|c: char| c.is_ascii_digit())) {
            shape.layers = match layers.parse() {
                Ok(layers @ 1..=1024) => layers,
                _ => return Err(fail(format!("`{layers}` is not a layer count"))),
            };
        }
        let format = match parts.next() {
            None => affine(4, 64),
            Some(part) => parse_format(part).ok_or_else(|| fail(format!("there is no format `{part}`")))?,
        };
        match parts.next() {
            None => Ok(Spec { shape, format }),
            Some(rest) => Err(fail(format!("nothing can follow the format, but `{rest}` does"))),
        }
    }
}

fn parse_format(text: &str) -> Option<Format> {
    match text {
        "mxfp4" => Some(Format::Mxfp4),
        "mxfp8" => Some(Format::Mxfp8),
        "nvfp4" => Some(Format::Nvfp4),
        "bf16" => Some(Format::Dense(Float::BF16)),
        _ => {
            let (bits, group) = text.strip_prefix('q')?.split_once('g')?;
            let bits = [2, 3, 4, 5, 6, 8].into_iter().find(|known: &u8| known.to_string() == bits)?;
            let group = [32, 64, 128].into_iter().find(|known: &u16| known.to_string() == group)?;
            Some(affine(bits, group))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_parse() {
        let of = |text| Spec::parse(text).unwrap();
        assert_eq!((of("small").shape.layers, of("small").format), (16, affine(4, 64)));
        assert_eq!((of("a3b:8").shape.layers, of("a3b:8").shape.vocab), (8, 151_936));
        assert_eq!((of("a3b:2:mxfp4").shape.layers, of("a3b:2:mxfp4").format), (2, Format::Mxfp4));
        assert_eq!(of("small:q8g32").format, affine(8, 32));
        assert_eq!(of("tiny:bf16").format, Format::Dense(Float::BF16));
    }

    #[test]
    fn bad_specs_list_the_grammar() {
        for bad in
            ["", "huge", "a3b:0", "a3b:9999", "a3b:8:q7g64", "small:q4", "small:q4g64:x", "small:", "a3b:8x"]
        {
            let message = Spec::parse(bad).unwrap_err().to_string();
            assert!(message.starts_with(&format!("`{bad}`: ")) && message.ends_with(GRAMMAR), "{message}");
        }
    }
}
