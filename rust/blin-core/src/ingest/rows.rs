//! What a parser makes of a block, and how the blocks of a log become one table.

use std::ops::AddAssign;
use std::path::Path;
use std::str::FromStr;

use rayon::join;

use crate::error::{Error, Result};
use crate::ingest::layout::Layout;
use crate::ingest::time::{Time, TimeColumn, TimeUnit, UnitWatch, too_wide};
use crate::interactions::Interactions;
use crate::spill::{LogRows, MemoryLimit, Spill};
use crate::vocabulary::{Interner, ShortId, TOGETHER, Vocabulary};

/// Messages of skipped rows that are kept to be shown.
const KEPT_MESSAGES: usize = 5;

/// The longest id of a user or an item.
pub const MAX_ID_BYTES: usize = 64 << 10;

/// Says why an id that was refused cannot be one.
pub fn expected_id(id: &[u8]) -> String {
    if id.len() > MAX_ID_BYTES {
        format!("an id of at most {} KiB", MAX_ID_BYTES >> 10)
    } else if memchr::memchr(0, id).is_some() {
        "text without NUL characters".to_owned()
    } else {
        "text in UTF-8".to_owned()
    }
}

/// What to do with a row that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBadRow {
    /// Stop at the first one of the file.
    #[default]
    Fail,
    /// Leave it out and count it.
    Skip,
}

impl FromStr for OnBadRow {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "fail" => Ok(Self::Fail),
            "skip" => Ok(Self::Skip),
            _ => Err(Error::argument("on_bad_row", r#""fail" or "skip""#, name)),
        }
    }
}

/// A row that cannot be read.
#[derive(Debug)]
pub struct BadRow {
    /// The column at fault, if it is not the whole row.
    pub column: Option<String>,
    /// What should have stood there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl BadRow {
    fn into_error(self, path: &Path, line: u64) -> Error {
        let (path, Self { column, expected, found }) = (path.to_owned(), self);
        match column {
            Some(column) => Error::Value { path, line, column, expected, found },
            None => Error::Row { path, line, expected, found },
        }
    }
}

/// The ids of one column of a block.
///
/// A short id is kept as its word. A longer one is looked up here, where many threads work at
/// once, and kept as its index with all bits of the highest byte set, which no short id has.
#[derive(Default)]
struct RawColumn {
    words: Vec<u64>,
    long: Interner,
}

const LONG: u64 = 0xff << 56;

impl RawColumn {
    /// The word to keep for an id, or nothing if the id is not UTF-8.
    #[inline]
    fn word_of(&mut self, id: &[u8]) -> Option<u64> {
        match ShortId::new(id) {
            Some(short) if short.is_ascii() => Some(short.word()),
            short => {
                std::str::from_utf8(id).ok()?;
                Some(short.map_or_else(|| LONG | u64::from(self.long.intern(id)), ShortId::word))
            }
        }
    }

    fn clear(&mut self) {
        self.words.clear();
        self.long.clear();
    }
}

/// The ids of one column of a log and the index of each row's id.
#[derive(Default)]
struct IdColumn {
    ids: Interner,
    indices: Vec<u32>,
}

impl IdColumn {
    /// Appends the column of the next block; false if there are too many ids to count.
    fn append(&mut self, block: &RawColumn) -> bool {
        let Self { ids, indices } = self;
        let long: Vec<u32> = block.long.vocabulary().iter().map(|id| ids.intern(id)).collect();
        for words in block.words.chunks(TOGETHER) {
            let found = ids.find_integers(words);
            indices.extend(words.iter().zip(found).map(|(&word, found)| match found {
                0 if word < LONG => ids.intern_short(ShortId::from_word(word)),
                0 => long[(word - LONG) as usize],
                found => found - 1,
            }));
        }
        ids.len() < u32::MAX as usize
    }
}

/// What became of the data rows of a block or of a whole log, other than interactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowCounts {
    /// Data rows seen, of any kind; in a sequence file, items.
    pub read: u64,
    /// Rows left out because they cannot be read.
    pub skipped: u64,
    /// Rows left out because they name no user.
    pub without_user: u64,
    /// Rows left out because they name no item.
    pub without_item: u64,
    /// Rows left out because their rating is too low.
    pub below_rating: u64,
}

impl AddAssign for RowCounts {
    fn add_assign(&mut self, later: Self) {
        self.read += later.read;
        self.skipped += later.skipped;
        self.without_user += later.without_user;
        self.without_item += later.without_item;
        self.below_rating += later.below_rating;
    }
}

