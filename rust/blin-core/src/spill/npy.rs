use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::spill::column::Number;
use crate::spill::failed;

/// An array of one dimension on its way into a file, as NumPy writes it.
pub(super) struct NpyWriter {
    path: PathBuf,
    directory: PathBuf,
    file: BufWriter<File>,
}

impl NpyWriter {
    /// Writes the header of an array of `len` numbers of this NumPy type.
    pub fn create(directory: &Path, name: &str, kind: &str, len: usize) -> Result<Self> {
        let path = directory.join(name);
        let file = File::create_new(&path).map_err(failed(directory))?;
        let mut writer = Self { path, directory: directory.to_owned(), file: BufWriter::new(file) };
        writer.write(&header(kind, len))?;
        Ok(writer)
    }

    pub fn append<T: Number>(&mut self, values: &[T]) -> Result<()> {
        let mut bytes = Vec::with_capacity(T::BYTES * 1024);
        for values in values.chunks(1024) {
            bytes.clear();
            values.iter().for_each(|value| value.put(&mut bytes));
            self.write(&bytes)?;
        }
        Ok(())
    }

    /// Where the array is.
    pub fn finish(mut self) -> Result<PathBuf> {
        self.file.flush().map_err(failed(&self.directory))?;
        Ok(self.path)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(failed(&self.directory))
    }
}

/// Version 1.0 of the format: magic, the length of the description, the description filled up
/// with spaces to a multiple of 64 bytes.
fn header(kind: &str, len: usize) -> Vec<u8> {
    const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
    let text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({len},), }}");
    let before = MAGIC.len() + size_of::<u16>();
    let width = (before + text.len() + 1).next_multiple_of(64) - before - 1;
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&(width as u16 + 1).to_le_bytes());
    header.extend_from_slice(format!("{text:width$}\n").as_bytes());
    header
}
