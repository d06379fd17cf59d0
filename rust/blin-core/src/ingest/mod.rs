//! From the files of a log to one table of integers.
//!
//! One thread reads and decompresses blocks of whole lines, a pool parses several of them at once
//! while the blocks before are appended in the order of the file. So the result is the same for any
//! number of threads.

pub mod columnar;
mod columns;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod json;
pub mod layout;
mod lists;
mod quoted;
mod reader;
mod record;
pub mod rows;
pub mod source;
mod table;
pub mod time;
mod zstd;

pub use layout::{Format, Layout};
pub use reader::{Inspection, Log, inspect, read};
pub use rows::OnBadRow;

/// How a log is to be read; what is left open is recognised.
///
/// Columns are given by name or, counted from 1, by number.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Rows, sequences or JSON lines.
    pub format: Option<Format>,
    /// What stands between two fields.
    pub delimiter: Option<String>,
    /// Whether the first line names the columns.
    pub header: Option<bool>,
    /// The column of the users.
    pub user_column: Option<String>,
    /// The column of the items.
    pub item_column: Option<String>,
    /// The column of the times, or two columns `a,b` of which b orders what has the same a.
    pub time_column: Option<String>,
    /// The column of the ratings.
    pub rating_column: Option<String>,
    /// Rows with a lower rating are left out.
    pub min_rating: Option<f64>,
    /// What to do with a row that cannot be read.
    pub on_bad_row: OnBadRow,
}

impl LogOptions {
    /// Whether they speak of columns, which sequences do not have.
    fn names_columns(&self) -> bool {
        let columns =
            [&self.user_column, &self.item_column, &self.time_column, &self.rating_column];
        self.min_rating.is_some() || columns.iter().any(|column| column.is_some())
    }
}
