//! What ops say of their dataflow, held against the plans of all fixtures; and that no name decides anything.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;

use amoeba_plan::{BlockKind, BufferKind, Op, Part, parts};
use common::{plans, renamed};

#[test]
fn ops_stay_inside_their_buffers_and_use_weights_in_the_planned_shape() {
    let mut seen = BTreeSet::new();
    for (name, plan) in plans() {
        for (i, step) in plan.program.iter().enumerate() {
            let (io, at) = (step.op.io(), format!("{name}, op {i}: {}", step.op.name()));
            for region in io.reads.iter().chain(&io.writes) {
                assert!(region.end() <= plan.buffer(region.buffer).width, "{at}: {region:?}");
            }
            for weight in io.weights {
                assert_eq!(weight.shape, plan.weight(weight.id).shape, "{at}");
            }
            assert!(!io.writes.is_empty() || !io.written_caches.is_empty(), "{at} does nothing");
            seen.insert(step.op.name());
        }
    }
    assert_eq!(seen.len(), 18, "every op is in some fixture: {seen:?}");
}

#[test]
fn what_is_read_was_written_before_by_a_step_of_the_same_layer_or_lasts() {
    for (name, plan) in plans() {
        let mut written = Vec::new();
        for (i, step) in plan.program.iter().enumerate() {
            let io = step.op.io();
            for read in &io.reads {
                let known = read.ranges().all(|range| {
                    let mut left: BTreeSet<usize> = range.collect();
                    for region in
                        written.iter().filter(|region: &&amoeba_plan::Region| region.buffer == read.buffer)
                    {
                        region.ranges().flatten().for_each(|element| {
                            left.remove(&element);
                        });
                    }
                    left.is_empty()
                });
                assert!(known, "{name}, op {i} ({}) reads {read:?}", step.op.name());
            }
            for write in io.writes {
                if !written.contains(&write) {
                    written.push(write);
                }
            }
        }
    }
}

#[test]
fn blocks_cover_the_layers_and_join_the_residual_stream() {
    for (name, plan) in plans() {
        for block in &plan.blocks {
            let join = plan.program[block.joins].op.io();
            assert!(join.writes_to(plan.residual), "{name}: {block:?}");
            assert!(block.steps.end <= block.joins, "{name}: {block:?}");
            let within = &plan.program[block.steps.clone()];
            assert!(within.iter().all(|step| step.layer == Some(block.layer)), "{name}: {block:?}");
            assert!(within.iter().all(|step| !step.op.io().writes_to(plan.residual)), "{name}: {block:?}");
            assert!(within.iter().any(|step| step.op.io().writes_to(block.output)), "{name}: {block:?}");
            if let BlockKind::Experts(routed) = &block.kind {
                let (Op::Router(router), Op::Experts(experts)) =
                    (&plan.program[routed.router].op, &plan.program[routed.experts].op)
                else {
                    panic!("{name}: {routed:?}");
                };
                assert_eq!(router.out, experts.route, "{name}");
                assert_eq!(plan.buffer(router.out).kind, BufferKind::Route, "{name}");
                assert!(plan.program[routed.scores].op.io().writes_to(router.logits), "{name}");
                assert_eq!(plan.program[routed.scores].part, Part::Router, "{name}");
            }
        }
        let experts = plan.program.iter().filter(|step| matches!(step.op, Op::Experts(_))).count();
        let routed = plan.blocks.iter().filter(|block| matches!(block.kind, BlockKind::Experts(_))).count();
        assert_eq!(experts, routed, "{name}");
        assert_eq!(plan.carried(), [plan.residual], "{name}");
        let last = plan.program.last().unwrap().op.io();
        assert!(last.writes_to(plan.logits), "{name}");
    }
}

#[test]
fn names_of_buffers_are_only_shown() {
    for (name, plan) in plans() {
        let renamed = renamed(&plan);
        assert_eq!(parts(&renamed), parts(&plan), "{name}");
        assert_eq!(renamed.carried(), plan.carried(), "{name}");
        assert!(
            renamed.to_string().contains("b0 <- ") && !renamed.to_string().contains("residual"),
            "{name}"
        );
    }
}
