//! Logs that come as columns: Parquet files and tables of other libraries, as Arrow lays them out.
//!
//! A column is one array of integers, or bytes and offsets of text. Nothing of it is copied; each
//! field is looked at as the text that a CSV of the same table would hold, so both give the same
//! dataset.

use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::ingest::LogOptions;
use crate::ingest::columns::{self, Role};
use crate::ingest::layout::Layout;
use crate::ingest::reader::Log;
use crate::ingest::record::RecordReader;
use crate::ingest::rows::{BadRow, OnBadRow, Rows, Table};
use crate::ingest::source::SourceSummary;
use crate::ingest::time::{Time, TimeStyle};
use crate::spill::MemoryLimit;
use crate::vocabulary::ShortId;

/// The most columns that are looked at: two ids, two times and a rating.
const MAX_COLUMNS: usize = 5;

/// Rows that are read by one task.
const ROWS_PER_PIECE: usize = 1 << 14;

/// The longest integer, with its sign.
const INTEGER_BYTES: usize = 20;

/// The values of one column of a batch.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// Integers.
    Integers(&'a [i64]),
    /// Text laid end to end, and where each piece begins and the last ends.
    Text(&'a [u8], &'a [i64]),
}

/// One column of a batch; what is not valid is missing.
#[derive(Clone, Copy, Debug)]
pub struct Column<'a> {
    /// The values.
    pub values: Values<'a>,
    /// Which of them are there; all, if nothing is said.
    pub valid: Option<&'a [bool]>,
}

impl<'a> Column<'a> {
    /// How many rows the column has.
    pub fn len(&self) -> usize {
        match self.values {
            Values::Integers(integers) => integers.len(),
            Values::Text(_, offsets) => offsets.len().saturating_sub(1),
        }
    }

    /// Whether the column has no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether marks and offsets fit to the values.
    fn is_sound(&self) -> bool {
        let text_fits = match self.values {
            Values::Integers(_) => true,
            Values::Text(bytes, offsets) => {
                offsets.is_sorted()
                    && offsets.first().is_some_and(|&start| start >= 0)
                    && offsets.last().is_some_and(|&end| end as usize <= bytes.len())
            }
        };
        text_fits && self.valid.is_none_or(|valid| valid.len() == self.len())
    }

    #[inline]
    fn field<'b>(&'b self, row: usize, buffer: &'b mut [u8; INTEGER_BYTES]) -> &'b [u8] {
        if self.valid.is_some_and(|valid| !valid[row]) {
            return b"";
        }
        match self.values {
            Values::Integers(integers) => digits_of(integers[row], buffer),
            Values::Text(bytes, offsets) => {
                &bytes[offsets[row] as usize..offsets[row + 1] as usize]
            }
        }
    }
}

#[inline]
fn digits_of(value: i64, buffer: &mut [u8; INTEGER_BYTES]) -> &[u8] {
    if value < 0 {
        let mut rest = &mut buffer[..];
        write!(rest, "{value}").expect("the buffer holds every integer");
        let left = rest.len();
        return &buffer[..INTEGER_BYTES - left];
    }
    let (mut rest, mut start) = (value, INTEGER_BYTES);
    loop {
        start -= 1;
        buffer[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return &buffer[start..];
        }
    }
}

/// A log that is given batch by batch.
pub struct ColumnarLog {
    path: PathBuf,
    layout: Layout,
    options: LogOptions,
    table: Table,
    pieces: Vec<Rows>,
}

impl ColumnarLog {
    /// Finds the columns by the options, by their names and by a sample of their content as text.
    ///
    /// The columns marked in `is_nanos` hold nanoseconds since 1970. `path` is what messages call
    /// the log. Beyond the limit, if there is one, rows go to the disk.
    pub fn new(
        path: PathBuf,
        names: Vec<String>,
        sample: &[Vec<String>],
        is_nanos: &[bool],
        options: LogOptions,
        limit: Option<&MemoryLimit>,
    ) -> Result<Self> {
        let sample: Vec<Vec<Vec<u8>>> = sample
            .iter()
            .map(|row| row.iter().map(|field| field.clone().into_bytes()).collect())
            .collect();
        let places = columns::find(&path, &names, true, &sample, &options)?;
        let layout = Layout::columnar(names, places, &sample, is_nanos);
        Ok(Self { path, layout, options, table: Table::new(limit), pieces: Vec::new() })
    }

    /// The places of the columns to give, in this order.
    pub fn places(&self) -> Vec<usize> {
        RecordReader::new(&self.layout, &self.options).places().collect()
    }

    /// Counts the rows of messages anew, for the next file.
    pub fn start_file(&mut self, path: PathBuf) {
        self.path = path;
        self.table.start_file(0);
    }

