//! Writes tensors into safetensors files, with every core: a number's place gives its value, so pieces can be
//! made in any order.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use serde_json::{Map, Value, json};

use super::SynthError;
use super::tensors::Tensor;

/// Bytes made at a time.
const CHUNK: usize = 4 << 20;

/// Tensor data starts at a multiple of this.
const ALIGN: usize = 64;

/// Writes the weights in files of at most `limit` bytes, then their index.
pub(super) fn weights(
    tensors: &[Tensor],
    dir: &Path,
    limit: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), SynthError> {
    let total = tensors.iter().map(|tensor| tensor.bytes).sum();
    let runs = split(tensors, limit);
    let mut map = Map::new();
    let mut shards = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        let name = match runs.len() {
            1 => "model.safetensors".to_owned(),
            n => format!("model-{:05}-of-{n:05}.safetensors", i + 1),
        };
        let path = dir.join(&name);
        shards.push(Shard::create(&path, run).map_err(SynthError::io(&path))?);
        map.extend(run.iter().map(|tensor| (tensor.name.clone(), Value::from(name.as_str()))));
    }
    fill(&shards, &mut |done| progress(done, total))?;
    let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
    super::folder::write_json(&dir.join("model.safetensors.index.json"), &index)
}

/// Writes the pieces of all files, several files at a time: a file system lets one write at a time into each.
fn fill(shards: &[Shard<'_>], progress: &mut dyn FnMut(u64)) -> Result<(), SynthError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (sender, receiver) = channel();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let sender = sender.clone();
            scope.spawn(move || {
                let (before, after) = shards.split_at(thread % shards.len());
                let mut shards = after.iter().chain(before);
                // A closed channel means that the writer failed; its error is returned below.
                shards.try_for_each(|shard| shard.fill(&sender)).ok();
            });
        }
        drop(sender);
        let mut done = 0;
        for written in receiver {
            done += written?;
            progress(done);
        }
        Ok(())
    })
}

/// Runs of tensors that fit a file together; a tensor beyond the limit has one to itself.
fn split(tensors: &[Tensor], limit: u64) -> Vec<&[Tensor]> {
    let (mut shards, mut start, mut size) = (Vec::new(), 0, 0);
    for (i, tensor) in tensors.iter().enumerate() {
        if i > start && size + tensor.bytes > limit {
            shards.push(&tensors[start..i]);
            (start, size) = (i, 0);
        }
        size += tensor.bytes;
    }
    shards.push(&tensors[start..]);
    shards
}

/// A safetensors file, and which of its pieces comes next.
struct Shard<'a> {
    path: PathBuf,
    pieces: Vec<Piece<'a>>,
    next: AtomicUsize,
}

/// Bytes of a tensor from `offset` on, `len` of them, at `position` of the file.
struct Piece<'a> {
    tensor: &'a Tensor,
    offset: u64,
    len: usize,
    position: u64,
}

impl<'a> Shard<'a> {
    /// Makes the file with its header alone.
    fn create(path: &Path, tensors: &'a [Tensor]) -> std::io::Result<Shard<'a>> {
        let mut header = Map::new();
        header.insert("__metadata__".to_owned(), json!({ "format": "mlx" }));
        let (mut end, mut pieces) = (0, Vec::new());
        for tensor in tensors {
            let offsets = [end, end + tensor.bytes];
            let entry = json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets });
            header.insert(tensor.name.clone(), entry);
            pieces.extend((0..tensor.bytes).step_by(CHUNK).map(|offset| {
                let len = (tensor.bytes - offset).min(CHUNK as u64) as usize;
                Piece { tensor, offset, len, position: end + offset }
            }));
            end += tensor.bytes;
        }
        let mut header = Value::Object(header).to_string().into_bytes();
        header.resize((header.len() + 8).next_multiple_of(ALIGN) - 8, b' ');
        pieces.iter_mut().for_each(|piece| piece.position += 8 + header.len() as u64);
        let mut out = File::create(path)?;
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        Ok(Shard { path: path.to_owned(), pieces, next: AtomicUsize::new(0) })
    }

    /// Writes pieces until there are none left; fails when the channel is closed.
    fn fill(&self, done: &Sender<Result<u64, SynthError>>) -> Result<(), ()> {
        let mut buffer = Vec::new();
        let mut file = None;
        while let Some(piece) = self.pieces.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            buffer.resize(piece.len, 0);
            piece.tensor.fill.write(piece.offset, &mut buffer);
            let written = self.write(&mut file, piece.position, &buffer);
            let written = written.map(|()| piece.len as u64).map_err(SynthError::io(&self.path));
            done.send(written).map_err(|_| ())?;
        }
        Ok(())
    }

    /// Writes at a position, through a handle that is opened when it is first needed.
    fn write(&self, file: &mut Option<File>, position: u64, bytes: &[u8]) -> std::io::Result<()> {
        let mut open = match file.take() {
            Some(file) => file,
            None => File::options().write(true).open(&self.path)?,
        };
        open.seek(SeekFrom::Start(position))?;
        open.write_all(bytes)?;
        *file = Some(open);
        Ok(())
    }
}
