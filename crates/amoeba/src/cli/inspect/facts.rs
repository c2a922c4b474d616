//! Everything `inspect` knows about a model, before it is shown.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use amoeba::{LoadOptions, Plan, Tokenizer};
use amoeba_checkpoint::{Checkpoint, Choice, Config, Float, Format, Mode, Packing, Quantisation};
use amoeba_plan::{FEW_ROWS_MAX, Op, Part, Stored, Weight, WeightId, WeightShape, parts, select_path};
use amoeba_text::{ChatTemplate, reasoning_markers};

use super::layers::{Layers, layers};
use crate::cli::failure::Failure;
use crate::cli::memory::Need;
use crate::cli::system::{self, Memory};

/// What is known.
pub struct Facts {
    /// The folder.
    pub dir: PathBuf,
    /// The plan.
    pub plan: Plan,
    /// Weight files; `None` when there are none and sizes follow from `config.json` alone.
    pub files: Option<usize>,
    /// Bytes of all tensors the plan reads.
    pub bytes: u64,
    /// Parameters one token uses.
    pub active: f64,
    /// Number of tensors and bytes, by part and format.
    pub formats: BTreeMap<(Part, String), (usize, u64)>,
    /// Bytes read per decoded token by part.
    pub reads: BTreeMap<Part, f64>,
    /// Memory needed.
    pub need: Need,
    /// Memory of the machine.
    pub memory: Option<Memory>,
    /// Layers and their paths.
    pub layers: Vec<Layers>,
    /// Paths of a decode step and of a prefill chunk.
    pub paths: [String; 2],
    /// Rows of a prefill chunk.
    pub rows: usize,
    /// Tokenizer and template, or why they cannot be used.
    pub text: Result<TextFacts, String>,
    /// What is left aside, or does not fit.
    pub notes: Vec<String>,
}

/// What is known about text.
pub struct TextFacts {
    /// Tokens.
    pub vocab: usize,
    /// Ids and spellings that end an answer.
    pub ends: Vec<(u32, String)>,
    /// Size of the chat template, if there is one.
    pub template: Option<usize>,
    /// Tags around thoughts.
    pub reasoning: Option<(String, String)>,
    /// How tool calls are spelled.
    pub dialect: Option<&'static str>,
}

impl Facts {
    /// Looks at a folder, with or without weights in it.
    pub fn read(
        dir: &Path,
        config: &Config,
        has_weights: bool,
        options: &LoadOptions,
    ) -> Result<Facts, Failure> {
        let mut notes = Vec::new();
        let (plan, stored, files) = if has_weights {
            let checkpoint = Checkpoint::open(dir)?;
            let plan = Plan::of(&checkpoint)?;
            notes.extend_from_slice(checkpoint.notes());
            notes.extend(plan.notes(&checkpoint));
            let stored = plan.stored(&checkpoint)?;
            let stored: Vec<_> = stored.iter().map(|stored| (stored.format, stored.bytes as u64)).collect();
            (plan, stored, Some(checkpoint.index().files().len()))
        } else {
            let plan = Plan::new(config)?;
            let quantisation = Quantisation::parse(config)?;
            let stored = plan.weights.iter().map(|weight| expected(weight, &quantisation)).collect();
            (plan, stored, None)
        };
        let parts = parts(&plan);
        let (mut formats, mut reads) = (BTreeMap::<_, (usize, u64)>::new(), BTreeMap::new());
        let mut active = 0.0;
        for (index, (weight, (format, bytes))) in plan.weights.iter().zip(&stored).enumerate() {
            let share = plan.share_read_per_token(WeightId(index));
            active += weight.shape.elements() as f64 * share;
            *reads.entry(parts[index]).or_insert(0.0) += *bytes as f64 * share;
            let name = match weight.shape {
                WeightShape::Vector(_) => "vectors".to_owned(),
                _ => format.to_string(),
            };
            let entry = formats.entry((parts[index], name)).or_default();
            (entry.0, entry.1) = (entry.0 + 1, entry.1 + bytes);
        }
        reads.retain(|_, bytes| *bytes > 0.0);
        let bytes = stored.iter().map(|(_, bytes)| bytes).sum();
        let stored = stored.iter().map(|&(format, bytes)| Stored { format, bytes: bytes as usize });
        let has_experts = plan.program.iter().any(|step| matches!(step.op, Op::Experts(_)));
        let rows = options.limits(&plan)?.rows;
        let path = |rows: usize| select_path(has_experts, rows, FEW_ROWS_MAX, options.path).to_string();
        Ok(Facts {
            dir: dir.to_path_buf(),
            files,
            bytes,
            active,
            formats,
            reads,
            need: Need::new(&plan, &stored.collect::<Vec<_>>(), options)?,
            memory: system::memory(),
            layers: layers(&plan, options, rows),
            paths: [1, rows].map(path),
            rows,
            text: text_facts(dir).map_err(|error| error.to_string()),
            notes,
            plan,
        })
    }

