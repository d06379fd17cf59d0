//! Everything that can go wrong between a raw log and a batch, each as one readable line.

use std::path::{Path, PathBuf};

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure that names the place, what was expected there and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, read or decompressed.
    #[error("{}: {}", path.display(), describe(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system or the decompressor said.
        source: std::io::Error,
    },

    /// One line of a log is not what the layout promises.
    #[error("{}:{line}: expected {expected}, found {found}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What should have stood there.
        expected: String,
        /// What stands there.
        found: String,
    },

    /// One value of a log cannot be read.
    #[error("{}:{line}: column \"{column}\": expected {expected}, found {found}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// The column's name, or its number where the log has no header.
        column: String,
        /// What should have stood there.
        expected: String,
        /// What stands there.
        found: String,
    },

    /// A whole log, or an option for it, cannot be used.
    #[error("{}: expected {expected}, found {found}", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// What the file should have held.
        expected: String,
        /// What it holds.
        found: String,
    },

    /// An argument of a function is out of its range.
    #[error("{name}: expected {expected}, found {found}")]
    Argument {
        /// The argument.
        name: &'static str,
        /// The range.
        expected: String,
        /// The value.
        found: String,
    },

    /// A memory limit is too small.
    #[error("memory_limit: expected {expected}, found {found}")]
    MemoryLimit {
        /// The least that would do, and what for.
        expected: String,
        /// The limit.
        found: String,
    },

    /// Rows could not be put aside on the disk.
    #[error("{}: not written: {}", path.display(), describe(source))]
    Spill {
        /// Where they were to be put.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },

    /// Filtering left nothing; the message carries the counts.
    #[error("{0}")]
    NothingLeft(String),

    /// The caller asked for a stop.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// Puts the file's name to an error of the operating system.
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// A whole log is not as it should be.
    pub fn log(path: &Path, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Log { path: path.to_owned(), expected: expected.into(), found: found.into() }
    }

    /// An argument is not one of the values it may have.
    pub fn argument(name: &'static str, expected: &str, found: impl std::fmt::Debug) -> Self {
        Self::Argument { name, expected: expected.to_owned(), found: format!("{found:?}") }
    }
}

/// Says in plain words what the operating system says in its own.
fn describe(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound => "no such file".to_owned(),
        ErrorKind::PermissionDenied => "no permission to read it".to_owned(),
        ErrorKind::IsADirectory => "expected a file, found a directory".to_owned(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "the disk is full".to_owned()
        }
        ErrorKind::UnexpectedEof => "the compressed data ends too early".to_owned(),
        _ => error.to_string(),
    }
}
