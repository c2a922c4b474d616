//! The dispatch guard: which way a step takes through the experts, and why.

use std::fmt;

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathChoice {
    /// Fused where it applies.
    #[default]
    Auto,
    /// Fused wherever the rows fit; the path says so where they do not.
    Fused,
    /// Never fused.
    Unfused,
}

/// The way taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// One parallel pass: gather, dequantise, gate/up, activation, down, weighted sum.
    Fused,
    /// "SwitchGLU": rows grouped by expert, three quantised products, activation, weighted sum.
    Unfused,
}

/// Why a path was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Rows fit the fused kernel.
    RowsFit {
        /// Rows of the step.
        rows: usize,
        /// The kernel's limit.
        rows_max: usize,
    },
    /// More rows than the fused kernel takes.
    TooManyRows {
        /// Rows of the step.
        rows: usize,
        /// The kernel's limit.
        rows_max: usize,
    },
    /// The model has no routed experts.
    NoExperts,
    /// The user asked for it.
    Asked,
}

/// A decision of [`select_path`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The way taken.
    pub kind: PathKind,
    /// Why.
    pub reason: Reason,
}

/// Decides the path of one step. Pure: the same arguments give the same answer, and reports print it.
/// `rows_max` is the fused kernel's row limit on the device; a forced choice wins.
pub fn select_path(has_experts: bool, rows: usize, rows_max: usize, choice: PathChoice) -> Path {
    let (kind, reason) = match choice {
        _ if !has_experts => (PathKind::Unfused, Reason::NoExperts),
        PathChoice::Unfused => (PathKind::Unfused, Reason::Asked),
        _ if rows > rows_max => (PathKind::Unfused, Reason::TooManyRows { rows, rows_max }),
        PathChoice::Fused => (PathKind::Fused, Reason::Asked),
        PathChoice::Auto => (PathKind::Fused, Reason::RowsFit { rows, rows_max }),
    };
    Path { kind, reason }
}

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PathKind::Fused => "fused",
            PathKind::Unfused => "unfused",
        })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", self.kind)?;
        match self.reason {
            Reason::RowsFit { rows, rows_max } => write!(f, "{rows} of at most {rows_max} rows")?,
            Reason::TooManyRows { rows, rows_max } => write!(f, "{rows} rows, fused takes {rows_max}")?,
            Reason::NoExperts => f.write_str("no experts")?,
            Reason::Asked => f.write_str("asked for")?,
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guard_says_why() {
        assert_eq!(select_path(true, 1, 8, PathChoice::Auto).to_string(), "fused (1 of at most 8 rows)");
        assert_eq!(select_path(true, 9, 8, PathChoice::Auto).to_string(), "unfused (9 rows, fused takes 8)");
        assert_eq!(select_path(true, 9, 8, PathChoice::Fused).kind, PathKind::Unfused);
        assert_eq!(select_path(true, 1, 8, PathChoice::Unfused).to_string(), "unfused (asked for)");
        assert_eq!(select_path(false, 1, 8, PathChoice::Auto).to_string(), "unfused (no experts)");
    }
}
