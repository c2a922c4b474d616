//! Every bound this crate enforces, in one place.

/// Largest `tokenizer.json`, in bytes.
pub const TOKENIZER_BYTES: u64 = 256 << 20;
/// How many times longer the steps of a tokenizer may make a text: Unicode's own forms reach 18.
pub const TEXT_GROWTH: f64 = 256.0;
/// Deepest nesting of a tokenizer's steps.
pub const STEP_DEPTH: usize = 16;
/// Longest added token, text put in front, and token of a file that is converted, in bytes.
pub const TOKEN_BYTES: usize = 1024;
/// Largest template source, in bytes.
pub const TEMPLATE_BYTES: u64 = 256 << 10;
/// Work one rendering may do; an instruction costs one step and so do 64 bytes of data.
pub const TEMPLATE_STEPS: u64 = 5_000_000;
/// Most tokens between the delimiters of one template tag.
pub const EXPRESSION_TOKENS: usize = 2000;
/// Deepest nesting of macro calls, loops and blocks.
pub const TEMPLATE_DEPTH: usize = 100;
/// Address space for the stack of a template, in bytes: the nesting that all its steps can build takes less.
pub const TEMPLATE_STACK: usize = 2 << 30;
/// Largest rendered prompt, and largest string a template method may build, in bytes.
pub const OUTPUT_BYTES: usize = 8 << 20;
/// Longest list that an operator may build.
pub const LIST_ITEMS: usize = 1 << 18;
/// Deepest nesting of a value that is printed or compared.
pub const JSON_DEPTH: usize = 128;
/// Most messages in one chat.
pub const MESSAGES: usize = 4096;
/// Longest role name, in bytes.
pub const ROLE_BYTES: usize = 64;
/// Most tools in one chat.
pub const TOOLS: usize = 128;
/// Most tool calls in one answer; what follows is part of the answer.
pub const CALLS: usize = 128;
/// Largest section of tool calls, in bytes; a longer one is part of the answer.
pub const CALL_BYTES: usize = 1 << 20;
/// Longest header of a message, and longest beginning that may yet turn out to be a call, in bytes.
pub const HEADER_BYTES: usize = 256;
/// Longest name of a function, in bytes.
pub const NAME_BYTES: usize = 128;
/// Deepest nesting of an argument.
pub const VALUE_DEPTH: usize = 64;
/// Most references and alternatives of a schema that are looked at for one argument.
pub const SCHEMA_STEPS: usize = 256;
