use std::path::Path;

use crate::error::{Error, Result};
use crate::interactions::Interactions;
use crate::spill::column::{Number, Scratch};
use crate::spill::rows::ROWS_TOGETHER;
use crate::spill::{BYTES_PER_ROW, MemoryLimit, size};

/// Ranges of users, each with so few rows that they fit into memory together.
pub(super) struct Ranges {
    /// The first user of each range, and the number of users.
    pub users: Vec<u32>,
    /// The first row of each range when its rows follow those of the ranges before.
    rows: Vec<usize>,
}

impl Ranges {
    /// Makes ranges of users, who have so many rows each, within so many bytes of memory.
    pub fn new(counts: &[i64], memory: usize, limit: &MemoryLimit) -> Result<Self> {
        let most = rows_within(memory);
        let mut ranges = Self { users: vec![0], rows: vec![0] };
        let (mut num_rows, mut in_range) = (0, 0);
        for (user, &count) in (0..).zip(counts) {
            let count = count as usize;
            if count > most {
                return Err(user_too_long(count, memory, limit));
            }
            if in_range > 0 && in_range + count > most.min(ROWS_PER_RANGE) {
                ranges.users.push(user);
                ranges.rows.push(num_rows);
                in_range = 0;
            }
            in_range += count;
            num_rows += count;
        }
        ranges.users.push(counts.len() as u32);
        ranges.rows.push(num_rows);
        Ok(ranges)
    }

    fn len(&self) -> usize {
        self.users.len() - 1
    }

    fn range_of(&self, user: u32) -> usize {
        self.users[1..].partition_point(|&end| end <= user)
    }
}

/// Rows of a range of several users at most, so that a range is done within a second.
const ROWS_PER_RANGE: usize = 1 << 22;

/// A quarter is for rows that wait to be written.
fn rows_within(memory: usize) -> usize {
    memory / 4 * 3 / BYTES_PER_ROW
}

fn user_too_long(count: usize, memory: usize, limit: &MemoryLimit) -> Error {
    let needed = (count * BYTES_PER_ROW).div_ceil(3) * 4;
    let least = size(limit.bytes - memory + needed);
    let expected =
        format!("at least {least} of memory for a user of {count} interactions, sorted at once");
    Error::MemoryLimit { expected, found: size(limit.bytes) }
}

/// Which columns the rows have besides users and items.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    pub row_numbers: bool,
    pub times: bool,
    pub tie_breaks: bool,
}

impl Columns {
    fn row_bytes(self) -> usize {
        let u32s = 2 + usize::from(self.row_numbers);
        u32s * u32::BYTES + (usize::from(self.times) + usize::from(self.tie_breaks)) * i64::BYTES
    }
}

/// Rows on the disk in the order of ranges of users and, within a range, in that of the file.
pub(super) struct Partitions {
    ranges: Ranges,
    columns: Columns,
    scratch: Scratch,
    waiting: Vec<Vec<u8>>,
    waiting_bytes: usize,
    /// Rows of each range that are on the disk.
    written: Vec<usize>,
}

/// The rows of one range of users, who are counted from the first of the range.
pub(super) struct Partition {
    pub first_user: u32,
    pub num_users: usize,
    pub interactions: Interactions,
    pub row_numbers: Vec<u32>,
}

impl Partitions {
    pub fn new(directory: &Path, ranges: Ranges, columns: Columns, memory: usize) -> Result<Self> {
        let waiting_bytes =
            (memory / 4 / ranges.len()).clamp(columns.row_bytes(), ROWS_TOGETHER * 4);
        Ok(Self {
            columns,
            scratch: Scratch::create(directory, "ranges")?,
            waiting: vec![Vec::new(); ranges.len()],
            waiting_bytes,
            written: vec![0; ranges.len()],
            ranges,
        })
    }

    /// Appends a row of a user and an item, which is in this place of these.
    pub fn push(
        &mut self,
        user: u32,
        item: u32,
        number: usize,
        rows: &Interactions,
        place: usize,
    ) -> Result<()> {
        let range = self.ranges.range_of(user);
        let bytes = &mut self.waiting[range];
        user.put(bytes);
        item.put(bytes);
        if self.columns.row_numbers {
            (number as u32).put(bytes);
        }
        for (times, wanted) in
            [(&rows.timestamps, self.columns.times), (&rows.tie_breaks, self.columns.tie_breaks)]
        {
            if let Some(times) = times.as_ref().filter(|_| wanted) {
                times[place].put(bytes);
            }
        }
        if bytes.len() + self.columns.row_bytes() > self.waiting_bytes {
            self.write(range)
        } else {
            Ok(())
        }
    }

    fn write(&mut self, range: usize) -> Result<()> {
        let row_bytes = self.columns.row_bytes();
        let place = (self.ranges.rows[range] + self.written[range]) * row_bytes;
        self.scratch.write_at(place as u64, &self.waiting[range])?;
        self.written[range] += self.waiting[range].len() / row_bytes;
        self.waiting[range].clear();
        Ok(())
    }

    /// Calls `visit` with one range after the other.
    pub fn for_each(
        mut self,
        check: &mut dyn FnMut() -> Result<()>,
        mut visit: impl FnMut(Partition) -> Result<()>,
    ) -> Result<()> {
        for range in 0..self.ranges.len() {
            self.write(range)?;
        }
        self.waiting = Vec::new();
        for range in 0..self.ranges.len() {
            check()?;
            visit(self.read(range)?)?;
        }
        Ok(())
    }

    fn read(&self, range: usize) -> Result<Partition> {
        let Columns { row_numbers, times, tie_breaks } = self.columns;
        let (first_user, end_user) = (self.ranges.users[range], self.ranges.users[range + 1]);
        let (start, end) = (self.ranges.rows[range], self.ranges.rows[range + 1]);
        let column = |wanted: bool| if wanted { end - start } else { 0 };
        let new_times = |wanted: bool| wanted.then(|| Vec::with_capacity(end - start));
        let mut partition = Partition {
            first_user,
            num_users: (end_user - first_user) as usize,
            interactions: Interactions {
                users: Vec::with_capacity(end - start),
                items: Vec::with_capacity(end - start),
                timestamps: new_times(times),
                tie_breaks: new_times(tie_breaks),
            },
            row_numbers: Vec::with_capacity(column(row_numbers)),
        };
        let row_bytes = self.columns.row_bytes();
        let mut bytes = Vec::new();
        for first in (start..end).step_by(ROWS_TOGETHER) {
            bytes.resize(ROWS_TOGETHER.min(end - first) * row_bytes, 0);
            self.scratch.read_at((first * row_bytes) as u64, &mut bytes)?;
            bytes.chunks_exact(row_bytes).for_each(|row| partition.push(row));
        }
        Ok(partition)
    }
}

impl Partition {
    fn push(&mut self, mut row: &[u8]) {
        let Interactions { users, items, timestamps, tie_breaks } = &mut self.interactions;
        users.push(take::<u32>(&mut row) - self.first_user);
        items.push(take(&mut row));
        if self.row_numbers.capacity() > 0 {
            self.row_numbers.push(take(&mut row));
        }
        for times in [timestamps, tie_breaks].into_iter().flatten() {
            times.push(take(&mut row));
        }
    }
}

fn take<T: Number>(bytes: &mut &[u8]) -> T {
    let (number, rest) = bytes.split_at(T::BYTES);
    *bytes = rest;
    T::get(number)
}
