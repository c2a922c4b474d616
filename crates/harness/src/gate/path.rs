//! Proof of path: that what was asked for is what the guard chose, and that what it chose is what ran.

use amoeba_backend::{Error as BackendError, Executable, Recording, Stage};
use amoeba_plan::PathKind;

use super::check::Check;
use super::lab::{Lab, rows};
use crate::Error;

const GUARD: &str = "path: guard";
const RAN: &str = "path: what ran";
/// Spans reserved per worker; a step that needs more says how many.
const SPANS: usize = 1 << 12;

/// What the guard says and what the workers did, for one row and for the most rows.
pub fn check(lab: &Lab<'_>) -> Result<Vec<Check>, Error> {
    if !lab.has_experts() {
        let why = "the model has no routed experts: nothing to fuse";
        return Ok([GUARD, RAN].map(|name| Check::skipped(name, why)).into());
    }
    let (candidate, unfused) = (lab.candidate(|_| {})?, lab.unfused()?);
    let said = [candidate.path(1), candidate.path(lab.chunk), unfused.path(1)];
    let expected = [PathKind::Fused, PathKind::Fused, PathKind::Unfused];
    let wrong = said.iter().zip(expected).filter(|(said, expected)| said.kind != *expected).count();
    let detail = format!("1 row: {}; {} rows: {}; the other side: {}", said[0], lab.chunk, said[1], said[2]);
    let ran = what_ran(lab, [(candidate, PathKind::Fused), (unfused, PathKind::Unfused)])?;
    Ok(vec![Check::none_wrong(GUARD, wrong, detail), ran])
}

/// Layers whose experts ran another way than they should, as the workers recorded it.
fn what_ran(lab: &Lab<'_>, sides: [(Box<dyn Executable>, PathKind); 2]) -> Result<Check, Error> {
    let mut wrong = Vec::new();
    for (mut executable, expected) in sides {
        for n in [1, lab.chunk] {
            let recording = match recording(lab, &mut *executable, n)? {
                Ok(recording) => recording,
                Err(why) => return Ok(Check::skipped(RAN, why)),
            };
            let layers = lab.expert_ops().filter(|&op| !ran(&recording, op, expected));
            wrong.extend(layers.map(|op| {
                let layer = lab.plan.program[op].layer.unwrap_or(0);
                format!("layer {layer} did not run {expected} ({n} rows): {}", stages(&recording, op))
            }));
        }
    }
    let layers = lab.expert_ops().count();
    let detail = match wrong.first() {
        Some(first) => first.clone(),
        None => format!("{layers} layers, 1 and {} rows, both sides: each ran as asked", lab.chunk),
    };
    Ok(Check::none_wrong(RAN, wrong.len(), detail))
}

/// What a step of `n` rows did, or why the device cannot tell.
fn recording(
    lab: &Lab<'_>,
    executable: &mut dyn Executable,
    n: usize,
) -> Result<Result<Recording, String>, Error> {
    let rows = rows(&lab.random(n, 7), 0, 0);
    let mut room = SPANS;
    loop {
        match executable.record(room) {
            Err(error @ BackendError::CannotRecord(_)) => return Ok(Err(error.to_string())),
            other => other?,
        }
        executable.step(&rows, None)?;
        match executable.recorded() {
            Err(BackendError::RecordingFull { needed, .. }) if needed > room => room = needed,
            other => {
                let recording = other?;
                executable.record(0)?;
                return Ok(Ok(recording));
            }
        }
    }
}

/// Stages of one op that any worker was at.
fn stages_of(recording: &Recording, op: usize) -> Vec<Stage> {
    let spans = recording.lanes.iter().flatten().filter(|span| span.op == Some(op as u32));
    let mut stages: Vec<Stage> = spans.map(|span| span.stage).collect();
    stages.sort_unstable();
    stages.dedup();
    stages
}

fn ran(recording: &Recording, op: usize, expected: PathKind) -> bool {
    let stages = stages_of(recording, op);
    let fused = [Stage::Fused, Stage::FusedUp, Stage::FusedDown].iter().any(|stage| stages.contains(stage));
    let unfused = [Stage::GateUp, Stage::Inner, Stage::Down].iter().any(|stage| stages.contains(stage));
    match expected {
        PathKind::Fused => fused && !unfused,
        PathKind::Unfused => unfused && !fused,
    }
}

fn stages(recording: &Recording, op: usize) -> String {
    let names: Vec<&str> = stages_of(recording, op).iter().map(|stage| stage.name()).collect();
    if names.is_empty() { "nothing ran".to_owned() } else { names.join(", ") }
}
