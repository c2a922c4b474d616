//! Test lists A1 and A2: broken headers and layouts of one safetensors file.

mod common;

use amoeba_checkpoint::ErrorKind::{self, Corrupt, Unsupported};
use common::{CONFIG, container, open_one, raw, refused};

const FILE: &str = "model.safetensors";

fn case(name: &str, bytes: &[u8], kind: ErrorKind, words: &[&str]) {
    let mut all = vec![FILE];
    all.extend(words);
    refused(name, open_one(CONFIG, bytes), kind, &all);
}

/// A header of one tensor `x` with these fields, over `data` zero bytes.
fn fields(text: &str, data: usize) -> Vec<u8> {
    raw(format!(r#"{{"x":{{{text}}}}}"#).as_bytes(), &vec![0; data])
}

#[test]
fn truncation_at_every_byte_of_the_header_and_every_4_kib_of_data() {
    let good = container(&[("a", "BF16", &[8, 16]), ("b.scales", "F32", &[4100]), ("z", "U32", &[2, 3])]);
    assert!(open_one(CONFIG, &good).is_ok());
    let header = 8 + u64::from_le_bytes(*good.first_chunk().unwrap()) as usize;
    let cuts: Vec<usize> =
        (0..=header).chain((header..good.len()).step_by(4096)).chain([good.len() - 1]).collect();
    assert!(cuts.len() > 200, "{}", cuts.len());
    for cut in cuts {
        case(&format!("cut at {cut}"), &good[..cut], Corrupt, &[]);
    }
    let mut longer = good.clone();
    longer.push(0);
    case("one byte more", &longer, Corrupt, &["tensors cover"]);
}

#[test]
fn header_lengths() {
    let good = container(&[("a", "U8", &[64])]);
    let file = good.len() as u64;
    let lengths = [0, 1, file - 7, file, 100_000_001, 1 << 32, 1 << 63, u64::MAX - 7, u64::MAX];
    for length in lengths {
        let mut bytes = good.clone();
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        case(&format!("length {length}"), &bytes, Corrupt, &["header"]);
    }
    for shift in [-9, -2, -1, 1, 2, 17] {
        let mut bytes = good.clone();
        let length = u64::from_le_bytes(*good.first_chunk().unwrap()).wrapping_add_signed(shift);
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        case(&format!("length off by {shift}"), &bytes, Corrupt, &[]);
    }
}

#[test]
fn header_text() {
    const X: &str = r#""x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}"#;
    let long = format!(r#"{{"{}":{{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}}}"#, "n".repeat(513));
    let deep = format!(r#"{{"x":{}"#, "[".repeat(100_000));
    let deep_metadata = format!(r#"{{"__metadata__":{}"#, r#"{"a":"#.repeat(100_000));
    let deep_field = format!(r#"{{"x":{{"y":{}"#, "[".repeat(100_000));
    let twice = format!("{{{X},{X}}}");
    let escaped = format!(r#"{{{X},"\u0078":{{"dtype":"U8","shape":[0],"data_offsets":[4,4]}}}}"#);
    let cases = [
        ("a string", &b"\"x\""[..]),
        ("empty", b"  "),
        ("leading blank", br#" {"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#),
        ("leading mark", b"\xef\xbb\xbf{}"),
        ("trailing NUL", b"{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}\0"),
        ("not UTF-8", b"{\"x\xff\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}"),
        ("long name", long.as_bytes()),
        ("name twice", twice.as_bytes()),
        ("name twice, once escaped", escaped.as_bytes()),
        ("deep value", deep.as_bytes()),
        ("deep metadata", deep_metadata.as_bytes()),
        ("deep field", deep_field.as_bytes()),
    ];
    let texts = include_str!("header_texts.txt").lines().skip(1).map(|line| line.split_once(": ").unwrap());
    let texts = texts.map(|(name, text)| (name, text.as_bytes()));
    for (name, header) in cases.into_iter().chain(texts) {
        let word = if name == "no tensors, data left" { "cover" } else { "header" };
        case(name, &raw(header, &[0; 4]), Corrupt, &[word]);
    }
    case("no tensors at all", &raw(b"{}", &[]), Corrupt, &["no tensors"]);
    let padded = [format!("{{{X}}}").as_bytes(), b"    "].concat();
    assert!(open_one(CONFIG, &raw(&padded, &[0; 4])).is_ok(), "writers pad headers with blanks");
}

#[test]
fn tensor_fields() {
    for line in include_str!("tensor_fields.txt").lines().skip(1) {
        let (name, text) = line.split_once(": ").unwrap();
        let words: &[&str] = if name == "bytes left over" { &[] } else { &["tensor `x`"] };
        case(name, &fields(text, 4), Corrupt, words);
    }
    // 28 bits in 3 bytes, 20 in 2: the rounded size fits.
    for (dtype, count, end) in [("F4", 7, 3), ("F6_E3M2", 3, 2)] {
        let text = format!(r#""dtype":"{dtype}","shape":[{count}],"data_offsets":[0,{end}]"#);
        case(dtype, &fields(&text, end), Corrupt, &["whole"]);
    }
    for dtype in ["", "u8", "U128", "F7", "BF16 ", "F8", "INT4"] {
        let text = format!(r#""dtype":"{dtype}","shape":[4],"data_offsets":[0,4]"#);
        let kind = if dtype.is_empty() { Corrupt } else { Unsupported };
        case(&format!("dtype {dtype:?}"), &fields(&text, 4), kind, &["tensor `x`"]);
    }
}

#[test]
fn shape_products_that_overflow() {
    for dims in 2..=8 {
        // The product is a multiple of 2^64, so unchecked arithmetic would see zero bytes.
        let dim = 1_u64 << 64_u32.div_ceil(dims);
        let shape = vec![dim; dims as usize];
        for (dtype, end) in [("U8", 0), ("F32", 0), ("U8", 4), ("F4", 4)] {
            let text = format!(r#""dtype":"{dtype}","shape":{shape:?},"data_offsets":[0,{end}]"#);
            let name = format!("{dims} dims of {dtype}");
            case(&name, &fields(&text, 4), Corrupt, &["tensor `x`", "overflows"]);
        }
    }
    let text = format!(r#""dtype":"F32","shape":[{}],"data_offsets":[0,4]"#, (1_u64 << 62) + 1);
    case("element size", &fields(&text, 4), Corrupt, &["tensor `x`", "overflows"]);
}

#[test]
fn tilings() {
    let two = |a: [usize; 2], b: [usize; 2]| {
        let part = |n: &str, [begin, end]: [usize; 2]| {
            let size = end.saturating_sub(begin);
            format!(r#""{n}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{begin},{end}]}}"#)
        };
        raw(format!("{{{},{}}}", part("a", a), part("b", b)).as_bytes(), &[0; 16])
    };
    for (a, b) in [([0, 8], [8, 16]), ([8, 16], [0, 8]), ([0, 16], [16, 16]), ([0, 0], [0, 16])] {
        assert!(open_one(CONFIG, &two(a, b)).is_ok(), "{a:?} {b:?}");
    }
    let broken = [
        ([0, 8], [7, 16], "overlap"),
        ([0, 16], [0, 16], "overlap"),
        ([0, 16], [4, 8], "overlap"),
        ([0, 16], [8, 8], "overlap"),
        ([0, 7], [8, 16], "hole"),
        ([1, 8], [8, 16], "hole"),
        ([0, 8], [8, 15], "cover"),
        ([0, 0], [0, 0], "cover"),
        ([0, 8], [8, 17], "not a part"),
        ([8, 0], [8, 16], "not a part"),
        ([0, 8], [16, 24], "not a part"),
    ];
    for (a, b, word) in broken {
        case(&format!("{a:?} {b:?}"), &two(a, b), Corrupt, &[word]);
    }
}

#[test]
fn more_than_a_million_tensors() {
    let mut header = String::from("{");
    for i in 0..=1_000_000 {
        let comma = if i == 0 { "" } else { "," };
        header += &format!(r#"{comma}"{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#);
    }
    case("a million and one", &raw((header + "}").as_bytes(), &[]), Corrupt, &["1000000"]);
}
