use sha2::{Digest, Sha256};

use crate::duplicates::{Duplicates, count_repeats, keep};
use crate::error::Result;
use crate::ingest::Log;
use crate::ingest::time::TimeRange;
use crate::interactions::{Interactions, Renumbering};
use crate::kcore::{Counts, Filter, State};
use crate::prepared::{
    Core, PrepareOptions, Prepared, Report, SequenceFiles, Ties, count_ties, hex, no_times,
    nothing_left, update,
};
use crate::sequences::Sequences;
use crate::spill::bits::Bits;
use crate::spill::npy::NpyWriter;
use crate::spill::partitions::{Columns, Partition, Partitions, Ranges};
use crate::spill::rows::SpilledRows;
use crate::split::{Cuts, Split, leave_one_out, temporal};

type Check<'a> = dyn FnMut() -> Result<()> + 'a;

/// Bytes of memory per row that is filtered in memory.
const BYTES_PER_FILTERED_ROW: usize = 24;

/// Rounds over the columns on the disk before the filter goes on in memory, if it can.
const DISK_ROUNDS: usize = 8;

/// Prepares a log whose rows are on the disk.
pub(crate) fn prepare_spilled(
    log: Log,
    rows: SpilledRows,
    options: &PrepareOptions,
    pool: &rayon::ThreadPool,
    check: &mut Check,
) -> Result<Prepared> {
    let memory = rows.limit.left_by_ids(&log.user_ids, &log.item_ids, rows.len())?;
    let kept = Bits::new(rows.len());
    Work { rows, options, pool, memory, kept }.run(log, check)
}

struct Work<'a> {
    rows: SpilledRows,
    options: &'a PrepareOptions,
    pool: &'a rayon::ThreadPool,
    /// Bytes for rows.
    memory: usize,
    kept: Bits,
}

/// One row among others that are in memory with it.
struct Row<'a> {
    /// Its number in the log.
    number: usize,
    user: u32,
    item: u32,
    rows: &'a Interactions,
    place: usize,
}