    /// Bytes read per decoded token, keys and values apart.
    pub fn bytes_per_token(&self) -> f64 {
        self.reads.values().sum()
    }

    /// Bytes of keys and values per position, and of the states of recurrent layers per sequence.
    pub fn cache_bytes(&self) -> [u64; 2] {
        let plan = &self.plan;
        [plan.cache_elements_per_position(), plan.cache_elements_per_sequence()].map(|n| 4 * n as u64)
    }

    /// Bits per parameter, scales and biases included.
    pub fn bits_per_parameter(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.plan.parameters().max(1) as f64
    }

    /// Number of layers, and of those with routed experts.
    pub fn layer_counts(&self) -> (usize, usize) {
        let experts = self.plan.program.iter().filter(|step| matches!(step.op, Op::Experts(_)));
        (self.plan.spec.layers.len(), experts.count())
    }
}

fn text_facts(dir: &Path) -> Result<TextFacts, amoeba_text::Error> {
    let tokenizer = Tokenizer::open(dir)?;
    let template = ChatTemplate::open(dir)?;
    let spelled = |&id: &u32| tokenizer.decode(&[id], false).map(|text| (id, text));
    Ok(TextFacts {
        vocab: tokenizer.vocab_size(),
        ends: tokenizer.eos_ids().iter().map(spelled).collect::<Result<_, _>>()?,
        reasoning: template.as_ref().and_then(|template| reasoning_markers(template.source(), &tokenizer)),
        dialect: template
            .as_ref()
            .and_then(|template| template.dialect(&tokenizer))
            .map(|dialect| dialect.name),
        template: template.map(|template| template.source().len()),
    })
}

/// How a weight would be stored if the files follow `config.json`.
fn expected(weight: &Weight, quantisation: &Quantisation) -> (Format, u64) {
    let dense = Format::Dense(Float::BF16);
    let (rows, cols) = match weight.shape {
        WeightShape::Vector(len) => return (dense, 2 * len as u64),
        WeightShape::Matrix(rows, cols) => (rows, cols),
        WeightShape::Stack(experts, rows, cols) => (experts.saturating_mul(rows), cols),
    };
    let first = weight.each.as_ref().map(|each| each.replacen("{}", "0", 1));
    let choice = quantisation.choice(&weight.path).or_else(|| quantisation.choice(&first?));
    let packing = match choice {
        Some(Choice::Off) => None,
        Some(Choice::As(packing)) => Some(packing),
        Some(Choice::Default) | None => quantisation.default_packing(),
    };
    let format =
        packing.filter(|packing| cols.is_multiple_of(usize::from(packing.group))).map_or(dense, format);
    (format, format.matrix_bytes(rows, cols) as u64)
}

fn format(packing: Packing) -> Format {
    match packing.mode {
        Mode::Affine => Format::Affine { bits: packing.bits, group: packing.group, scale: Float::BF16 },
        Mode::Mxfp4 => Format::Mxfp4,
        Mode::Mxfp8 => Format::Mxfp8,
        Mode::Nvfp4 => Format::Nvfp4,
    }
}
