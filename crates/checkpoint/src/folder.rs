//! Which files of a folder hold the weights, and the shard index.

use crate::Error;
use crate::error::shown;
use crate::header::{MAX_HEADER, MAX_TENSORS, Name};
use crate::{json, small::read_small};
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

/// The shard index, by the name mlx-lm and transformers use.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// Most weight files.
const MAX_SHARDS: usize = 4096;

/// The weight files of a folder.
#[derive(Default)]
pub(crate) struct Files {
    /// To be loaded, in order.
    pub(crate) shards: Vec<String>,
    /// Other `model*.safetensors`.
    pub(crate) extras: Vec<String>,
    /// What the index says, when there is one that concerns these files.
    pub(crate) index: Option<Index>,
    /// The file without which the weights are surely not complete.
    missing: Option<String>,
    /// What a person may want to know.
    pub(crate) notes: Vec<String>,
}

/// The name of a weight file that the folder surely lacks. Whether what is there is all that a model needs is
/// for its plan to say.
///
/// # Errors
/// A folder or an index that cannot be read, or an index that names files elsewhere.
pub fn missing_weights(dir: &Path) -> Result<Option<String>, Error> {
    if dir.join(crate::seeded::RECIPE).exists() {
        return Ok(None);
    }
    Ok(survey(dir)?.missing)
}

/// Lists the weight files: those the index names, or every `model*.safetensors` (as mlx-lm does).
pub(crate) fn files(dir: &Path) -> Result<Files, Error> {
    let files = survey(dir)?;
    let at = shown(&dir.to_string_lossy());
    match &files.missing {
        None => Ok(files),
        Some(_) if files.shards.is_empty() && files.index.is_none() => {
            let what = "has no model*.safetensors; give the folder of an MLX model with its weights";
            Err(Error::NotFound { at, what: what.to_owned() })
        }
        Some(shard) => {
            let what = format!("lacks {}, which {INDEX} names; download or copy it there", shown(shard));
            Err(Error::NotFound { at, what })
        }
    }
}

/// Believes the index where it fits the files. Converters are known to leave the index of the unquantised
/// source beside the weights they write; a folder is complete without it.
fn survey(dir: &Path) -> Result<Files, Error> {
    let mut extras = listed(dir)?;
    let text = read_small(&dir.join(INDEX), MAX_HEADER)?;
    let index = text.as_deref().map(parse_index).transpose()?;
    let mut notes = Vec::new();
    let Some(Ok(index)) = index else {
        if let Some(Err(why)) = index {
            notes.push(format!("{INDEX} {why}: not used, every model*.safetensors is read"));
        }
        let missing = extras.is_empty().then(|| "model.safetensors".to_owned());
        return Ok(Files { shards: extras.into_iter().collect(), missing, notes, ..Files::default() });
    };
    let (here, lost): (Vec<_>, Vec<_>) = index.shards.iter().cloned().partition(|s| dir.join(s).exists());
    if here.is_empty() && !extras.is_empty() {
        let number = lost.len();
        notes
            .push(format!("{INDEX} names {number} files and none is here: every model*.safetensors is read"));
        return Ok(Files { shards: extras.into_iter().collect(), notes, ..Files::default() });
    }
    for shard in &here {
        extras.remove(shard);
    }
    let bytes: u64 = here.iter().filter_map(|s| dir.join(s).metadata().ok()).map(|meta| meta.len()).sum();
    let all = extras.is_empty() && text.as_deref().and_then(total_size).is_none_or(|total| bytes < total);
    let missing = lost.into_iter().next().filter(|_| all);
    Ok(Files { shards: here, extras: extras.into_iter().collect(), index: Some(index), missing, notes })
}

/// `total_size` of the index, in bytes. It only helps to tell a broken download, so no parser is needed.
fn total_size(index: &[u8]) -> Option<u64> {
    let (_, rest) = std::str::from_utf8(index).ok()?.split_once("\"total_size\"")?;
    let digits = rest.trim_start().strip_prefix(':')?.trim_start();
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn listed(dir: &Path) -> Result<BTreeSet<String>, Error> {
    let fail = |e| Error::reading(dir, "a model folder", e);
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with("model") && name.ends_with(".safetensors") {
            check_name(&shown(&dir.to_string_lossy()), name)?; // it is shown in messages
            found.insert(name.to_owned());
        }
        if found.len() > MAX_SHARDS {
            return Err(Error::corrupt(
                shown(&dir.to_string_lossy()),
                format!("has over {MAX_SHARDS} shards"),
            ));
        }
    }
    Ok(found)
}

