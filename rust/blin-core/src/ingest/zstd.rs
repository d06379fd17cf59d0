//! zstd as files have it: any number of frames, one after the other.

use std::io::{BufRead, Error, ErrorKind, Read, Result, copy, sink};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// Decoded bytes to aim at in one go; a frame's window is kept besides.
const STEP_BYTES: usize = 256 << 10;

/// The header of a frame with the least window. The decoder looks at the size of the window only
/// from its second header on.
const FIRST_HEADER: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd, 0, 0];

/// What a zstd stream holds once it is decompressed.
///
/// A frame whose window is larger than 100 MiB, as only `zstd --ultra --long` makes it, is refused,
/// so memory is bounded whatever the file says.
pub struct ZstdReader<R> {
    input: R,
    decoder: FrameDecoder,
    inside_frame: bool,
}

/// Whether a file with these first bytes is zstd: a frame of data or one to be skipped.
pub fn is_zstd(magic: &[u8]) -> bool {
    matches!(magic, [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

impl<R: BufRead> ZstdReader<R> {
    /// Reads from the start of the first frame.
    pub fn new(input: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.reset(FIRST_HEADER).expect("it is a good header");
        Self { input, decoder, inside_frame: false }
    }

    /// The stream that is being read.
    pub fn get_ref(&self) -> &R {
        &self.input
    }

    /// The stream as far as it has been read.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// Goes to the next frame with data; false at the end of the stream.
    fn start_frame(&mut self) -> Result<bool> {
        loop {
            if self.input.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.reset(&mut self.input) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => self.skip(length.into())?,
                Err(error) => return Err(explain(&error)),
            }
        }
    }

    fn skip(&mut self, length: u64) -> Result<()> {
        let skipped = copy(&mut self.input.by_ref().take(length), &mut sink())?;
        if skipped < length { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn decode_some(&mut self) -> Result<()> {
        let step = BlockDecodingStrategy::UptoBytes(STEP_BYTES);
        match self.decoder.decode_blocks(&mut self.input, step) {
            Ok(_) => Ok(()),
            Err(error) => Err(explain(&error)),
        }
    }

    fn end_frame(&mut self) -> Result<()> {
        self.inside_frame = false;
        let decoder = &self.decoder;
        match (decoder.get_checksum_from_data(), decoder.get_calculated_checksum()) {
            (Some(expected), Some(found)) if expected != found => {
                Err(Error::new(ErrorKind::InvalidData, "the zstd data is damaged: wrong checksum"))
            }
            _ => Ok(()),
        }
    }
}

/// What stands behind a decoder's failure: an error of the file, its end, or wrong bytes.
fn explain(error: &FrameDecoderError) -> Error {
    if let FrameDecoderError::WindowSizeTooBig { requested } = error {
        let mebi = requested >> 20;
        let message = format!("expected zstd with a window of at most 100 MiB, found {mebi} MiB");
        return Error::new(ErrorKind::InvalidData, message);
    }
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(current) = cause {
        if let Some(error) = current.downcast_ref::<Error>() {
            return error.kind().into();
        }
        cause = current.source();
    }
    Error::new(ErrorKind::InvalidData, format!("the zstd data is damaged: {error}"))
}

impl<R: BufRead> Read for ZstdReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            if !self.inside_frame {
                self.inside_frame = self.start_frame()?;
                if !self.inside_frame {
                    return Ok(0);
                }
            }
            let read = self.decoder.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            if self.decoder.is_finished() {
                self.end_frame()?;
            } else {
                self.decode_some()?;
            }
        }
    }
}
