//! Which crate may know which: the arrows of ARCHITECTURE.md, read from the manifests.
use super::Fault;
use crate::files;
use std::path::Path;

/// A crate and the crates it may depend on. Development dependencies are free: a test may look from anywhere.
const EDGES: &[(&str, &[&str])] = &[
    ("amoeba", &["harness", "engine", "hub", "text", "plan", "checkpoint", "backend", "kernels"]),
    ("harness", &["engine", "backend", "kernels", "plan", "checkpoint", "text"]),
    ("engine", &["backend", "backend-cuda", "plan", "checkpoint", "text", "kernels"]),
    ("backend-cuda", &["backend", "kernels", "plan", "checkpoint"]),
    ("backend", &["kernels", "plan", "checkpoint"]),
    ("kernels", &["plan", "checkpoint"]),
    ("plan", &["checkpoint"]),
    ("text", &["checkpoint"]),
    ("hub", &["checkpoint"]),
    ("checkpoint", &[]),
];

/// Checks every manifest under `crates/`.
pub fn check(root: &Path, names: &[String]) -> Vec<Fault> {
    let manifests = names.iter().filter(|n| n.starts_with("crates/") && n.ends_with("/Cargo.toml"));
    manifests.flat_map(|name| check_manifest(name, &files::text(root, name).unwrap_or_default())).collect()
}

fn check_manifest(name: &str, text: &str) -> Vec<Fault> {
    let from = files::crate_of(name).unwrap_or_default();
    let Some((_, allowed)) = EDGES.iter().find(|(c, _)| *c == from) else {
        return vec![Fault::new(
            name,
            1,
            "layers",
            format!("crate `{from}` has no row in the table of edges"),
        )];
    };
    let bad = edges(text).into_iter().filter(|(_, to)| !allowed.contains(&to.as_str()));
    bad.map(|(line, to)| {
        let list = if allowed.is_empty() { "no crate of ours".to_owned() } else { allowed.join(", ") };
        Fault::new(name, line, "layers", format!("{from} may not know {to}; it may know {list}"))
    })
    .collect()
}

/// The workspace crates that a manifest depends on, with the line of each.
fn edges(manifest: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_dependencies = false;
    for (index, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            in_dependencies = section.ends_with("dependencies") && !section.ends_with("dev-dependencies");
            let (table, key) = section.rsplit_once('.').unwrap_or((section, ""));
            let inline = table.ends_with("dependencies") && !table.ends_with("dev-dependencies");
            found.extend(ours(key).filter(|_| inline).map(|to| (index + 1, to)));
        } else if in_dependencies {
            let key = line.split(['=', '.', ' ']).next().unwrap_or_default();
            found.extend(ours(key).map(|to| (index + 1, to)));
        }
    }
    found
}

fn ours(key: &str) -> Option<String> {
    let key = key.trim_matches('"');
    if key == "amoeba" { Some("amoeba".to_owned()) } else { key.strip_prefix("amoeba-").map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_read_in_every_spelling_but_development_ones() {
        let manifest = "[package]\nname = \"amoeba-x\"\n[dependencies]\namoeba-plan.workspace = true\n\
            amoeba-text = { path = \"../text\" }\nserde = \"1\"\n[dev-dependencies]\n\
            amoeba-harness.workspace = true\n[target.'cfg(unix)'.dependencies]\namoeba-hub = \"1\"\n\
            [dependencies.amoeba-engine]\nworkspace = true\n";
        let found = edges(manifest);
        let expected = [(4, "plan"), (5, "text"), (10, "hub"), (11, "engine")];
        assert_eq!(found, expected.map(|(line, to)| (line, to.to_owned())));
    }

    #[test]
    fn an_edge_up_is_a_fault_and_an_edge_down_is_none() {
        let up = check_manifest("crates/plan/Cargo.toml", "[dependencies]\namoeba-engine.workspace = true\n");
        let text = up[0].to_string();
        let expected = "crates/plan/Cargo.toml:2: layers: plan may not know engine; it may know checkpoint";
        assert_eq!(text, expected);
        let down = "[dependencies]\namoeba-checkpoint.workspace = true\n";
        assert_eq!(check_manifest("crates/plan/Cargo.toml", down), []);
        assert_eq!(check_manifest("crates/other/Cargo.toml", "").len(), 1);
    }

    #[test]
    fn the_table_has_no_cycle() {
        for (index, (_, targets)) in EDGES.iter().enumerate() {
            for to in *targets {
                let below = EDGES.iter().position(|(c, _)| c == to);
                assert!(below.is_some_and(|b| b > index), "{to} must stand below {}", EDGES[index].0);
            }
        }
    }
}
