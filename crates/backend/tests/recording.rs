//! Recorded steps: the same bits, every op, no overlap, and an error instead of a cut list. No test asserts a
//! time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use amoeba_backend::{
    Buffers, Cpu, Error, Executable, Flow, Limits, LoadOptions, Probe, Recording, Row, Stage,
};
use amoeba_plan::{Op, PathChoice};
use common::open;

mod common;

const MODELS: [&str; 5] = [
    "models/tiny-chat-moe-4bit",
    "fixtures/qwen2_moe-q4g64",
    "fixtures/llama-q4g64",
    "fixtures/qwen3_next-q4g64",
    "fixtures/nemotron_h-q4g64",
];
const LIMITS: Limits = Limits { slots: 1, context: 400, rows: 400 };

fn cpu(model: &str, threads: usize, path: PathChoice) -> Cpu {
    let (plan, checkpoint) = open(model);
    let options = LoadOptions { path, ..common::options(threads, LIMITS) };
    Cpu::load(plan, &checkpoint, &options, &mut |_, _| {}).unwrap()
}

fn row(position: usize) -> Row {
    Row { token: (position * 37 % 400) as u32, slot: 0, position, logits: true }
}

fn bits(cpu: &Cpu) -> Vec<u32> {
    cpu.logits(0).iter().map(|x| x.to_bits()).collect()
}

fn sane(recording: &Recording) {
    for lane in &recording.lanes {
        assert!(lane.iter().all(|span| span.start <= span.end && span.end <= recording.ns));
        assert!(lane.windows(2).all(|pair| pair[0].end <= pair[1].start), "spans of a worker overlap");
    }
}

#[test]
fn recording_changes_no_bit_and_sees_every_op() {
    for model in MODELS {
        for (threads, path) in [(1, PathChoice::Auto), (2, PathChoice::Auto), (3, PathChoice::Unfused)] {
            let (mut plain, mut traced) = (cpu(model, threads, path), cpu(model, threads, path));
            traced.record(4096).unwrap();
            for position in 0..6 {
                plain.step(&[row(position)], None).unwrap();
                traced.step(&[row(position)], None).unwrap();
                assert!(bits(&plain) == bits(&traced), "{model} {path:?}");
            }
            let recording = traced.recorded().unwrap();
            assert_eq!(recording.lanes.len(), threads);
            sane(&recording);
            let done = |stages: &[Stage]| -> Vec<u32> {
                let spans = recording.lanes.iter().flatten().filter(|span| stages.contains(&span.stage));
                spans.filter_map(|span| span.op).collect::<BTreeSet<_>>().into_iter().collect()
            };
            let all: Vec<u32> = (0..traced.plan().program.len() as u32).collect();
            assert_eq!(done(&[Stage::Whole, Stage::Combine]), all, "{model} {path:?}");
            let experts = |(_, step): &(usize, &amoeba_plan::Step)| matches!(step.op, Op::Experts(_));
            let experts: Vec<u32> =
                traced.plan().program.iter().enumerate().filter(experts).map(|(i, _)| i as u32).collect();
            let fused = path == PathChoice::Auto;
            assert_eq!(done(&[Stage::Fused]), if fused { experts.clone() } else { vec![] });
            assert_eq!(done(&[Stage::GateUp]), if fused { vec![] } else { experts.clone() });
            assert_eq!(done(&[Stage::Down]), if fused { vec![] } else { experts });
        }
    }
}

#[test]
fn many_rows_and_shared_out_positions_are_recorded_too() {
    let mut cpu = cpu(MODELS[0], 2, PathChoice::Auto);
    cpu.record(1 << 16).unwrap();
    cpu.step(&(0..390).map(row).collect::<Vec<_>>(), None).unwrap();
    sane(&cpu.recorded().unwrap());
    cpu.step(&[row(390)], None).unwrap();
    let recording = cpu.recorded().unwrap();
    let joins = recording.lanes.iter().flatten().filter(|span| span.stage == Stage::Join);
    let op = |span: &amoeba_backend::Span| &cpu.plan().program[span.op.unwrap() as usize].op;
    assert!(joins.clone().count() > 0 && joins.into_iter().all(|span| matches!(op(span), Op::Attention(_))));
}

#[test]
fn a_full_list_is_an_error_that_says_how_much_is_needed() {
    let mut cpu = cpu(MODELS[1], 1, PathChoice::Auto);
    cpu.record(10).unwrap();
    cpu.step(&[row(0)], None).unwrap();
    let Err(Error::RecordingFull { reserved: 10, needed }) = cpu.recorded() else { panic!("cut") };
    cpu.record(needed).unwrap();
    cpu.step(&[row(0)], None).unwrap();
    assert_eq!(cpu.recorded().unwrap().lanes[0].len(), needed);
}

struct Nothing;

impl Probe for Nothing {
    fn wants(&self, _: usize) -> bool {
        false
    }
    fn see(&mut self, _: usize, _: &dyn Buffers) -> Flow {
        Flow::Continue
    }
}

#[test]
fn what_was_not_recorded_is_told() {
    let mut cpu = cpu(MODELS[1], 2, PathChoice::Auto);
    let none = |cpu: &mut Cpu| matches!(cpu.recorded(), Err(Error::NotRecorded));
    cpu.step(&[row(0)], None).unwrap();
    assert!(none(&mut cpu), "recording is off");
    cpu.record(4096).unwrap();
    assert!(none(&mut cpu), "nothing has run");
    cpu.step(&[row(0)], Some(&mut Nothing)).unwrap();
    assert!(none(&mut cpu), "the step was probed");
    cpu.step(&[row(0)], None).unwrap();
    assert!(!none(&mut cpu));
    cpu.step(&[Row { token: u32::MAX, ..row(1) }], None).unwrap_err();
    cpu.record(0).unwrap();
    assert!(none(&mut cpu), "recording is off again");
}
