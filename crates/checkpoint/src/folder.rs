//! Which files of a folder hold the weights, and the shard index.

use crate::Error;
use crate::error::shown;
use crate::header::{MAX_HEADER, MAX_TENSORS, Name};
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read;
use std::path::Path;

/// The shard index, by the name mlx-lm and transformers use.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// Most weight files.
const MAX_SHARDS: usize = 4096;

/// The weight files of a folder.
pub(crate) struct Files {
    /// To be loaded, in order; positions are shard numbers.
    pub(crate) shards: Vec<String>,
    /// Other `model*.safetensors`, which must not hold a tensor of `shards`.
    pub(crate) extras: Vec<String>,
    /// Tensor name and shard number in the order of names, when there is an index.
    pub(crate) index: Option<Vec<(Box<str>, u32)>>,
}

/// Lists the weight files: those the index names, or every `model*.safetensors` (as mlx-lm does).
pub(crate) fn files(dir: &Path) -> Result<Files, Error> {
    let mut found = listed(dir)?;
    let Some(text) = read_bounded(dir, INDEX, MAX_HEADER)? else {
        if found.is_empty() {
            let at = shown(&dir.to_string_lossy());
            let what = "has no model*.safetensors; give the folder of an MLX model with its weights";
            return Err(Error::NotFound { at, what: what.to_owned() });
        }
        return Ok(Files { shards: found.into_iter().collect(), extras: Vec::new(), index: None });
    };
    let Index { shards, tensors } = parse_index(&text)?;
    for shard in &shards {
        found.remove(shard);
    }
    Ok(Files { shards, extras: found.into_iter().collect(), index: Some(tensors) })
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

/// Reads a whole regular file of at most `limit` bytes; `None` if it is not there.
pub(crate) fn read_bounded(dir: &Path, file: &str, limit: usize) -> Result<Option<Vec<u8>>, Error> {
    let path = dir.join(file);
    let fail = |e| Error::reading(&path, "a readable file", e);
    match std::fs::metadata(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(fail(e)),
        Ok(meta) if !meta.is_file() => {
            return Err(Error::unsupported(file, "is not a regular file; expected a plain file"));
        }
        Ok(_) => {}
    }
    let handle = std::fs::File::open(&path).map_err(fail)?;
    let expected = handle.metadata().map_err(fail)?.len();
    let too_long = |n: u64| Error::config(file, format!("is {n} bytes long, the limit is {limit}"));
    if expected > limit as u64 {
        return Err(too_long(expected));
    }
    // One byte more than promised, so that a growing file is noticed without another allocation.
    let mut bytes = Vec::with_capacity(expected as usize + 1);
    handle.take(expected + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > expected {
        return Err(too_long(bytes.len() as u64));
    }
    Ok(Some(bytes))
}

/// A parsed index.
pub(crate) struct Index {
    shards: Vec<String>,
    tensors: Vec<(Box<str>, u32)>,
}

/// Parses an index; file names are checked, so joining them to the folder is safe.
pub(crate) fn parse_index(text: &[u8]) -> Result<Index, Error> {
    let fail = |e: serde_json::Error| {
        Error::corrupt(INDEX, format!("is not a valid shard index: {}", shown(&e.to_string())))
    };
    let WeightMap(map) = serde_json::from_slice::<Top>(text).map_err(fail)?.0;
    let (files, mut tensors) = map;
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
    if tensors.is_empty() {
        return Err(Error::corrupt(INDEX, "has an empty `weight_map`, expected tensor names"));
    }
    Ok(Index { shards, tensors })
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