impl Work<'_> {
    fn run(mut self, log: Log, check: &mut Check) -> Result<Prepared> {
        let Log { path, user_ids, item_ids, layout, sources, .. } = log;
        let rows_duplicate = self.drop_duplicates(user_ids.len(), check)?;
        let core = self.filter(user_ids.len(), item_ids.len(), check)?;
        if core.rounds.last().unwrap_or(&core.before).interactions == 0 {
            return Err(nothing_left(&path, &layout, self.options.thresholds, core.before));
        }
        let mut users = Renumbering::new(user_ids.len());
        let mut items = Renumbering::new(item_ids.len());
        let (mut user_counts, mut item_counts) = (Vec::new(), Vec::new());
        self.for_each_kept(false, check, |row| {
            count(&mut user_counts, users.new_of(row.user));
            count(&mut item_counts, items.new_of(row.item));
            Ok(())
        })?;
        let cuts = match self.options.split {
            Split::LeaveOneOut => None,
            Split::Temporal { valid_from, test_from } => {
                let unit = self.rows.time_unit().ok_or_else(|| no_times(&path))?;
                let mut times = |visit: &mut dyn FnMut(&[i64])| self.for_each_time(check, visit);
                Some(Cuts::find(&mut times, unit, valid_from, test_from)?)
            }
        };
        let mut partitions = self.partitions(&user_counts, false)?;
        self.for_each_kept(true, check, |row| {
            let (user, item) = (users.new_of(row.user), items.new_of(row.item));
            partitions.push(user, item, row.number, row.rows, row.place)
        })?;
        let user_ids = user_ids.select(&users.old_of_new);
        let item_ids = item_ids.select(&items.old_of_new);
        drop((users, items));
        let mut writer = SequenceWriter::new(&self.rows, &user_counts, item_ids.len(), cuts)?;
        partitions.for_each(check, |partition| self.pool.install(|| writer.add(partition)))?;
        let written = writer.finish()?;
        let report = Report {
            layout,
            sources,
            rows: log.rows,
            rows_duplicate,
            messages: log.messages,
            warning: log.warning,
            before: core.before,
            rounds: core.rounds,
            counts: Counts {
                users: user_ids.len() as u64,
                items: item_ids.len() as u64,
                interactions: user_counts.iter().sum::<i64>() as u64,
            },
            tied_neighbours: written.ties.neighbours,
            users_with_tied_last: written.ties.users,
            repeats: written.repeats,
            time: written.time,
            cuts,
            fingerprint: written.fingerprint,
        };
        let sequences = Sequences { items: Vec::new(), offsets: written.offsets, timestamps: None };
        let (files, splits) = (Some(written.files), written.splits);
        Ok(Prepared { sequences, files, splits, user_ids, item_ids, item_counts, report })
    }

    /// Unmarks repeated rows and counts them.
    fn drop_duplicates(&mut self, num_users: usize, check: &mut Check) -> Result<u64> {
        if self.options.duplicates == Duplicates::Keep {
            return Ok(0);
        }
        let mut counts = vec![0; num_users];
        self.for_each_kept(false, check, |row| {
            count(&mut counts, row.user);
            Ok(())
        })?;
        let mut partitions = self.partitions(&counts, true)?;
        self.for_each_kept(true, check, |row| {
            partitions.push(row.user, row.item, row.number, row.rows, row.place)
        })?;
        let mut dropped = 0;
        let Self { pool, options, kept, .. } = self;
        partitions.for_each(check, |Partition { interactions, row_numbers, .. }| {
            let marks = pool.install(|| keep(&interactions, options.duplicates));
            for (mark, row) in marks.into_iter().flatten().zip(row_numbers) {
                if !mark {
                    kept.clear(row as usize);
                    dropped += 1;
                }
            }
            Ok(())
        })?;
        Ok(dropped)
    }

    /// Unmarks the rows outside of the k-core.
    fn filter(&mut self, num_users: usize, num_items: usize, check: &mut Check) -> Result<Core> {
        let (mut users, mut items) = (vec![0_u32; num_users], vec![0_u32; num_items]);
        self.for_each_kept(false, check, |row| {
            users[row.user as usize] += 1;
            items[row.item as usize] += 1;
            Ok(())
        })?;
        let mut state = State::of_counts(users, items, self.options.thresholds);
        let mut core = Core { before: state.left, rounds: Vec::new() };
        while state.has_work() {
            let bytes = state.left.interactions as usize * BYTES_PER_FILTERED_ROW;
            if core.rounds.len() >= DISK_ROUNDS && bytes <= self.memory {
                core.rounds.append(&mut self.filter_in_memory(check)?);
                break;
            }
            let mut doomed = Vec::new();
            let Self { rows, kept, .. } = self;
            rows.for_each(false, check, |first, rows| {
                let pairs = rows.users.iter().zip(&rows.items).zip(first..);
                doomed.extend(pairs.filter_map(|((&user, &item), row)| {
                    (kept.has(row) && state.is_doomed(user, item)).then_some((row, user, item))
                }));
                for (row, user, item) in doomed.drain(..) {
                    kept.clear(row);
                    state.lose(user, item);
                }
                Ok(())
            })?;
            state.next_round();
            core.rounds.push(state.left);
        }
        Ok(core)
    }

    /// Does the remaining rounds, of which there may be many.
    fn filter_in_memory(&mut self, check: &mut Check) -> Result<Vec<Counts>> {
        let (mut users, mut items, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        self.for_each_kept(false, check, |row| {
            users.push(row.user);
            items.push(row.item);
            numbers.push(row.number as u32);
            Ok(())
        })?;
        let thresholds = self.options.thresholds;
        let mut filter = self.pool.install(|| Filter::new(&users, &items, thresholds));
        while filter.has_work() {
            check()?;
            self.pool.install(|| filter.round());
        }
        let core = filter.finish();
        for (mark, row) in core.kept.into_iter().flatten().zip(numbers) {
            if !mark {
                self.kept.clear(row as usize);
            }
        }
        Ok(core.rounds)
    }

    fn partitions(&self, user_counts: &[i64], row_numbers: bool) -> Result<Partitions> {
        let ranges = Ranges::new(user_counts, self.memory, &self.rows.limit)?;
        let columns = Columns {
            row_numbers,
            times: self.rows.time_unit().is_some(),
            tie_breaks: self.rows.has_tie_breaks(),
        };
        Partitions::new(&self.rows.limit.directory, ranges, columns, self.memory)
    }

    fn for_each_kept(
        &self,
        with_times: bool,
        check: &mut Check,
        mut visit: impl FnMut(Row) -> Result<()>,
    ) -> Result<()> {
        self.rows.for_each(with_times, check, |first, rows| {
            (0..rows.len()).filter(|place| self.kept.has(first + place)).try_for_each(|place| {
                let (user, item) = (rows.users[place], rows.items[place]);
                visit(Row { number: first + place, user, item, rows, place })
            })
        })
    }

    fn for_each_time(&self, check: &mut Check, visit: &mut dyn FnMut(&[i64])) -> Result<()> {
        let mut kept = Vec::new();
        self.rows.for_each(true, check, |first, rows| {
            let times = rows.timestamps.iter().flatten().zip(first..);
            kept.clear();
            kept.extend(times.filter(|(_, row)| self.kept.has(*row)).map(|(time, _)| time));
            visit(&kept);
            Ok(())
        })
    }
}

