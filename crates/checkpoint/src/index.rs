//! Names, types, shapes and places of all tensors, without their bytes.

use crate::error::shown;
use crate::folder::{INDEX, Index};
use crate::header::{Entries, Entry, tensor_at};
use crate::{DType, Error};
use std::ops::Range;

/// What one tensor is and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo<'a> {
    /// Full name, e.g. `model.norm.weight`.
    pub name: &'a str,
    /// Element type.
    pub dtype: DType,
    /// Sizes, outermost first.
    pub shape: &'a [usize],
    /// Number of the file in [`TensorIndex::files`].
    pub shard: usize,
    /// Bytes within that file.
    pub range: Range<usize>,
}

/// The tensors of a checkpoint by name. Needs no weights in memory, so plans can be tested on made-up ones.
#[derive(Clone, Debug, Default)]
pub struct TensorIndex {
    files: Vec<String>,
    entries: Entries,
    /// What the folder's index lists and no file holds.
    absent: Index,
}

impl TensorIndex {
    /// An index of tensors that exist on paper only: for plan tests.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a name comes twice or a size overflows.
    pub fn from_shapes<N: AsRef<str>>(
        tensors: impl IntoIterator<Item = (N, DType, Vec<usize>)>,
    ) -> Result<TensorIndex, Error> {
        let (file, mut end) = ("(no file)", 0_usize);
        let mut entries = Entries::new();
        for (name, dtype, shape) in tensors {
            let bits = shape.iter().try_fold(dtype.bits(), |n, &dim| n.checked_mul(dim));
            let next = bits.and_then(|bits| end.checked_add(bits.div_ceil(8)));
            let Some(next) = next else {
                return Err(Error::corrupt(tensor_at(file, name.as_ref()), "has a shape that overflows"));
            };
            entries.push((
                name.as_ref().into(),
                Entry { dtype, shard: 0, shape: shape.into(), range: end..next },
            ));
            end = next;
        }
        TensorIndex::new(vec![file.to_owned()], entries)
    }

    /// Sorts and refuses a name that comes twice.
    pub(crate) fn new(files: Vec<String>, mut entries: Entries) -> Result<TensorIndex, Error> {
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let [first, second] = [&pair[0].1, &pair[1].1].map(|e| files[e.shard as usize].as_str());
            let what = format!("is also in {second}, expected one place");
            return Err(Error::corrupt(tensor_at(first, &pair[0].0), what));
        }
        Ok(TensorIndex { files, entries, absent: Index::default() })
    }

    /// Adds a file with its tensors, whose shard number is the number of files so far.
    pub(crate) fn join(self, file: String, tensors: Entries) -> Result<TensorIndex, Error> {
        let TensorIndex { mut files, mut entries, .. } = self;
        files.push(file);
        entries.extend(tensors);
        TensorIndex::new(files, entries)
    }

    /// Remembers what the folder's index lists and no file holds.
    pub(crate) fn with_listed(mut self, mut listed: Index) -> TensorIndex {
        listed.tensors.retain(|(name, _)| !self.has(name));
        self.absent = listed;
        self
    }

    /// Weight files by shard number.
    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when there is no tensor at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(name, _)| &**name)
    }

    /// All tensors in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = TensorInfo<'_>> {
        self.entries.iter().map(|(name, entry)| info(name, entry))
    }

    /// True when there is a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The tensor of that name, if there.
    pub fn get(&self, name: &str) -> Option<TensorInfo<'_>> {
        let at = self.entries.binary_search_by(|(key, _)| (**key).cmp(name)).ok()?;
        let (key, entry) = &self.entries[at];
        Some(info(key, entry))
    }

    /// True when the folder's index lists a tensor that no file holds: a file is missing, or the index is of
    /// other files.
    pub fn lacks(&self, name: &str) -> bool {
        self.home(name).is_some()
    }

    /// The file a tensor that is not there should be in.
    fn home(&self, name: &str) -> Option<&str> {
        let Index { shards, tensors } = &self.absent;
        let at = tensors.binary_search_by(|(key, _)| (**key).cmp(name)).ok()?;
        Some(&shards[tensors[at].1 as usize])
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the folder's index places it in a file that lacks it or is not there,
    /// [`Error::Corrupt`] when nothing knows of it.
    pub fn require(&self, name: &str) -> Result<TensorInfo<'_>, Error> {
        self.get(name).ok_or_else(|| {
            let at = format!("tensor `{}`", shown(name));
            let what = format!("is in none of the {} weight files, but the model needs it", self.files.len());
            match self.home(name) {
                None => Error::corrupt(at, what),
                Some(file) => {
                    let what = format!("{what}; {INDEX} places it in {file}: download that file again");
                    Error::NotFound { at, what }
                }
            }
        })
    }

    /// "file: tensor `name`" for messages.
    pub(crate) fn place(&self, tensor: &TensorInfo<'_>) -> String {
        tensor_at(&self.files[tensor.shard], tensor.name)
    }
}

fn info<'a>(name: &'a str, entry: &'a Entry) -> TensorInfo<'a> {
    let Entry { dtype, shard, shape, range } = entry;
    TensorInfo { name, dtype: *dtype, shape, shard: *shard as usize, range: range.clone() }
}
