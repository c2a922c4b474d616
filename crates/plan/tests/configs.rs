//! Configurations that no model has: a clear error that names the key, never a panic.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use amoeba_checkpoint::{Checkpoint, Config};
use amoeba_plan::Plan;
use serde_json::{Value, json};

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

fn with(name: &str, changes: &[(&str, Value)]) -> String {
    let text = std::fs::read_to_string(fixture(name).join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    for (key, value) in changes {
        config[*key] = value.clone();
    }
    config.to_string()
}

fn error(name: &str, changes: &[(&str, Value)]) -> String {
    let config = Config::parse("config.json", &with(name, changes)).unwrap();
    Plan::new(&config).unwrap_err().to_string()
}

#[test]
fn impossible_numbers_are_named() {
    let keys = "hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim vocab_size \
        num_experts_per_tok moe_intermediate_size max_position_embeddings"
        .split_whitespace();
    let values =
        [json!(0), json!(-1), json!(1e308), json!(1u64 << 40), json!(2.5), json!("8"), json!([8]), json!({})];
    let mut cases = 0;
    for key in keys {
        for value in &values {
            let message = error("qwen3_moe-q4g64", &[(key, value.clone())]);
            assert!(message.contains(key), "{key} = {value}: {message}");
            cases += 1;
        }
    }
    for key in ["rms_norm_eps", "rope_theta"] {
        for value in [json!(-1), json!(1e308), json!("x"), json!([])] {
            let message = error("qwen3_moe-q4g64", &[(key, value.clone())]);
            assert!(message.contains(key), "{key} = {value}: {message}");
            cases += 1;
        }
    }
    assert_eq!(cases, 80);
}

/// Every place of a JSON value that holds no object, as a path of keys.
fn leaves(value: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                path.push(key.clone());
                leaves(inner, path, found);
                path.pop();
            }
        }
        _ => found.push(path.clone()),
    }
}

#[test]
fn time_steps_may_be_unbounded() {
    let text = with("nemotron_h-q4g64", &[("time_step_limit", json!([0.0, "unbounded"]))]);
    let plan = |word: &str| {
        let config = Config::parse("config.json", &text.replace("\"unbounded\"", word)).unwrap();
        Plan::new(&config).map(|plan| plan.spec)
    };
    let limit = |spec: amoeba_plan::ModelSpec| {
        spec.layers.iter().flat_map(|layer| &layer.blocks).find_map(|block| match &block.body {
            amoeba_plan::Body::Mamba(spec) => Some(spec.dt_limit),
            _ => None,
        })
    };
    assert_eq!(limit(plan("Infinity").unwrap()), Some((0.0, f32::MAX)));
    assert_eq!(limit(plan("0.5").unwrap()), Some((0.0, 0.5)));
    assert!(plan("NaN").unwrap_err().to_string().contains("time_step_limit"));
    assert!(plan("-1").unwrap_err().to_string().contains("time_step_limit"));
}

#[test]
fn no_config_of_any_family_panics() {
    let odd = json!([null, 0, 1, 3, -1, 1u64 << 40, 1e30, 0.3, true, "x", [], [0], [1, 2, 3], [1e30, "x"], {},
        {"rope_type": 3}]);
    let odd = odd.as_array().unwrap();
    let mut plans = 0;
    for entry in std::fs::read_dir(fixture("")).unwrap() {
        let Ok(text) = std::fs::read_to_string(entry.unwrap().path().join("config.json")) else { continue };
        let config: Value = serde_json::from_str(&text).unwrap();
        let mut paths = Vec::new();
        leaves(&config, &mut Vec::new(), &mut paths);
        for path in paths.iter().filter(|path| !path[0].starts_with("quantization")) {
            for value in odd {
                let mut changed = config.clone();
                let place = path.iter().fold(&mut changed, |inner, key| &mut inner[key.as_str()]);
                *place = value.clone();
                if let Ok(config) = Config::parse("config.json", &changed.to_string()) {
                    plans += usize::from(Plan::new(&config).is_ok_and(|plan| !plan.to_string().is_empty()));
                }
            }
        }
    }
    assert!(plans > 1000, "{plans} plans");
}

