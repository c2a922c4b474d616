//! Whether the same tokens give the same bits: on a second run, together with other sequences, after the
//! allocator was stirred, with other numbers of threads, and in steps of other sizes.

use amoeba_backend::{Executable, Row};

use super::check::Check;
use super::lab::Lab;
use crate::Error;

/// Rows of a step, in addition to the most that run fused; sizes that run another path are left out.
const CHUNKS: [usize; 3] = [1, 3, 64];

const THREADS: &str = "bits: threads";

/// All variations, each against the first run.
pub fn check(lab: &Lab<'_>) -> Result<Vec<Check>, Error> {
    let tokens = lab.random(lab.effort.bits, 3);
    let mut candidate = lab.candidate(|_| {})?;
    let first = run(&mut *candidate, &tokens, lab.chunk)?;
    let mut checks = Vec::new();

    run(&mut *candidate, &lab.random(17, 4), lab.chunk)?;
    let after = run(&mut *candidate, &tokens, lab.chunk)?;
    // Double-buffered state alternates per step: an odd number of extra steps makes the rerun start on the
    // other buffer.
    for _ in 0..1 + tokens.len().div_ceil(lab.chunk) % 2 {
        candidate.step(&super::lab::rows(&tokens[..1], 0, 0), None)?;
    }
    let again = run(&mut *candidate, &tokens, lab.chunk)?;
    let reruns = [("after another sequence".to_owned(), after), ("from the other buffer".to_owned(), again)];
    checks.push(verdict("bits: rerun", &first, &reruns));
    let alike = candidate.bit_identical_sizes(lab.chunk);
    let together = company(&mut *candidate, &tokens, &lab.random(tokens.len(), 5))?;
    let alone = if alike.contains(&2) { &first } else { &run(&mut *candidate, &tokens, 2)? };
    checks.push(verdict("bits: company", alone, &[("together with another sequence".to_owned(), together)]));
    let kind = candidate.path(lab.chunk).kind;
    // Where only some sizes of steps give the same bits, those.
    let mut chunks = if alike.contains(&1) { CHUNKS.to_vec() } else { vec![*alike.start(), lab.chunk - 1] };
    chunks.retain(|&chunk| chunk != lab.chunk && alike.contains(&chunk));
    chunks.retain(|&chunk| candidate.path(chunk).kind == kind);
    let chunks = chunks.into_iter().map(|chunk| {
        Ok((format!("steps of {chunk} instead of {}", lab.chunk), run(&mut *candidate, &tokens, chunk)?))
    });
    checks.push(verdict("bits: chunks", &first, &chunks.collect::<Result<Vec<_>, Error>>()?));
    let has_threads = candidate.kind().has_threads();
    drop(candidate);

    let kept = churn();
    let anew = run(&mut *lab.candidate(|_| {})?, &tokens, lab.chunk)?;
    drop(kept);
    checks.push(verdict("bits: allocator churn", &first, &[("loaded anew".to_owned(), anew)]));
    if !has_threads {
        checks.push(Check::skipped(THREADS, "the device has no threads to choose"));
        return Ok(checks);
    }
    let threads = thread_counts().into_iter().map(|threads| {
        let mut other = lab.candidate(|load| load.threads = Some(threads))?;
        Ok((format!("-t {threads}"), run(&mut *other, &tokens, lab.chunk)?))
    });
    checks.push(verdict(THREADS, &first, &threads.collect::<Result<Vec<_>, Error>>()?));
    Ok(checks)
}

/// One, two, an odd number, and all cores.
fn thread_counts() -> Vec<usize> {
    let mut counts = vec![1, 2, 3, std::thread::available_parallelism().map_or(1, usize::from)];
    counts.sort_unstable();
    counts.dedup();
    counts
}

/// A hash of the logits after every token, in steps of `chunk` rows.
fn run(executable: &mut dyn Executable, tokens: &[u32], chunk: usize) -> Result<Vec<u64>, Error> {
    let mut hashes = Vec::with_capacity(tokens.len());
    for (i, part) in tokens.chunks(chunk).enumerate() {
        executable.step(&super::lab::rows(part, 0, i * chunk), None)?;
        hashes.extend((0..part.len()).map(|n| hash(executable.logits(n))));
    }
    Ok(hashes)
}

/// The same with a row of another sequence in every step, before or after ours.
fn company(executable: &mut dyn Executable, tokens: &[u32], others: &[u32]) -> Result<Vec<u64>, Error> {
    let mut hashes = Vec::with_capacity(tokens.len());
    for (position, (&token, &other)) in tokens.iter().zip(others).enumerate() {
        let ours = Row { token, slot: 0, position, logits: true };
        let theirs = Row { token: other, slot: 1, position, logits: true };
        let first = position % 2;
        executable.step(&if first == 0 { [ours, theirs] } else { [theirs, ours] }, None)?;
        hashes.push(hash(executable.logits(first)));
    }
    Ok(hashes)
}

/// FNV-1a over the bits.
fn hash(logits: &[f32]) -> u64 {
    let step = |hash: u64, x: &f32| (hash ^ u64::from(x.to_bits())).wrapping_mul(0x100_0000_01b3);
    logits.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Leaves holes of odd sizes in the heap, full of bytes that read as NaN; what is returned keeps them apart.
fn churn() -> Vec<Vec<u8>> {
    let size =
        |i: usize| if i.is_multiple_of(25) { (i * 7919 % 61) << 17 | 1 } else { i * 7919 % 65_521 + 1 };
    let mut blocks: Vec<Vec<u8>> = (0..400).map(|i| std::hint::black_box(vec![0xff; size(i)])).collect();
    let mut i = 0;
    blocks.retain(|_| {
        i += 1;
        i % 3 == 0
    });
    blocks
}

/// How many positions differ in any of the variations, and which is the first.
fn verdict(name: &'static str, first: &[u64], others: &[(String, Vec<u64>)]) -> Check {
    let mut wrong = 0;
    let mut found = None;
    for (what, other) in others {
        let differing = first.iter().zip(other).enumerate().filter(|(_, (a, b))| a != b).map(|(at, _)| at);
        let differing: Vec<usize> = differing.collect();
        wrong += differing.len();
        found = found
            .or_else(|| Some(format!("{what}: the logits of token {} differ first", differing.first()?)));
    }
    let names = || others.iter().map(|(what, _)| &what[..]).collect::<Vec<_>>().join(", ");
    let detail = found.unwrap_or_else(|| format!("{} tokens equal: {}", first.len(), names()));
    Check::none_wrong(name, wrong, detail)
}
