//! Files as blocks of whole lines: plain, gzip or zstd, hashed on the way, in bounded memory.

use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::ingest::zstd::{ZstdReader, is_zstd};

/// Bytes of a block, unless one line is longer; fuzzing wants many blocks of few bytes.
const BLOCK_BYTES: usize = if cfg!(feature = "fuzzing") { 1 << 10 } else { 1 << 20 };

/// The longest line that is read.
pub const MAX_LINE_BYTES: usize = 16 << 20;

/// Up to here any data may unpack.
const TRUSTED_BYTES: u64 = 128 << 20;

/// How many times smaller than its content a file may be beyond [`TRUSTED_BYTES`]. Logs compress
/// 3 to 60 times; what is packed to fill a disk or a memory, 1000 times and more.
const MAX_RATIO: u64 = 250;

const COMPRESSED_BUFFER_BYTES: usize = 256 << 10;

/// Bytes that tell what kind of file it is.
const MAGIC_BYTES: usize = 12;

/// A file that was read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSummary {
    /// Where it lies.
    pub path: PathBuf,
    /// Its size on the disk.
    pub bytes: u64,
    /// SHA-256 of its bytes on the disk, in hexadecimal.
    pub sha256: String,
}

/// Where bytes come from.
pub(super) type Bytes = Box<dyn Read + Send>;

/// A file being read.
pub struct Source {
    path: PathBuf,
    stream: Stream,
    /// The beginning of a line whose end is not read yet.
    rest: Vec<u8>,
    ended: bool,
    /// Blocks that may still be read.
    blocks_left: usize,
    /// A block that was looked at and not taken yet.
    peeked: Option<Vec<u8>>,
    /// Bytes after unpacking.
    unpacked: u64,
}

enum Stream {
    Plain(HashingFile),
    Gzip(Box<MultiGzDecoder<BufReader<HashingFile>>>),
    Zstd(Box<ZstdReader<BufReader<HashingFile>>>),
}

impl Stream {
    fn new(magic: &[u8], file: HashingFile) -> Self {
        let buffered = |file| BufReader::with_capacity(COMPRESSED_BUFFER_BYTES, file);
        if magic.starts_with(&[0x1f, 0x8b]) {
            Self::Gzip(Box::new(MultiGzDecoder::new(buffered(file))))
        } else if is_zstd(magic) {
            Self::Zstd(Box::new(ZstdReader::new(buffered(file))))
        } else {
            Self::Plain(file)
        }
    }

    fn file(&self) -> &HashingFile {
        match self {
            Self::Plain(file) => file,
            Self::Gzip(decoder) => decoder.get_ref().get_ref(),
            Self::Zstd(decoder) => decoder.get_ref().get_ref(),
        }
    }

    fn into_file(self) -> HashingFile {
        match self {
            Self::Plain(file) => file,
            Self::Gzip(decoder) => decoder.into_inner().into_inner(),
            Self::Zstd(decoder) => decoder.into_inner().into_inner(),
        }
    }
}

