//! The opened model folder and the typed views it hands out.

use crate::error::shown;
use crate::header;
use crate::layout::{Expected, Layout};
use crate::shard::Shard;
use crate::weights::{self, Weights};
use crate::{Choice, Config, DType, Error, Float, Format, Matrix, Quantisation, TensorIndex, TensorInfo};
use crate::{folder, values};
use half::{bf16, f16};
use std::path::{Path, PathBuf};

/// A stored tensor as it is.
#[derive(Clone, Debug)]
pub struct Tensor<'a> {
    /// Full name.
    pub name: &'a str,
    /// Element type.
    pub dtype: DType,
    /// Sizes, outermost first.
    pub shape: &'a [usize],
    /// Little-endian elements, of any alignment; exactly as many as the shape says.
    pub bytes: &'a [u8],
}

/// An opened, mapped and validated model folder. Cheap to share between threads.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    config: Config,
    quantisation: Quantisation,
    shards: Vec<Shard>,
    index: TensorIndex,
    notes: Vec<String>,
}

impl Checkpoint {
    /// Opens a folder with `config.json` and `model*.safetensors`: maps every file, checks every header, and
    /// compares them with the index if there is one; where they differ, the files are believed
    /// ([`Checkpoint::notes`]). No weight is read. A folder with `model.seeded.json` has its weights made in
    /// memory instead.
    ///
    /// `auto_map` in the configuration is ignored: there is no code path that runs anything. `model_file`,
    /// which other loaders would run, is refused, since the model is not what its `model_type` says.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a missing folder or file; otherwise what is wrong with the first bad file.
    pub fn open(dir: &Path) -> Result<Checkpoint, Error> {
        let meta = std::fs::metadata(dir).map_err(|e| Error::reading(dir, "a model folder", e))?;
        if !meta.is_dir() {
            let at = shown(&dir.to_string_lossy());
            return Err(Error::NotFound {
                at,
                what: "is not a folder; give the folder of a model".to_owned(),
            });
        }
        let config = Config::read(dir, "config.json")?.ok_or_else(|| Error::NotFound {
            at: shown(&dir.join("config.json").to_string_lossy()),
            what: "does not exist; give the folder of an MLX model".to_owned(),
        })?;
        if config.has("model_file") {
            let what =
                "asks for code from the model folder to be run, which is never done; use another model";
            return Err(Error::unsupported(config.place("model_file"), what));
        }
        let quantisation = Quantisation::parse(&config)?;
        let Weights { shards, index, notes } = weights::open(dir)?;
        Ok(Checkpoint { dir: dir.to_owned(), config, quantisation, shards, index, notes })
    }

    /// Opens one safetensors file by itself, without a configuration: expected results, recorded activations.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] for the weight file.
    pub fn open_file(dir: &Path, file: &str) -> Result<Checkpoint, Error> {
        folder::check_name(&shown(&dir.to_string_lossy()), file)?;
        let config = Config::parse(file, "{}")?;
        let quantisation = Quantisation::parse(&config)?;
        let shard = Shard::map(dir, file)?;
        let index = TensorIndex::new(vec![file.to_owned()], header::parse(file, shard.bytes(), 0)?)?;
        let (dir, shards, notes) = (dir.to_owned(), vec![shard], Vec::new());
        Ok(Checkpoint { dir, config, quantisation, shards, index, notes })
    }

    /// The folder as given.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The parsed `config.json`.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The parsed `quantization` object.
    pub fn quantisation(&self) -> &Quantisation {
        &self.quantisation
    }

    /// What a person may want to know about the folder: an index that does not fit, files that are not read.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Names, types and shapes of all tensors.
    pub fn index(&self) -> &TensorIndex {
        &self.index
    }

