//! The dialects, one row each. A family with a new spelling is a new row; a new *kind* of spelling is a
//! `Body`.

use crate::Tokenizer;

/// How one family of models spells its tool calls.
#[derive(Debug, PartialEq, Eq)]
pub struct Dialect {
    /// A short name.
    pub name: &'static str,
    /// Some of the families that use it.
    pub families: &'static str,
    /// One call, as a model writes it.
    pub example: &'static str,
    /// Found in chat templates: all strings of one group.
    pub signs: &'static [&'static [&'static str]],
    /// The vocabulary alone gives it away when the template says nothing: all of these tokens.
    pub tokens: &'static [&'static str],
    /// What opens a section of calls.
    pub open: &'static [&'static str],
    /// What closes it; nothing: the end of the answer.
    pub close: &'static [&'static str],
    /// What is in between.
    pub body: Body,
    /// Beginning and end of one call that models also write without the section around it.
    pub alone: Option<[&'static str; 2]>,
    /// Tags around thoughts, where they are not among the usual ones.
    pub thoughts: Option<(&'static str, &'static str)>,
    /// Markers of structure that are not part of the answer.
    pub drop: &'static [&'static str],
    /// A call may also stand at the start of an answer without a marker.
    pub bare: bool,
    /// Its markers structure every answer, tools or not.
    pub always: bool,
}

/// What a section of calls looks like inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// JSON objects with name and arguments: alone, one after another, or in lists.
    Json,
    /// A name, then its arguments as JSON object; marks may stand before, between and after them. Of several
    /// pieces before an object the name is the first, or else the last.
    Named { marks: &'static [&'static str], first: bool },
    /// A name, then keys and values, each in its tags.
    Pairs { key: [&'static str; 2], value: [&'static str; 2] },
    /// Tags that carry names, around tags that carry names: their beginnings and their ends.
    Tags { call: [&'static str; 2], parameter: [&'static str; 2] },
    /// Python calls with literals: `[f(a=1), g()]`.
    Python,
    /// `call:f{a:1}`, with this mark around strings.
    Braces { quote: &'static str },
    /// Messages with headers: the channel says what they are, and a call goes to a recipient.
    Channels,
}

impl Dialect {
    /// All strings its reader must get to see.
    pub fn markers(&self) -> impl Iterator<Item = &'static str> {
        let (fixed, listed): ([&str; 4], &[&str]) = match self.body {
            Body::Json | Body::Python | Body::Channels => ([""; 4], &[]),
            Body::Named { marks, .. } => ([""; 4], marks),
            Body::Pairs { key: [a, b], value: [c, d] } | Body::Tags { call: [a, b], parameter: [c, d] } => {
                ([a, b, c, d], &[])
            }
            Body::Braces { quote } => ([quote, "", "", ""], &[]),
        };
        let lists = [self.open, self.close, self.drop, listed].into_iter().flatten().copied();
        let tags = self.thoughts.into_iter().flat_map(|(open, close)| [open, close]);
        lists
            .chain(fixed)
            .chain(tags)
            .chain(self.alone.into_iter().flatten())
            .filter(|marker| !marker.is_empty())
    }
}

const ROW: Dialect = Dialect {
    name: "",
    families: "",
    example: "",
    signs: &[],
    tokens: &[],
    open: &[],
    close: &[],
    body: Body::Json,
    alone: None,
    thoughts: None,
    drop: &[],
    bare: false,
    always: false,
};