    /// Appends a batch: the columns of [`ColumnarLog::places`], of equal length.
    pub fn append(&mut self, columns: &[Column], pool: &rayon::ThreadPool) -> Result<()> {
        let reader = RecordReader::new(&self.layout, &self.options);
        let places: Vec<usize> = reader.places().collect();
        let num_rows = columns.first().map_or(0, Column::len);
        let fits = columns.len() == places.len()
            && columns.iter().all(|column| column.len() == num_rows && column.is_sound());
        if !fits {
            return Err(Error::log(&self.path, "columns of equal length", "others"));
        }
        let mut slot_of_place = vec![MAX_COLUMNS; self.layout.columns.len()];
        places.iter().enumerate().for_each(|(slot, &place)| slot_of_place[place] = slot);
        let batch = Batch { columns, slot_of_place, reader, on_bad_row: self.options.on_bad_row };
        let Self { path, options, table, pieces, .. } = self;
        pieces.resize_with(num_rows.div_ceil(ROWS_PER_PIECE), Rows::default);
        pool.install(|| {
            pieces.par_iter_mut().enumerate().for_each(|(number, rows)| {
                let start = number * ROWS_PER_PIECE;
                batch.read(start..num_rows.min(start + ROWS_PER_PIECE), rows);
            });
            pieces.iter_mut().try_for_each(|rows| table.append(rows, path, options.on_bad_row))
        })
    }

    /// Ends the log, which was read from these files.
    pub fn finish(self, sources: Vec<SourceSummary>) -> Result<Log> {
        let Self { path, layout, table, .. } = self;
        if table.counts.read == 0 {
            return Err(Error::log(&path, "interactions", "no rows"));
        }
        Log::of(path, layout, table, sources)
    }
}

/// Columns, and how to read them.
struct Batch<'a> {
    columns: &'a [Column<'a>],
    slot_of_place: Vec<usize>,
    reader: RecordReader<'a>,
    on_bad_row: OnBadRow,
}

impl Batch<'_> {
    fn read(&self, range: Range<usize>, rows: &mut Rows) {
        rows.clear();
        for column in self.columns {
            if let Values::Text(bytes, offsets) = column.values {
                let (start, end) = (offsets[range.start], offsets[range.end]);
                rows.look_for_nul(&bytes[start as usize..end as usize]);
            }
        }
        let integers = self.integers();
        for row in range {
            rows.lines += 1;
            rows.counts.read += 1;
            if integers.as_ref().is_some_and(|integers| integers.take(row, rows)) {
                continue;
            }
            if let Err(bad) = self.read_row(row, rows) {
                rows.push_bad(rows.lines, bad);
                if self.on_bad_row == OnBadRow::Fail {
                    break;
                }
            }
        }
    }

    fn read_row(&self, row: usize, rows: &mut Rows) -> std::result::Result<(), BadRow> {
        let mut buffers = [[0; INTEGER_BYTES]; MAX_COLUMNS];
        let mut fields: [&[u8]; MAX_COLUMNS] = [b""; MAX_COLUMNS];
        for ((field, column), buffer) in fields.iter_mut().zip(self.columns).zip(&mut buffers) {
            *field = column.field(row, buffer);
        }
        self.reader.take(|place| fields[self.slot_of_place[place]], rows)
    }

    /// The columns, if all are integers without gaps and nothing but ids and times.
    fn integers(&self) -> Option<Integers<'_>> {
        let [time_style, tie_break_style] = self.reader.time_styles_without_rating()?;
        let mut columns = self.columns.iter().map(|column| match column.values {
            Values::Integers(values) if column.valid.is_none() => Some(values),
            _ => None,
        });
        let (users, items) = (columns.next()??, columns.next()??);
        let mut times = |style: Option<TimeStyle>| match style {
            None => Some(None),
            Some(TimeStyle::Date) => None,
            Some(style) => Some(Some((columns.next()??, style == TimeStyle::Nanos))),
        };
        Some(Integers {
            users,
            items,
            times: times(time_style)?,
            tie_breaks: times(tie_break_style)?,
        })
    }
}

/// A column of times, and whether they are nanoseconds.
type IntegerTimes<'a> = (&'a [i64], bool);

/// Columns of integers, which need not be looked at as text.
struct Integers<'a> {
    users: &'a [i64],
    items: &'a [i64],
    times: Option<IntegerTimes<'a>>,
    tie_breaks: Option<IntegerTimes<'a>>,
}

impl Integers<'_> {
    /// Takes a row of small ids; false if the row is to be read as any other.
    #[inline]
    fn take(&self, row: usize, rows: &mut Rows) -> bool {
        let ids = [self.users, self.items].map(|ids| ShortId::of_integer(ids[row]));
        let [Some(user), Some(item)] = ids else { return false };
        let time = |column: Option<IntegerTimes>| {
            let (times, is_nanos) = column?;
            Some(if is_nanos { Time::Nanos(times[row]) } else { Time::Integer(times[row]) })
        };
        rows.push_integers(user, item, time(self.times), time(self.tie_breaks));
        true
    }
}

impl Layout {
    fn columnar(
        columns: Vec<String>,
        places: columns::Places,
        sample: &[Vec<Vec<u8>>],
        is_nanos: &[bool],
    ) -> Self {
        let style = |role| match places.of(role) {
            Some(place) if is_nanos[place] => Some(TimeStyle::Nanos),
            _ => super::layout::time_style(role, &places, sample),
        };
        let [time_style, tie_break_style] = [Role::Time, Role::TieBreak].map(style);
        Self::of_columns(columns, places, time_style, tie_break_style)
    }
}

#[cfg(test)]
mod tests {
    use super::{INTEGER_BYTES, digits_of};

    #[test]
    fn integers_have_the_digits_that_people_write() {
        for value in [0, 7, 10, 1_700_000_000, i64::MAX, -1, -10, i64::MIN] {
            let mut buffer = [0; INTEGER_BYTES];
            assert_eq!(digits_of(value, &mut buffer), value.to_string().as_bytes());
        }
    }
}
