//! A plan held against the tensors that are stored: what contradicts it is an error, what it leaves aside is
//! said. The rule stands in `docs/folders.md`.

use std::collections::{BTreeMap, BTreeSet};

use amoeba_checkpoint::{Checkpoint, Config, Format};

use crate::{Error, Plan, WeightShape};

/// Parts of names that say a tensor is not of the language model's forward pass: towers of images and sound
/// with what joins them, buffers, scales of key and value caches. Heads that draft tokens begin with `mtp`.
const ASIDE: [&str; 19] = [
    "visual",
    "vision_model",
    "vision_tower",
    "vision_encoder",
    "vision_embedder",
    "vision_projection",
    "multi_modal_projector",
    "mm_projector",
    "image_newline",
    "embed_vision",
    "audio_tower",
    "audio_model",
    "embed_audio",
    "inv_freq",
    "masked_bias",
    "position_ids",
    "k_scale",
    "v_scale",
    "num_batches_tracked",
];
/// Parts of the names of a layer that drafts tokens and is stored behind the others (DeepSeek-V3, GLM-4.5).
const DRAFTS: [&str; 4] = ["eh_proj", "enorm", "hnorm", "shared_head"];
/// Keys of how many such layers there are.
const DRAFT_KEYS: [&str; 3] = ["num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers"];

/// What is stored and not used.
struct Unused<'a> {
    plan: &'a Plan,
    checkpoint: &'a Checkpoint,
    names: Vec<&'a str>,
}

/// Refuses tensors that change what the model computes and that the plan does not use: layers past the last,
/// biases of its products, and weights in the layout of the original repository.
pub(crate) fn check(plan: &Plan, checkpoint: &Checkpoint) -> Result<(), Error> {
    let unused = Unused::new(plan, checkpoint);
    unused.original()?;
    unused.layers()?;
    let products: BTreeSet<&str> = plan.weights.iter().map(|weight| weight.path.as_str()).collect();
    match unused.names.iter().find(|name| name.strip_suffix(".bias").is_some_and(|p| products.contains(p))) {
        None => Ok(()),
        Some(name) => Err(Error::Unsupported(format!(
            "`{name}` is stored, but config.json gives a model of type {} no bias there",
            plan.spec.family
        ))),
    }
}

/// What a person may want to know: tensors of the language model that are left aside, and a quantisation in
/// `config.json` that the stored tensors contradict.
pub(crate) fn notes(plan: &Plan, checkpoint: &Checkpoint) -> Vec<String> {
    let names = Unused::new(plan, checkpoint).names;
    let mut notes = Vec::new();
    if let Some(first) = names.first() {
        let number = names.len();
        notes.push(format!("{number} tensors of the language model are not used, the first is {first}"));
    }
    let Some(packing) = checkpoint.quantisation().default_packing() else { return notes };
    let other: Vec<(&str, Format)> = plan
        .weights
        .iter()
        .filter(|weight| checkpoint.quantisation().choice(&weight.path).is_none())
        .filter_map(|weight| Some((weight.path.as_str(), format(weight.shape, &weight.path, checkpoint)?)))
        .filter(|(_, format)| !matches!(format, Format::Dense(_)) && !packing.makes(*format))
        .collect();
    if let Some((path, format)) = other.first() {
        let number = other.len();
        notes.push(format!(
            "config.json: `quantization` says {packing}, but {number} matrices are stored otherwise \
             (first {path}, as {format}): the files are believed"
        ));
    }
    notes
}

fn format(shape: WeightShape, path: &str, checkpoint: &Checkpoint) -> Option<Format> {
    let (experts, rows, cols) = match shape {
        WeightShape::Vector(_) => return None,
        WeightShape::Matrix(rows, cols) => (None, rows, cols),
        WeightShape::Stack(experts, rows, cols) => (Some(experts), rows, cols),
    };
    checkpoint.index().format(checkpoint.quantisation(), path, experts, rows, cols).ok()
}

