//! Lines that begin with a slash.

/// What `/help` prints.
pub const HELP: &str = "\
  /clear             forget the conversation
  /system [TEXT]     replace the system prompt, or remove it
  /set               list the settings
  /set NAME VALUE    change one, such as /set temp 0.2
  /stats             numbers of the last answer
  /bye               leave (also Ctrl-D)
  \"\"\"                begins a message of several lines; \"\"\" ends it
  \\                  at the end of a line continues it in the next
  Ctrl-C             stops the answer; on an empty line it leaves";

/// All of them, for completion.
pub const NAMES: [&str; 6] = ["/bye", "/clear", "/help", "/set", "/stats", "/system"];

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Show the help.
    Help,
    /// Forget the turns.
    Clear,
    /// Replace the system prompt; empty removes it.
    System(String),
    /// List the settings.
    List,
    /// Change a setting.
    Set(String, String),
    /// Show numbers.
    Stats,
    /// Leave.
    Bye,
}

impl Command {
    /// The command in a message; `None` when it is a plain message, the error when there is no such command.
    /// A slash that no single word follows (`/usr/bin is what?`) begins a message.
    pub fn parse(text: &str) -> Option<Result<Command, String>> {
        let text = text.trim();
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let word = name.strip_prefix('/')?;
        if word.is_empty() || !word.bytes().all(|b| b.is_ascii_alphabetic() || b == b'?') {
            return None;
        }
        let rest = rest.trim();
        Some(Ok(match word {
            "help" | "h" | "?" => Command::Help,
            "clear" | "new" => Command::Clear,
            "system" => Command::System(rest.to_owned()),
            "set" if rest.is_empty() => Command::List,
            "set" => {
                let (name, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                Command::Set(name.trim_start_matches('-').to_owned(), value.trim().to_owned())
            }
            "stats" => Command::Stats,
            "bye" | "exit" | "quit" | "q" => Command::Bye,
            _ => {
                let near = NAMES.iter().find(|known| word.len() > 1 && known.starts_with(&name[..2]));
                let hint = near.map_or(String::new(), |known| format!("; did you mean {known}?"));
                return Some(Err(format!("there is no command {name}{hint} (/help lists them)")));
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        let parse = |text: &str| Command::parse(text).unwrap().unwrap();
        assert_eq!(parse("/help"), Command::Help);
        assert_eq!(parse("  /clear  "), Command::Clear);
        assert_eq!(parse("/system You are  a cat. "), Command::System("You are  a cat.".into()));
        assert_eq!(parse("/system"), Command::System(String::new()));
        assert_eq!(parse("/set"), Command::List);
        assert_eq!(parse("/set temp 0.5"), Command::Set("temp".into(), "0.5".into()));
        assert_eq!(parse("/set --top-k  7"), Command::Set("top-k".into(), "7".into()));
        assert_eq!(parse("/set temp"), Command::Set("temp".into(), String::new()));
        assert_eq!(
            [parse("/stats"), parse("/bye"), parse("/quit")],
            [Command::Stats, Command::Bye, Command::Bye]
        );
    }

    #[test]
    fn other_slashes_are_messages_or_mistakes() {
        for text in ["hello", "/usr/bin is what?", "/", "// comment", "a /bye"] {
            assert_eq!(Command::parse(text), None, "{text}");
        }
        let error = Command::parse("/sistem x").unwrap().unwrap_err();
        assert!(error.contains("/sistem; did you mean /set?"), "{error}");
        assert!(Command::parse("/é").is_none());
    }

    #[test]
    fn every_name_is_a_command() {
        assert!(NAMES.iter().all(|name| matches!(Command::parse(name), Some(Ok(_)))));
    }
}
