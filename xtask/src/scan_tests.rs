//! Tests of the scanner.
use super::Source;

fn code(text: &str) -> String {
    Source::new(text).code.join("\n")
}

#[test]
fn comments_are_blanked_and_kept_apart() {
    let source = Source::new("let a = 1; // unsafe {\n/* x /* y */ .unwrap() */ let b = 2;\n");
    assert_eq!(source.code[0].trim(), "let a = 1;");
    assert_eq!(source.code[1].trim(), "let b = 2;");
    assert!(source.comment[0].contains("unsafe {"));
    assert!(source.comment[1].contains(".unwrap()"));
}

#[test]
fn strings_hide_their_contents_but_count_as_code() {
    let source = Source::new("let s = \"a { \\\" // } \";\nlet t = \"x\nunwrap {{{\n\";\n");
    assert!(!source.code.join("").contains('{'));
    assert!(source.code[0].ends_with(';'));
    assert!(source.is_code(2));
}

#[test]
fn raw_and_byte_strings_end_where_rust_ends_them() {
    assert!(code("let s = r#\"a \" { \"#; {").ends_with("; {"));
    assert!(code("let s = br\"\\\"; {").ends_with("; {"));
    assert!(code("let s = b\"\\\"{\"; }").ends_with("; }"));
    assert!(code("let r#type = 1; {").ends_with("; {"));
    assert!(code("let bar = \"{\"; var\"{\"").contains("; var"));
}

#[test]
fn characters_are_not_lifetimes() {
    assert_eq!(code("match c { '{' => '\\'', '\\u{7f}' => 'x' }").matches(['{', '}']).count(), 2);
    assert!(code("fn f<'a>(x: &'a str) -> &'a str { x }").contains("{ x }"));
}

#[test]
fn test_modules_and_functions_are_marked() {
    let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n#[test]\nfn d() {\n}\nfn e() {}\n";
    let marked: Vec<usize> =
        Source::new(text).test.iter().enumerate().filter(|(_, t)| **t).map(|(i, _)| i).collect();
    assert_eq!(marked, [1, 2, 3, 4, 6, 7, 8]);
}

#[test]
fn only_test_configurations_count_as_tests() {
    assert!(Source::new("#[cfg(all(test, unix))]\nmod t;\nfn a() {}").test[1]);
    assert!(!Source::new("#[cfg(not(test))]\nmod t;").test[0]);
    assert!(!Source::new("#[cfg(feature = \"test\")]\nmod t;").test[0]);
}

#[test]
fn unfinished_text_does_not_panic() {
    for text in ["\"", "'\\", "r#\"", "/*", "b", "'", "\"\\", "#[test]", "#[cfg(test)]\nmod x {"] {
        let _ = Source::new(text);
    }
}
