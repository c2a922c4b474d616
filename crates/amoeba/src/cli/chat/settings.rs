//! How to sample: flags over the model's `generation_config.json` over defaults.
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use amoeba::{Request, Sampling};

use super::Reasoning;
use crate::cli::failure::Failure;

/// Flags about length and sampling.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    /// Most tokens to generate; -1 for any number
    #[arg(short = 'n', long, visible_alias = "n-predict", value_name = "N", allow_negative_numbers = true)]
    #[arg(default_value_t = -1, value_parser = clap::value_parser!(i64).range(-1..))]
    max_tokens: i64,
    /// Temperature; 0 always takes the most likely token
    #[arg(long, visible_alias = "temperature", value_name = "T", allow_negative_numbers = true)]
    temp: Option<f32>,
    /// Keep the most likely tokens that add up to this probability; 1 is off
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Keep the K most likely tokens; 0 or -1 is off
    #[arg(long, value_name = "K", allow_negative_numbers = true, value_parser = off)]
    top_k: Option<usize>,
    /// Drop tokens less likely than this share of the most likely one; 0 is off
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Make recent tokens less likely; 1 is off
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    repeat_penalty: Option<f32>,
    /// How many tokens count as recent; -1 is all
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = all)]
    repeat_last_n: Option<usize>,
    /// Seed of the sampler; -1 is a new one each time [default: -1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = seed)]
    seed: Option<i128>,
    /// End the answer before this text; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Continue past the model's end-of-sequence token
    #[arg(long)]
    ignore_eos: bool,
}

/// What the next request will be like; a chat may change it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Sampling, the seed apart.
    pub sampling: Sampling,
    /// The seed; `None` takes a new one each time.
    pub seed: Option<u64>,
    /// Most tokens to generate; `None` for any number.
    pub max_tokens: Option<usize>,
    /// Stop strings.
    pub stop: Vec<String>,
    /// Continue past the end-of-sequence token.
    pub ignore_eos: bool,
    /// Show thoughts.
    pub show_reasoning: bool,
    /// Thoughts, and variables of the template.
    pub reasoning: Reasoning,
}

impl Settings {
    /// The flags over the model's own defaults, checked.
    pub fn new(defaults: Sampling, args: &SamplingArgs, show_reasoning: bool) -> Result<Settings, Failure> {
        let sampling = Sampling {
            temperature: args.temp.unwrap_or(defaults.temperature),
            top_p: args.top_p.unwrap_or(defaults.top_p),
            top_k: args.top_k.unwrap_or(defaults.top_k),
            min_p: args.min_p.unwrap_or(defaults.min_p),
            repeat_penalty: args.repeat_penalty.unwrap_or(defaults.repeat_penalty),
            repeat_last_n: args.repeat_last_n.unwrap_or(defaults.repeat_last_n),
            seed: 0,
        };
        sampling.check().map_err(Failure::usage)?;
        Ok(Settings {
            sampling,
            seed: args.seed.and_then(|seed| u64::try_from(seed).ok()),
            max_tokens: usize::try_from(args.max_tokens).ok(),
            stop: args.stop.clone(),
            ignore_eos: args.ignore_eos,
            show_reasoning,
            reasoning: Reasoning::default(),
        })
    }

    /// The next request, with a seed of its own.
    pub fn request(&mut self, cancel: Arc<AtomicBool>) -> Request {
        Request {
            sampling: Sampling { seed: self.seed.unwrap_or_else(random), ..self.sampling },
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
            ignore_eos: self.ignore_eos,
            cancel: Some(cancel),
        }
    }

