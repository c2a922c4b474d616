//! Packed weights kept in a file, so that the next load reads them instead of packing again.
//!
//! A file is `magic, version, packing, key, bytes, blocks`, a checksum per block, a checksum of all that, and
//! from [`DATA`] on the packed tensors one after another. Numbers are little-endian. The key is a hash of all
//! that the packed bytes depend on, so a file is used for exactly the weights it was made of, and each block
//! is verified as it is read: whatever does not fit is packed again. Sums find damage, not forgery: the
//! folder is the user's. What is removed, and when, is in `eviction.rs`; the folder may be deleted at any
//! time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use amoeba_kernels::linear::{PACKING, Packed};

use super::{Loader, Source, eviction};

/// Where packed weights are kept.
#[derive(Clone, Debug)]
pub struct RepackCache {
    /// The folder; made when needed. Each model takes as many bytes as its weights.
    pub dir: PathBuf,
    /// Most bytes that the folder may hold: what was not used for longest goes first.
    pub bytes_max: u64,
}

const MAGIC: &[u8; 8] = b"AMOEBAPK";
/// Version of the file's own layout.
const VERSION: u32 = 1;
/// Bytes that one checksum covers; a tensor's last block is shorter.
const BLOCK: usize = 4 << 20;
/// The first tensor begins at a multiple of this.
const DATA: usize = 4096;

impl RepackCache {
    /// The packed sources, from the file if there is a good one.
    pub(super) fn load(&self, sources: &[Source<'_>], loader: &mut Loader<'_>) -> Vec<Packed> {
        let Some(key) = key(sources, loader) else {
            (loader.notice)(
                "packed weights are not kept: the system does not say when the model was written",
            );
            return loader.pack(sources);
        };
        let path = self.dir.join(eviction::name(&eviction::owner(loader.checkpoint.dir()), key));
        let at = path.display();
        match read(&path, key, sources, loader) {
            Ok(packed) => {
                eviction::mark_used(&path);
                return packed;
            }
            Err(_) if !path.exists() => {}
            Err(error) => {
                (loader.notice)(&format!("packed weights in {at} cannot be used, packing again: {error}"));
                let _ = std::fs::remove_file(&path); // if that fails, so does writing, which says why
            }
        }
        let stored = loader.total;
        loader.total *= 2; // each byte is packed, then written
        let packed = loader.pack(sources);
        let progress = &mut |bytes: usize| (loader.progress)(stored + bytes.min(stored), 2 * stored);
        let bytes = DATA as u64 + packed.iter().map(|packed| packed.bytes() as u64).sum::<u64>();
        let room = eviction::make_room(&self.dir, &path, bytes, self.bytes_max);
        if let Err(error) = room.and_then(|()| write(&path, key, &packed, progress)) {
            (loader.notice)(&format!(
                "packed weights are not kept in {at}, the model runs all the same: {error}"
            ));
        }
        progress(stored);
        packed
    }
}

/// Hash of what packed bytes depend on: the weight files, the order of packed bytes, what is packed how.
fn key(sources: &[Source<'_>], loader: &Loader<'_>) -> Option<u128> {
    let mut text = Vec::new();
    for (stamp, header) in loader.checkpoint.stamps() {
        text.extend_from_slice(format!("{} {}\n", stamp?, header.len()).as_bytes());
        text.extend_from_slice(header);
    }
    for Source { path, matrices, layout } in sources {
        text.extend_from_slice(format!("{path} {} {layout:?}\n", matrices.len()).as_bytes());
    }
    let half = |seed| u128::from(checksum(&text, seed));
    Some(half(u64::from(PACKING)) << 64 | half(u64::MAX - u64::from(VERSION)))
}

/// Everything before the checksums, and their number.
fn prefix(key: u128, packed: &[Packed]) -> (Vec<u8>, usize) {
    let bytes: usize = packed.iter().map(Packed::bytes).sum();
    let blocks: usize = packed.iter().map(|packed| packed.bytes().div_ceil(BLOCK)).sum();
    let mut prefix =
        [&MAGIC[..], &VERSION.to_le_bytes(), &PACKING.to_le_bytes(), &key.to_le_bytes()].concat();
    prefix.extend_from_slice(&(bytes as u64).to_le_bytes());
    prefix.extend_from_slice(&(blocks as u64).to_le_bytes());
    (prefix, blocks)
}

/// Bytes before the first tensor.
fn start(prefix: &[u8], blocks: usize) -> usize {
    (prefix.len() + blocks * 8 + 8).next_multiple_of(DATA)
}

fn bad(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("{what}; the file is damaged"))
}

fn read(path: &Path, key: u128, sources: &[Source<'_>], loader: &mut Loader<'_>) -> Result<Vec<Packed>> {
    if !path.metadata()?.is_file() {
        return Err(bad("it is no regular file")); // a pipe would block
    }
    let mut file = File::open(path)?;
    let room = |source: &Source<'_>| Packed::zeroed(source.layout, source.matrices.len());
    let mut packed: Vec<Packed> = sources.iter().map(room).collect();
    let (prefix, blocks) = prefix(key, &packed);
    let (start, bytes) = (start(&prefix, blocks), packed.iter().map(Packed::bytes).sum::<usize>());
    if file.metadata()?.len() != (start + bytes) as u64 {
        return Err(bad("its length is wrong"));
    }
    let mut head = vec![0; prefix.len() + blocks * 8 + 8];
    file.read_exact(&mut head)?;
    let (head, sum) = head.split_at(prefix.len() + blocks * 8);
    if !head.starts_with(&prefix) || checksum(head, 0).to_le_bytes() != *sum {
        return Err(bad("its header is wrong"));
    }
    let sums = head[prefix.len()..].as_chunks::<8>().0;
    let mut next = start;
    let places = packed.iter_mut().flat_map(|packed| packed.data_mut().chunks_mut(BLOCK)).zip(sums);
    let places = Mutex::new(places.map(|(block, sum)| {
        next += block.len();
        (next - block.len(), block, u64::from_le_bytes(*sum))
    }));
    let done = AtomicUsize::new(0);
    let work = |progress: &mut dyn FnMut(usize)| {
        let mut file = File::open(path)?; // each thread has its own position
        loop {
            let place = places.lock().ok().and_then(|mut places| places.next());
            let Some((from, block, sum)) = place else { return Ok(()) };
            file.seek(SeekFrom::Start(from as u64))?;
            file.read_exact(block)?;
            if checksum(block, 0) != sum {
                return Err(bad(&format!("the checksum of the block at byte {from} is wrong")));
            }
            progress(done.fetch_add(block.len(), Relaxed) + block.len());
        }
    };
    let total = loader.total;
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..loader.threads).map(|_| scope.spawn(|| work(&mut |_| {}))).collect();
        let own = work(&mut |bytes| (loader.progress)(bytes.min(total), total));
        let join = |other: std::thread::ScopedJoinHandle<'_, Result<()>>| {
            other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        others.into_iter().map(join).fold(own, Result::and)
    })?;
    (loader.progress)(total, total);
    Ok(packed)
}

