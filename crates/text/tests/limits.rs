//! Templates that try to use up time, memory or stack end in a clear error, soon.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use amoeba_text::{ChatTemplate, Error};
use common::*;
use serde_json::json;

#[test]
fn hostile_templates() {
    let file = std::fs::read(root().join("crates/text/tests/data/hostile.json")).unwrap();
    let mut sources: Vec<String> = serde_json::from_slice(&file).unwrap();
    sources.push(format!("{{{{ {}1{} }}}}", "(".repeat(5_000), ")".repeat(5_000)));
    sources.push(format!("{{{{ {}1{} }}}}", "[".repeat(5_000), "]".repeat(5_000)));
    sources.push(format!("{}{}", "{% if 1 %}".repeat(5_000), "{% endif %}".repeat(5_000)));
    sources.push("x".repeat(300_000));
    for source in sources {
        let what = &source[source.len().saturating_sub(100)..];
        let started = Instant::now();
        let error = render(&source, json!({})).expect_err(what);
        println!("{what}: {:?}: {error}", started.elapsed());
        assert!(started.elapsed() < Duration::from_secs(20), "{what} took {:?}", started.elapsed());
    }
}

#[test]
fn the_deepest_values_do_not_overflow_the_stack() {
    let body = format!("{{% set ns.x = {}ns.x{} %}}", "[".repeat(60), "]".repeat(60));
    let build = format!("{{% set ns = namespace(x=1) %}}{{% for a in range(48000) %}}{body}{{% endfor %}}");
    let started = Instant::now();
    assert!(render(&format!("{build}{{{{ ns.x }}}}"), json!({})).is_err());
    assert!(started.elapsed() < Duration::from_secs(20), "took {:?}", started.elapsed());
}

#[test]
fn deep_values_do_not_overflow_the_stack() {
    let steep = format!("{{% set ns.x = {}ns.x{} %}}", "[".repeat(60), "]".repeat(60));
    for body in [
        steep.as_str(),
        "{% set ns.x = [ns.x] %}",
        "{% set ns.x = {'a': ns.x} %}",
        "{% set ns.x = [[[[[[[[ns.x]]]]]]]] %}",
    ] {
        for end in
            ["", "{{ ns.x }}", "{{ ns.x | tojson }}", "{{ ns.x == ns.x }}", "{{ ns.x | string | length }}"]
        {
            let source = format!(
                "{{% set ns = namespace(x=1) %}}{{% for a in range(99999) %}}{body}{{% endfor %}}{end}"
            );
            let started = Instant::now();
            let result = render(&source, json!({}));
            println!(
                "{body}{end}: {:?}: {:?}",
                started.elapsed(),
                result.err().map(|error| error.to_string())
            );
        }
    }
}

#[test]
fn deep_sources_do_not_overflow_the_stack() {
    for (head, unit, tail) in [
        ("{{ x", "[0:]", "}}"),
        ("{{ x", ".a", "}}"),
        ("{{ x", "|trim", "}}"),
        ("{{ 1", "+1", "}}"),
        ("{{ 1", "~1", "}}"),
        ("{{ x", " and x", "}}"),
        ("", "{{ x~x~x~x~x~x~x~x~x~x~x~x~x~x~x~x~x~x~x }}", ""),
        ("{{ 1", " and 1", "}}"),
        ("{{ 1", "**1", "}}"),
        ("{{ 1", " if 1 else 1", "}}"),
        ("{{ 1", "==1", "}}"),
        ("{{ ", "-", "1}}"),
        ("{{ ", "not ", "1}}"),
        ("{% if 1 %}", "{% elif 1 %}", "{% endif %}"),
        ("", "{% set x = [[[[[[[[x]]]]]]]] %}", "{{ x }}"),
        ("", "{% macro m() %}{{ x }}{% endmacro %}{% set x = m %}", ""),
    ] {
        let source = format!("{head}{}{tail}", unit.repeat(250_000 / unit.len()));
        let started = Instant::now();
        let result = render(&source, json!({ "x": "a" }));
        println!("{unit}: {:?}: {:?}", started.elapsed(), result.err().map(|error| error.to_string()));
        assert!(started.elapsed() < Duration::from_secs(20), "{unit} took {:?}", started.elapsed());
    }
}

#[test]
fn many_long_expressions_compile_soon() {
    for operator in ["~", "+", " and ", "==", "*"] {
        let tag = format!("{{{{ x{} }}}}", format!("{operator}'ab'").repeat(990));
        let source = tag.repeat(250_000 / tag.len());
        let started = Instant::now();
        let _ = ChatTemplate::from_source("test", &source).unwrap();
        println!("{operator}: {:?}", started.elapsed());
        assert!(started.elapsed() < Duration::from_secs(20), "{operator} took {:?}", started.elapsed());
    }
}

#[test]
fn errors_name_file_and_line() {
    let Err(Error::Template { file, line, raised, .. }) = render("a\nb\n{{ nothing.here }}", json!({}))
    else {
        panic!()
    };
    assert_eq!((file.as_str(), line, raised), ("test", 3, false));
    let Err(Error::Template { line, .. }) = ChatTemplate::from_source("test", "a\n{% if %}") else {
        panic!()
    };
    assert_eq!(line, 2);
    let source =
        "\n{% macro f() %}{{ raise_exception('No system messages, please') }}{% endmacro %}\n{{ f() }}";
    let Err(Error::Template { message, raised, .. }) = render(source, json!({})) else { panic!() };
    assert_eq!((message.as_str(), raised), ("No system messages, please", true));
    let error = render("{{ raise_exception('a\u{1b}[2J\n' * 9000) }}", json!({})).unwrap_err().to_string();
    assert!(error.contains("a\\u{1b}[2J\\u{a}a") && error.len() < 2000 && !error.contains('\n'), "{error}");
    let error = render("{{ 1 % 'x' }}", json!({})).unwrap_err().to_string();
    assert!(error.contains("--raw") && error.contains("--chat-template"), "{error}");
}
