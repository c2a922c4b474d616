//! All weight files of a folder, mapped and held against the index; or weights made from a seed.

use crate::folder::{self, Files, INDEX, Index};
use crate::header::{self, Entries, MAX_TENSORS, tensor_at};
use crate::shard::Shard;
use crate::{Error, TensorIndex, seeded};
use std::path::Path;

/// Weight files and their tensors.
#[derive(Default)]
pub(crate) struct Weights {
    pub(crate) shards: Vec<Shard>,
    pub(crate) index: TensorIndex,
    /// What a person may want to know.
    pub(crate) notes: Vec<String>,
}

/// Maps and parses the weight files, or makes one from a seed.
///
/// What the index names is read and nothing else, as transformers and mlx-vlm do. Where the index does not
/// fit the files, the files are believed: the others are read too, but for those that would bring a tensor
/// twice.
pub(crate) fn open(dir: &Path) -> Result<Weights, Error> {
    if let Some(bytes) = seeded::image(dir)? {
        let shard = Shard::made(seeded::RECIPE, bytes);
        let entries = header::parse(seeded::RECIPE, shard.bytes(), 0)?;
        let index = TensorIndex::new(vec![seeded::RECIPE.to_owned()], entries)?;
        return Ok(Weights { shards: vec![shard], index, notes: Vec::new() });
    }
    let Files { shards: files, extras, index: listed, notes, .. } = folder::files(dir)?;
    let mut weights = Weights { notes, ..Weights::default() };
    let mut entries = Entries::new();
    for file in &files {
        let found = weights.map(dir, file)?;
        if entries.is_empty() {
            entries = found; // the usual single file: no second copy
        } else {
            entries.extend(found);
        }
        bounded(file, entries.len())?;
    }
    weights.index = TensorIndex::new(files, entries)?;
    let difference = listed.as_ref().and_then(|listed| difference(&weights.index, listed));
    let mut unread = extras;
    if let Some(difference) = difference {
        weights.notes.push(format!("{INDEX} does not fit the files, which are believed: {difference}"));
        unread = weights.add(dir, unread)?;
    }
    if let Some(first) = unread.first() {
        let others = unread.len() - 1;
        let others = if others == 0 { String::new() } else { format!(" and {others} other files") };
        weights.notes.push(format!("{first}{others}: not read, for {INDEX} does not name it"));
    }
    if weights.index.is_empty() {
        return Err(Error::corrupt(weights.index.files().join(", "), "has no tensors"));
    }
    if let Some(listed) = listed {
        weights.index = weights.index.with_listed(listed);
    }
    Ok(weights)
}

impl Weights {
    fn map(&mut self, dir: &Path, file: &str) -> Result<Entries, Error> {
        let shard = Shard::map(dir, file)?;
        let entries = header::parse(file, shard.bytes(), self.shards.len() as u32)?; // at most 4096 files
        self.shards.push(shard);
        Ok(entries)
    }

    /// Reads further files, but for those that hold a tensor which is there already; returns these.
    fn add(&mut self, dir: &Path, files: Vec<String>) -> Result<Vec<String>, Error> {
        let mut unread = Vec::new();
        for file in files {
            let entries = self.map(dir, &file)?;
            bounded(&file, self.index.len() + entries.len())?;
            if entries.iter().any(|(name, _)| self.index.has(name)) {
                self.shards.pop();
                unread.push(file);
            } else {
                self.index = std::mem::take(&mut self.index).join(file, entries)?;
            }
        }
        Ok(unread)
    }
}

fn bounded(file: &str, tensors: usize) -> Result<(), Error> {
    match tensors > MAX_TENSORS {
        true => Err(Error::corrupt(file, format!("brings the tensors to over {MAX_TENSORS}"))),
        false => Ok(()),
    }
}

/// In what the index and the files differ first.
fn difference(index: &TensorIndex, listed: &Index) -> Option<String> {
    for (name, shard) in &listed.tensors {
        let file = &listed.shards[*shard as usize];
        let found = match index.get(name) {
            Some(info) if index.files()[info.shard] == *file => continue,
            Some(info) => format!("in {}", index.files()[info.shard]),
            None => "in no file".to_owned(),
        };
        return Some(format!("{} is {found}", tensor_at(file, name)));
    }
    let known = |name: &str| listed.tensors.binary_search_by(|(key, _)| (**key).cmp(name)).is_ok();
    let unlisted = index.iter().find(|tensor| !known(tensor.name))?;
    Some(format!("{} is not listed", index.place(&unlisted)))
}
