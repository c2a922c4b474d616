//! Synthetic checkpoints: model folders of any size with random weights, for measuring speed.
//!
//! The weights mean nothing, but every activation stays of order one, so such a model runs as a real one
//! does. The same spec always gives the same bytes. Start reading at [`synth`], then `tensors.rs` (what is
//! written), `fill.rs` (with which numbers).

mod error;
mod fill;
mod folder;
mod spec;
mod tensors;
mod write;

pub use error::SynthError;
pub use spec::GRAMMAR;

use std::path::Path;

use spec::Spec;

/// Most bytes of one weight file, as mlx-lm writes them.
const SHARD: u64 = 4_000_000_000;

/// Writes an MLX model folder of random weights: `dir` is made, or must be empty. `spec` follows [`GRAMMAR`];
/// `progress` is called with the bytes written and the bytes in all. `config.json` comes last, so a folder
/// that has it is whole.
///
/// # Errors
/// A spec outside the grammar, a folder that already holds something, or a failing write.
pub fn synth(spec: &str, dir: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<(), SynthError> {
    generate(&Spec::parse(spec)?, dir, SHARD, progress)
}

/// [`synth`] with the size of a shard.
fn generate(
    spec: &Spec,
    dir: &Path,
    shard: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), SynthError> {
    std::fs::create_dir_all(dir).map_err(SynthError::io(dir))?;
    if std::fs::read_dir(dir).map_err(SynthError::io(dir))?.next().is_some() {
        return Err(SynthError::NotEmpty(dir.to_owned()));
    }
    write::weights(&tensors::list(spec), dir, shard, progress)?;
    folder::write(spec, dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_shards_make_an_index_that_opens() {
        let dir = std::env::temp_dir().join(format!("amoeba-synth-shards-{}", std::process::id()));
        let spec = Spec::parse("tiny:3:q4g64").unwrap();
        let (mut last, mut total) = (0, 0);
        generate(&spec, &dir, 200_000, &mut |done, all| (last, total) = (done, all)).unwrap();
        let opened = amoeba_checkpoint::Checkpoint::open(&dir).unwrap();
        let files = opened.index().files().len();
        assert!(files > 2, "{files} files");
        assert_eq!(opened.index().len(), tensors::list(&spec).len());
        assert_eq!(last, total);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
