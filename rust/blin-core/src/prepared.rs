//! The whole way from the files of a log to a prepared dataset.

use std::ops::AddAssign;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::duplicates::{Duplicates, count_repeats, keep};
use crate::error::{Error, Result};
use crate::ingest::{self, Layout, Log, LogOptions};
use crate::interactions::{Interactions, renumber};
use crate::kcore::{Counts, Filter, Thresholds};
use crate::progress::{Hook, Progress};
use crate::sequences::Sequences;
use crate::spill::{LogRows, MemoryLimit, prepare_spilled};
use crate::split::{Cuts, Split, leave_one_out, temporal};
use crate::vocabulary::Vocabulary;

pub use crate::ingest::rows::RowCounts;
pub use crate::ingest::source::SourceSummary;
pub use crate::ingest::time::{TimeRange, TimeUnit};

/// Everything that decides what a prepared dataset holds, and the memory and the number of threads,
/// which do not.
#[derive(Clone, Debug)]
pub struct PrepareOptions {
    /// How the log is to be read.
    pub log: LogOptions,
    /// How many interactions a user and an item must have, repeatedly.
    pub thresholds: Thresholds,
    /// What to do with repeated pairs of user and item.
    pub duplicates: Duplicates,
    /// What is held out.
    pub split: Split,
    /// Beyond which rows go to the disk.
    pub memory: Option<MemoryLimit>,
    /// Threads to use; as many as the machine gives if nothing is said.
    pub threads: Option<usize>,
}

/// The arrays of a prepared dataset and how they came about.
#[derive(Debug)]
pub struct Prepared {
    /// Items from 1 to the number of items, each user's oldest first.
    pub sequences: Sequences,
    /// Where items and timestamps are if `sequences` has none because of a memory limit.
    pub files: Option<SequenceFiles>,
    /// Two cut points per user.
    pub splits: Vec<i64>,
    /// Raw ids of the users in index order.
    pub user_ids: Vocabulary,
    /// Raw ids of the items in index order; the first one is item 1.
    pub item_ids: Vocabulary,
    /// How often each item occurs, in the same order.
    pub item_counts: Vec<i64>,
    /// What happened on the way.
    pub report: Report,
}

/// Arrays too large for the memory, as NumPy writes them.
#[derive(Debug)]
pub struct SequenceFiles {
    /// The items.
    pub items: PathBuf,
    /// The timestamps, if there are any.
    pub timestamps: Option<PathBuf>,
}

/// What was read, what was left out and what the result looks like.
#[derive(Clone, Debug)]
pub struct Report {
    /// How the log was understood.
    pub layout: Layout,
    /// The files.
    pub sources: Vec<SourceSummary>,
    /// What became of the rows of the log.
    pub rows: RowCounts,
    /// Rows left out because the user met the item before or met it again later.
    pub rows_duplicate: u64,
    /// What was wrong with the first rows that were skipped.
    pub messages: Vec<String>,
    /// What is odd about the times, if anything.
    pub warning: Option<String>,
    /// What there was before the k-core filter.
    pub before: Counts,
    /// What was left after each of its rounds.
    pub rounds: Vec<Counts>,
    /// What is left.
    pub counts: Counts,
    /// Neighbours in a sequence that have the same time.
    pub tied_neighbours: u64,
    /// Users whose last two interactions have the same time.
    pub users_with_tied_last: u64,
    /// Interactions of users with items that they have met before.
    pub repeats: u64,
    /// The unit, the oldest and the newest of the timestamps.
    pub time: Option<TimeRange>,
    /// Where a temporal split cuts.
    pub cuts: Option<Cuts>,
    /// SHA-256 over offsets, items and splits in little-endian order, in hexadecimal.
    pub fingerprint: String,
}

/// Reads a log and prepares it.
pub fn prepare(paths: &[PathBuf], options: &PrepareOptions, hook: &mut Hook) -> Result<Prepared> {
    let pool = thread_pool(options.threads)?;
    let log = ingest::read(paths, &options.log, options.memory.as_ref(), &pool, hook)?;
    let total = log.sources.iter().map(|source| source.bytes).sum();
    let mut check = || hook(Progress { done: total, total });
    run(log, options, &pool, &mut check)
}

