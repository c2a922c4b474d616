//! How a matrix is packed: derived from the tensors' shapes, then compared with what the configuration says.

use crate::{Choice, DType, Error, Format, Mode, Packing, Quantisation, TensorIndex, TensorInfo};

/// Largest experts, rows or columns of a matrix.
const MAX_SIDE: usize = 1 << 31;
/// Most experts of a layer.
const MAX_EXPERTS: usize = 1 << 16;

/// The tensors of one matrix (or of one stack) and their format.
pub(crate) struct Layout<'a> {
    pub(crate) format: Format,
    pub(crate) weight: TensorInfo<'a>,
    pub(crate) scales: Option<TensorInfo<'a>>,
    pub(crate) biases: Option<TensorInfo<'a>>,
}

/// What the model's configuration makes of a matrix.
#[derive(Clone, Copy)]
pub(crate) struct Expected {
    /// Leading dimension of a stack.
    pub(crate) experts: Option<usize>,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

impl Expected {
    /// Refuses sizes no model has, so that products below and vectors of experts stay small.
    pub(crate) fn check(self, path: &str) -> Result<(), Error> {
        let sides = [(self.rows, MAX_SIDE), (self.cols, MAX_SIDE), (self.experts.unwrap_or(1), MAX_EXPERTS)];
        match sides.iter().find(|(side, most)| !(1..=*most).contains(side)) {
            None => Ok(()),
            Some((side, most)) => {
                let what = format!("is expected to have a side of {side}, the range is 1 to {most}");
                Err(Error::config(format!("matrix `{path}`"), what))
            }
        }
    }

    fn shape(self, last: usize) -> Vec<usize> {
        self.experts.into_iter().chain([self.rows, last]).collect()
    }
}

impl TensorIndex {
    /// The format of the matrix at `path` (without `.weight`), or of a stack of `experts` of them.
    ///
    /// # Errors
    /// As [`Checkpoint::matrix`](crate::Checkpoint::matrix).
    pub fn format(
        &self,
        quant: &Quantisation,
        path: &str,
        experts: Option<usize>,
        rows: usize,
        cols: usize,
    ) -> Result<Format, Error> {
        Ok(self
            .layout(quant.default_packing(), quant.choice(path), path, Expected { experts, rows, cols })?
            .format)
    }

    /// Finds and checks the tensors of a matrix.
    pub(crate) fn layout(
        &self,
        default: Option<Packing>,
        choice: Option<Choice>,
        path: &str,
        expected: Expected,
    ) -> Result<Layout<'_>, Error> {
        expected.check(path)?;
        let weight = self.require(&format!("{path}.weight"))?;
        let scales = self.get(&format!("{path}.scales"));
        let biases = self.get(&format!("{path}.biases"));
        let format = match &scales {
            // No scales: not quantised, whatever the configuration says.
            None => self.dense(&weight, biases.as_ref(), expected)?,
            Some(scales) => {
                let derived = self.packed(&weight, scales, biases.as_ref(), expected)?;
                self.agree(derived, default, choice, &weight, scales, expected.cols)?;
                self.to_format(derived, scales)?
            }
        };
        Ok(Layout { format, weight, scales, biases })
    }

    fn dense(
        &self,
        weight: &TensorInfo<'_>,
        biases: Option<&TensorInfo<'_>>,
        expected: Expected,
    ) -> Result<Format, Error> {
        if let Some(biases) = biases {
            return Err(Error::corrupt(self.place(biases), "stands without the scales it belongs to"));
        }
        let Some(float) = weight.dtype.float() else {
            let what = format!("is {} and has no scales, expected F32, F16 or BF16", weight.dtype);
            return Err(Error::corrupt(self.place(weight), what));
        };
        self.expect_shape(weight, &expected.shape(expected.cols))?;
        Ok(Format::Dense(float))
    }

