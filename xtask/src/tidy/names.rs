//! Rules on what decides: never the name of a buffer, of a kernel or of a device; and one limit for steps of
//! few rows.
use super::{Fault, RustFile};

/// Where buffers are found by name: the definition, the lowering that makes them, and `dump`, which is asked
/// for a name.
const MAY_ASK_NAMES: [&str; 3] =
    ["crates/plan/src/plan.rs", "crates/plan/src/lower/mod.rs", "crates/harness/src/dump.rs"];

/// Code that compares the name of a buffer.
const BUFFER_NAMES: [&str; 5] =
    ["buffer_named(", "buffer.name ==", "buffer.name !=", ").name ==", ").name !="];
/// Code that looks at the name of a kernel.
const KERNEL_NAMES: [&str; 5] = [".kernel ==", ".kernel !=", "match call.kernel", ".kernel.", "kernel: &str"];
/// Where a device's name is read.
const DEVICE_PARSER: &str = "crates/backend/src/device.rs";
/// Code that looks at the beginning of a device's name: the next backend would pass for one of the others.
const DEVICE_NAMES: [&str; 4] =
    ["starts_with(\"cuda", "starts_with(\"gpu", "strip_prefix(\"cuda", "strip_prefix(\"gpu"];

/// Checks all files.
pub fn check(files: &[RustFile]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut limit: Option<String> = None;
    for file in files {
        let lines = file.lines();
        for (index, line) in lines.iter().enumerate().filter(|(_, line)| !(file.is_test || line.test)) {
            let device = DEVICE_NAMES.iter().any(|name| line.text.contains(name));
            // Without what stands in texts.
            let line = line.text.split('"').step_by(2).collect::<Vec<_>>().join("\"\"");
            let mut fault =
                |rule, message: String| faults.push(Fault::new(&file.name, index + 1, rule, message));
            let of_crates = file.name.starts_with("crates/");
            let found = |words: &[&str]| of_crates && words.iter().any(|word| line.contains(word));
            if found(&BUFFER_NAMES) && !MAY_ASK_NAMES.contains(&&*file.name) {
                let message = "a buffer's name decides: ask Op::io() or a field of the plan";
                fault("buffer-name", message.to_owned());
            }
            if found(&KERNEL_NAMES) {
                let message = "a kernel's name decides: let its lowering say what is to be known";
                fault("kernel-name", message.to_owned());
            }
            if device && file.name != DEVICE_PARSER {
                let message = "a device's name decides: match on `Device` or ask `DeviceKind`";
                fault("device-name", message.to_owned());
            }
            if line.contains("const ") && line.contains("ROWS_MAX") && line.trim_end().ends_with("= 8;") {
                match &limit {
                    Some(first) => fault("row-limit", format!("{first} has this limit already: use it")),
                    None => limit = Some(format!("{}:{}", file.name, index + 1)),
                }
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn rules(text: &str) -> Vec<&'static str> {
        let files =
            [sample("crates/a/src/a.rs", text), sample("crates/b/src/b.rs", "const B_ROWS_MAX: usize = 8;")];
        check(&files).iter().map(|fault| fault.rule).collect()
    }

    #[test]
    fn names_do_not_decide_and_the_row_limit_is_written_once() {
        assert_eq!(rules("let id = plan.buffer_named(\"logits\");"), ["buffer-name"]);
        assert_eq!(rules("if plan.buffer(x).name == \"shared\" {}"), ["buffer-name"]);
        assert_eq!(rules("fn stage(kernel: &str) -> Stage {}"), ["kernel-name"]);
        assert_eq!(rules("let gpu = device.starts_with(\"cuda\");"), ["device-name"]);
        assert_eq!(rules("pub const ROWS_MAX: usize = 8;"), ["row-limit"]);
        let fine = "// buffer_named(\nlet text = \"buffer_named(\";\nfn call(kernel: &'static str) {}\n\
            const N: usize = 8;";
        assert_eq!(rules(fine), [""; 0]);
        assert_eq!(rules("#[cfg(test)]\nmod tests {\n    fn f() { plan.buffer_named(\"q\"); }\n}"), [""; 0]);
    }
}
