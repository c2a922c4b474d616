//! The file of recorded logits; docs/eval.md has its layout. All numbers are little-endian.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use half::f16;

use crate::Error;

const MAGIC: &[u8; 8] = b"amoebaLG";
const VERSION: u32 = 1;
/// Bytes before the tokens; the last eight are the checksum of all others in the file.
const HEADER: usize = 48;
/// Least number an f16 holds.
const LEAST: f32 = -65_504.0;

/// What logits are kept as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Half precision: since the largest logit of a row is kept as 0, likely tokens lose least.
    #[default]
    F16,
    /// As computed.
    F32,
}

impl Precision {
    /// Bytes of a logit.
    pub const fn bytes(self) -> usize {
        match self {
            Precision::F16 => 2,
            Precision::F32 => 4,
        }
    }
}

/// What a record is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// What logits are kept as.
    pub precision: Precision,
    /// Hash of config and weight headers, 16 hexadecimal digits.
    pub model: String,
    /// Logits per row.
    pub vocab: usize,
    /// Tokens per window.
    pub window: usize,
}

impl Header {
    /// Bytes of a file with so many tokens; `None` where no file can be that large.
    pub fn file_bytes(&self, tokens: usize) -> Option<u64> {
        let row = self.vocab.checked_mul(self.precision.bytes())?;
        let rows = row.checked_mul(tokens.checked_sub(1)?)?;
        u64::try_from(rows.checked_add(tokens.checked_mul(4)?)?.checked_add(HEADER)?).ok()
    }

    fn write(&self, tokens: usize) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(12, &(self.precision.bytes() as u32).to_le_bytes());
        put(16, &u64::from_str_radix(&self.model, 16).unwrap_or(0).to_le_bytes());
        put(24, &(self.vocab as u32).to_le_bytes());
        put(28, &(self.window as u32).to_le_bytes());
        put(32, &(tokens as u64).to_le_bytes());
        bytes
    }

    /// The header and the number of tokens.
    fn read(bytes: &[u8; HEADER]) -> Result<(Header, usize), String> {
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        if &bytes[..8] != MAGIC {
            return Err("is no record of logits; `amoeba eval --record` writes them".to_owned());
        }
        if word(8) != VERSION {
            return Err(format!("has version {}, this program reads {VERSION}; record it anew", word(8)));
        }
        let precision = match word(12) {
            2 => Precision::F16,
            4 => Precision::F32,
            other => return Err(format!("is damaged: logits of {other} bytes; record it anew")),
        };
        let (vocab, window) = (word(24) as usize, word(28) as usize);
        let tokens = usize::try_from(long(32)).ok().filter(|&tokens| tokens >= 2 && vocab > 0 && window > 0);
        let tokens = tokens.ok_or("is damaged: it claims no tokens, vocabulary or window; record it anew")?;
        Ok((Header { precision, model: format!("{:016x}", long(16)), vocab, window }, tokens))
    }
}

/// FNV-1a, 64 bits.
#[derive(Clone, Copy)]
struct Checksum(u64);

impl Checksum {
    fn new(header: &[u8; HEADER]) -> Checksum {
        let mut sum = Checksum(0xcbf2_9ce4_8422_2325);
        sum.add(&header[..HEADER - 8]);
        sum
    }

    fn add(&mut self, bytes: &[u8]) {
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        self.0 = bytes.iter().fold(self.0, step);
    }
}

/// Writes a record beside its name and gives it the name when it is whole.
pub struct RecordWriter {
    file: PathBuf,
    part: PathBuf,
    out: BufWriter<File>,
    header: Header,
    sum: Checksum,
    row: Vec<u8>,
}

impl RecordWriter {
    /// Starts the file of a text.
    ///
    /// # Errors
    /// It cannot be written, or there are fewer than two tokens.
    pub fn create(file: &Path, header: &Header, tokens: &[u32]) -> Result<RecordWriter, Error> {
        if tokens.len() < 2 {
            return Err(Error::TooShort(tokens.len()));
        }
        let mut part = file.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let out = File::create(&part).map_err(|error| unwritable(file, &error))?;
        let bytes = header.write(tokens.len());
        let mut writer = RecordWriter {
            file: file.to_owned(),
            part,
            out: BufWriter::new(out),
            header: header.clone(),
            sum: Checksum::new(&bytes),
            row: Vec::new(),
        };
        writer.put(&bytes)?;
        let tokens: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        writer.sum.add(&tokens);
        writer.put(&tokens)?;
        Ok(writer)
    }

