//! The safetensors container: 8 bytes of little-endian header length, a JSON header, data without a gap.
//!
//! Stricter than most readers: a key twice, an unknown field, a hole, an overlap, bytes left over and any
//! product that overflows are errors. Offsets need no alignment (MLX writes headers of any length).

use crate::error::shown;
use crate::{DType, Error};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

/// Longest header, as in the reference implementation.
pub(crate) const MAX_HEADER: usize = 100_000_000;
/// Most tensors in one checkpoint.
pub(crate) const MAX_TENSORS: usize = 1_000_000;
/// Longest tensor name in bytes.
const MAX_NAME: usize = 512;
/// Most dimensions of a tensor.
const MAX_DIMS: usize = 8;
/// Most `__metadata__` entries (writers use one).
const MAX_METADATA: usize = 10_000;

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) dtype: DType,
    /// Which file of the checkpoint.
    pub(crate) shard: u32,
    pub(crate) shape: Box<[usize]>,
    /// Bytes in the file, counted from its start.
    pub(crate) range: Range<usize>,
}

/// Tensors in the order of their names.
pub(crate) type Entries = Vec<(Box<str>, Entry)>;

/// Parses and validates the container `bytes` (the whole file).
pub(crate) fn parse(file: &str, bytes: &[u8], shard: u32) -> Result<Entries, Error> {
    let corrupt = |what: String| Err(Error::corrupt(file, what));
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return corrupt(format!(
            "is {} bytes long, shorter than the 8 bytes of a header length",
            bytes.len()
        ));
    };
    let length = u64::from_le_bytes(*length);
    let Some(length) = usize::try_from(length).ok().filter(|n| (2..=MAX_HEADER).contains(n)) else {
        return corrupt(format!("header length is {length}, expected 2 to {MAX_HEADER}"));
    };
    let Some((header, data)) = rest.split_at_checked(length) else {
        return corrupt(format!("header of {length} bytes does not fit the file's {} bytes", bytes.len()));
    };
    if header[0] != b'{' {
        return corrupt(format!("header starts with byte {:#04x}, expected an opening brace", header[0]));
    }
    let unknown_dtype = Cell::new(false);
    // Copied, for `bytes` may be a map of a file that changes under the parser.
    let header = header.to_vec();
    let mut reader = serde_json::Deserializer::from_slice(&header);
    let parsed = Header { shard, unknown_dtype: &unknown_dtype }
        .deserialize(&mut reader)
        .and_then(|entries| reader.end().map(|()| entries));
    let mut entries = match parsed {
        Ok(entries) => entries,
        Err(e) if unknown_dtype.get() => {
            let what = format!("{}; update this program or convert the model again", shown(&e.to_string()));
            return Err(Error::unsupported(file, what));
        }
        Err(e) => return corrupt(format!("header is not valid: {}", shown(&e.to_string()))),
    };
    drop(header);
    entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    if let Some(pair) = entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(Error::corrupt(tensor_at(file, &pair[0].0), "appears twice in the header"));
    }
    place(file, &mut entries, 8 + length, data.len())?;
    Ok(entries)
}

/// "file: tensor `name`".
pub(crate) fn tensor_at(file: &str, name: &str) -> String {
    format!("{file}: tensor `{}`", shown(name))
}

/// Checks sizes and that the tensors tile the data section exactly, then makes offsets absolute.
fn place(file: &str, entries: &mut Entries, start: usize, data: usize) -> Result<(), Error> {
    for (name, entry) in entries.iter() {
        let fail = |what: String| Err(Error::corrupt(tensor_at(file, name), what));
        let Range { start: begin, end } = entry.range;
        if begin > end || end > data {
            return fail(format!("data_offsets [{begin}, {end}] are not a part of the {data} bytes of data"));
        }
        let bits = entry.shape.iter().try_fold(entry.dtype.bits(), |n, &dim| n.checked_mul(dim));
        match bits {
            None => return fail(format!("shape {:?} overflows", entry.shape)),
            Some(bits) if bits % 8 != 0 => {
                return fail(format!("shape {:?} of {} does not fill whole bytes", entry.shape, entry.dtype));
            }
            Some(bits) if bits / 8 != end - begin => {
                return fail(format!(
                    "shape {:?} of {} needs {} bytes, data_offsets [{begin}, {end}] hold {}",
                    entry.shape,
                    entry.dtype,
                    bits / 8,
                    end - begin
                ));
            }
            Some(_) => {}
        }
    }
    let mut order: Vec<u32> = (0..entries.len() as u32).collect(); // fits: at most MAX_TENSORS
    order.sort_unstable_by_key(|&i| (entries[i as usize].1.range.start, entries[i as usize].1.range.end));
    let mut covered = 0;
    for i in order {
        let (name, entry) = &mut entries[i as usize];
        let Range { start: begin, end } = entry.range;
        if begin != covered {
            let problem = if begin < covered { "overlap another tensor" } else { "leave a hole before them" };
            let what = format!("data_offsets [{begin}, {end}] {problem}, expected a start at {covered}");
            return Err(Error::corrupt(tensor_at(file, name), what));
        }
        covered = end;
        entry.range = start + begin..start + end; // cannot overflow: end ≤ data, and start + data is the file
    }
    if covered != data {
        return Err(Error::corrupt(file, format!("has {data} bytes of data, the tensors cover {covered}")));
    }
    Ok(())
}