/// Refuses anything but a plain file name: no separators, no `..`, no control characters, at most 255 bytes.
pub(crate) fn check_name(at: &str, name: &str) -> Result<(), Error> {
    let plain = !name.is_empty() && name.len() <= 255 && name != "." && name != "..";
    if plain && !name.contains(|c: char| c.is_control() || matches!(c, '/' | '\\' | ':')) {
        return Ok(());
    }
    Err(Error::corrupt(at, format!("names the file `{}`, expected a plain file name", shown(name))))
}

/// A parsed index.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    /// The files it names.
    pub(crate) shards: Vec<String>,
    /// Tensor name and the file's number, in the order of names.
    pub(crate) tensors: Vec<(Box<str>, u32)>,
}

/// Parses an index; `Ok(Err)` says why it is none. File names are checked, so joining them to the folder is
/// safe: an index that names files elsewhere is refused.
pub(crate) fn parse_index(text: &[u8]) -> Result<Result<Index, String>, Error> {
    let (files, mut tensors) = match serde_json::from_slice::<Top>(json::without_mark(text)) {
        Ok(Top(WeightMap(map))) if map.1.is_empty() => return Ok(Err("lists no tensor".to_owned())),
        Ok(Top(WeightMap(map))) => map,
        Err(e) => return Ok(Err(format!("is not a valid shard index ({})", shown(&e.to_string())))),
    };
    let mut shards = vec![String::new(); files.len()];
    let mut folded = BTreeMap::new();
    for (file, number) in files {
        check_name(INDEX, &file)?;
        if !file.ends_with(".safetensors") {
            let what = format!("names the file `{}`, expected one that ends in .safetensors", shown(&file));
            return Err(Error::unsupported(INDEX, what));
        }
        // Two names for one file on a disk that ignores case.
        if let Some(other) = folded.insert(file.to_ascii_lowercase(), number) {
            let what = format!("names `{}` (file {other} of the index) in two spellings", shown(&file));
            return Err(Error::corrupt(INDEX, what));
        }
        shards[number as usize] = file;
    }
    tensors.sort_unstable();
    if let Some(pair) = tensors.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(Error::corrupt(INDEX, format!("lists the tensor `{}` twice", shown(&pair[0].0))));
    }
    Ok(Ok(Index { shards, tensors }))
}

/// The top of the index: `weight_map` is read, the rest skipped.
struct Top(WeightMap);

impl<'de> de::Deserialize<'de> for Top {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Top, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Top;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with `weight_map`")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Top, A::Error> {
                let mut weights = None;
                while let Some(Name(key)) = map.next_key()? {
                    if &*key != "weight_map" {
                        map.next_value::<IgnoredAny>()?;
                    } else if weights.replace(map.next_value()?).is_some() {
                        return Err(de::Error::custom("`weight_map` appears twice"));
                    }
                }
                weights.map(Top).ok_or_else(|| de::Error::missing_field("weight_map"))
            }
        }
        reader.deserialize_map(Keys)
    }
}

/// File names numbered in order of appearance, and the tensors with those numbers.
struct WeightMap((BTreeMap<String, u32>, Vec<(Box<str>, u32)>));

impl<'de> de::Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<WeightMap, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = WeightMap;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`weight_map` as an object of file names")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
                let (mut files, mut tensors) = (BTreeMap::<String, u32>::new(), Vec::new());
                while let Some((Name(tensor), Name(file))) = map.next_entry()? {
                    let next = files.len() as u32;
                    let number = match files.get(&*file) {
                        Some(&number) => number,
                        None => *files.entry(file.into()).or_insert(next),
                    };
                    if tensors.len() == MAX_TENSORS || files.len() > MAX_SHARDS {
                        let limit = format!("over {MAX_TENSORS} tensors or {MAX_SHARDS} files");
                        return Err(de::Error::custom(limit));
                    }
                    tensors.push((tensor, number));
                }
                Ok(WeightMap((files, tensors)))
            }
        }
        reader.deserialize_map(Entries)
    }
}
