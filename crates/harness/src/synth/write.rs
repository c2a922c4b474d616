//! Streams tensors into safetensors files.

use std::fs::File;
use std::io::Write;
use std::path::Path;

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
    let shards = split(tensors, limit);
    let mut done = 0;
    let mut map = Map::new();
    for (i, shard) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => "model.safetensors".to_owned(),
            n => format!("model-{:05}-of-{n:05}.safetensors", i + 1),
        };
        let mut heard = |bytes| {
            done += bytes;
            progress(done, total);
        };
        let path = dir.join(&name);
        file(shard, &path, &mut heard).map_err(SynthError::io(&path))?;
        map.extend(shard.iter().map(|tensor| (tensor.name.clone(), Value::from(name.as_str()))));
    }
    let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
    super::folder::write_json(&dir.join("model.safetensors.index.json"), &index)
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

/// One safetensors file.
fn file(tensors: &[Tensor], path: &Path, heard: &mut dyn FnMut(u64)) -> std::io::Result<()> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({ "format": "mlx" }));
    let mut end = 0;
    for tensor in tensors {
        let offsets = [end, end + tensor.bytes];
        let entry = json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets });
        header.insert(tensor.name.clone(), entry);
        end += tensor.bytes;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize((header.len() + 8).next_multiple_of(ALIGN) - 8, b' ');
    let mut out = File::create(path)?;
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    let mut buffer = vec![0; CHUNK];
    for tensor in tensors {
        let mut offset = 0;
        while offset < tensor.bytes {
            let chunk = &mut buffer[..(tensor.bytes - offset).min(CHUNK as u64) as usize];
            tensor.fill.write(offset, chunk);
            out.write_all(chunk)?;
            offset += chunk.len() as u64;
            heard(chunk.len() as u64);
        }
    }
    Ok(())
}
