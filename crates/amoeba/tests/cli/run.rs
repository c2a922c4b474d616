//! `amoeba run`.
use std::io::Read;
use std::process::Stdio;

use crate::{Ran, amoeba, copy, ran, ran_with_input, repository};

const GREEDY: &[&str] = &["--temp", "0", "-n", "24"];

fn greedy(more: &[&str]) -> String {
    let args = [&["run", "Tell me about the moon."], GREEDY, more].concat();
    ran(&args).expect(0, &[]).out
}

#[test]
fn the_command_of_the_readme_answers_and_tells_what_it_did() {
    let said = ["[model: the bundled model", "tok/s", "first token", "memory", "seed", "peak"];
    let ran = ran(&["run", "What is the capital of France?", "-n", "40"]).expect(0, &said);
    assert!(ran.out.trim().len() > 10, "{}", ran.out);
    assert!(!ran.err.contains('\x1b'), "colours without a terminal: {}", ran.err);
}

#[test]
fn greedy_answers_are_the_same_on_any_path_and_number_of_threads() {
    let expected = greedy(&[]);
    assert!(expected.trim().len() > 10, "{expected}");
    let ways: &[&[&str]] = &[
        &[],
        &["-t", "1"],
        &["-t", "2"],
        &["--path", "fused"],
        &["--path", "unfused"],
        &["--isa", "scalar"],
    ];
    for way in ways {
        assert_eq!(greedy(way), expected, "{way:?}");
    }
}

#[test]
fn a_seed_makes_an_answer_repeatable() {
    let args = ["run", "Hello!", "-n", "16", "--seed", "5", "--temp", "1.5"];
    let first = ran(&args).expect(0, &["seed 5"]);
    assert_eq!(ran(&args).out, first.out);
}

#[test]
fn models_and_prompts_are_taken_from_everywhere() {
    let model = repository("models/tiny-chat-moe-4bit");
    let expected = greedy(&["-q"]);
    let prompt = "Tell me about the moon.";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{prompt}\n")).unwrap();
    let file = file.path().to_str().unwrap();
    let ways: &[(&[&str], &str)] = &[
        (&["run", "-q", &model, prompt], ""),
        (&["run", "-q", "-m", &model, prompt], ""),
        (&["run", "-q", "-m", &model, "-p", prompt], ""),
        (&["run", "-q", &model, "-f", file], ""),
        (&["run", "-q", &model], prompt),
        (&["run", "-q", "-p", "-"], "Tell me about the moon.\n"),
        (&["run", "-q"], "Tell me about the moon.\n"),
    ];
    for (args, input) in ways {
        let ran = ran_with_input(&[args, GREEDY].concat(), input).expect(0, &[]);
        assert_eq!((ran.out.as_str(), ran.err.as_str()), (expected.as_str(), ""), "{args:?}");
    }
}

#[test]
fn length_and_stop_strings_end_the_answer() {
    let whole = greedy(&["-q"]);
    let word = whole.split_whitespace().nth(5).unwrap();
    let stopped = greedy(&["-q", "--stop", word, "--stop", "no such text"]);
    assert_eq!(stopped.trim_end(), whole.split_once(word).unwrap().0.trim_end());
    let short = ran(&["run", "Hello", "-n", "2"]).expect(0, &["decode 2 tokens", "stopped at -n"]);
    assert!(short.out.len() < 40, "{}", short.out);
    assert_eq!(ran(&["run", "-q", "Hello", "--n-predict", "0"]).expect(0, &[]).out, "");
}

#[test]
fn a_full_context_ends_the_answer_and_says_so() {
    let args = ["run", "Hello", "-c", "32", "--ignore-eos", "-n", "-1", "--temp", "0"];
    ran(&args).expect(0, &["context of 32 positions is full"]);
    let long = "word ".repeat(100);
    ran(&["run", &long, "-c", "32"]).expect(2, &["context holds 32", "-c"]);
}

#[test]
fn raw_prompts_see_no_template() {
    let raw = ran(&["run", "--raw", "The moon is", "-n", "8", "--temp", "0", "-q"]).expect(0, &[]).out;
    let chat = ran(&["run", "The moon is", "-n", "8", "--temp", "0", "-q"]).expect(0, &[]).out;
    assert_ne!(raw, chat);
    ran(&["run", "--raw", "--system", "x", "y"]).expect(2, &["--system", "--raw"]);
    let folder = copy("fixtures/qwen3_moe-q4g64");
    std::fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    let dir = folder.path().to_str().unwrap();
    let ran = ran(&["run", dir, "Hi", "-n", "1"]);
    assert!(ran.code == Some(0) || ran.err.contains("use --raw"), "{}", ran.err);
}

