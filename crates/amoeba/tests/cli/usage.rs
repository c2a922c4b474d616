//! Wrong usage, missing models, damaged files: one clear message and the documented exit code.
use crate::{amoeba, copy, ran, ran_with_input};

#[test]
fn mistyped_flags_and_verbs_are_met_with_a_proposal() {
    ran(&["run", "--tmep", "0", "x"]).expect(2, &["unexpected argument '--tmep'", "--temp"]);
    ran(&["inspekt", "x"]).expect(2, &["unrecognized subcommand 'inspekt'", "'inspect'"]);
    ran(&["run", "--path", "fast", "x"]).expect(2, &["fused", "unfused"]);
    ran(&["run", "--device", "gpu", "x"]).expect(2, &["cpu", "reference"]);
    ran(&["run", "-t", "0", "x"]).expect(2, &["1..=1024"]);
    ran(&["run", "--isa", "mmx", "x"]).expect(2, &["this machine has"]);
    ran(&["run", "-n", "-2", "x"]).expect(2, &["-2"]);
    ran(&["completions", "tcsh"]).expect(2, &["bash", "zsh"]);
}

#[test]
fn numbers_out_of_range_are_usage_errors() {
    let cases: &[(&[&str], &str)] = &[
        (&["--temp", "-1"], "temperature is -1"),
        (&["--temp", "nan"], "temperature"),
        (&["--top-p", "0"], "top-p"),
        (&["--min-p", "2"], "min-p"),
        (&["--repeat-penalty", "0"], "repeat-penalty"),
        (&["--seed", "-2"], "not a number that fits"),
        (&["--top-k", "-2"], "not a number that fits"),
        (&["-c", "99999999"], "context of 99999999"),
        (&["--stop", ""], "stop string 0 is empty"),
    ];
    for (flags, said) in cases {
        ran(&[&["run", "Hello", "-n", "1"], *flags].concat()).expect(2, &[said]);
    }
}

/// What llama.cpp's users type.
#[test]
fn minus_one_zero_and_dashes_mean_what_they_do_elsewhere() {
    let numbers = ["--seed", "-1", "--top-k", "-1", "--repeat-last-n", "-1", "-c", "0", "--stop", "-"];
    ran(&[&["run", "-p", "- a list item", "--system", "- be brief", "-n", "1"][..], &numbers].concat())
        .expect(0, &[]);
}

#[test]
fn prompts_that_are_empty_or_no_text_are_refused() {
    ran_with_input(&["run"], "").expect(2, &["prompt is empty"]);
    ran(&["run", ""]).expect(2, &["prompt is empty"]);
    ran(&["run", "-f", "/no/such/file"]).expect(2, &["/no/such/file"]);
    ran(&["run", "-p", "a", "-f", "b"]).expect(2, &["cannot be used with"]);
}

#[test]
fn a_model_that_is_not_here_is_exit_code_3_and_says_how_to_get_it() {
    let said = ["error: ", "looked for", "amoeba pull nobody/nothing-4bit"];
    ran(&["run", "nobody/nothing-4bit", "Hi"]).expect(3, &said);
    ran(&["run", "nobody/nothing-4bit"]).expect(3, &["amoeba run -p 'nobody/nothing-4bit'"]);
    ran(&["run", "Qwen3-30B-A3B-4bit"]).expect(3, &["amoeba pull mlx-community/Qwen3-30B-A3B-4bit"]);
    ran(&["run", "./no/such/folder", "Hi"]).expect(3, &["no such folder"]);
    ran(&["inspect", "../no/such/folder"]).expect(3, &["no such folder"]);
    let folder = tempfile::tempdir().unwrap();
    ran(&["run", folder.path().to_str().unwrap(), "Hi"]).expect(3, &["config.json is missing"]);
    ran(&["verify", folder.path().to_str().unwrap()]).expect(3, &["expected.json"]);
}

#[test]
fn nothing_is_downloaded_when_offline() {
    ran(&["pull", "a/b", "--offline"]).expect(3, &["offline"]);
    ran(&["pull", "not a name"]).expect(3, &["not a model name"]);
}

#[test]
fn without_the_bundled_model_it_says_where_it_looked() {
    // The folder the program was built from has it, so only the place named first can be seen to be tried.
    let folder = tempfile::tempdir().unwrap();
    let mut command = amoeba(&["doctor", "--json"]);
    let output = command.env("AMOEBA_MODELS", folder.path()).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["bundled_model"].as_str().unwrap().ends_with("tiny-chat-moe-4bit"));
}

#[test]
fn damaged_files_are_exit_code_6_and_named() {
    let folder = copy("fixtures/qwen3_moe-q4g64");
    let dir = folder.path().to_str().unwrap();
    let weights = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    for args in [&["run", dir, "Hi"][..], &["inspect", dir], &["verify", dir], &["inspect", dir, "--tensors"]]
    {
        ran(args).expect(6, &["model.safetensors"]);
    }
    std::fs::write(folder.path().join("config.json"), "{\"model_type\": \"gpt5\"}").unwrap();
    std::fs::write(&weights, &bytes).unwrap();
    ran(&["run", dir, "Hi"]).expect(6, &["gpt5", "qwen3_moe"]);
    std::fs::write(folder.path().join("config.json"), "{").unwrap();
    ran(&["run", dir, "Hi"]).expect(6, &["config.json"]);
}
