//! The rows of a step: checked, sorted by whether logits are wanted, and seen to their end alike on every
//! backend.

use amoeba_plan::{Op, Path, PathChoice, Plan, select_path};

use crate::sequences::Sequences;
use crate::{Drawn, Error, Limits, Row};

/// The rows of the current or last step of a loaded plan, and the sequences they continue.
pub struct StepRows {
    limits: Limits,
    vocab: usize,
    has_experts: bool,
    choice: PathChoice,
    fused_rows_max: usize,
    rows: Vec<Row>,
    wanted: Vec<usize>,
    sequences: Sequences,
}

impl StepRows {
    /// Room for the steps of a plan on a backend that runs up to `fused_rows_max` rows fused, where `choice`
    /// leaves that open.
    pub fn new(plan: &Plan, limits: Limits, choice: PathChoice, fused_rows_max: usize) -> StepRows {
        StepRows {
            limits,
            vocab: plan.spec.vocab,
            has_experts: plan.program.iter().any(|step| matches!(step.op, Op::Experts(_))),
            choice,
            fused_rows_max,
            rows: Vec::with_capacity(limits.rows),
            wanted: Vec::with_capacity(limits.rows),
            sequences: Sequences::new(plan, limits),
        }
    }

    /// Sizes fixed at load.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The path that a step of `rows` rows takes through the experts.
    pub fn path(&self, rows: usize) -> Path {
        select_path(self.has_experts, rows, self.fused_rows_max, self.choice)
    }

    /// Begins a step. Until it is [finished](StepRows::finish), the states of its sequences are undefined.
    ///
    /// # Errors
    /// The first row that breaks the limits or does not continue its sequence; nothing has changed then.
    pub fn begin(&mut self, rows: &[Row]) -> Result<(), Error> {
        check_rows(rows, self.limits, self.vocab)?;
        self.sequences.begin(rows)?;
        self.rows.clear();
        self.rows.extend_from_slice(rows);
        self.wanted.clear();
        self.wanted.extend(rows.iter().enumerate().filter(|(_, row)| row.logits).map(|(i, _)| i));
        Ok(())
    }

    /// The rows.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Indices of the rows that want logits, in order.
    pub fn wanted(&self) -> &[usize] {
        &self.wanted
    }

    /// Most rows of a step that tokens can be drawn for: one of each sequence.
    pub fn draws_max(&self) -> usize {
        self.limits.slots.min(self.limits.rows)
    }

    /// Begins the step after the last one: its rows that wanted logits, each a position on.
    ///
    /// # Errors
    /// A sequence has no room in the context, or cannot go on before its last step is finished.
    pub fn advance(&mut self) -> Result<(), Error> {
        let (limits, context) = (self.limits, self.limits.context);
        if let Some(row) = self.rows.iter().find(|row| row.logits && row.position + 1 >= context) {
            return Err(Error::OutOfContext { position: row.position + 1, slot: row.slot, limits });
        }
        self.rows.retain(|row| row.logits);
        self.wanted.clear();
        self.wanted.extend(0..self.rows.len());
        self.rows.iter_mut().for_each(|row| row.position += 1);
        let begun = self.sequences.begin(&self.rows);
        if begun.is_err() {
            self.rows.iter_mut().for_each(|row| row.position -= 1);
        }
        begun
    }

    /// Ends a step that ran; `logits(n)` are those of the n-th row that wanted them, `[vocab]`. Sequences
    /// whose logits are finite go on from here, whatever happened to others.
    ///
    /// # Errors
    /// The first row whose logits are not finite.
    pub fn finish<'a>(&mut self, logits: impl Fn(usize) -> &'a [f32]) -> Result<(), Error> {
        self.sequences.complete(&self.rows);
        let mut first = Ok(());
        for (n, &row) in self.wanted.iter().enumerate() {
            if let Err(error) = check_finite(logits(n), row) {
                self.sequences.lose(self.rows[row].slot);
                first = first.and(Err(error));
            }
        }
        first
    }

    /// Ends a step whose logits were drawn from on the device: `drawn` for each row that wanted them.
    pub fn finish_drawn(&mut self, drawn: &[Drawn]) {
        self.sequences.complete(&self.rows);
        for (&row, drawn) in self.wanted.iter().zip(drawn) {
            if drawn.not_finite.is_some() {
                self.sequences.lose(self.rows[row].slot);
            }
        }
    }
}

/// Checks rows against limits and vocabulary.
///
/// # Errors
/// What the first bad row breaks.
pub(crate) fn check_rows(rows: &[Row], limits: Limits, vocab: usize) -> Result<(), Error> {
    if rows.is_empty() || rows.len() > limits.rows {
        return Err(Error::TooManyRows { found: rows.len(), limit: limits.rows });
    }
    for row in rows {
        if row.slot >= limits.slots || row.position >= limits.context {
            return Err(Error::OutOfContext { position: row.position, slot: row.slot, limits });
        }
        if row.token as usize >= vocab {
            return Err(Error::UnknownToken { token: row.token, vocab });
        }
    }
    Ok(())
}

/// Checks the logits of a row of the step for NaN and infinity.
///
/// # Errors
/// The first of them.
pub fn check_finite(logits: &[f32], row: usize) -> Result<(), Error> {
    match logits.iter().position(|x| !x.is_finite()) {
        Some(token) => Err(Error::NotFinite { row, token, value: logits[token] }),
        None => Ok(()),
    }
}
