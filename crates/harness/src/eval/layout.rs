//! Layout of the file of recorded logits; docs/eval.md describes it. All numbers are little-endian.

const MAGIC: &[u8; 8] = b"amoebaLG";
const VERSION: u32 = 1;
/// Bytes before the tokens; the last eight are the checksum of all others in the file.
pub(super) const HEADER: usize = 48;

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
    /// Bytes of a file with `tokens` tokens; `None` where no file can be that large.
    pub fn file_bytes(&self, tokens: usize) -> Option<u64> {
        let row = self.vocab.checked_mul(self.precision.bytes())?;
        let rows = row.checked_mul(tokens.checked_sub(1)?)?;
        u64::try_from(rows.checked_add(tokens.checked_mul(4)?)?.checked_add(HEADER)?).ok()
    }

    pub(super) fn write(&self, tokens: usize) -> [u8; HEADER] {
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
    pub(super) fn read(bytes: &[u8; HEADER]) -> Result<(Header, usize), String> {
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        if &bytes[..8] != MAGIC {
            return Err("is not a record of logits; `amoeba eval --record` writes them".to_owned());
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
pub(super) struct Checksum(pub(super) u64);

impl Checksum {
    pub(super) fn new(header: &[u8; HEADER]) -> Checksum {
        let mut sum = Checksum(0xcbf2_9ce4_8422_2325);
        sum.add(&header[..HEADER - 8]);
        sum
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        self.0 = bytes.iter().fold(self.0, step);
    }
}