    /// The logits behind the next token.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn row(&mut self, logits: &[f32]) -> Result<(), Error> {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut row = std::mem::take(&mut self.row);
        row.clear();
        for &x in logits {
            match self.header.precision {
                Precision::F16 => row.extend(f16::from_f32((x - max).max(LEAST)).to_le_bytes()),
                Precision::F32 => row.extend((x - max).to_le_bytes()),
            }
        }
        self.sum.add(&row);
        let put = self.put(&row);
        self.row = row;
        put
    }

    /// Ends the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> Result<(), Error> {
        let sum = self.sum.0.to_le_bytes();
        let ended = self.out.seek(SeekFrom::Start(HEADER as u64 - 8)).and_then(|_| self.out.write_all(&sum));
        let ended =
            ended.and_then(|()| self.out.flush()).and_then(|()| std::fs::rename(&self.part, &self.file));
        ended.map_err(|error| unwritable(&self.file, &error))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes).map_err(|error| unwritable(&self.file, &error))
    }
}

/// What is not whole is not kept.
impl Drop for RecordWriter {
    fn drop(&mut self) {
        // After `finish` it has another name.
        let _ = std::fs::remove_file(&self.part);
    }
}

fn unwritable(file: &Path, error: &std::io::Error) -> Error {
    Error::Unwritable(format!("{}: cannot be written: {error}", file.display()))
}

/// A record, checked, read row by row.
pub struct Record {
    file: PathBuf,
    header: Header,
    tokens: Vec<u32>,
    rows: BufReader<File>,
    row: Vec<u8>,
}

impl Record {
    /// Opens a record and reads it once to see that it is whole.
    ///
    /// # Errors
    /// It cannot be read, is no record, or is damaged.
    pub fn open(file: &Path) -> Result<Record, Error> {
        let fault = |what: String| Error::Record(format!("{}: {what}", file.display()));
        let opened = File::open(file).map_err(|e| Error::Unreadable(format!("{}: {e}", file.display())))?;
        let length = opened.metadata().map_err(|error| fault(error.to_string()))?.len();
        let mut rows = BufReader::with_capacity(1 << 16, opened);
        let mut bytes = [0; HEADER];
        rows.read_exact(&mut bytes)
            .map_err(|_| fault("is no record of logits; `amoeba eval --record` writes them".to_owned()))?;
        let (header, count) = Header::read(&bytes).map_err(fault)?;
        if header.file_bytes(count) != Some(length) {
            let expected =
                header.file_bytes(count).map_or("more than any file".to_owned(), |n| n.to_string());
            return Err(fault(format!("is damaged: {length} bytes instead of {expected}; record it anew")));
        }
        let mut sum = Checksum::new(&bytes);
        let mut ids = vec![0; count * 4];
        rows.read_exact(&mut ids).map_err(|error| fault(error.to_string()))?;
        sum.add(&ids);
        let start = rows.stream_position().map_err(|error| fault(error.to_string()))?;
        let mut block = vec![0; 1 << 16];
        loop {
            match rows.read(&mut block).map_err(|error| fault(error.to_string()))? {
                0 => break,
                n => sum.add(&block[..n]),
            }
        }
        if sum.0.to_le_bytes() != bytes[HEADER - 8..] {
            return Err(fault("is damaged: its checksum does not match; record it anew".to_owned()));
        }
        rows.seek(SeekFrom::Start(start)).map_err(|error| fault(error.to_string()))?;
        let tokens = ids.as_chunks::<4>().0.iter().map(|id| u32::from_le_bytes(*id)).collect();
        Ok(Record { file: file.to_owned(), row: Vec::new(), header, tokens, rows })
    }

    /// What it is of.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The text.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// An error unless the model has the recorded vocabulary.
    ///
    /// # Errors
    /// It has another.
    pub fn fits(&self, vocab: usize) -> Result<(), Error> {
        if self.header.vocab == vocab {
            return Ok(());
        }
        Err(Error::Foreign(format!(
            "{}: recorded with a vocabulary of {}, this model has {vocab}; record a model of the same family",
            self.file.display(),
            self.header.vocab
        )))
    }

    /// An error unless the model is the recorded one.
    ///
    /// # Errors
    /// It is another.
    pub fn is_of(&self, model: &str) -> Result<(), Error> {
        if self.header.model == model {
            return Ok(());
        }
        Err(Error::Foreign(format!(
            "{}: recorded from model {}, this is {model}; record this model, or compare them with `amoeba eval --against`",
            self.file.display(),
            self.header.model
        )))
    }

    /// The logits behind the next token, less the largest of them.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn next_row(&mut self, out: &mut Vec<f32>) -> Result<(), Error> {
        self.row.resize(self.header.vocab * self.header.precision.bytes(), 0);
        self.rows
            .read_exact(&mut self.row)
            .map_err(|error| Error::Record(format!("{}: {error}", self.file.display())))?;
        out.clear();
        match self.header.precision {
            Precision::F16 => {
                out.extend(
                    self.row.as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()),
                );
            }
            Precision::F32 => {
                out.extend(self.row.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            }
        }
        Ok(())
    }
}