    /// Tensor names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.index.names()
    }

    /// True when there is a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.index.has(name)
    }

    /// Bytes of all tensors.
    pub fn total_bytes(&self) -> u64 {
        self.index.iter().map(|t| t.range.len() as u64).sum()
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is not there.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>, Error> {
        let info = self.index.require(name)?;
        Ok(Tensor { bytes: self.bytes(&info), name: info.name, dtype: info.dtype, shape: info.shape })
    }

    /// The matrix `path.weight` with `.scales` and `.biases` where quantised; `rows` and `cols` are what the
    /// model's configuration makes of it. The format follows from the shapes and is compared with the
    /// override for `path`, if there is one.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a tensor is missing, of the wrong type or shape, or contradicts an override;
    /// [`Error::Unsupported`] for a packing such as 1 bit; [`Error::Config`] for sizes no model has.
    pub fn matrix(&self, path: &str, rows: usize, cols: usize) -> Result<Matrix<'_>, Error> {
        let choice = self.quantisation.choice(path);
        let expected = Expected { experts: None, rows, cols };
        let layout = self.index.layout(self.quantisation.default_packing(), choice, path, expected)?;
        Ok(self.views(&layout, rows, cols))
    }

    /// The matrices of `experts` experts, each `rows × cols` and all of one format: stacked at `path`, or
    /// where that is absent one by one at `each`, in which `{}` stands for the expert's number.
    ///
    /// # Errors
    /// As [`Checkpoint::matrix`], and [`Error::Corrupt`] when two experts differ in format.
    pub fn stack(
        &self,
        path: &str,
        each: Option<&str>,
        experts: usize,
        rows: usize,
        cols: usize,
    ) -> Result<Vec<Matrix<'_>>, Error> {
        Expected { experts: Some(experts), rows, cols }.check(path)?;
        let default = self.quantisation.default_packing();
        let choice = self.quantisation.choice(path);
        if let (Some(each), false) = (each, self.has(&format!("{path}.weight"))) {
            return self.unstacked(each, choice, experts, rows, cols);
        }
        let layout =
            self.index.layout(default, choice, path, Expected { experts: Some(experts), rows, cols })?;
        // The shapes are `[experts, rows, …]`, so the stack is one tall matrix and an expert is a part of it.
        let all = self.views(&layout, experts * rows, cols);
        Ok((0..experts).map(|expert| all.rows(expert * rows, rows)).collect())
    }

    fn unstacked(
        &self,
        each: &str,
        stack: Option<Choice>,
        experts: usize,
        rows: usize,
        cols: usize,
    ) -> Result<Vec<Matrix<'_>>, Error> {
        let mut found: Vec<Matrix<'_>> = Vec::new();
        for expert in 0..experts {
            let path = each.replacen("{}", &expert.to_string(), 1);
            let choice = self.quantisation.choice(&path).or(stack);
            let expected = Expected { experts: None, rows, cols };
            let layout = self.index.layout(self.quantisation.default_packing(), choice, &path, expected)?;
            if let Some(first) = found.first().filter(|first| first.format != layout.format) {
                let what = format!(
                    "is {:?}, but expert 0 is {:?}; expected one format",
                    layout.format, first.format
                );
                return Err(Error::corrupt(self.index.place(&layout.weight), what));
            }
            found.push(self.views(&layout, rows, cols));
        }
        Ok(found)
    }

    /// A float tensor of `len` elements in any shape, widened to f32.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is missing, of another size, or not of a float type.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        let info = self.index.require(name)?;
        let count: usize = info.shape.iter().product(); // checked when the header was read
        let Some(float) = info.dtype.float().filter(|_| count == len) else {
            let what =
                format!("is {} {:?}, expected {len} elements of F32, F16 or BF16", info.dtype, info.shape);
            return Err(Error::corrupt(self.index.place(&info), what));
        };
        let bytes = self.bytes(&info);
        let pairs = bytes.as_chunks::<2>().0.iter();
        Ok(match float {
            Float::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Float::F16 => pairs.map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            Float::BF16 => pairs.map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        })
    }

    /// Reads every scale, bias and float tensor and reports the first number that is not finite, or that
    /// would not be once dequantised. Zeros and subnormals are fine. Reads packed codes not at all.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with file, tensor, position and value.
    pub fn check_values(&self) -> Result<(), Error> {
        self.index.iter().try_for_each(|info| values::check(&self.index, &info, self.bytes(&info)))
    }

    /// Compares the weight files with what they were when opened. Call it after copying weights, to tell a
    /// file that was rewritten meanwhile.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when one changed.
    pub fn check_unchanged(&self) -> Result<(), Error> {
        self.shards.iter().try_for_each(Shard::check_unchanged)
    }

    /// Takes the file pages under `bytes`, a part of what this checkpoint hands out, out of this process's
    /// memory: for a loader that has copied them. Reading them again is allowed and brings them back from the
    /// file. Does nothing to bytes from elsewhere.
    pub fn release(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.shards.iter().any(|shard| shard.release(bytes));
        }
    }

    /// [`Checkpoint::release`] of everything.
    pub fn release_all(&self) {
        self.shards.iter().for_each(|shard| self.release(shard.bytes()));
    }

    /// Of each weight file, in order: what tells it from any other (name, length, times and place on the
    /// disk; `None` where the system does not tell), and its header as written. For caches of what was made
    /// of them.
    pub fn stamps(&self) -> impl Iterator<Item = (Option<&str>, &[u8])> {
        self.shards.iter().map(|shard| (shard.stamp(), shard.header()))
    }

    /// Another JSON file of the folder, e.g. `generation_config.json`; `None` if it is not there.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn json(&self, file: &str) -> Result<Option<Config>, Error> {
        Config::read(&self.dir, file)
    }

    fn bytes(&self, info: &TensorInfo<'_>) -> &[u8] {
        &self.shards[info.shard].bytes()[info.range.clone()]
    }

    fn views(&self, layout: &Layout<'_>, rows: usize, cols: usize) -> Matrix<'_> {
        let of = |info: &Option<TensorInfo<'_>>| info.as_ref().map_or(&[][..], |info| self.bytes(info));
        let Layout { format, weight, scales, biases } = layout;
        let matrix = Matrix {
            rows,
            cols,
            format: *format,
            weight: self.bytes(weight),
            scales: of(scales),
            biases: of(biases),
        };
        debug_assert_eq!(matrix.bytes(), Format::matrix_bytes(*format, rows, cols));
        matrix
    }
}
