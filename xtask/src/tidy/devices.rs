//! What a device is, is asked of its type or of the backend: a decision by the beginning of its name would take
//! the next backend for one of the others.

use super::{Fault, RustFile};

/// Where names are read.
const PARSER: &str = "crates/backend/src/device.rs";
const DEVICES: [&str; 2] = ["cuda", "gpu"];
const METHODS: [&str; 2] = ["starts_with(\"", "strip_prefix(\""];

/// Finds decisions by the prefix of a device's name, outside tests.
pub fn check(file: &RustFile) -> Vec<Fault> {
    if file.name == PARSER {
        return Vec::new();
    }
    let decides = |line: &str| {
        METHODS.iter().any(|method| {
            let mut after = line.split(method).skip(1);
            after.any(|after| DEVICES.iter().any(|device| after.starts_with(device)))
        })
    };
    let lines = file.lines();
    let lines = lines.iter().enumerate();
    let lines = lines.filter(|(_, line)| !file.is_test && !line.test && decides(line.text));
    let message = format!("a decision by a device's name: match on `Device`, which {PARSER} makes of names");
    lines.map(|(i, _)| Fault::new(&file.name, i + 1, "device-names", message.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::sample;

    #[test]
    fn prefixes_of_device_names_are_faults_but_where_names_are_read() {
        let line = |call: &str| format!("//! A\nfn f(d: &str) -> bool {{ d.{call}) }}\n");
        for call in ["starts_with(\"cuda\"", "strip_prefix(\"cuda:\"", "starts_with(\"gpu\""] {
            let found = check(&sample("crates/harness/src/a.rs", &line(call)));
            assert_eq!(found.len(), 1, "{call}");
            assert!(found[0].to_string().starts_with("crates/harness/src/a.rs:2: device-names"));
            assert!(check(&sample(PARSER, &line(call))).is_empty());
            assert!(check(&sample("crates/harness/tests/a.rs", &line(call))).is_empty());
        }
        assert!(check(&sample("crates/a/src/a.rs", &line("starts_with(\"layer\""))).is_empty());
    }
}