impl Source {
    /// Opens a file and recognises its compression; `bytes_read` is counted up as it is read.
    pub fn open(path: &Path, bytes_read: Arc<AtomicU64>) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::io(path, error))?;
        Self::of_bytes(path, Box::new(file), bytes_read)
    }

    /// Reads what `bytes` gives as if it were the file at `path`.
    pub(super) fn of_bytes(path: &Path, mut bytes: Bytes, counter: Arc<AtomicU64>) -> Result<Self> {
        let mut magic = [0; MAGIC_BYTES];
        let magic = read_up_to(&mut bytes, &mut magic).map_err(|error| Error::io(path, error))?;
        refuse_other_formats(path, magic)?;
        let stream = Stream::new(magic, HashingFile::new(magic, bytes, counter));
        Ok(Self {
            path: path.to_owned(),
            stream,
            rest: Vec::new(),
            ended: false,
            blocks_left: usize::MAX,
            peeked: None,
            unpacked: 0,
        })
    }

    /// Reads what was read of the file at `path` before.
    pub fn of_text(path: &Path, text: Vec<u8>) -> Result<Self> {
        Self::of_bytes(path, Box::new(Cursor::new(text)), Arc::default())
    }

    /// Ends the file after so many blocks.
    pub fn limit(mut self, blocks: usize) -> Self {
        self.blocks_left = blocks;
        self
    }

    /// How the file is compressed: `none`, `gzip` or `zstd`.
    pub fn compression(&self) -> &'static str {
        match self.stream {
            Stream::Plain(_) => "none",
            Stream::Gzip(_) => "gzip",
            Stream::Zstd(_) => "zstd",
        }
    }

    /// Whether there is nothing after the blocks so far.
    pub fn has_ended(&self) -> bool {
        self.ended && self.peeked.is_none()
    }

    /// Bytes of the file that the blocks so far were made of.
    pub fn bytes_used(&self) -> u64 {
        match &self.stream {
            Stream::Plain(file) => file.bytes - self.rest.len() as u64,
            Stream::Gzip(decoder) => used(decoder.get_ref()),
            Stream::Zstd(decoder) => used(decoder.get_ref()),
        }
    }

    /// The whole of the file, if it has no more than one line that is not blank.
    pub fn only_line(&mut self) -> Result<Option<&[u8]>> {
        self.peek()?;
        let block = self.peeked.as_deref().unwrap_or_default();
        let text = block.trim_ascii();
        Ok((self.ended && memchr::memchr(b'\n', text).is_none()).then_some(block))
    }

    /// The next block without taking it; empty at the end of the file.
    pub fn peek(&mut self) -> Result<&[u8]> {
        if self.peeked.is_none() {
            self.peeked = self.next_block()?;
        }
        Ok(self.peeked.as_deref().unwrap_or_default())
    }

    /// The next block of whole lines, each ended by a newline, or nothing at the end of the file.
    pub fn next_block(&mut self) -> Result<Option<Vec<u8>>> {
        if let Some(block) = self.peeked.take() {
            return Ok(Some(block));
        }
        if self.blocks_left == 0 {
            return Ok(None);
        }
        self.blocks_left -= 1;
        let mut block = std::mem::take(&mut self.rest);
        while !self.ended {
            let searched = block.len();
            self.fill(&mut block)?;
            if self.ended {
                break;
            }
            if let Some(newline) = memchr::memrchr(b'\n', &block[searched..]) {
                self.rest = block.split_off(searched + newline + 1);
                return Ok(Some(block));
            }
            if block.len() > MAX_LINE_BYTES {
                return Err(self.line_too_long());
            }
        }
        if block.is_empty() {
            return Ok(None);
        }
        if block.last() != Some(&b'\n') {
            block.push(b'\n');
        }
        Ok(Some(block))
    }

    /// What is known of the file once it has been read to its end.
    pub fn finish(self) -> SourceSummary {
        let file = self.stream.into_file();
        let sha256 = file.hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        SourceSummary { path: self.path, bytes: file.bytes, sha256 }
    }

    /// Appends up to one block of bytes and notes when the file has ended.
    fn fill(&mut self, block: &mut Vec<u8>) -> Result<()> {
        let wanted = BLOCK_BYTES.saturating_sub(block.len()).max(BLOCK_BYTES / 2);
        let start = block.len();
        block.resize(start + wanted, 0);
        let read = match &mut self.stream {
            Stream::Plain(file) => read_up_to(file, &mut block[start..]),
            Stream::Gzip(decoder) => read_up_to(decoder, &mut block[start..]),
            Stream::Zstd(decoder) => read_up_to(decoder, &mut block[start..]),
        };
        let read = read.map_err(|error| Error::io(&self.path, error))?.len();
        block.truncate(start + read);
        self.ended = read < wanted;
        self.unpacked += read as u64;
        self.refuse_bomb()
    }

    /// Stops before a small file fills the memory with what it unpacks to.
    fn refuse_bomb(&self) -> Result<()> {
        let packed = self.stream.file().bytes;
        if self.unpacked <= TRUSTED_BYTES || self.unpacked / MAX_RATIO <= packed {
            return Ok(());
        }
        let limit = TRUSTED_BYTES >> 20;
        let expected = format!("beyond {limit} MiB at most {MAX_RATIO} bytes for each packed one");
        Err(Error::log(&self.path, expected, "more; if it is no mistake, unpack the file first"))
    }

    fn line_too_long(&self) -> Error {
        let limit = MAX_LINE_BYTES >> 20;
        Error::log(&self.path, format!("lines of at most {limit} MiB"), "a longer one")
    }
}

/// Bytes that a decoder has taken from its buffer.
fn used(input: &BufReader<HashingFile>) -> u64 {
    input.get_ref().bytes - input.buffer().len() as u64
}

/// A file that hashes and counts what is read from it.
struct HashingFile {
    /// The first bytes of the file, already taken from it.
    head: Vec<u8>,
    file: Bytes,
    hasher: Sha256,
    bytes: u64,
    bytes_read: Arc<AtomicU64>,
}

impl HashingFile {
    fn new(head: &[u8], file: Bytes, bytes_read: Arc<AtomicU64>) -> Self {
        Self { head: head.to_vec(), file, hasher: Sha256::new(), bytes: 0, bytes_read }
    }
}

impl Read for HashingFile {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = if self.head.is_empty() {
            self.file.read(buffer)?
        } else {
            let read = self.head.as_slice().read(buffer)?;
            self.head.drain(..read);
            read
        };
        self.hasher.update(&buffer[..read]);
        self.bytes += read as u64;
        self.bytes_read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Fills the buffer as far as the stream goes and returns what was filled.
fn read_up_to<'a>(stream: &mut impl Read, buffer: &'a mut [u8]) -> std::io::Result<&'a [u8]> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(&buffer[..filled])
}

/// Refuses other kinds of file; letters alone do not tell one, for an id may begin with them.
fn refuse_other_formats(path: &Path, magic: &[u8]) -> Result<()> {
    let is_control = |byte: &u8| *byte < b' ' && !byte.is_ascii_whitespace();
    let found = match magic {
        [b'P', b'A', b'R', b'1', rest @ ..] if rest.iter().any(is_control) => "a Parquet file",
        [b'P', b'K', 3, 4, ..] => "a zip archive; unpack it first",
        [b'B', b'Z', b'h', _, b'1', b'A', b'Y', b'&', b'S', b'Y', ..]
        | [b'B', b'Z', b'h', _, 0x17, b'r', b'E', b'8', b'P', 0x90, ..] => {
            "a bzip2 file; unpack it first"
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => "an xz file; unpack it first",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "UTF-16; save it as UTF-8",
        _ => return Ok(()),
    };
    Err(Error::log(path, "text in UTF-8, plain, gzip or zstd", found))
}