/// Whether a user's field says that there is none: it is empty, or what R, pandas, Python and
/// databases write for a missing value.
#[inline]
pub fn is_missing_user(field: &[u8]) -> bool {
    matches!(field, b"" | b"NA" | b"NaN" | b"nan" | b"null" | b"NULL" | b"None" | b"\\N")
}

/// The rows of one block.
///
/// Blocks are parsed in any order and by any thread; [`Table::append`] in the order of the file
/// makes the result independent of both.
#[derive(Default)]
pub struct Rows {
    users: RawColumn,
    items: RawColumn,
    times: TimeColumn,
    tie_breaks: TimeColumn,
    /// What became of the rows.
    pub counts: RowCounts,
    /// Lines seen, of any kind; the last of them is the one of the row that is taken.
    pub lines: u64,
    bad: Vec<(u64, BadRow)>,
    units: UnitWatch,
    may_hold_nul: bool,
}

impl Rows {
    /// Appends an interaction; says whose id is none if one is not.
    #[inline]
    pub fn push(
        &mut self,
        user: &[u8],
        item: &[u8],
        time: Option<Time>,
        tie_break: Option<Time>,
    ) -> std::result::Result<(), RowFault> {
        self.check_id(user, RowFault::User)?;
        self.check_id(item, RowFault::Item)?;
        let user = self.users.word_of(user).ok_or(RowFault::User)?;
        let item = self.items.word_of(item).ok_or(RowFault::Item)?;
        self.push_words(user, item, time, tie_break);
        Ok(())
    }

    /// Appends an interaction of two integers.
    #[inline]
    pub fn push_integers(
        &mut self,
        user: ShortId,
        item: ShortId,
        time: Option<Time>,
        tie_break: Option<Time>,
    ) {
        self.push_words(user.word(), item.word(), time, tie_break);
    }

    #[inline]
    fn push_words(&mut self, user: u64, item: u64, time: Option<Time>, tie_break: Option<Time>) {
        time.into_iter().for_each(|time| self.times.push(time));
        tie_break.into_iter().for_each(|time| self.tie_breaks.push(time));
        if let Some(Time::Integer(value)) = time {
            self.units.see(value, self.lines);
        }
        self.users.words.push(user);
        self.items.words.push(item);
    }

    /// How many interactions there are.
    pub fn count(&self) -> usize {
        self.users.words.len()
    }

    /// Keeps so many interactions, the oldest; they must be without times.
    pub fn truncate(&mut self, count: usize) {
        self.users.words.truncate(count);
        self.items.words.truncate(count);
    }

    /// Notes whether ids made of these bytes must be searched for NUL.
    pub fn look_for_nul(&mut self, bytes: &[u8]) {
        self.may_hold_nul |= memchr::memchr(0, bytes).is_some();
    }

    #[inline]
    fn check_id(&self, id: &[u8], fault: RowFault) -> std::result::Result<(), RowFault> {
        let has_nul = self.may_hold_nul && memchr::memchr(0, id).is_some();
        if id.len() > MAX_ID_BYTES || has_nul { Err(fault) } else { Ok(()) }
    }

    /// Notes that the row on `line` of this block cannot be read.
    pub fn push_bad(&mut self, line: u64, bad: BadRow) {
        self.counts.skipped += 1;
        if self.bad.len() < KEPT_MESSAGES {
            self.bad.push((line, bad));
        }
    }

    /// Whether a row could not be read.
    pub fn has_bad(&self) -> bool {
        self.counts.skipped > 0
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.users.clear();
        self.items.clear();
        self.times.clear();
        self.tie_breaks.clear();
        self.bad.clear();
        self.units = UnitWatch::default();
        self.may_hold_nul = false;
        (self.counts, self.lines) = (RowCounts::default(), 0);
    }
}

/// Which part of a row is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowFault {
    /// The user's id is not UTF-8, holds a NUL or is too long.
    User,
    /// The item's id is not UTF-8, holds a NUL or is too long.
    Item,
}

/// The rows of a log so far, in the order of its files.
#[derive(Default)]
pub struct Table {
    users: IdColumn,
    items: IdColumn,
    times: TimeColumn,
    tie_breaks: TimeColumn,
    /// What became of the rows.
    pub counts: RowCounts,
    /// The first messages of rows that were skipped.
    pub messages: Vec<String>,
    lines_of_file: u64,
    spill: Option<Spill>,
    /// Rows that are on the disk.
    num_aside: usize,
    units: UnitWatch,
    mixed_units: Option<String>,
}