/// Prepares a log that has been read.
pub fn prepare_log(log: Log, options: &PrepareOptions, hook: &mut Hook) -> Result<Prepared> {
    let pool = thread_pool(options.threads)?;
    run(log, options, &pool, &mut || hook(Progress::default()))
}

fn run(
    mut log: Log,
    options: &PrepareOptions,
    pool: &rayon::ThreadPool,
    check: &mut dyn FnMut() -> Result<()>,
) -> Result<Prepared> {
    match std::mem::replace(&mut log.interactions, LogRows::Memory(Interactions::default())) {
        LogRows::Memory(interactions) => {
            Preparation { options, pool }.run(log, interactions, check)
        }
        LogRows::Disk(rows) => prepare_spilled(log, rows, options, pool, check),
    }
}

/// More threads than any machine has use for; a typing error here must not stall it.
const MOST_THREADS: usize = 512;

/// A pool of this many threads, or of as many as the machine gives.
pub fn thread_pool(threads: Option<usize>) -> Result<rayon::ThreadPool> {
    if let Some(threads) = threads.filter(|threads| !(1..=MOST_THREADS).contains(threads)) {
        return Err(Error::argument("threads", &format!("1 to {MOST_THREADS}"), threads));
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.unwrap_or(0))
        .thread_name(|number| format!("blin-{number}"))
        .build()
        .map_err(|error| Error::argument("threads", "as many as the system allows", error))
}

struct Preparation<'a> {
    options: &'a PrepareOptions,
    pool: &'a rayon::ThreadPool,
}

impl Preparation<'_> {
    fn run(
        &self,
        log: Log,
        mut interactions: Interactions,
        check: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Prepared> {
        let Log { path, user_ids, item_ids, layout, time_unit, sources, .. } = log;
        check()?;
        let rows_duplicate = self.drop_duplicates(&mut interactions);
        check()?;
        let core = self.filter(&mut interactions, &path, &layout, check)?;
        check()?;
        let (user_ids, item_ids) = self.index(&mut interactions, &user_ids, &item_ids);
        check()?;
        let (num_users, num_items) = (user_ids.len(), item_ids.len());
        let mut sequences = self.pool.install(|| Sequences::new(interactions, num_users));
        check()?;
        let item_counts = count_items(&sequences.items, num_items);
        sequences.items.iter_mut().for_each(|item| *item += 1);
        let (splits, cuts) = self.split(&sequences, time_unit, &path)?;
        check()?;
        let (fingerprint, (repeats, ties)) = self.pool.install(|| {
            rayon::join(
                || fingerprint(&sequences, &splits),
                || {
                    let Sequences { items, offsets, .. } = &sequences;
                    (count_repeats(items, offsets, num_items as u32), count_ties(&sequences))
                },
            )
        });
        check()?;
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
                users: num_users as u64,
                items: num_items as u64,
                interactions: sequences.items.len() as u64,
            },
            tied_neighbours: ties.neighbours,
            users_with_tied_last: ties.users,
            repeats,
            time: TimeRange::of(sequences.timestamps.as_deref(), time_unit),
            cuts,
            fingerprint,
        };
        let files = None;
        Ok(Prepared { sequences, files, splits, user_ids, item_ids, item_counts, report })
    }

    fn drop_duplicates(&self, interactions: &mut Interactions) -> u64 {
        let before = interactions.len();
        if let Some(kept) = self.pool.install(|| keep(interactions, self.options.duplicates)) {
            interactions.retain(&kept);
        }
        (before - interactions.len()) as u64
    }

    fn filter(
        &self,
        interactions: &mut Interactions,
        path: &Path,
        layout: &Layout,
        check: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Core> {
        let thresholds = self.options.thresholds;
        let Interactions { users, items, .. } = &*interactions;
        let mut filter = self.pool.install(|| Filter::new(users, items, thresholds));
        while filter.has_work() {
            check()?;
            self.pool.install(|| filter.round());
        }
        let core = filter.finish();
        if let Some(kept) = &core.kept {
            interactions.retain(kept);
        }
        if interactions.is_empty() {
            return Err(nothing_left(path, layout, thresholds, core.before));
        }
        Ok(Core { before: core.before, rounds: core.rounds })
    }

    fn split(
        &self,
        sequences: &Sequences,
        unit: Option<TimeUnit>,
        path: &Path,
    ) -> Result<(Vec<i64>, Option<Cuts>)> {
        let Split::Temporal { valid_from, test_from } = self.options.split else {
            return Ok((leave_one_out(&sequences.offsets), None));
        };
        let (Some(times), Some(unit)) = (&sequences.timestamps, unit) else {
            return Err(no_times(path));
        };
        let mut all = |visit: &mut dyn FnMut(&[i64])| {
            visit(times);
            Ok(())
        };
        let cuts = Cuts::find(&mut all, unit, valid_from, test_from)?;
        Ok((temporal(sequences, cuts), Some(cuts)))
    }

    /// Gives users and items their indices by first appearance among the rows that are left.
    fn index(
        &self,
        interactions: &mut Interactions,
        user_ids: &Vocabulary,
        item_ids: &Vocabulary,
    ) -> (Vocabulary, Vocabulary) {
        let Interactions { users, items, .. } = interactions;
        let reindex =
            |column: &mut [u32], ids: &Vocabulary| ids.select(&renumber(column, ids.len()));
        self.pool.install(|| rayon::join(|| reindex(users, user_ids), || reindex(items, item_ids)))
    }
}