/// Writes under a temporary name, then renames: the final name never belongs to an incomplete file.
fn write(path: &Path, key: u128, packed: &[Packed], progress: &mut dyn FnMut(usize)) -> Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    let aside = path.with_extension("tmp");
    // What is no plain file would block, or have something else written to.
    if aside.symlink_metadata().is_ok_and(|meta| !meta.is_file()) {
        std::fs::remove_file(&aside)?;
    }
    // Kept from a run that was killed, it is written over; the lock is for one that is alive.
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&aside)?;
    let busy = |_| Error::new(ErrorKind::ResourceBusy, "another process is writing them");
    match file.try_lock() {
        Err(TryLockError::Error(error)) => return Err(error),
        other => other.map_err(busy)?,
    }
    if path.exists() {
        let _ = std::fs::remove_file(&aside); // another run was faster, and nobody would clear it
        return Err(Error::new(ErrorKind::AlreadyExists, "the file is there already"));
    }
    let written = fill(&file, key, packed, progress).and_then(|()| std::fs::rename(&aside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&aside);
    }
    written
}

fn fill(mut file: &File, key: u128, packed: &[Packed], progress: &mut dyn FnMut(usize)) -> Result<()> {
    let (mut head, blocks) = prefix(key, packed);
    let start = start(&head, blocks);
    let mut done = 0;
    file.set_len(0)?;
    file.seek(SeekFrom::Start(start as u64))?;
    for block in packed.iter().flat_map(|packed| packed.data().chunks(BLOCK)) {
        file.write_all(block)?;
        head.extend_from_slice(&checksum(block, 0).to_le_bytes());
        done += block.len();
        progress(done);
    }
    head.extend_from_slice(&checksum(&head, 0).to_le_bytes());
    file.rewind()?;
    file.write_all(&head)?;
    file.sync_all()
}

/// Eight running sums side by side. Every step maps different sums to different sums, so one changed word
/// always shows, and the rotation keeps changes of two from cancelling out.
fn checksum(bytes: &[u8], seed: u64) -> u64 {
    let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let mut lanes = [mix(seed, bytes.len() as u64 + 1); 8];
    let (rows, rest) = bytes.as_chunks::<64>();
    for row in rows {
        for (lane, word) in lanes.iter_mut().zip(row.as_chunks::<8>().0) {
            *lane = mix(*lane, u64::from_le_bytes(*word));
        }
    }
    let sum = lanes.into_iter().fold(seed, mix);
    rest.iter().fold(sum, |sum, &byte| mix(sum, u64::from(byte)))
}
