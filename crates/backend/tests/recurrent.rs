//! Ops that carry a state, on both backends: the same results however rows are shared out, and a sequence
//! goes on only where it ended.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use amoeba_backend::{Buffers, Error, Executable, Flow, KvType, Limits, LoadOptions, Probe, Reference, Row};
use amoeba_kernels::simd::Isa;
use common::{VOCAB, cpu, model, options, row};

const TOKENS: usize = 21;
const LIMITS: Limits = Limits { slots: 3, context: 64, rows: 32 };

/// Runs rows and takes the bits of the logits of each.
fn step(executable: &mut dyn Executable, rows: &[Row]) -> Vec<Vec<u32>> {
    executable.step(rows, None).unwrap();
    (0..rows.len()).map(|n| executable.logits(n).iter().map(|x| x.to_bits()).collect()).collect()
}

/// A whole sequence in steps of `chunk` rows.
fn sequence(executable: &mut dyn Executable, slot: usize, chunk: usize) -> Vec<Vec<u32>> {
    let rows: Vec<Row> = (0..TOKENS).map(|position| row(slot, position)).collect();
    rows.chunks(chunk).flat_map(|rows| step(executable, rows)).collect()
}

fn refused(result: Result<(), Error>) -> (usize, usize, Option<usize>) {
    match result {
        Err(Error::NotContinuous { slot, position, next }) => (slot, position, next),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_cpu_follows_the_reference_and_its_bits_depend_on_no_sharing_out() {
    let (plan, checkpoint) = model("bits");
    let mut reference = Reference::load(plan, checkpoint, LIMITS).unwrap();
    let truth = sequence(&mut reference, 0, TOKENS);
    assert!(sequence(&mut reference, 1, 4) != truth, "sequences differ");
    assert!(sequence(&mut reference, 0, 4) == truth, "the reference in chunks, and begun again");
    let first = sequence(&mut cpu("bits", &options(1, LIMITS)), 0, 1);
    let mut worst = 0.0f32;
    for (found, truth) in first.iter().zip(&truth) {
        for (&found, &truth) in found.iter().zip(truth) {
            worst = worst.max((f32::from_bits(found) - f32::from_bits(truth)).abs());
        }
    }
    // Logits are of order one.
    println!("logits off by {worst:e}");
    assert!(worst < 2e-5, "logits off by {worst:e}");
    for (threads, chunk) in [(1, 3), (1, TOKENS), (2, 1), (2, 3), (2, TOKENS), (3, 1), (3, 5), (8, TOKENS)] {
        let other = sequence(&mut cpu("bits", &options(threads, LIMITS)), 0, chunk);
        assert!(other == first, "{threads} threads, chunks of {chunk}");
    }
    for isa in Isa::available() {
        let options = LoadOptions { isa: Some(isa), ..options(2, LIMITS) };
        assert!(sequence(&mut cpu("bits", &options), 0, 4) == first, "{isa}");
    }
}

#[test]
fn sequences_in_one_step_do_not_meet() {
    let mut cpu = cpu("company", &options(2, LIMITS));
    let alone = [0, 1, 2].map(|slot| sequence(&mut cpu, slot, 1));
    // Stretches of different lengths; the second begins later, the first anew.
    let mut found = [const { Vec::new() }; 3];
    let mut step_of = |stretches: &[(usize, usize)]| {
        let rows: Vec<Row> = stretches
            .iter()
            .flat_map(|&(slot, n)| (found[slot].len()..found[slot].len() + n).map(move |p| row(slot, p)))
            .collect();
        for (row, logits) in rows.iter().zip(step(&mut cpu, &rows)) {
            found[row.slot].push(logits);
        }
    };
    step_of(&[(0, 5), (2, 1)]);
    step_of(&[(2, 3), (0, 1), (1, 7)]);
    (0..6).for_each(|_| step_of(&[(1, 1), (2, 1), (0, 1)]));
    for (slot, found) in found.iter().enumerate() {
        assert!(found[..] == alone[slot][..found.len()], "sequence {slot}");
    }
}

#[test]
fn a_sequence_goes_on_where_it_ended_or_begins_again() {
    let (plan, checkpoint) = model("order");
    let mut reference = Reference::load(plan, checkpoint, LIMITS).unwrap();
    let mut cpu = cpu("order", &options(2, LIMITS));
    for executable in [&mut reference as &mut dyn Executable, &mut cpu] {
        let whole = sequence(executable, 0, TOKENS);
        assert_eq!(refused(executable.step(&[row(1, 4)], None)), (1, 4, None));
        let error = executable.step(&[row(0, 3)], None).unwrap_err();
        for part in ["sequence 0", "position 3", "position 21", "position 0"] {
            assert!(error.to_string().contains(part), "{error}");
        }
        assert_eq!(refused(executable.step(&[row(0, 21), row(1, 0), row(0, 22)], None)), (0, 22, Some(21)));
        // What was refused changed nothing.
        executable.step(&[row(0, 21)], None).unwrap();
        assert!(sequence(executable, 0, 3) == whole, "begun again");
        // Rows outside the limits change nothing either.
        assert!(executable.step(&[Row { token: u32::MAX, ..row(0, TOKENS) }], None).is_err());
        executable.step(&[row(0, TOKENS)], None).unwrap();
    }
}

/// Stops a step after one op.
struct Stop(usize);

impl Probe for Stop {
    fn wants(&self, op: usize) -> bool {
        op == self.0
    }
    fn see(&mut self, _: usize, _: &dyn Buffers) -> Flow {
        Flow::Stop
    }
}

#[test]
fn a_step_that_failed_or_was_stopped_leaves_no_state() {
    let (plan, checkpoint) = model("failed");
    let mut reference = Reference::load(plan, checkpoint, LIMITS).unwrap();
    let mut cpu = cpu("failed", &options(2, LIMITS));
    for executable in [&mut reference as &mut dyn Executable, &mut cpu] {
        let whole = [0, 1].map(|slot| sequence(executable, slot, TOKENS));
        let first = sequence(executable, 0, TOKENS);
        for op in [0, executable.plan().head - 1] {
            executable.step(&[row(0, TOKENS)], Some(&mut Stop(op))).unwrap();
            for position in [TOKENS, TOKENS + 1] {
                assert_eq!(refused(executable.step(&[row(0, position)], None)), (0, position, None));
            }
            assert!(sequence(executable, 0, 4) == first, "begun again after op {op}");
        }
        // A probe that stops nothing leaves a state.
        executable.step(&[row(0, TOKENS)], Some(&mut Stop(usize::MAX))).unwrap();
        executable.step(&[row(0, TOKENS + 1)], None).unwrap();
        // The other sequence is not concerned, even by a step that it shares with one that is not finite.
        executable.step(&[row(1, TOKENS)], None).unwrap();
        let bad = Row { token: VOCAB as u32 - 1, ..row(0, TOKENS + 2) };
        let failed = executable.step(&[row(1, TOKENS + 1), bad], None);
        assert!(matches!(failed, Err(Error::NotFinite { row: 1, .. })), "{failed:?}");
        assert_eq!(refused(executable.step(&[row(0, TOKENS + 3)], None)), (0, TOKENS + 3, None));
        executable.step(&[row(1, TOKENS + 2)], None).unwrap();
        for (slot, whole) in whole.iter().enumerate() {
            assert!(sequence(executable, slot, 4) == *whole, "sequence {slot} begun again after NaN");
        }
        // Nor does what is left in the caches where a new sequence has not come yet.
        let bad = |position| Row { token: VOCAB as u32 - 1, ..row(0, position) };
        for rows in [(0..TOKENS).map(bad).collect::<Vec<_>>(), vec![row(0, 0), bad(1)]] {
            assert!(matches!(executable.step(&rows, None), Err(Error::NotFinite { .. })));
            assert!(sequence(executable, 0, 1) == whole[0], "begun again in a slot full of NaN");
        }
    }
}

/// States are summed up over thousands of positions: half precision is for keys and values alone.
#[test]
fn states_are_f32_whatever_keys_are_and_are_counted() {
    let memory = |kv, slots| {
        let limits = Limits { slots, ..LIMITS };
        cpu("kinds", &LoadOptions { kv, ..options(1, limits) }).memory()
    };
    let (plan, _) = model("kinds");
    let keys = 4 * LIMITS.context * plan.cache_elements_per_position();
    assert_eq!(memory(KvType::F32, 1) - memory(KvType::F16, 1), keys / 2);
    let per_slot = memory(KvType::F32, 3) - memory(KvType::F32, 2);
    let states = per_slot - keys;
    // Rows are padded to sixteen, columns of a delta rule to four.
    let stored = 4 * plan.cache_elements_per_sequence();
    assert!(states >= stored && states < stored * 3 / 2, "{states} bytes of state, {stored} stored");
}