fn count(counts: &mut Vec<i64>, index: u32) {
    if counts.len() <= index as usize {
        counts.resize(index as usize + 1, 0);
    }
    counts[index as usize] += 1;
}

/// Takes sequences in the order of their users, tells what they are like and writes them.
struct SequenceWriter {
    items: NpyWriter,
    timestamps: Option<NpyWriter>,
    offsets: Vec<i64>,
    splits: Vec<i64>,
    hasher: Sha256,
    num_items: usize,
    cuts: Option<Cuts>,
    ties: Ties,
    repeats: u64,
    time: Option<TimeRange>,
}

impl SequenceWriter {
    fn new(
        rows: &SpilledRows,
        user_counts: &[i64],
        num_items: usize,
        cuts: Option<Cuts>,
    ) -> Result<Self> {
        let mut offsets = Vec::with_capacity(user_counts.len() + 1);
        offsets.push(0);
        offsets.extend(user_counts.iter().scan(0, |end, count| {
            *end += count;
            Some(*end)
        }));
        let len = offsets[user_counts.len()] as usize;
        let mut hasher = Sha256::new();
        update(&mut hasher, &offsets, |value| value.to_le_bytes());
        let directory = &rows.limit.directory;
        let create = |name, kind| NpyWriter::create(directory, name, kind, len);
        Ok(Self {
            items: create("items.npy", "<u4")?,
            timestamps: rows.time_unit().map(|_| create("timestamps.npy", "<i8")).transpose()?,
            splits: Vec::with_capacity(2 * user_counts.len()),
            offsets,
            hasher,
            num_items,
            cuts,
            ties: Ties::default(),
            repeats: 0,
            time: rows.time_unit().map(|unit| TimeRange { unit, first: i64::MAX, last: i64::MIN }),
        })
    }

    fn add(&mut self, partition: Partition) -> Result<()> {
        let Partition { num_users, interactions, .. } = partition;
        let mut sequences = Sequences::new(interactions, num_users);
        sequences.items.iter_mut().for_each(|item| *item += 1);
        self.splits.append(&mut match self.cuts {
            Some(cuts) => temporal(&sequences, cuts),
            None => leave_one_out(&sequences.offsets),
        });
        self.ties += count_ties(&sequences);
        let Sequences { items, offsets, timestamps } = sequences;
        self.repeats += count_repeats(&items, &offsets, self.num_items as u32);
        update(&mut self.hasher, &items, |value| value.to_le_bytes());
        self.items.append(&items)?;
        if let (Some(times), Some(writer), Some(range)) =
            (timestamps, &mut self.timestamps, &mut self.time)
        {
            range.first = times.iter().copied().fold(range.first, i64::min);
            range.last = times.iter().copied().fold(range.last, i64::max);
            writer.append(&times)?;
        }
        Ok(())
    }
}

/// What is known once all sequences are written.
struct Written {
    files: SequenceFiles,
    offsets: Vec<i64>,
    splits: Vec<i64>,
    ties: Ties,
    repeats: u64,
    time: Option<TimeRange>,
    fingerprint: String,
}

impl SequenceWriter {
    fn finish(mut self) -> Result<Written> {
        update(&mut self.hasher, &self.splits, |value| value.to_le_bytes());
        Ok(Written {
            files: SequenceFiles {
                items: self.items.finish()?,
                timestamps: self.timestamps.map(NpyWriter::finish).transpose()?,
            },
            offsets: self.offsets,
            splits: self.splits,
            ties: self.ties,
            repeats: self.repeats,
            time: self.time,
            fingerprint: hex(self.hasher),
        })
    }
}