    /// Changes one setting by the name its flag has.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        if let Some(set) = self.reasoning.set(name, value) {
            return set;
        }
        let mut sampling = self.sampling;
        match name {
            "temp" | "temperature" => sampling.temperature = number(value)?,
            "top-p" => sampling.top_p = number(value)?,
            "top-k" => sampling.top_k = off(value)?,
            "min-p" => sampling.min_p = number(value)?,
            "repeat-penalty" => sampling.repeat_penalty = number(value)?,
            "repeat-last-n" => sampling.repeat_last_n = all(value)?,
            "seed" if value == "random" => self.seed = None,
            "seed" => self.seed = u64::try_from(seed(value)?).ok(),
            "max-tokens" | "n" => self.max_tokens = if value == "-1" { None } else { Some(number(value)?) },
            "stop" => self.stop = if value.is_empty() { Vec::new() } else { vec![value.to_owned()] },
            "show-reasoning" => self.show_reasoning = switch(value)?,
            "ignore-eos" => self.ignore_eos = switch(value)?,
            _ => return Err(format!("there is no setting `{name}`; /set alone lists them")),
        }
        sampling.check().map_err(|error| error.to_string())?;
        self.sampling = sampling;
        Ok(())
    }

    /// All settings, one a line.
    pub fn list(&self) -> String {
        let Sampling { temperature, top_p, top_k, min_p, repeat_penalty, repeat_last_n, .. } = self.sampling;
        let seed = self.seed.map_or("random".to_owned(), |seed| seed.to_string());
        let most = self.max_tokens.map_or("-1".to_owned(), |most| most.to_string());
        let on = |switch: bool| if switch { "on" } else { "off" };
        let (reasoning, ignore) = (on(self.show_reasoning), on(self.ignore_eos));
        format!(
            "  temp {temperature}\n  top-p {top_p}\n  top-k {top_k}\n  min-p {min_p}\n  \
             repeat-penalty {repeat_penalty}\n  repeat-last-n {repeat_last_n}\n  seed {seed}\n  \
             max-tokens {most}\n  stop {:?}\n  show-reasoning {reasoning}\n  ignore-eos {ignore}\n{}",
            self.stop,
            self.reasoning.list(),
        )
    }
}

fn number<T: std::str::FromStr>(value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("`{value}` is not a number that fits here"))
}

/// A number of which -1 is 0, as llama.cpp has it.
fn off(value: &str) -> Result<usize, String> {
    if value == "-1" { Ok(0) } else { number(value) }
}

/// A number of which -1 is more than there can be.
fn all(value: &str) -> Result<usize, String> {
    if value == "-1" { Ok(u32::MAX as usize) } else { number(value) }
}

/// A seed, or -1.
fn seed(value: &str) -> Result<i128, String> {
    let known = number(value)?;
    if (-1..=i128::from(u64::MAX)).contains(&known) {
        Ok(known)
    } else {
        number::<u64>(value).map(i128::from)
    }
}

fn switch(value: &str) -> Result<bool, String> {
    match value {
        "on" | "true" | "1" => Ok(true),
        "off" | "false" | "0" => Ok(false),
        _ => Err(format!("`{value}` is neither on nor off")),
    }
}

/// A seed short enough to be typed again.
fn random() -> u64 {
    RandomState::new().build_hasher().finish() & 0xffff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let args = SamplingArgs { max_tokens: -1, temp: Some(0.5), ..SamplingArgs::default() };
        Settings::new(Sampling { top_k: 3, ..Sampling::default() }, &args, false).unwrap()
    }

    #[test]
    fn flags_win_over_the_model() {
        let settings = settings();
        assert_eq!((settings.sampling.temperature, settings.sampling.top_k), (0.5, 3));
        assert_eq!(settings.max_tokens, None);
        let args = SamplingArgs { temp: Some(f32::NAN), ..SamplingArgs::default() };
        assert_eq!(Settings::new(Sampling::default(), &args, false).unwrap_err().code, 2);
    }

    #[test]
    fn settings_are_changed_by_name_and_wrong_ones_are_refused() {
        let mut settings = settings();
        for (name, value) in [
            ("temp", "0"),
            ("seed", "9"),
            ("n", "5"),
            ("stop", "x y"),
            ("show-reasoning", "on"),
            ("reasoning", "low"),
            ("reasoning-budget", "9"),
            ("top-p", "0.25"),
        ] {
            settings.set(name, value).unwrap();
        }
        let list = settings.list();
        for line in [
            "temp 0\n",
            "seed 9\n",
            "max-tokens 5\n",
            "stop [\"x y\"]\n",
            "show-reasoning on\n",
            "reasoning low\n",
            "budget 9\n",
        ] {
            assert!(list.contains(line), "{list}");
        }
        for (name, value) in
            [("temp", "-1"), ("temp", "warm"), ("top-p", "0"), ("reasoning", "maybe"), ("x", "1")]
        {
            assert!(settings.set(name, value).is_err(), "{name} {value}");
        }
        assert_eq!(settings.list(), list);
        settings.set("seed", "random").unwrap();
        settings.set("n", "-1").unwrap();
        assert_eq!((settings.seed, settings.max_tokens), (None, None));
    }

    #[test]
    fn without_a_seed_each_request_has_its_own() {
        let mut settings = settings();
        let mut seed = || settings.request(Arc::default()).sampling.seed;
        assert_ne!(seed(), seed());
    }
}