impl Table {
    /// No rows yet; beyond the limit, if there is one, they go to the disk.
    pub fn new(limit: Option<&MemoryLimit>) -> Self {
        Self { spill: limit.cloned().map(Spill::new), ..Self::default() }
    }

    /// Starts counting lines anew.
    pub fn start_file(&mut self, lines: u64) {
        self.lines_of_file = lines;
    }

    /// The line at which the next block begins, counted from 0.
    pub fn lines_of_file(&self) -> u64 {
        self.lines_of_file
    }

    /// Appends the rows of the next block of the file.
    pub fn append(&mut self, later: &mut Rows, path: &Path, on_bad_row: OnBadRow) -> Result<()> {
        for (line, bad) in later.bad.drain(..) {
            let error = bad.into_error(path, self.lines_of_file + line);
            if on_bad_row == OnBadRow::Fail {
                return Err(error);
            }
            if self.messages.len() < KEPT_MESSAGES {
                self.messages.push(error.to_string());
            }
        }
        if let (Some(mix), None) = (self.units.merge(&later.units), &self.mixed_units) {
            self.mixed_units = Some(mix.warning(path, self.lines_of_file));
        }
        self.lines_of_file += later.lines;
        self.counts += later.counts;
        let Self { users, items, times, tie_breaks, .. } = self;
        let (users_fit, (items_fit, times_fit)) = join(
            || users.append(&later.users),
            || {
                join(
                    || items.append(&later.items),
                    || times.append(&mut later.times) & tie_breaks.append(&mut later.tie_breaks),
                )
            },
        );
        let num_rows = self.num_aside + self.users.indices.len();
        if !users_fit || !items_fit || num_rows >= u32::MAX as usize {
            return Err(Error::log(path, "less than 2^32 rows", "more"));
        }
        let is_due = match &self.spill {
            Some(spill) => {
                let ids = self.users.ids.memory() + self.items.ids.memory();
                let row_bytes = 8 * (1 + usize::from(!self.times.values.is_empty()))
                    + 8 * usize::from(!self.tie_breaks.values.is_empty());
                spill.is_due(ids, self.users.indices.len() * row_bytes)?
            }
            None => false,
        };
        if times_fit && (!is_due || self.put_aside()?) { Ok(()) } else { too_wide(path) }
    }

    /// What is odd about the times, if anything. Decimals among them bring each to nanoseconds by
    /// its own size, and nothing is mixed up.
    pub fn warning(&self) -> Option<String> {
        self.mixed_units.clone().filter(|_| !self.times.is_nanos())
    }

    /// Puts the rows in memory on the disk; false if their times do not fit together.
    fn put_aside(&mut self) -> Result<bool> {
        let Self { users, items, times, tie_breaks, spill, .. } = self;
        let Some(spill) = spill else { return Ok(true) };
        self.num_aside += users.indices.len();
        spill.put_aside(&mut users.indices, &mut items.indices, times, tie_breaks)
    }

    /// The rows, with times as far as the layout has some, and their ids.
    pub fn finish(mut self, path: &Path, layout: &Layout) -> Result<Finished> {
        let (has_times, has_tie_breaks) =
            (layout.time_style.is_some(), layout.tie_break_style.is_some());
        if self.spill.as_ref().is_some_and(Spill::has_rows) && !self.put_aside()? {
            too_wide(path)?;
        }
        let Self { users, items, times, tie_breaks, spill, .. } = self;
        let spilled =
            spill.and_then(|spill| spill.finish(has_times, has_tie_breaks)).transpose()?;
        let (user_ids, item_ids) = (users.ids.into_vocabulary(), items.ids.into_vocabulary());
        if let Some(rows) = spilled {
            let time_unit = rows.time_unit();
            return Ok(Finished { rows: LogRows::Disk(rows), time_unit, user_ids, item_ids });
        }
        let (timestamps, time_unit) = has_times.then(|| times.finish()).unzip();
        let tie_breaks = has_tie_breaks.then(|| tie_breaks.finish().0);
        let rows = LogRows::Memory(Interactions {
            users: users.indices,
            items: items.indices,
            timestamps,
            tie_breaks,
        });
        Ok(Finished { rows, time_unit, user_ids, item_ids })
    }
}

/// A log that was read to its end.
pub struct Finished {
    /// The rows in file order.
    pub rows: LogRows,
    /// The unit of the timestamps.
    pub time_unit: Option<TimeUnit>,
    /// Raw ids of users.
    pub user_ids: Vocabulary,
    /// Raw ids of items.
    pub item_ids: Vocabulary,
}
