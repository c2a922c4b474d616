//! The `quantization` object of `config.json`: a default and overrides by module path.

use crate::error::shown;
use crate::{Config, Error, Format};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// How MLX packs a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Scale and bias per group.
    Affine,
    /// OCP MX 4-bit.
    Mxfp4,
    /// OCP MX 8-bit.
    Mxfp8,
    /// NVIDIA 4-bit.
    Nvfp4,
}

/// Mode, width and group size as a configuration states them; always one of the supported combinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packing {
    /// How it is packed.
    pub mode: Mode,
    /// Bits per code.
    pub bits: u8,
    /// Columns per scale.
    pub group: u16,
}

/// What an override says about one module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// `false`: not quantised.
    Off,
    /// `true`: quantised as the default says.
    Default,
    /// An object: quantised like this.
    As(Packing),
}

/// The parsed `quantization` object.
#[derive(Clone, Debug, Default)]
pub struct Quantisation {
    default: Option<Packing>,
    overrides: BTreeMap<String, Choice>,
}

impl Quantisation {
    /// Reads `quantization`, or `quantization_config` where the former is absent (mlx-lm writes both alike).
    /// Overrides of modules the model does not have are kept and never looked up.
    ///
    /// # Errors
    /// [`Error::Config`] for a number out of range, [`Error::Unsupported`] for 1 bit, an unknown mode, or the
    /// format of another quantiser.
    pub fn parse(config: &Config) -> Result<Quantisation, Error> {
        let Some(object) = config
            .object("quantization")?
            .map_or_else(|| config.object("quantization_config"), |found| Ok(Some(found)))?
        else {
            return Ok(Quantisation::default());
        };
        if let Some(method) = object.str("quant_method")?.filter(|_| !config.has("quantization")) {
            let what =
                format!("is \"{}\", which is not MLX's own format; convert the model for MLX", shown(method));
            return Err(Error::unsupported(object.place("quant_method"), what));
        }
        let mut overrides = BTreeMap::new();
        for (key, value) in object.raw() {
            let choice = match value {
                Value::Bool(false) => Choice::Off,
                Value::Bool(true) => Choice::Default,
                Value::Object(_) => match object.object(key)? {
                    Some(nested) => Choice::As(packing(&nested)?),
                    None => continue,
                },
                _ => continue, // bits, group_size, mode, and notes of converters
            };
            overrides.insert(key.clone(), choice);
        }
        Ok(Quantisation { default: Some(packing(&object)?), overrides })
    }

    /// What applies where nothing else is said; `None` without a quantization object.
    pub fn default_packing(&self) -> Option<Packing> {
        self.default
    }

    /// Number of overrides.
    pub fn overrides(&self) -> usize {
        self.overrides.len()
    }

    /// The override for module `path`: by that name, else by the name with other leading `model.` and
    /// `language_model.` parts (multimodal wrappers and plain models differ in them).
    pub fn choice(&self, path: &str) -> Option<Choice> {
        if self.overrides.is_empty() {
            return None;
        }
        if let Some(choice) = self.overrides.get(path) {
            return Some(*choice);
        }
        let mut core = path;
        while let Some(rest) = core.strip_prefix("model.").or_else(|| core.strip_prefix("language_model.")) {
            core = rest;
        }
        ["", "model.", "language_model.", "language_model.model.", "model.language_model."]
            .iter()
            .find_map(|prefix| self.overrides.get(&format!("{prefix}{core}")).copied())
    }
}

/// Mode, bits and group of one object; what is left out follows the mode, and no mode means affine even where
/// the default has another.
fn packing(object: &Config) -> Result<Packing, Error> {
    let mode = match object.str("mode")? {
        None | Some("affine") => Mode::Affine,
        Some("mxfp4") => Mode::Mxfp4,
        Some("mxfp8") => Mode::Mxfp8,
        Some("nvfp4") => Mode::Nvfp4,
        Some(other) => {
            let known = "known are affine, mxfp4, mxfp8 and nvfp4";
            let what = format!("is \"{}\"; {known}; convert the model to one of them", shown(other));
            return Err(Error::unsupported(object.place("mode"), what));
        }
    };
    let (bits, group) = mode.defaults();
    let bits = object.usize_or("bits", bits, 1..=8)?;
    let group = object.usize_or("group_size", group, 16..=128)?;
    let found = Packing { mode, bits: bits as u8, group: group as u16 }; // both bounded above
    match found.problem() {
        None => Ok(found),
        Some(_) if mode == Mode::Affine && bits == 1 => {
            let what = "is 1; 1-bit affine weights are not supported, convert the model to 2 bits or more";
            Err(Error::unsupported(object.place("bits"), what))
        }
        Some((key, wanted)) => {
            let value = Value::from(if key == "bits" { bits } else { group });
            Err(object.wrong(key, &value, &format!("{wanted} in mode {mode}")))
        }
    }
}

impl Mode {
    const fn defaults(self) -> (usize, usize) {
        match self {
            Mode::Affine => (4, 64),
            Mode::Mxfp4 => (4, 32),
            Mode::Mxfp8 => (8, 32),
            Mode::Nvfp4 => (4, 16),
        }
    }
}

impl Packing {
    /// Whether a matrix packed so has this format.
    pub fn makes(self, format: Format) -> bool {
        match (self.mode, format) {
            (Mode::Affine, Format::Affine { bits, group, .. }) => (self.bits, self.group) == (bits, group),
            (Mode::Mxfp4, Format::Mxfp4) | (Mode::Mxfp8, Format::Mxfp8) => true,
            (mode, format) => (mode, format) == (Mode::Nvfp4, Format::Nvfp4),
        }
    }

    /// The key that makes this combination unsupported, and its legal values; `None` if it is supported.
    pub(crate) fn problem(self) -> Option<(&'static str, &'static str)> {
        let (bits, groups): (&[u8], &[u16]) = match self.mode {
            Mode::Affine => (&[2, 3, 4, 5, 6, 8], &[32, 64, 128]),
            Mode::Mxfp4 => (&[4], &[32]),
            Mode::Mxfp8 => (&[8], &[32]),
            Mode::Nvfp4 => (&[4], &[16]),
        };
        let wanted = match self.mode {
            Mode::Affine => ["2, 3, 4, 5, 6 or 8", "32, 64 or 128"],
            Mode::Mxfp4 => ["4", "32"],
            Mode::Mxfp8 => ["8", "32"],
            Mode::Nvfp4 => ["4", "16"],
        };
        match (bits.contains(&self.bits), groups.contains(&self.group)) {
            (false, _) => Some(("bits", wanted[0])),
            (true, false) => Some(("group_size", wanted[1])),
            (true, true) => None,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Affine => "affine",
            Mode::Mxfp4 => "mxfp4",
            Mode::Mxfp8 => "mxfp8",
            Mode::Nvfp4 => "nvfp4",
        })
    }
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}-bit group {}", self.mode, self.bits, self.group)
    }
}
