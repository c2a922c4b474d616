//! What templates in the field use, against what jinja2 prints for it.
#![allow(clippy::unwrap_used)]

mod common;

use amoeba_text::{Chat, ChatTemplate, Message};
use common::*;
use serde_json::json;

#[test]
fn jinja2_behaviour() {
    let data = json!({
        "s": "  Hello <World>  ", "d": {"b": 1, "a": [1.0, 2.5, 1e16, 1e-5, true, null],
        "é": "\"q\"\n<&'>\u{1}"},
        "l": [1, 2, 3, 4], "t": true, "n": null, "f": 0.1, "big": 12345678901234567890u64,
    });
    for (source, expected) in [
        ("{{ s.strip() }}|{{ s | trim }}|{{ s.lstrip() }}|", "Hello <World>|Hello <World>|Hello <World>  |"),
        (
            "{{ d | tojson }}",
            r#"{"b": 1, "a": [1.0, 2.5, 1e+16, 1e-05, true, null], "é": "\"q\"\n<&'>\u0001"}"#,
        ),
        ("{{ d.a | tojson(indent=2) }}", "[\n  1.0,\n  2.5,\n  1e+16,\n  1e-05,\n  true,\n  null\n]"),
        ("{{ {'a': [], 'b': {}} | tojson(indent=4) }}", "{\n    \"a\": [],\n    \"b\": {}\n}"),
        (
            "{{ d['é'] | tojson(ensure_ascii=true) }}{{ 'é🙂' | tojson(ensure_ascii=True) }}",
            r#""\"q\"\n<&'>\u0001""\u00e9\ud83d\ude42""#,
        ),
        ("{{ {'b': 1, 'a': 2} | tojson(separators=(',', ':'), sort_keys=True) }}", r#"{"a":2,"b":1}"#),
        ("{{ t }} {{ n }} {{ f }} {{ missing }}|{{ big }}", "True None 0.1 |12345678901234567890"),
        ("{{ l[1:] }} {{ l[::-1] }} {{ l[-1] }}", "[2, 3, 4] [4, 3, 2, 1] 4"),
        ("{{ 'a,b,c'.split(',') }} {{ 'a b'.split()[-1] }}", "['a', 'b', 'c'] b"),
        ("{{ 'abc'.startswith('ab') }} {{ 'x' in 'xyz' }} {{ 'abc'.replace('b', '') }}", "True True ac"),
        ("{% for k, v in d.items() %}{{ k }};{% endfor %}{{ d.get('zz', 7) }}", "b;a;é;7"),
        (
            "{% set ns = namespace(i=0) %}{% for x in l %}{% set ns.i = ns.i + x %}{% endfor %}{{ ns.i }}",
            "10",
        ),
        (
            "{% for x in l %}{% if x == 2 %}{% continue %}{% elif x == 4 %}{% break %}{% endif %}\
             {{ x }}{% endfor %}",
            "13",
        ),
        ("{% macro m(a, b='z') %}{{ a }}{{ b }}{% endmacro %}{{ m('y') }}{{ m('y', b=1) }}", "yzy1"),
        (
            "{% for x in l %}{{ loop.index }}{{ loop.first }}{{ loop.last }}\
             {{ loop.previtem }}{{ loop.nextitem }} {% endfor %}",
            "1TrueFalse2 2FalseFalse13 3FalseFalse24 4FalseTrue3 ",
        ),
        (
            "{{ d is mapping }} {{ s is string }} {{ l is iterable }} {{ n is none }} {{ x is defined }}",
            "True True True True False",
        ),
        ("{{ 'a' if not missing else 'b' }}{{ missing | default('c') }}", "ac"),
        (
            "{{ l | map('string') | join('-') }} {{ [d] | map(attribute='b') | list }} \
             {{ l | select('odd') | list }}",
            "1-2-3-4 [1] [1, 3]",
        ),
        ("{{ '%s=%d' | format('a', 3) }} {{ 'x' ~ 1 ~ none }}", "a=3 x1None"),
        ("{%- if true %}\n  x\n{%- endif %}\n  {# c #}\n  {% if 1 %}\n  y\n  {% endif %}\nz\n", "  x  y\nz"),
        (
            "{% generation %}\na{% endgeneration %}b{%- generation -%} c {%- endgeneration -%} d",
            "ab c d".replace(" c ", "c").as_str(),
        ),
        ("{{ 'generation' }}{# {% generation %} #}", "generation"),
        ("{{ 'abc'.removeprefix('a') }}{{ 'abc'.removesuffix('c') }}{{ 'aBc'.upper() }}", "bcabABC"),
        ("{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ 2 ** 3 }} {{ 1 / 2 }}", "3 -4 1 8 0.5"),
        ("{{ {'a': 1} }} {{ ['x', none, 1.0] }}", "{'a': 1} ['x', None, 1.0]"),
        (
            "{{ messages[0]['content'] }}{{ messages | length }}{{ tools }}{{ add_generation_prompt }}",
            "Hi1NoneFalse",
        ),
        ("{{ {'b': 1, 'a': 'x'} | dictsort }}|{{ d | items | list | length }}", "[('a', 'x'), ('b', 1)]|3"),
    ] {
        match render(source, data.clone()) {
            Ok(text) => assert_eq!(text, expected, "{source}"),
            Err(error) => panic!("{source}: {error}"),
        }
    }
}

#[test]
fn methods_of_strings() {
    for (source, expected) in [
        (
            "{{ 'ab'.center(7, '*') }}{{ 'abc' | center(6) }}|{{ 'a,b,c'.rsplit(',', 1) }}\
             {{ 'a</t>b'.rsplit('</t>')[-1] }}",
            "***ab** abc  |['a,b', 'c']b",
        ),
        (
            "{{ '{} of {n:>3}'.format('a', n=2) }} {{ 'one two'.title() }} {{ s.rstrip() }}|\
             {{ 'x\n'.rstrip('\n') }}",
            "a of   2 One Two   Hello <World>|x",
        ),
        ("{{ 'a'.rsplit(',', 0) }}{{ ''.center(0) }}|{{ 'ab'.center(1) }}", "['a']|ab"),
    ] {
        assert_eq!(render(source, json!({ "s": "  Hello <World>  " })).unwrap(), expected, "{source}");
    }
    for source in ["{{ 'a'.rsplit('') }}", "{{ 'a'.center(5, '') }}", "{{ 'a'.center(99999999) }}"] {
        assert!(render(source, json!({})).is_err(), "{source}");
    }
}

#[test]
fn clock() {
    let mut template = ChatTemplate::from_source("test", "{{ strftime_now('%d %B %Y') }}").unwrap();
    template.set_time(1_735_603_199);
    assert_eq!(template.render(&says("user", "")).unwrap(), "30 December 2024");
}

#[test]
fn extra_fields() {
    let source = "{% for m in messages %}{{ m.content is none }}{{ m.tool_calls[0].function.name }}\
        {{ m.role }}{% endfor %}";
    let mut message = Message::new("assistant", "x");
    message.extra =
        object(json!({"content": null, "role": "fake", "tool_calls": [{"function": {"name": "f"}}]}));
    let chat = Chat { messages: vec![message], ..Chat::default() };
    assert_eq!(ChatTemplate::from_source("test", source).unwrap().render(&chat).unwrap(), "Truefassistant");
}

#[test]
fn where_templates_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let config = |value| std::fs::write(dir.path().join("tokenizer_config.json"), value).unwrap();
    assert!(ChatTemplate::open(dir.path()).unwrap().is_none());
    config(json!({"chat_template": null}).to_string());
    assert!(ChatTemplate::open(dir.path()).unwrap().is_none());
    let mut chat = says("user", "Hi");
    let mut text = |tools| {
        chat.tools = tools;
        ChatTemplate::open(dir.path()).unwrap().unwrap().render(&chat).unwrap()
    };
    config(
        json!({"chat_template": "one {{ bos_token }}{{ eos_token }}", "bos_token": {"content": "<s>"}})
            .to_string(),
    );
    std::fs::write(dir.path().join("special_tokens_map.json"), r#"{"eos_token": "</s>"}"#).unwrap();
    assert_eq!(text(None), "one <s></s>");
    let (plain, tools) =
        (json!({"name": "default", "template": "plain"}), json!({"name": "tool_use", "template": "tools"}));
    config(json!({"chat_template": [tools, plain]}).to_string());
    assert_eq!((text(None), text(Some(json!([])))), ("plain".into(), "tools".into()));
    std::fs::write(dir.path().join("chat_template.jinja"), "file").unwrap();
    assert_eq!(text(None), "file");
    std::fs::write(dir.path().join("chat_template.jinja"), [0xFF, 0xFE]).unwrap();
    assert!(ChatTemplate::open(dir.path()).is_err());
    std::fs::remove_file(dir.path().join("chat_template.jinja")).unwrap();
    for wrong in [json!({"chat_template": 3}), json!({"chat_template": []}), json!([])] {
        config(wrong.to_string());
        assert!(ChatTemplate::open(dir.path()).is_err(), "{wrong}");
    }
}