/// The header object.
struct Header<'a> {
    shard: u32,
    unknown_dtype: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Header<'_> {
    type Value = Entries;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Entries, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Header<'_> {
    type Value = Entries;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Entries::new();
        let mut metadata = false;
        while let Some(Name(name)) = map.next_key()? {
            if &*name == "__metadata__" {
                if std::mem::replace(&mut metadata, true) {
                    return Err(de::Error::custom("`__metadata__` appears twice"));
                }
                map.next_value::<Option<Metadata>>()?; // MLX writes null where it has none
                continue;
            }
            if entries.len() == MAX_TENSORS {
                return Err(de::Error::custom(format!("more than {MAX_TENSORS} tensors")));
            }
            let seed = Fields { shard: self.shard, unknown_dtype: self.unknown_dtype };
            let entry = map
                .next_value_seed(seed)
                .map_err(|e| de::Error::custom(format!("tensor `{}`: {e}", shown(&name))))?;
            entries.push((name, entry));
        }
        Ok(entries)
    }
}

/// A tensor name (or `__metadata__`), bounded before it is copied.
pub(crate) struct Name(pub(crate) Box<str>);

impl<'de> de::Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Name, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Name;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<Name, E> {
                if name.is_empty() || name.len() > MAX_NAME || name.contains(char::is_control) {
                    let rule = format!("expected 1 to {MAX_NAME} bytes without control characters");
                    let problem = format!("name `{}` has {} bytes, {rule}", shown(name), name.len());
                    return Err(E::custom(problem));
                }
                Ok(Name(name.into()))
            }
        }
        reader.deserialize_str(Text)
    }
}

/// `__metadata__`: strings to strings, checked and dropped.
struct Metadata;

impl<'de> de::Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Metadata, D::Error> {
        struct Strings;
        impl<'de> Visitor<'de> for Strings {
            type Value = Metadata;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`__metadata__` as an object of strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                let mut seen = BTreeSet::new();
                while let Some((key, _)) = map.next_entry::<String, String>()? {
                    if seen.len() == MAX_METADATA {
                        return Err(de::Error::custom(format!("more than {MAX_METADATA} metadata entries")));
                    }
                    if !seen.insert(key) {
                        return Err(de::Error::custom("a `__metadata__` key appears twice"));
                    }
                }
                Ok(Metadata)
            }
        }
        reader.deserialize_map(Strings)
    }
}

/// The three fields of a tensor.
struct Fields<'a> {
    shard: u32,
    unknown_dtype: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = Entry;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Entry, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Entry;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with dtype, shape and data_offsets")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        let (mut dtype, mut shape, mut offsets) = (None, None, None);
        while let Some(Name(key)) = map.next_key()? {
            let repeated = match &*key {
                "dtype" => dtype.replace(map.next_value::<Name>()?).is_some(),
                "shape" => shape.replace(map.next_value::<Numbers>()?).is_some(),
                "data_offsets" => offsets.replace(map.next_value::<Numbers>()?).is_some(),
                other => return Err(de::Error::custom(format!("unknown field `{}`", shown(other)))),
            };
            if repeated {
                return Err(de::Error::custom(format!("field `{key}` appears twice")));
            }
        }
        let Name(name) = dtype.ok_or_else(|| de::Error::missing_field("dtype"))?;
        let Numbers(shape) = shape.ok_or_else(|| de::Error::missing_field("shape"))?;
        let Numbers(offsets) = offsets.ok_or_else(|| de::Error::missing_field("data_offsets"))?;
        let &[begin, end] = &*offsets else {
            return Err(de::Error::custom(format!("data_offsets has {} numbers, expected 2", offsets.len())));
        };
        let Some(dtype) = DType::from_name(&name) else {
            self.unknown_dtype.set(true);
            return Err(de::Error::custom(format!("dtype `{}` is not known", shown(&name))));
        };
        Ok(Entry { dtype, shard: self.shard, shape, range: begin..end })
    }
}

/// At most [`MAX_DIMS`] sizes, copied only after counting.
struct Numbers(Box<[usize]>);

impl<'de> de::Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Numbers, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Numbers;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of non-negative integers")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Numbers, A::Error> {
                let (mut numbers, mut count) = ([0; MAX_DIMS], 0);
                while let Some(number) = seq.next_element()? {
                    if count == MAX_DIMS {
                        return Err(de::Error::custom(format!("more than {MAX_DIMS} dimensions")));
                    }
                    numbers[count] = number;
                    count += 1;
                }
                Ok(Numbers(numbers[..count].into()))
            }
        }
        reader.deserialize_seq(List)
    }
}
