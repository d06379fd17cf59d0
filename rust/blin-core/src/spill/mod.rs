//! Logs beyond a memory limit: their rows wait on the disk, in the order of the file.
//!
//! ```text
//! reading      rows → columns on the disk                       ids stay in memory
//! k-core       passes over the columns of users and items       a bit per row, a count per id
//! indexing     one pass                                         an index per id
//! sorting      rows → ranges of users, range → sequences        one range at a time
//! ```
//!
//! Every step sees the rows in the order in which the steps in memory see them, so the result is
//! the same to the byte.

mod bits;
mod column;
mod npy;
mod partitions;
mod preparation;
mod rows;

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::vocabulary::Vocabulary;

pub(crate) use preparation::prepare_spilled;
pub(crate) use rows::Spill;
pub use rows::{LogRows, SpilledRows};

/// How much memory a log may take before its rows go to the disk.
#[derive(Clone, Debug)]
pub struct MemoryLimit {
    /// Bytes of memory for everything.
    pub bytes: usize,
    /// Bytes of these that the caller and the blocks being read take.
    pub reserved: usize,
    /// An empty directory on a disk that can hold the rows of the log, removed by the caller.
    pub directory: PathBuf,
}

/// What is kept of each user and item besides its id: counts, marks, indices, bounds and cuts.
const BYTES_PER_ID: usize = 56;

/// Bytes of memory per row of a range of users that is being grouped and sorted.
const BYTES_PER_ROW: usize = 48;

/// Bytes of memory for every block that is being read or parsed; a block takes a tenth of it.
const BYTES_PER_BLOCK: usize = 64 << 20;

impl MemoryLimit {
    /// How many blocks may be read and parsed together, of as many as there could be.
    pub(crate) fn blocks_together(&self, most: usize) -> usize {
        (self.for_log() / BYTES_PER_BLOCK).clamp(1, most)
    }

    /// Bytes for rows that are left by something else; says what is needed if nothing is left.
    fn left_by(&self, needed: usize, what: &str) -> Result<usize> {
        self.for_log().checked_sub(needed).filter(|&left| left > 0).ok_or_else(|| {
            let least = size(self.reserved + needed + 1);
            let expected = format!("at least {least} of memory for {what}");
            let found = size(self.bytes);
            Error::MemoryLimit { expected, found }
        })
    }

    /// Bytes for rows beside the vocabularies and what is counted of each user and item.
    fn left_by_ids(&self, users: &Vocabulary, items: &Vocabulary, rows: usize) -> Result<usize> {
        let of_ids = |ids: &Vocabulary| 2 * ids.memory() + BYTES_PER_ID * ids.len();
        let needed = of_ids(users) + of_ids(items) + rows / 8;
        self.left_by(needed, "the ids of users and items, which stay there")
    }

    fn for_log(&self) -> usize {
        self.bytes.saturating_sub(self.reserved)
    }
}

fn size(bytes: usize) -> String {
    const MEGA: usize = 1_000_000;
    if bytes < 10 * MEGA {
        format!("{bytes} bytes")
    } else {
        format!("{} MB", bytes.div_ceil(MEGA))
    }
}

/// A failure to write or read again what was put aside.
fn failed(directory: &Path) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::Spill { path: directory.to_owned(), source }
}