/// All dialects. The first that is recognised counts, so the particular ones come first.
pub static DIALECTS: &[Dialect] = &[
    Dialect {
        name: "harmony",
        families: "gpt-oss",
        example: "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\": 1}<|call|>",
        signs: &[&["<|channel|>", "<|message|>"]],
        open: &["<|message|>"],
        close: &["<|end|>", "<|return|>", "<|call|>", "<|start|>", "<|channel|>"],
        body: Body::Channels,
        thoughts: Some(("<|channel|>analysis<|message|>", "<|end|>")),
        always: true,
        ..ROW
    },
    Dialect {
        name: "minimax_m2",
        families: "MiniMax-M2",
        example: "<minimax:tool_call><invoke name=\"f\"><parameter name=\"a\">1</parameter></invoke>\
                  </minimax:tool_call>",
        signs: &[&["<minimax:tool_call>"]],
        open: &["<minimax:tool_call>"],
        close: &["</minimax:tool_call>"],
        body: Body::Tags {
            call: ["<invoke name=", "</invoke>"],
            parameter: ["<parameter name=", "</parameter>"],
        },
        alone: Some(["<invoke name=", "</invoke>"]),
        ..ROW
    },
    Dialect {
        name: "gemma4",
        families: "Gemma 4",
        example: "<|tool_call>call:f{a:1,b:<|\"|>x<|\"|>}<tool_call|>",
        signs: &[&["<|tool_call>", "<tool_call|>"]],
        open: &["<|tool_call>"],
        close: &["<tool_call|>"],
        body: Body::Braces { quote: "<|\"|>" },
        thoughts: Some(("<|channel>thought", "<channel|>")),
        drop: &["<channel|>"],
        ..ROW
    },
    Dialect {
        name: "function_gemma",
        families: "FunctionGemma",
        example: "<start_function_call>call:f{a:1,b:<escape>x<escape>}<end_function_call>",
        signs: &[&["<start_function_call>"]],
        open: &["<start_function_call>"],
        close: &["<end_function_call>"],
        body: Body::Braces { quote: "<escape>" },
        ..ROW
    },
    Dialect {
        name: "longcat",
        families: "LongCat-Flash",
        example: "<longcat_tool_call>f<longcat_arg_key>a</longcat_arg_key><longcat_arg_value>1\
                  </longcat_arg_value></longcat_tool_call>",
        signs: &[&["<longcat_tool_call>"]],
        open: &["<longcat_tool_call>"],
        close: &["</longcat_tool_call>"],
        body: Body::Pairs {
            key: ["<longcat_arg_key>", "</longcat_arg_key>"],
            value: ["<longcat_arg_value>", "</longcat_arg_value>"],
        },
        thoughts: Some(("<longcat_think>", "</longcat_think>")),
        ..ROW
    },
    Dialect {
        name: "glm",
        families: "GLM-4.5 to 4.7, Ling 3, Laguna",
        example: "<tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value></tool_call>",
        signs: &[&["<arg_key>", "<tool_call>"]],
        open: &["<tool_call>"],
        close: &["</tool_call>"],
        body: Body::Pairs { key: ["<arg_key>", "</arg_key>"], value: ["<arg_value>", "</arg_value>"] },
        ..ROW
    },
    Dialect {
        name: "seed",
        families: "Seed-OSS",
        example: "<seed:tool_call><function=f><parameter=a>1</parameter></function></seed:tool_call>",
        signs: &[&["<seed:tool_call>"]],
        open: &["<seed:tool_call>"],
        close: &["</seed:tool_call>"],
        body: Body::Tags { call: ["<function=", "</function>"], parameter: ["<parameter=", "</parameter>"] },
        alone: Some(["<function=", "</function>"]),
        ..ROW
    },
    Dialect {
        name: "qwen3_coder",
        families: "Qwen3-Coder, Qwen3.5, Nemotron 3, Step 3.5, MiMo-V2",
        example: "<tool_call><function=f><parameter=a>1</parameter></function></tool_call>",
        signs: &[&["<tool_call>", "<function=", "<parameter="]],
        open: &["<tool_call>"],
        close: &["</tool_call>"],
        body: Body::Tags { call: ["<function=", "</function>"], parameter: ["<parameter=", "</parameter>"] },
        alone: Some(["<function=", "</function>"]),
        ..ROW
    },
    Dialect {
        name: "deepseek_dsml",
        families: "DeepSeek-V3.2 and later",
        example: "<｜DSML｜function_calls><｜DSML｜invoke name=\"f\">\
                  <｜DSML｜parameter name=\"a\" string=\"false\">1</｜DSML｜parameter></｜DSML｜invoke>\
                  </｜DSML｜function_calls>",
        signs: &[&["｜DSML｜"]],
        open: &["<｜DSML｜function_calls>", "<｜DSML｜tool_calls>"],
        close: &["</｜DSML｜function_calls>", "</｜DSML｜tool_calls>"],
        body: Body::Tags {
            call: ["<｜DSML｜invoke name=", "</｜DSML｜invoke>"],
            parameter: ["<｜DSML｜parameter name=", "</｜DSML｜parameter>"],
        },
        alone: Some(["<｜DSML｜invoke name=", "</｜DSML｜invoke>"]),
        ..ROW
    },
    Dialect {
        name: "deepseek",
        families: "DeepSeek-V3, V3.1, R1",
        example: "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜>\
                  <｜tool▁calls▁end｜>",
        signs: &[&["<｜tool▁calls▁begin｜>"]],
        open: &[
            "<｜tool▁calls▁begin｜>",
            "<｜tool_calls_begin｜>",
            "<｜tool calls begin｜>",
            "<｜tool▁calls｜>",
        ],
        close: &["<｜tool▁calls▁end｜>", "<｜tool_calls_end｜>", "<｜tool calls end｜>"],
        body: Body::Named {
            marks: &["<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "```json", "```"],
            first: false,
        },
        alone: Some(["<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"]),
        ..ROW
    },
    Dialect {
        name: "kimi_k2",
        families: "Kimi-K2, Kimi-Linear",
        example: "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>\
                  {\"a\": 1}<|tool_call_end|><|tool_calls_section_end|>",
        signs: &[&["<|tool_calls_section_begin|>"]],
        open: &["<|tool_calls_section_begin|>", "<|tool_call_section_begin|>"],
        close: &["<|tool_calls_section_end|>", "<|tool_call_section_end|>"],
        body: Body::Named {
            marks: &["<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"],
            first: true,
        },
        alone: Some(["<|tool_call_begin|>", "<|tool_call_end|>"]),
        ..ROW
    },
    Dialect {
        name: "solar",
        families: "Solar Open",
        example: "<|tool_calls|><|tool_call:begin|>a1b2<|tool_call:name|>f<|tool_call:args|>{\"a\": 1}\
                  <|tool_call:end|><|calls|>",
        signs: &[&["<|tool_call:begin|>", "<|tool_calls|>"]],
        open: &["<|tool_calls|>"],
        close: &["<|calls|>"],
        body: Body::Named {
            marks: &["<|tool_call:begin|>", "<|tool_call:name|>", "<|tool_call:args|>", "<|tool_call:end|>"],
            first: false,
        },
        thoughts: Some(("<|think|>", "<|end|>")),
        drop: &["<|begin|>assistant", "<|content|>", "<|end|>"],
        always: true,
        ..ROW
    },
    Dialect {
        name: "mistral_named",
        families: "Mistral Small 3.2, Magistral, Devstral, Ministral 3",
        example: "[TOOL_CALLS]f[ARGS]{\"a\": 1}",
        signs: &[&["[TOOL_CALLS]", "[ARGS]"]],
        open: &["[TOOL_CALLS]"],
        body: Body::Named { marks: &["[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"], first: true },
        ..ROW
    },
    Dialect {
        name: "mistral",
        families: "Mistral 7B v0.3, Nemo, Mixtral 8x22B",
        example: "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": 1}}]",
        signs: &[&["[TOOL_CALLS]"]],
        open: &["[TOOL_CALLS]"],
        ..ROW
    },
    Dialect {
        name: "lfm2",
        families: "LFM2, LFM2.5",
        example: "<|tool_call_start|>[f(a=1)]<|tool_call_end|>",
        signs: &[&["<|tool_call_start|>"], &["<|tool_list_start|>"]],
        tokens: &["<|tool_call_start|>", "<|tool_call_end|>"],
        open: &["<|tool_call_start|>"],
        close: &["<|tool_call_end|>"],
        body: Body::Python,
        ..ROW
    },
    Dialect {
        name: "granite",
        families: "Granite 3, Phi-4-mini",
        example: "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]",
        signs: &[&["<|tool_call|>"]],
        open: &["<|tool_call|>"],
        close: &["<|/tool_call|>"],
        ..ROW
    },
    Dialect {
        name: "nemotron",
        families: "Nemotron Nano 2, Nemotron Super 1.5",
        example: "<TOOLCALL>[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]</TOOLCALL>",
        signs: &[&["<TOOLCALL>"]],
        open: &["<TOOLCALL>"],
        close: &["</TOOLCALL>"],
        ..ROW
    },
    Dialect {
        name: "command_r",
        families: "Command R7B, Command A",
        example: "<|START_ACTION|>[{\"tool_name\": \"f\", \"parameters\": {\"a\": 1}}]<|END_ACTION|>",
        signs: &[&["<|START_ACTION|>"]],
        open: &["<|START_ACTION|>"],
        close: &["<|END_ACTION|>"],
        thoughts: Some(("<|START_THINKING|>", "<|END_THINKING|>")),
        ..ROW
    },
    Dialect {
        name: "tool_calls",
        families: "Hunyuan A13B, Jamba 1.5, MiniMax-M1, Apriel",
        example: "<tool_calls>[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]</tool_calls>",
        signs: &[&["<tool_calls>"]],
        open: &["<tool_calls>"],
        close: &["</tool_calls>"],
        ..ROW
    },
    Dialect {
        name: "hermes",
        families: "Qwen2.5, Qwen3, Hermes, Granite 4, ERNIE 4.5, EXAONE 4, Ling 2, MiMo",
        example: "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>",
        signs: &[&["<tool_call>"]],
        open: &["<tool_call>"],
        close: &["</tool_call>"],
        ..ROW
    },
    Dialect {
        name: "pythonic",
        families: "Llama 3.2 and 4 with Python calls",
        example: "[f(a=1)]",
        signs: &[&["[func_name1("]],
        open: &["<|python_start|>"],
        close: &["<|python_end|>"],
        body: Body::Python,
        bare: true,
        ..ROW
    },
    Dialect {
        name: "llama3_json",
        families: "Llama 3.1 to 3.3, Llama 4",
        example: "{\"name\": \"f\", \"parameters\": {\"a\": 1}}",
        signs: &[&["{\"name\": function name, \"parameters\": dictionary"]],
        open: &["<|python_tag|>", "<|python_start|>"],
        close: &["<|python_end|>"],
        bare: true,
        ..ROW
    },
];

