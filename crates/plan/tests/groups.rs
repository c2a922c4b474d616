//! Groups over the plans of all fixtures: every op is in one, what waits for what, what is left unwritten.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use amoeba_plan::{Capabilities, Group, GroupKind, Io, PathChoice, PathKind, Plan, Sharing, Stage, groups};
use common::{plans, renamed};

/// As a GPU that fuses.
const LAUNCHES: Capabilities = Capabilities {
    sharing: Sharing::Launches,
    experts_few: &[Stage::FusedUp, Stage::FusedDown],
    choice_max: 512,
    one_row_dim_max: 256,
    ..Capabilities::ALONE
};
const WORKERS: Capabilities = Capabilities { sharing: Sharing::Workers, ..Capabilities::ALONE };

/// Groups of every fixture for every kind of sharing and few or many rows.
fn all() -> impl Iterator<Item = (String, Plan, Vec<Group>)> {
    plans().into_iter().flat_map(|(name, plan)| {
        let settings = [Capabilities::ALONE, WORKERS, LAUNCHES]
            .into_iter()
            .flat_map(|can| [1, 2, 64].map(|rows| (can, rows)));
        let of = move |(can, rows): (Capabilities, usize)| {
            let found = groups(&plan, &can, rows, PathChoice::Auto);
            (format!("{name}, {:?}, {rows} rows", can.sharing), plan.clone(), found)
        };
        settings.map(of).collect::<Vec<_>>()
    })
}

#[test]
fn every_op_is_in_one_group_and_none_reaches_into_the_head() {
    for (at, plan, groups) in all() {
        let mut next = 0;
        for group in &groups {
            assert_eq!(group.ops.start, next, "{at}");
            assert!(
                group.ops.end > next && !(next + 1..group.ops.end).contains(&plan.head),
                "{at}: {group:?}"
            );
            let stages = &group.stages;
            assert_eq!(stages.first().unwrap().ops.start, group.ops.start, "{at}: {group:?}");
            assert_eq!(stages.last().unwrap().ops.end, group.ops.end, "{at}: {group:?}");
            next = group.ops.end;
        }
        assert_eq!(next, plan.program.len(), "{at}");
    }
}

#[test]
fn a_group_waits_for_all_that_it_depends_on_and_for_nothing_twice() {
    for (at, plan, groups) in all().filter(|(at, ..)| !at.contains("64 rows")) {
        let io = |group: &Group| -> Vec<Io> {
            plan.program[group.ops.clone()].iter().map(|step| step.op.io()).collect()
        };
        let io: Vec<Vec<Io>> = groups.iter().map(io).collect();
        let precedes = |a: usize, b: usize| io[a].iter().any(|a| io[b].iter().any(|b| a.precedes(b)));
        let mut done: Vec<Vec<bool>> = Vec::new();
        for (n, group) in groups.iter().enumerate() {
            let mut before = vec![false; n];
            for &earlier in &group.after {
                assert!(precedes(earlier, n), "{at}: {n} need not wait for {earlier}");
                before[earlier] = true;
                before.iter_mut().zip(&done[earlier]).for_each(|(before, done)| *before |= done);
            }
            for &earlier in &group.after {
                let others = group.after.iter().filter(|&&other| other != earlier);
                assert!(
                    !others.into_iter().any(|&other| other > earlier && done[other][earlier]),
                    "{at}: {n}"
                );
            }
            let hidden = |earlier: usize| !groups[earlier].unwritten.is_empty();
            assert!((0..n).all(|e| before[e] || hidden(e) || !precedes(e, n)), "{at}: {n} {group:?}");
            done.push(before);
        }
    }
}

#[test]
fn nothing_reads_what_a_group_leaves_unwritten() {
    let mut found = 0;
    for (at, plan, groups) in all() {
        for group in groups.iter().filter(|group| !group.unwritten.is_empty()) {
            found += 1;
            let mut stale = group.unwritten.clone();
            for step in &plan.program[group.ops.end..] {
                let io = step.op.io();
                // A buffer is written from its start before it is read again.
                assert!(
                    !io.reads.iter().any(|read| stale.contains(&read.buffer)),
                    "{at}: {}",
                    step.op.name()
                );
                stale.retain(|buffer| !io.writes_to(*buffer));
            }
        }
    }
    assert!(found > 0);
}

#[test]
fn a_layer_of_qwen3_is_five_groups_for_one_row() {
    let (_, plan) = plans().into_iter().find(|(name, _)| name == "qwen3_moe-q4g64").unwrap();
    let layer = |rows, path| -> Vec<GroupKind> {
        let found = groups(&plan, &LAUNCHES, rows, path);
        let of_layer = |group: &Group| plan.program[group.ops.start].layer == Some(1);
        found.into_iter().filter(of_layer).map(|group| group.kind).collect()
    };
    let one = layer(1, PathChoice::Auto);
    let products = |norm, add| GroupKind::Products { norm, add };
    assert_eq!(one[0], products(true, false));
    assert!(matches!(&one[1], GroupKind::Heads { heads, attention: true } if heads.len() == 3));
    assert_eq!(one[2..4], [products(false, true), products(true, false)]);
    let experts = |router, path| GroupKind::Experts { router, add: true, path };
    assert_eq!(one[4..], [experts(true, PathKind::Fused)]);
    assert!(matches!(layer(2, PathChoice::Auto)[1], GroupKind::Heads { attention: false, .. }));
    // More rows than are few, or fusing not wanted: the router runs by itself.
    for (rows, path) in [(9, PathChoice::Auto), (1, PathChoice::Unfused)] {
        assert_eq!(layer(rows, path).last(), Some(&experts(false, PathKind::Unfused)));
    }
}

#[test]
fn names_of_buffers_do_not_matter() {
    for (name, plan) in plans() {
        let other = renamed(&plan);
        for can in [WORKERS, LAUNCHES] {
            let of = |plan| groups(plan, &can, 1, PathChoice::Auto);
            assert_eq!(of(&plan), of(&other), "{name}");
        }
    }
}