#[test]
fn numbers_that_do_not_fit_the_tensors_name_the_tensor() {
    let cases: [(&str, Value, &str); 8] = [
        ("model_type", json!("\u{1b}[31m".repeat(9999)), "model_type `\\u{1b}[31m"),
        ("vocab_size", json!(513), "model.embed_tokens"),
        ("hidden_size", json!(192), "model.embed_tokens"),
        ("num_hidden_layers", json!(3), "model.layers.2"),
        ("num_attention_heads", json!(8), "q_proj"),
        ("num_experts", json!(16), "mlp"),
        ("moe_intermediate_size", json!(96), "switch_mlp"),
        ("tie_word_embeddings", json!("yes"), "tie_word_embeddings"),
    ];
    for (key, value, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        for file in ["model.safetensors", "model.safetensors.index.json"] {
            std::fs::copy(fixture("qwen3_moe-q4g64").join(file), dir.path().join(file)).unwrap();
        }
        std::fs::write(dir.path().join("config.json"), with("qwen3_moe-q4g64", &[(key, value)])).unwrap();
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let planned = Plan::of(&checkpoint).and_then(|plan| plan.stored(&checkpoint).map(|_| ()));
        let message = planned.unwrap_err().to_string();
        assert!(message.contains(expected) && message.len() < 2000, "{key}: {message}");
    }
}

/// What becomes of a tensor's name by an edit of `tensors.txt`.
fn renamed(name: &str, edit: &str) -> Vec<String> {
    let adds = edit.contains(" + ");
    let (from, to) = edit.split_once(if adds { " + " } else { " =>" }).unwrap();
    let marked = format!("^{name}");
    let old = || adds.then(|| name.to_owned());
    match (marked.contains(from), to.contains("{}")) {
        (false, _) => vec![name.to_owned()],
        (true, true) => {
            (0..8).map(|n| name.replace(from, &to.trim().replace("{}", &n.to_string()))).collect()
        }
        (true, false) => {
            let new = marked.replace(from, to.trim()).trim_start_matches('^').to_owned();
            old().into_iter().chain([new]).collect()
        }
    }
}

/// Plans a fixture of seeded weights with another configuration and other names; the notes, or the error.
fn altered(name: &str, changes: &Value, edit: &str) -> Result<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(fixture(name).join("model.seeded.json")).unwrap();
    let mut recipe: Value = serde_json::from_str(&text).unwrap();
    let mut tensors = Vec::new();
    for tensor in recipe["tensors"].as_array().unwrap() {
        let names = renamed(tensor["name"].as_str().unwrap(), edit);
        for new in &names {
            let mut tensor = tensor.clone();
            tensor["name"] = json!(new);
            if names.len() > 2 {
                tensor["shape"].as_array_mut().unwrap().remove(0); // one expert of a stack
            }
            tensors.push(tensor);
        }
    }
    recipe["tensors"] = json!(tensors);
    std::fs::write(dir.path().join("model.seeded.json"), recipe.to_string()).unwrap();
    let changes: Vec<_> = changes.as_object().unwrap().iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
    std::fs::write(dir.path().join("config.json"), with(name, &changes)).unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let plan = Plan::of(&checkpoint).map_err(|error| error.to_string())?;
    plan.stored(&checkpoint).map_err(|error| error.to_string())?;
    Ok(plan.notes(&checkpoint).join("; "))
}

#[test]
fn contradictions_are_named_and_tensors_without_a_place() {
    for line in include_str!("tensors.txt").lines().filter(|line| !line.starts_with('#')) {
        let [fixture, changes, edit, outcome] = line.split(" | ").collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let found = altered(fixture, &serde_json::from_str(changes).unwrap(), edit);
        let good = match (&found, outcome.split_once(' ')) {
            (Ok(notes), None) => notes.is_empty(),
            (Ok(notes), Some(("note", words))) => notes.contains(words),
            (Err(error), Some(("error", words))) => error.contains(words),
            _ => false,
        };
        assert!(good, "{line}: {found:?}");
    }
}

/// Model cards tell people to add it, and mlx-lm ignores it for some families.
#[test]
fn rope_scaling_counts_in_every_family() {
    let yarn = json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16 });
    for name in ["qwen2_moe", "qwen3_moe", "glm4_moe", "minimax", "mixtral", "ernie4_5_moe", "Klear"] {
        let name = format!("{name}-q4g64");
        let ropes = |changes: &[(&str, Value)]| {
            let config = Config::parse("config.json", &with(&name, changes)).unwrap();
            format!("{:?}", Plan::new(&config).unwrap().ropes)
        };
        assert_ne!(ropes(&[]), ropes(&[("rope_scaling", yarn.clone())]), "{name}");
    }
}
