use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::spill::failed;

/// A number with little-endian bytes.
pub(super) trait Number: Copy + Default {
    const BYTES: usize;

    fn put(self, bytes: &mut Vec<u8>);

    fn get(bytes: &[u8]) -> Self;
}

impl Number for u32 {
    const BYTES: usize = 4;

    fn put(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.to_le_bytes());
    }

    fn get(bytes: &[u8]) -> Self {
        Self::from_le_bytes(bytes[..4].try_into().expect("four bytes"))
    }
}

impl Number for i64 {
    const BYTES: usize = 8;

    fn put(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.to_le_bytes());
    }

    fn get(bytes: &[u8]) -> Self {
        Self::from_le_bytes(bytes[..8].try_into().expect("eight bytes"))
    }
}

/// A file without a name: it is gone when it is closed, however the process ends.
pub(super) struct Scratch {
    directory: PathBuf,
    file: File,
}

impl Scratch {
    pub fn create(directory: &Path, name: &str) -> Result<Self> {
        let path = directory.join(name);
        let create = || {
            let file = File::options().read(true).write(true).create_new(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        };
        let file = create().map_err(failed(directory))?;
        Ok(Self { directory: directory.to_owned(), file })
    }

    pub fn write_at(&self, place: u64, bytes: &[u8]) -> Result<()> {
        let write = || {
            (&self.file).seek(SeekFrom::Start(place))?;
            (&self.file).write_all(bytes)
        };
        write().map_err(failed(&self.directory))
    }

    pub fn read_at(&self, place: u64, bytes: &mut [u8]) -> Result<()> {
        let mut read = || {
            (&self.file).seek(SeekFrom::Start(place))?;
            (&self.file).read_exact(bytes)
        };
        read().map_err(failed(&self.directory))
    }
}

/// Numbers written once, from the first to the last, and read in pieces.
pub(super) struct ColumnFile<T> {
    scratch: Scratch,
    len: usize,
    number: PhantomData<T>,
}

/// Bytes that are written at once.
const WRITTEN_BYTES: usize = 1 << 18;

impl<T: Number> ColumnFile<T> {
    pub fn create(directory: &Path, name: &str) -> Result<Self> {
        Ok(Self { scratch: Scratch::create(directory, name)?, len: 0, number: PhantomData })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn append(&mut self, values: &[T]) -> Result<()> {
        let mut bytes = Vec::with_capacity(WRITTEN_BYTES);
        for values in values.chunks(WRITTEN_BYTES / T::BYTES) {
            bytes.clear();
            values.iter().for_each(|value| value.put(&mut bytes));
            self.scratch.write_at((self.len * T::BYTES) as u64, &bytes)?;
            self.len += values.len();
        }
        Ok(())
    }

    /// Puts the values from `start` on, `count` or as many as there are, in place of `values`.
    pub fn read(&self, start: usize, count: usize, values: &mut Vec<T>) -> Result<()> {
        let mut bytes = vec![0; count.min(self.len - start) * T::BYTES];
        self.scratch.read_at((start * T::BYTES) as u64, &mut bytes)?;
        values.clear();
        values.extend(bytes.chunks_exact(T::BYTES).map(T::get));
        Ok(())
    }
}
