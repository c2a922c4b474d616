//! Test list A4, configuration: typed reads, bounds, and the `quantization` object.

#![allow(clippy::unwrap_used)] // helpers outside test functions

mod common;

use amoeba_checkpoint::ErrorKind::{self, Config as Bad, Unsupported};
use amoeba_checkpoint::{Choice, Config, Error, Mode, Packing, Quantisation};
use common::{CONFIG, container, folder, open_one, open_refused, refused};

const FILE: &str = "config.json";

fn parse(text: &str) -> Config {
    Config::parse(FILE, text).unwrap()
}

fn quant(text: &str) -> Result<Quantisation, Error> {
    Quantisation::parse(&parse(&format!(r#"{{"quantization":{text}}}"#)))
}

#[test]
fn numbers() {
    // Those from 1 to 4096 that are integers, other numbers from 0.5 to 1e6, and all else.
    let cases = [
        (true, true, "1 128 128.0 1.28e2 4096"),
        (false, true, "4097 1.5 0.5"),
        (false, false, "0 -0.0 -1 -128.0 1000001 9007199254740993 18446744073709551615 18446744073709551617"),
        (false, false, "1e308 -1e308 \"128\" true [128] {} NaN -Infinity"),
    ];
    let cases = cases.iter().flat_map(|(integer, float, texts)| {
        texts.split(' ').map(|text| {
            let value = || text.parse::<f32>().unwrap();
            (text, integer.then(|| value() as usize), float.then(value))
        })
    });
    for (text, integer, float) in cases {
        let config = parse(&format!(r#"{{"a":{{"n":{text}}}}}"#)).object("a").unwrap().unwrap();
        let check = |found: Result<(), Error>, wanted: bool, word: &str| match wanted {
            true => found.unwrap(),
            false => refused(text, found, Bad, &[FILE, "`a.n`", "is ", word]),
        };
        let (n, f) = (config.usize("n", 1..=4096), config.f32("n", 0.5..=1e6));
        assert_eq!((n.as_ref().ok(), f.as_ref().ok()), (integer.as_ref(), float.as_ref()), "{text}");
        check(n.map(drop), integer.is_some(), "an integer from 1 to 4096");
        check(f.map(drop), float.is_some(), "a number from 0.5 to 1000000");
        check(config.usize_or("n", 7, 1..=4096).map(drop), integer.is_some(), "4096");
        check(config.f32_or("n", 7.0, 0.5..=1e6).map(drop), float.is_some(), "1000000");
        if text != "[128]" {
            check(config.usizes("n", 1..=4096).map(drop), integer.is_some(), "4096");
            check(config.f32s("n", 0.5..=1e6).map(drop), float.is_some(), "1000000");
        }
    }
    let huge = parse(r#"{"n":1e308}"#).f32("n", 0.0..=f32::INFINITY);
    refused("finite whatever the range", huge, Bad, &["`n`"]);
    for text in ["{}", r#"{"n":null}"#] {
        let config = parse(text);
        refused(text, config.usize("n", 1..=2), Bad, &[FILE, "`n`", "missing", "from 1 to 2"]);
        refused(text, config.f32("n", 1.0..=2.0), Bad, &[FILE, "`n`", "missing"]);
        assert_eq!(config.usize_or("n", 9, 1..=2).unwrap(), 9);
        assert_eq!(config.f32_or("n", 9.0, 1.0..=2.0).unwrap(), 9.0);
        assert!(!config.has("n") && config.bool_or("n", true).unwrap());
        assert!(config.str("n").unwrap().is_none() && config.object("n").unwrap().is_none());
        assert!(config.usizes("n", 0..=1).unwrap().is_none() && config.strs("n").unwrap().is_none());
    }
}

#[test]
fn lists_strings_and_truth() {
    let config =
        parse(r#"{"l":[1,2.0],"s":["a","b"],"w":"word","f":[0.5,1],"b":false,"m":[1,"x"],"n":[[1]]}"#);
    assert_eq!(config.usizes("l", 0..=2).unwrap().unwrap(), [1, 2]);
    assert_eq!(config.strs("s").unwrap().unwrap(), ["a", "b"]);
    assert_eq!(config.strs("w").unwrap().unwrap(), ["word"]);
    assert_eq!(config.f32s("f", 0.0..=1.0).unwrap().unwrap(), [0.5, 1.0]);
    assert_eq!(config.str("w").unwrap(), Some("word"));
    assert!(!config.bool_or("b", true).unwrap());
    refused("list bound", config.usizes("l", 0..=1), Bad, &["`l`", "is 2.0"]);
    refused("mixed list", config.usizes("m", 0..=9), Bad, &["`m`", "\"x\""]);
    refused("nested list", config.f32s("n", 0.0..=9.0), Bad, &["`n`", "a list of 1"]);
    refused("strings of numbers", config.strs("l"), Bad, &["`l`", "a string"]);
    refused("string", config.str("l"), Bad, &["`l`", "a list of 2"]);
    refused("truth", config.bool_or("w", true), Bad, &["`w`", "true or false"]);
    refused("object", config.object("w"), Bad, &["`w`", "an object"]);
    let many = parse(&format!(r#"{{"l":[{}1]}}"#, "1,".repeat(70_000)));
    refused("long list", many.usizes("l", 0..=1), Bad, &["`l`", "70001"]);
}

#[test]
fn text() {
    let deep = |n: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(n), "]".repeat(n));
    assert!(Config::parse(FILE, &deep(63)).is_ok());
    let (deeper, deepest, long) = (deep(65), deep(100_000), format!(r#"{{"a":"{}"}}"#, "x".repeat(9 << 20)));
    let many = format!(r#"{{"a":[{}1]}}"#, "1,".repeat(200_000));
    let colours = "{\"\u{1b}[31m\":1,\"\u{1b}[31m\":2}".replace('\u{1b}', "\\u001b");
    let cases = [
        "",
        " ",
        "{} x",
        "{\"a\":\"\n\"}",
        "{\"a\":1}\0",
        "// c\n{}",
        r#"{"NaN":"\"#,
        &deeper,
        &deepest,
        &long,
        &many,
        &colours,
    ];
    let short = r#" { } [] null 1 "a" {}{} {'a':1} {a:1} {"a":1,} {"a":1,"a":1} {"a":{"b":1,"b":2}}
        {"a":1e999} {"a":+1} {"a":01} {"a":.5} {"a":nan} {"a":Infinit} {"a":"\ud800"} {"a":"\x"}"#;
    assert_eq!(short.split_whitespace().count() + cases.len(), 32);
    for text in short.split_whitespace().chain(cases) {
        refused(text.get(..20).unwrap_or(text), Config::parse(FILE, text), Bad, &[FILE]);
    }
    let odd = r#"{"a":[0.0,Infinity,-Infinity],"NaN":NaN,"s":"NaN \" Infinity","é":"\\",
        "t":[0.0,{"__float__":"Infinity"}],"u":{"__float__":"x"}}"#;
    let odd = parse(odd);
    assert_eq!(odd.raw()["t"][1], "Infinity", "as transformers 5 writes it");
    assert!(odd.object("u").unwrap().is_some());
    assert_eq!(odd.str("s").unwrap(), Some("NaN \" Infinity"));
    assert!(odd.has("NaN") && odd.has("é") && odd.f32("NaN", 0.0..=1.0).is_err());
    let bytes = [&b"\xef\xbb\xbf"[..], CONFIG.as_bytes()].concat();
    let dir = folder("", &[(FILE, bytes)]);
    assert!(Config::read(dir.path(), FILE).unwrap().unwrap().has("model_type"));
    std::fs::write(dir.path().join(FILE), b"{\"a\":\"\xff\"}").unwrap();
    refused("not UTF-8", Config::read(dir.path(), FILE), Bad, &[FILE, "UTF-8", "byte 6"]);
    std::fs::write(dir.path().join(FILE), vec![b' '; 9 << 20]).unwrap();
    refused("too long", Config::read(dir.path(), FILE), Bad, &[FILE, "limit"]);
}

#[test]
fn every_width_and_group() {
    let widths =
        ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "16", "32", "33", "-4", "4.5", "\"4\"", "1e308"];
    let groups = ["0", "1", "16", "32", "64", "128", "7", "256", "2147483648", "-64", "64.5", "[]"];
    let modes = ["affine", "mxfp4", "mxfp8", "nvfp4"];
    let mut tried = 0;
    for mode in modes {
        for bits in widths {
            for group in groups {
                let legal = match mode {
                    "affine" => "23456 8".contains(bits) && ["32", "64", "128"].contains(&group),
                    "mxfp4" => (bits, group) == ("4", "32"),
                    "mxfp8" => (bits, group) == ("8", "32"),
                    _ => (bits, group) == ("4", "16"),
                };
                let body = format!(r#"{{"bits":{bits},"group_size":{group},"mode":"{mode}"}}"#);
                let nested = format!(r#"{{"bits":4,"group_size":64,"model.x":{body}}}"#);
                for (text, at) in [(body, "`quantization."), (nested, "`quantization.model.x.")] {
                    tried += 1;
                    match (quant(&text), legal) {
                        (Ok(_), true) => {}
                        (Err(e), false) if e.kind() == Unsupported => {
                            assert!(bits == "1" && mode == "affine", "{e}");
                            refused(&text, Err::<(), _>(e), Unsupported, &[FILE, at, "bits", "1-bit"]);
                        }
                        (result, false) => refused(&text, result, Bad, &[FILE, at]),
                        (Err(e), true) => panic!("{text}: {e}"),
                    }
                }
            }
        }
    }
    assert_eq!(tried, 2 * 4 * 17 * 12);
}

#[test]
fn quantization_objects() {
    let cases: [(&str, ErrorKind, &str); 10] = [
        ("3", Bad, "`quantization`"),
        ("[]", Bad, "`quantization`"),
        ("true", Bad, "`quantization`"),
        (r#"{"mode":3}"#, Bad, "`quantization.mode`"),
        (r#"{"mode":"gguf"}"#, Unsupported, "`quantization.mode`"),
        (r#"{"mode":"Affine"}"#, Unsupported, "`quantization.mode`"),
        (r#"{"mode":""}"#, Unsupported, "`quantization.mode`"),
        (r#"{"a":{"mode":"int4"}}"#, Unsupported, "`quantization.a.mode`"),
        (r#"{"a":{"bits":0}}"#, Bad, "`quantization.a.bits`"),
        (r#"{"a":{"group_size":{}}}"#, Bad, "`quantization.a.group_size`"),
    ];
    for (text, kind, at) in cases {
        refused(text, quant(text), kind, &[FILE, at]);
    }
    let other = parse(r#"{"quantization_config":{"quant_method":"fp8","bits":8}}"#);
    refused("another quantiser", Quantisation::parse(&other), Unsupported, &["quant_method", "\"fp8\""]);
    let affine = |bits, group| Packing { mode: Mode::Affine, bits, group };
    let old = Quantisation::parse(&parse(r#"{"quantization_config":{"bits":8,"group_size":32}}"#)).unwrap();
    assert_eq!(old.default_packing(), Some(affine(8, 32)));
    assert_eq!(Quantisation::parse(&parse("{}")).unwrap().default_packing(), None);
    for (mode, bits, group) in [("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16), ("affine", 4, 64)] {
        let found = quant(&format!(r#"{{"mode":"{mode}"}}"#)).unwrap().default_packing().unwrap();
        assert_eq!((found.bits, found.group, found.mode.to_string().as_str()), (bits, group, mode));
    }
    let q = quant(
        r#"{"mode":"mxfp4","note":"x","linear_class":null,"model.a":{"bits":8},"language_model.model.b":false,
            "c":true,"model.language_model.d":{"group_size":32},"model.a2":{}}"#,
    )
    .unwrap();
    assert_eq!(q.overrides(), 5);
    assert_eq!(q.choice("model.a"), Some(Choice::As(affine(8, 64))), "no mode: affine under any default");
    assert_eq!(q.choice("model.a2"), Some(Choice::As(affine(4, 64))));
    for path in ["b", "model.b", "language_model.b", "model.language_model.b", "language_model.model.b"] {
        assert_eq!(q.choice(path), Some(Choice::Off), "{path}");
    }
    assert_eq!(q.choice("language_model.model.c"), Some(Choice::Default));
    assert_eq!(q.choice("model.d"), Some(Choice::As(affine(4, 32))));
    assert_eq!(q.choice("model.e"), None);
}

#[test]
fn code_is_never_run() {
    let file = container(&[("a", "BF16", &[2])]);
    let dir = folder(r#"{"model_file":"model.py"}"#, &[("model.safetensors", &file)]);
    std::fs::write(dir.path().join("model.py"), "raise SystemExit").unwrap();
    open_refused("model_file", dir.path(), Unsupported, &[FILE, "`model_file`", "never"]);
    let auto_map = r#"{"auto_map":{"AutoModel":"modeling_x.X"},"trust_remote_code":true}"#;
    assert!(open_one(auto_map, &file).is_ok(), "ignored: harmless models have it");
}
