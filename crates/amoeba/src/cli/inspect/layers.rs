//! What each layer is and which path its feed-forward part takes, equal layers on one line.
use amoeba::{LoadOptions, Plan};
use amoeba_plan::{Body, FEW_ROWS_MAX, LatentForm, LayerSpec, Op, select_path};

/// Some layers that are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    /// First.
    pub first: usize,
    /// Last.
    pub last: usize,
    /// What they are made of.
    pub blocks: String,
    /// Path of a decode step, with its reason.
    pub decode: String,
    /// Path of a prefill chunk, with its reason.
    pub prefill: String,
}

/// All layers of a plan.
pub fn layers(plan: &Plan, options: &LoadOptions, rows: usize) -> Vec<Layers> {
    let mut found: Vec<Layers> = Vec::new();
    for (layer, spec) in plan.spec.layers.iter().enumerate() {
        let experts =
            plan.program.iter().any(|step| step.layer == Some(layer) && matches!(step.op, Op::Experts(_)));
        let path = |rows| select_path(experts, rows, FEW_ROWS_MAX, options.path).to_string();
        let one =
            Layers { first: layer, last: layer, blocks: blocks(spec), decode: path(1), prefill: path(rows) };
        match found.last_mut() {
            Some(last) if last.blocks == one.blocks && last.decode == one.decode => last.last = layer,
            _ => found.push(one),
        }
    }
    found
}

fn blocks(spec: &LayerSpec) -> String {
    let names: Vec<String> = spec.blocks.iter().map(|block| body(&block.body)).collect();
    names.join(" · ")
}

fn body(body: &Body) -> String {
    match body {
        Body::Attention(spec) => {
            let window = if spec.window.is_some() { "local " } else { "" };
            let sinks = if spec.sinks.is_some() { " with sinks" } else { "" };
            format!("{window}attention{sinks}")
        }
        Body::Latent(spec) => match spec.form {
            LatentForm::Expanded(_) => "latent attention, expanded".to_owned(),
            LatentForm::Absorbed { .. } => "latent attention, absorbed".to_owned(),
        },
        Body::Delta(_) => "gated delta net".to_owned(),
        Body::Mamba(_) => "state space".to_owned(),
        Body::ShortConv(_) => "short convolution".to_owned(),
        Body::Mlp(_) => "mlp".to_owned(),
        Body::Moe(spec) => {
            let shared = if spec.shared.is_some() { " + shared" } else { "" };
            format!("{} of {} experts{shared}", spec.rule.top_k, spec.experts)
        }
        Body::PerLayer { .. } => "per-layer input".to_owned(),
        Body::Sum(blocks) => {
            blocks.iter().map(|block| self::body(&block.body)).collect::<Vec<_>>().join(" + ")
        }
    }
}