/// What a filter left.
pub(crate) struct Core {
    pub before: Counts,
    pub rounds: Vec<Counts>,
}

pub(crate) fn no_times(path: &Path) -> Error {
    let found = "none; choose a column with --time-column, or --split leave-one-out";
    Error::log(path, "times for a temporal split", found)
}

pub(crate) fn nothing_left(
    path: &Path,
    layout: &Layout,
    thresholds: Thresholds,
    before: Counts,
) -> Error {
    let Counts { users, items, interactions } = before;
    let path = path.display();
    let core = match thresholds {
        Thresholds { users, items } if users == items => format!("{users}-core"),
        Thresholds { users, items } => format!("core ({users} per user, {items} per item)"),
    };
    let columns = match (layout.user_column(), layout.item_column()) {
        (Some(user), Some(item)) => format!(" (users in column {user:?}, items in {item:?})"),
        _ => String::new(),
    };
    Error::NothingLeft(if interactions == 0 {
        format!(
            "{path}: no interaction is left: all rows were unreadable, without a user or an item, \
             or below --min-rating"
        )
    } else {
        format!(
            "{path}: no interaction is left by the {core} of {interactions} interactions \
             ({users} users, {items} items); was the log read right{columns}? If so, try a \
             smaller --min-interactions"
        )
    })
}

fn count_items(items: &[u32], num_items: usize) -> Vec<i64> {
    let mut counts = vec![0; num_items];
    items.iter().for_each(|&item| counts[item as usize] += 1);
    counts
}

#[derive(Default)]
pub(crate) struct Ties {
    /// Neighbours in a sequence that have the same time.
    pub neighbours: u64,
    /// Users whose last two interactions are such neighbours.
    pub users: u64,
}

impl AddAssign for Ties {
    fn add_assign(&mut self, others: Self) {
        self.neighbours += others.neighbours;
        self.users += others.users;
    }
}

pub(crate) fn count_ties(sequences: &Sequences) -> Ties {
    let mut ties = Ties::default();
    let Some(times) = &sequences.timestamps else { return ties };
    for bounds in sequences.offsets.windows(2) {
        let times = &times[bounds[0] as usize..bounds[1] as usize];
        ties.neighbours += times.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64;
        ties.users += u64::from(matches!(times, [.., a, b] if a == b));
    }
    ties
}

fn fingerprint(sequences: &Sequences, splits: &[i64]) -> String {
    let mut hasher = Sha256::new();
    update(&mut hasher, &sequences.offsets, |value| value.to_le_bytes());
    update(&mut hasher, &sequences.items, |value| value.to_le_bytes());
    update(&mut hasher, splits, |value| value.to_le_bytes());
    hex(hasher)
}

pub(crate) fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn update<T: Copy, const N: usize>(
    hasher: &mut Sha256,
    values: &[T],
    bytes: fn(T) -> [u8; N],
) {
    let mut buffer = Vec::with_capacity(N * 1024);
    for chunk in values.chunks(1024) {
        buffer.clear();
        chunk.iter().for_each(|&value| buffer.extend_from_slice(&bytes(value)));
        hasher.update(&buffer);
    }
}
