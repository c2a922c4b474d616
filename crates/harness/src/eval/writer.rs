//! Writes the file of recorded logits.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use half::f16;

use super::layout::{Checksum, HEADER, Header, Precision};
use crate::Error;

/// Least number an f16 holds.
const LEAST: f32 = -65_504.0;

/// Writes a record under a temporary name and renames it when it is whole. A link is followed, and what is
/// there and no plain file (a device) is written to and never replaced.
pub struct RecordWriter {
    file: PathBuf,
    /// The temporary name, if there is one.
    part: Option<PathBuf>,
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
        let target = file.canonicalize().unwrap_or_else(|_| file.to_owned());
        let plain = target.symlink_metadata().map_or(true, |meta| meta.is_file());
        let part = plain.then(|| {
            let mut part = target.as_os_str().to_owned();
            part.push(".part");
            PathBuf::from(part)
        });
        let out = File::create(part.as_ref().unwrap_or(&target)).map_err(|error| unwritable(file, &error))?;
        let bytes = header.write(tokens.len());
        let mut writer = RecordWriter {
            file: target,
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

    /// The logits after the next token.
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
        let ended = ended.and_then(|()| self.out.flush());
        let ended =
            ended.and_then(|()| self.part.as_ref().map_or(Ok(()), |part| std::fs::rename(part, &self.file)));
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
        let _ = self.part.as_ref().map(std::fs::remove_file);
    }
}

fn unwritable(file: &Path, error: &std::io::Error) -> Error {
    Error::Unwritable(format!("{}: cannot be written: {error}", file.display()))
}
