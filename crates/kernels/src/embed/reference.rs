//! Reference of `embed`.

use amoeba_checkpoint::Error;
use amoeba_plan::EmbedOp;

use super::embed;
use crate::reference::Row;

/// Runs the op.
///
/// # Errors
/// The table is missing or misshapen.
pub fn run(op: &EmbedOp, row: &mut Row<'_>) -> Result<(), Error> {
    let mut out = vec![0.0; op.width];
    embed(&row.matrix(op.table)?, row.token, op.scale, &mut out);
    *row.buffer_mut(op.out) = out;
    Ok(())
}