/// Tags around thoughts that several families share.
const THOUGHTS: [(&str, &str); 6] = [
    ("<think>", "</think>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
];

/// The dialect of a model: the first whose signs are in its chat template, else the first whose tokens it
/// has.
pub fn recognise(template: &str, has_token: &dyn Fn(&str) -> bool) -> Option<&'static Dialect> {
    let signed = |dialect: &&Dialect| {
        dialect.signs.iter().any(|group| group.iter().all(|sign| template.contains(sign)))
    };
    let tokened = |dialect: &&Dialect| {
        !dialect.tokens.is_empty() && dialect.tokens.iter().all(|token| has_token(token))
    };
    DIALECTS.iter().find(signed).or_else(|| DIALECTS.iter().find(tokened))
}

/// The reasoning tags a model uses: those of its dialect, or the first known pair that its template mentions
/// and whose closing tag is one of its tokens, else the first pair that the template mentions both tags of.
pub fn reasoning_markers(template: &str, tokenizer: &Tokenizer) -> Option<(String, String)> {
    let has_token = |text: &str| tokenizer.token_id(text).is_some();
    let says = |tag: &str| template.contains(tag);
    let own = recognise(template, &has_token).and_then(|dialect| dialect.thoughts);
    let token = |(open, close): &&(&str, &str)| (says(open) || says(close)) && has_token(close);
    let text = |(open, close): &&(&str, &str)| says(open) && says(close);
    let shared = || THOUGHTS.iter().find(token).or_else(|| THOUGHTS.iter().find(text)).copied();
    own.or_else(shared).map(|(open, close)| (open.into(), close.into()))
}