#[test]
fn a_reader_that_leaves_ends_the_program_quietly() {
    let mut command = amoeba(&["run", "-q", "Hello", "--ignore-eos", "-n", "400", "--temp", "0"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0; 4]).unwrap();
    drop(out);
    let output = child.wait_with_output().unwrap();
    Ran::new(output).expect(0, &[]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_the_answer_with_its_numbers() {
    let mut command = amoeba(&["run", "Hello", "--ignore-eos", "--temp", "0"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0; 4]).unwrap();
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    let ran = Ran::new(child.wait_with_output().unwrap()).expect(130, &["interrupted", "tok/s"]);
    assert!(!ran.err.contains("error"), "{}", ran.err);
}

#[test]
fn packed_weights_are_kept_when_asked_for() {
    let cache = tempfile::tempdir().unwrap();
    let run = |flags: &[&str]| {
        let args = [&["run", "-q", "Tell me about the moon."], GREEDY, flags].concat();
        let ran = Ran::new(amoeba(&args).env("XDG_CACHE_HOME", cache.path()).output().unwrap());
        ran.expect(0, &[])
    };
    let files = || std::fs::read_dir(cache.path().join("amoeba/packed")).map_or(0, Iterator::count);
    let expected = run(&[]).out;
    assert_eq!(files(), 0);
    for _ in 0..2 {
        let ran = run(&["--repack-cache"]);
        assert_eq!((ran.out.as_str(), ran.err.as_str(), files()), (expected.as_str(), "", 1));
    }
}

#[test]
fn tools_are_told_to_models_that_know_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tools.json");
    let file = path.to_str().unwrap();
    let fixture = repository("fixtures/qwen3_moe-q4g64");
    let run = |model: &str, more: &[&str]| {
        ran(&[&["run", model, "-p", "Hi", "-n", "2", "--temp", "0"], more].concat())
    };
    let prompt = |ran: Ran| -> usize {
        let said = ran.expect(0, &["prompt"]).err;
        said.split("prompt ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
    };
    std::fs::write(&path, r#"[{"type": "function", "function": {"name": "get_weather"}}]"#).unwrap();
    assert!(prompt(run(&fixture, &["--tools", file])) > prompt(run(&fixture, &[])));
    let bundled = repository("models/tiny-chat-moe-4bit");
    run(&bundled, &["--tools", file]).expect(2, &["knows no tools"]);
    run(&fixture, &["--tools", file, "--raw"]).expect(2, &["--tools", "--raw"]);
    run(&fixture, &["--tools", "nowhere.json"]).expect(2, &["nowhere.json", "cannot read"]);
    for (text, part) in [("{", "not JSON"), ("{}", "not a list"), ("[{}]", "tool 0 is not a function")] {
        std::fs::write(&path, text).unwrap();
        run(&fixture, &["--tools", file]).expect(2, &["tools.json", part]);
    }
}

#[test]
fn templates_thoughts_and_the_prompt_itself() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.jinja");
    let path = file.to_str().unwrap();
    let head = "{# </think> #}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n";
    let tail =
        "{% endfor %}<|im_start|>assistant\n{% if enable_thinking | default(true) %}<think>\n{% endif %}";
    std::fs::write(&file, [head, tail].concat()).unwrap();
    let chat = r#"[{"role": "user", "content": "Hi"}]"#;
    let shown =
        ran_with_input(&["render", dir.path().to_str().unwrap(), "--template", path, "--chat", "-"], chat);
    assert!(shown.expect(0, &[]).out.ends_with("Hi<|im_end|>\n<|im_start|>assistant\n<think>\n"));
    assert!(
        ran_with_input(&["render", "--tokens", "--chat", "-"], chat).expect(0, &[]).out.starts_with("1\t")
    );
    let run = |more: &[&str]| ran(&[&["run", "--temp", "0", "Hi", "--chat-template", path], more].concat());
    assert_eq!(run(&[]).expect(0, &[]).out, "");
    for more in [&["--reasoning", "off"][..], &["--reasoning-budget", "2"], &["--reasoning-budget", "0"]] {
        assert!(!run(more).expect(0, &["decode"]).out.trim().is_empty(), "{more:?}");
    }
    run(&["--reasoning", "low"]).expect(2, &["enable_thinking only: say on or off"]);
}