impl<'a> Unused<'a> {
    fn new(plan: &'a Plan, checkpoint: &'a Checkpoint) -> Unused<'a> {
        let mut used = BTreeSet::new();
        for weight in &plan.weights {
            let each = match (weight.shape, &weight.each) {
                (WeightShape::Stack(experts, ..), Some(each)) => (experts, each.as_str()),
                _ => (0, ""),
            };
            used.insert(weight.path.clone());
            let apart = (0..each.0).map(|expert| each.1.replacen("{}", &expert.to_string(), 1));
            for path in apart.chain([weight.path.clone()]) {
                used.extend(["weight", "scales", "biases"].map(|part| format!("{path}.{part}")));
            }
        }
        let head = plan.spec.head.tied.then_some("lm_head.");
        let shared_keys = text(checkpoint).is_some_and(|config| config.has("num_kv_shared_layers"));
        let names = checkpoint.names().filter(|name| {
            let aside = name.split('.').any(|part| ASIDE.contains(&part) || part.starts_with("mtp"));
            let tied = head.is_some_and(|head| name.contains(head));
            let shared = shared_keys && ["k_proj", "v_proj", "k_norm"].iter().any(|part| name.contains(part));
            !used.contains(*name) && !aside && !tied && !shared
        });
        let mut unused = Unused { plan, checkpoint, names: names.collect() };
        // What stands beside the language model is another part of the whole.
        let body = plan.spec.embed.rsplit_once('.').map_or("", |(body, _)| body);
        unused.names.retain(|name| name.starts_with(body) || name.starts_with("lm_head."));
        unused.drop_drafts();
        unused
    }

    /// Leaves out layers that draft tokens.
    fn drop_drafts(&mut self) {
        let config = text(self.checkpoint);
        let said = |key: &&str| config.as_ref()?.usize_or(key, 0, 0..=64).ok();
        let drafts: usize = DRAFT_KEYS.iter().filter_map(said).sum();
        let marked: BTreeSet<(&str, usize)> = (self.names.iter())
            .filter(|name| name.split('.').any(|part| DRAFTS.contains(&part)))
            .filter_map(|name| layer(name))
            .collect();
        let last = self.layers_used();
        self.names.retain(|name| {
            let Some((base, number)) = layer(name) else { return true };
            let first = last.get(base).map_or(usize::MAX, |last| last + 1);
            !(number >= first && (number - first < drafts || marked.contains(&(base, number))))
        });
    }

    /// The last layer the plan uses of each numbered row of modules.
    fn layers_used(&self) -> BTreeMap<&'a str, usize> {
        let mut last = BTreeMap::new();
        for (base, number) in self.plan.weights.iter().filter_map(|weight| layer(&weight.path)) {
            let entry = last.entry(base).or_insert(number);
            *entry = number.max(*entry);
        }
        last
    }

    /// Layers past the last one the configuration counts.
    fn layers(&self) -> Result<(), Error> {
        let last = self.layers_used();
        let beyond = |name: &&&str| {
            layer(name).is_some_and(|(base, number)| last.get(base).is_some_and(|last| number > *last))
        };
        let Some(name) = self.names.iter().find(beyond) else { return Ok(()) };
        let what = format!(
            "is {}, but the weights hold more layers: `{name}`; a model cut short computes something else",
            self.plan.spec.layers.len()
        );
        let config = text(self.checkpoint).unwrap_or_else(|| self.checkpoint.config().clone());
        Err(config.invalid("num_hidden_layers", what).into())
    }

    /// Experts one by one or joined otherwise, and kernels of convolutions with the other axis last: as the
    /// original repositories store them and mlx-lm does not.
    fn original(&self) -> Result<(), Error> {
        let (index, weights) = (self.checkpoint.index(), &self.plan.weights);
        let stack = weights.iter().find(|weight| {
            let first = weight.each.as_ref().map(|each| each.replacen("{}", "0", 1));
            let there = |path: &str| index.has(&format!("{path}.weight"));
            matches!(weight.shape, WeightShape::Stack(..))
                && !there(&weight.path)
                && !first.is_some_and(|first| there(&first))
        });
        let experts = stack.and_then(|_| self.names.iter().find(|name| name.contains(".experts.")));
        let kernel = || {
            let odd = |name: &&str| {
                let shape = index.get(name).map_or(&[][..], |tensor| tensor.shape);
                let conv = name.ends_with("conv1d.weight") || name.ends_with("conv.weight");
                conv && shape.len() == 3 && shape[1] == 1 && shape[2] > 1
            };
            weights.iter().map(|weight| weight.path.as_str()).find(odd)
        };
        match experts.copied().or_else(kernel) {
            None => Ok(()),
            Some(tensor) => Err(Error::Original {
                tensor: tensor.to_owned(),
                dir: self.checkpoint.dir().to_string_lossy().into_owned(),
            }),
        }
    }
}

/// The text part of the configuration, if it has parts.
fn text(checkpoint: &Checkpoint) -> Option<Config> {
    checkpoint.config().object("text_config").ok()?.or_else(|| Some(checkpoint.config().clone()))
}

/// What stands before the first number in a name, and the number: the row of layers and the layer.
fn layer(name: &str) -> Option<(&str, usize)> {
    let mut start = 0;
    for part in name.split('.') {
        if start > 0
            && let Ok(number) = part.parse()
        {
            return Some((&name[..start - 1], number));
        }
        start += part.len() + 1;
    }
    None
}