    /// The packing the shapes stand for, given the columns the model expects.
    fn packed(
        &self,
        weight: &TensorInfo<'_>,
        scales: &TensorInfo<'_>,
        biases: Option<&TensorInfo<'_>>,
        expected: Expected,
    ) -> Result<Packing, Error> {
        if weight.dtype != DType::U32 {
            let what = format!("is {} although it has scales, expected packed U32", weight.dtype);
            return Err(Error::corrupt(self.place(weight), what));
        }
        let (words, groups) = (last(weight), last(scales));
        self.expect_shape(weight, &expected.shape(words))?;
        self.expect_shape(scales, &expected.shape(groups))?;
        match (scales.dtype, biases) {
            (DType::U8, Some(biases)) => {
                return Err(Error::corrupt(self.place(biases), "belongs to U8 scales, which have no biases"));
            }
            (DType::U8, None) => {}
            (dtype, _) if dtype.float().is_none() => {
                let what = format!("is {dtype}, expected BF16, F16 or F32 (affine) or U8 (mx and nv modes)");
                return Err(Error::corrupt(self.place(scales), what));
            }
            (_, None) => {
                return Err(Error::corrupt(self.place(scales), "is of a float type but has no biases"));
            }
            (dtype, Some(biases)) if biases.dtype != dtype => {
                let what = format!("is {}, expected {dtype} like its scales", biases.dtype);
                return Err(Error::corrupt(self.place(biases), what));
            }
            (_, Some(biases)) => self.expect_shape(biases, scales.shape)?,
        }
        let cols = expected.cols;
        let bits = divide(words.saturating_mul(32), cols).filter(|bits| (1..=8).contains(bits));
        let group = divide(cols, groups).filter(|group| (1..=cols).contains(group));
        let (Some(bits), Some(group)) = (bits, group.and_then(|g| u16::try_from(g).ok())) else {
            let what = format!("{words} words and {groups} scales a row fit no packing of {cols} columns");
            return Err(Error::corrupt(self.place(weight), what));
        };
        let mode = match (scales.dtype, bits, group) {
            (DType::U8, _, 16) => Mode::Nvfp4,
            (DType::U8, 8, _) => Mode::Mxfp8,
            (DType::U8, _, _) => Mode::Mxfp4,
            _ => Mode::Affine,
        };
        Ok(Packing { mode, bits: bits as u8, group })
    }

    /// Compares the derived packing with the configuration.
    fn agree(
        &self,
        derived: Packing,
        default: Option<Packing>,
        choice: Option<Choice>,
        weight: &TensorInfo<'_>,
        scales: &TensorInfo<'_>,
        cols: usize,
    ) -> Result<(), Error> {
        let differs = |says: String| {
            let (words, groups) = (last(weight), last(scales));
            let what = format!(
                "shapes {:?} and {:?} make {derived} of {cols} columns ({words} words, {groups} scales a \
                 row), but {says}",
                weight.shape, scales.shape
            );
            Err(Error::corrupt(self.place(weight), what))
        };
        let stated = match choice {
            Some(Choice::Off) => return differs("config.json says it is not quantised".to_owned()),
            Some(Choice::As(packing)) => Some(packing),
            Some(Choice::Default) => default,
            None => None,
        };
        if let Some(stated) = stated.filter(|stated| *stated != derived) {
            return differs(format!("config.json says {stated} for it"));
        }
        // Halving the columns doubles the bits: shapes alone cannot tell 4-bit group 64 from 8-bit group 32
        // of half the width. Where the default explains both shapes, it decides, and the width is what is
        // wrong.
        if let (None, Some(packing)) = (choice, default.filter(|d| *d != derived && d.mode == derived.mode)) {
            let width = last(scales).saturating_mul(usize::from(packing.group));
            if width.saturating_mul(usize::from(packing.bits)) == last(weight).saturating_mul(32) {
                return differs(format!("config.json's default, {packing}, makes {width} columns of them"));
            }
        }
        Ok(())
    }

    fn to_format(&self, packing: Packing, scales: &TensorInfo<'_>) -> Result<Format, Error> {
        if let Some((key, wanted)) = packing.problem() {
            let what = format!("makes the matrix {packing}; {key} must be {wanted}; convert the model again");
            return Err(Error::unsupported(self.place(scales), what));
        }
        match (packing.mode, scales.dtype.float()) {
            (Mode::Affine, Some(scale)) => {
                Ok(Format::Affine { bits: packing.bits, group: packing.group, scale })
            }
            (Mode::Mxfp4, _) => Ok(Format::Mxfp4),
            (Mode::Mxfp8, _) => Ok(Format::Mxfp8),
            (Mode::Nvfp4, _) => Ok(Format::Nvfp4),
            (Mode::Affine, None) => Err(Error::corrupt(self.place(scales), "is not of a float type")),
        }
    }

    fn expect_shape(&self, tensor: &TensorInfo<'_>, wanted: &[usize]) -> Result<(), Error> {
        if tensor.shape == wanted {
            return Ok(());
        }
        let what = format!("has shape {:?}, expected {wanted:?} from config.json", tensor.shape);
        Err(Error::corrupt(self.place(tensor), what))
    }
}

fn last(tensor: &TensorInfo<'_>) -> usize {
    tensor.shape.last().copied().unwrap_or(0)
}

/// The quotient where there is one without remainder.
fn divide(a: usize, b: usize) -> Option<usize> {
    a.checked_div(b).filter(|_| a.is_multiple_of(b))
}
