use std::path::Path;

use crate::error::Result;
use crate::ingest::time::{TimeColumn, TimeScale, TimeUnit, to_nanos};
use crate::interactions::Interactions;
use crate::spill::MemoryLimit;
use crate::spill::column::ColumnFile;

/// Rows that are looked at together.
pub(super) const ROWS_TOGETHER: usize = 1 << 16;

/// The rows of a log, in the order of its files.
#[derive(Debug)]
pub enum LogRows {
    /// In memory.
    Memory(Interactions),
    /// On the disk, because of a memory limit.
    Disk(SpilledRows),
}

/// What puts rows aside while a log is read.
pub(crate) struct Spill {
    limit: MemoryLimit,
    files: Option<Files>,
}

struct Files {
    users: ColumnFile<u32>,
    items: ColumnFile<u32>,
    times: TimesFile,
    tie_breaks: TimesFile,
}

impl Spill {
    pub fn new(limit: MemoryLimit) -> Self {
        Self { limit, files: None }
    }

    /// Whether so many bytes of ids and of rows are too many.
    pub fn is_due(&self, ids: usize, rows: usize) -> Result<bool> {
        // What is built of the rows takes as much again.
        let left = self.limit.left_by(ids, "the ids of users and items, which stay there")?;
        Ok(rows > left / 2)
    }

    pub fn has_rows(&self) -> bool {
        self.files.is_some()
    }

    /// Appends rows, which are then forgotten; false if the times of all rows so far do not fit
    /// into nanoseconds although they have to.
    pub fn put_aside(
        &mut self,
        users: &mut Vec<u32>,
        items: &mut Vec<u32>,
        times: &mut TimeColumn,
        tie_breaks: &mut TimeColumn,
    ) -> Result<bool> {
        let directory = &self.limit.directory;
        let files = match &mut self.files {
            Some(files) => files,
            none => none.insert(Files {
                users: ColumnFile::create(directory, "users")?,
                items: ColumnFile::create(directory, "items")?,
                times: TimesFile::create(directory, "times")?,
                tie_breaks: TimesFile::create(directory, "tie-breaks")?,
            }),
        };
        files.users.append(users)?;
        files.items.append(items)?;
        users.clear();
        items.clear();
        Ok(files.times.append(times)? & files.tie_breaks.append(tie_breaks)?)
    }

    /// The rows put aside, with times as far as the log has some.
    pub fn finish(self, has_times: bool, has_tie_breaks: bool) -> Option<Result<SpilledRows>> {
        let Self { limit, files } = self;
        let Files { users, items, times, tie_breaks } = files?;
        let finish = || {
            let times = has_times.then(|| times.finish()).transpose()?;
            let tie_breaks = has_tie_breaks.then(|| tie_breaks.finish()).transpose()?;
            Ok(SpilledRows { limit, users, items, times, tie_breaks })
        };
        Some(finish())
    }
}

/// A column of times: integers as read, and nanoseconds from the first one on that is not whole.
struct TimesFile {
    file: ColumnFile<i64>,
    num_integers: usize,
    is_nanos: bool,
    unit: TimeUnit,
}

impl TimesFile {
    fn create(directory: &Path, name: &str) -> Result<Self> {
        let file = ColumnFile::create(directory, name)?;
        Ok(Self { file, num_integers: 0, is_nanos: false, unit: TimeUnit::Number })
    }

    fn append(&mut self, times: &mut TimeColumn) -> Result<bool> {
        let mut fits = true;
        if times.is_nanos() && !self.is_nanos {
            self.is_nanos = true;
            self.for_each(|stored| fits &= stored.iter().all(|&time| to_nanos(time).is_some()))?;
        }
        self.file.append(&times.values)?;
        times.values.clear();
        if !self.is_nanos {
            self.num_integers = self.file.len();
        }
        Ok(fits)
    }

    /// Finds the unit.
    fn finish(mut self) -> Result<Self> {
        let mut scale = TimeScale::new(self.is_nanos);
        let mut start = 0;
        let mut times = Vec::new();
        while start < self.file.len() {
            self.read_stored(start, &mut times)?;
            scale.add(&times);
            start += times.len();
        }
        self.unit = scale.unit();
        Ok(self)
    }

    fn for_each(&self, mut visit: impl FnMut(&[i64])) -> Result<()> {
        let mut times = Vec::new();
        for start in (0..self.file.len()).step_by(ROWS_TOGETHER) {
            self.file.read(start, ROWS_TOGETHER, &mut times)?;
            visit(&times);
        }
        Ok(())
    }

    /// Times from a row on, as integers or, if some are, as nanoseconds.
    fn read_stored(&self, start: usize, times: &mut Vec<i64>) -> Result<()> {
        self.file.read(start, ROWS_TOGETHER, times)?;
        if self.is_nanos {
            let num_integers = self.num_integers.saturating_sub(start).min(times.len());
            for time in &mut times[..num_integers] {
                *time = to_nanos(*time).expect("all were found to fit");
            }
        }
        Ok(())
    }

    /// Times from a row on, in their unit.
    fn read(&self, start: usize, times: &mut Vec<i64>) -> Result<()> {
        self.read_stored(start, times)?;
        if self.is_nanos {
            times.iter_mut().for_each(|time| *time /= self.unit.nanos());
        }
        Ok(())
    }
}

/// The rows of a log on the disk.
pub struct SpilledRows {
    pub(super) limit: MemoryLimit,
    users: ColumnFile<u32>,
    items: ColumnFile<u32>,
    times: Option<TimesFile>,
    tie_breaks: Option<TimesFile>,
}

impl std::fmt::Debug for SpilledRows {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.debug_struct("SpilledRows").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl SpilledRows {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The unit of the timestamps, if there are any.
    pub fn time_unit(&self) -> Option<TimeUnit> {
        self.times.as_ref().map(|times| times.unit)
    }

    pub(super) fn has_tie_breaks(&self) -> bool {
        self.tie_breaks.is_some()
    }

    /// Calls `visit` with the number of a row and some rows from it on, from the first to the
    /// last; with times only if they are wanted. `check` may stop it.
    pub(super) fn for_each(
        &self,
        with_times: bool,
        check: &mut dyn FnMut() -> Result<()>,
        mut visit: impl FnMut(usize, &Interactions) -> Result<()>,
    ) -> Result<()> {
        let mut rows = Interactions::default();
        for start in (0..self.len()).step_by(ROWS_TOGETHER) {
            check()?;
            self.users.read(start, ROWS_TOGETHER, &mut rows.users)?;
            self.items.read(start, ROWS_TOGETHER, &mut rows.items)?;
            let columns =
                [(&self.times, &mut rows.timestamps), (&self.tie_breaks, &mut rows.tie_breaks)];
            for (file, column) in columns {
                if let Some(file) = file.as_ref().filter(|_| with_times) {
                    let mut values = column.take().unwrap_or_default();
                    file.read(start, &mut values)?;
                    *column = Some(values);
                }
            }
            visit(start, &rows)?;
        }
        Ok(())
    }
}

impl LogRows {
    /// The rows, which no memory limit put aside.
    ///
    /// # Panics
    ///
    /// Where one did.
    pub fn in_memory(self) -> Interactions {
        match self {
            Self::Memory(interactions) => interactions,
            Self::Disk(_) => unreachable!("only a memory limit puts rows aside"),
        }
    }
}
