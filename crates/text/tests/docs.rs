//! The table in `docs/chat.md` is the table of the code.
#![allow(clippy::unwrap_used)]

mod common;

use amoeba_text::{DIALECTS, Dialect};

fn row(dialect: &Dialect) -> String {
    let code = |text: &&str| format!("`{text}`");
    let all = |list: &[&str]| list.iter().map(code).collect::<Vec<_>>().join(" and ");
    let mut signs: Vec<String> = dialect.signs.iter().map(|group| all(group)).collect();
    if !dialect.tokens.is_empty() {
        signs.push(format!("the tokens {}", all(dialect.tokens)));
    }
    let cells = [dialect.name, dialect.families, &code(&dialect.example), &signs.join(", or ")];
    format!("| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

#[test]
fn the_page_has_the_table() {
    let page = std::fs::read_to_string(common::root().join("docs/chat.md")).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    let expected: Vec<String> = DIALECTS.iter().map(row).collect();
    assert!(rows == expected, "docs/chat.md should have these rows:\n{}", expected.join("\n"));
}
