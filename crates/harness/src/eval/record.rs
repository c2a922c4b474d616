//! Reads the file of recorded logits.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::f16;

use super::layout::{Checksum, HEADER, Header, Precision};
use crate::Error;

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
    /// It cannot be read, is not a record, or is damaged.
    pub fn open(file: &Path) -> Result<Record, Error> {
        let fault = |what: String| Error::Record(format!("{}: {what}", file.display()));
        let opened = File::open(file).map_err(|e| Error::Unreadable(format!("{}: {e}", file.display())))?;
        let length = opened.metadata().map_err(|error| fault(error.to_string()))?.len();
        let mut rows = BufReader::with_capacity(1 << 16, opened);
        let mut bytes = [0; HEADER];
        rows.read_exact(&mut bytes)
            .map_err(|_| fault("is not a record of logits; `amoeba eval --record` writes them".to_owned()))?;
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
            "{}: recorded from model {}, this is {model}; record this model, or compare them with `amoeba \
             eval --against`",
            self.file.display(),
            self.header.model
        )))
    }

    /// The logits after the next token, minus the largest of them.
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
