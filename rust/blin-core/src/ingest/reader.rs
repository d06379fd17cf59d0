//! The conveyor: blocks from the files, rows from the blocks, one table from the rows.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::ingest::LogOptions;
use crate::ingest::json::JsonReader;
use crate::ingest::layout::{BOM, Format, Layout};
use crate::ingest::lists::ListReader;
use crate::ingest::quoted::QuotedReader;
use crate::ingest::rows::{Finished, OnBadRow, RowCounts, Rows, Table};
use crate::ingest::source::{Source, SourceSummary};
use crate::ingest::table::TableReader;
use crate::ingest::time::{TimeRange, TimeUnit};
use crate::progress::{Hook, Progress};
use crate::spill::{LogRows, MemoryLimit};
use crate::vocabulary::Vocabulary;

/// How long to wait for a block before the hook is called again.
const PATIENCE: Duration = Duration::from_millis(50);

/// A log that was read to its end.
#[derive(Debug)]
pub struct Log {
    /// What messages call it: the file that told its layout.
    pub path: PathBuf,
    /// The rows in file order; users and items have indices into `user_ids` and `item_ids`.
    pub interactions: LogRows,
    /// Raw ids of users; an id that is in no row is possible.
    pub user_ids: Vocabulary,
    /// Raw ids of items; an id that is in no row is possible.
    pub item_ids: Vocabulary,
    /// How the log was understood.
    pub layout: Layout,
    /// The unit of the timestamps.
    pub time_unit: Option<TimeUnit>,
    /// The files.
    pub sources: Vec<SourceSummary>,
    /// What became of the rows.
    pub rows: RowCounts,
    /// What was wrong with the first rows that were skipped.
    pub messages: Vec<String>,
    /// What is odd about the times, if anything.
    pub warning: Option<String>,
}

impl Log {
    /// What a table holds, read from these files.
    pub(super) fn of(
        path: PathBuf,
        layout: Layout,
        mut table: Table,
        sources: Vec<SourceSummary>,
    ) -> Result<Self> {
        let (rows, warning) = (table.counts, table.warning());
        let messages = std::mem::take(&mut table.messages);
        let Finished { rows: interactions, time_unit, user_ids, item_ids } =
            table.finish(&path, &layout)?;
        Ok(Self {
            path,
            interactions,
            user_ids,
            item_ids,
            layout,
            time_unit,
            sources,
            rows,
            messages,
            warning,
        })
    }
}

/// Reads the parts of a log, in this order, on the current rayon pool.
///
/// The first file of more than one line tells the layout, for a header by itself tells little; the
/// others may repeat its header. Beyond the limit, if there is one, rows go to the disk.
pub fn read(
    paths: &[PathBuf],
    options: &LogOptions,
    limit: Option<&MemoryLimit>,
    pool: &rayon::ThreadPool,
    hook: &mut Hook,
) -> Result<Log> {
    let total = total_bytes(paths)?;
    let open = |path: &Path, bytes_read| Source::open(path, bytes_read);
    read_from(paths, open, options, limit, pool, &mut |done| hook(Progress { done, total }))
}

/// Reads the parts of a log from what `open` makes of their paths; `hook` is told the bytes read.
pub(super) fn read_from(
    paths: &[PathBuf],
    open: impl Fn(&Path, Arc<AtomicU64>) -> Result<Source>,
    options: &LogOptions,
    limit: Option<&MemoryLimit>,
    pool: &rayon::ThreadPool,
    hook: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Log> {
    let bytes_read = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&bytes_read);
    let mut report = move || hook(counter.load(Ordering::Relaxed));
    let mut understood: Option<(&Path, Layout)> = None;
    let mut table = Table::new(limit);
    let most = 2 * pool.current_num_threads();
    let batch = limit.map_or(most, |limit| limit.blocks_together(most));
    let mut sources = Vec::with_capacity(paths.len());
    // A line by itself may be a row or a header: the next file tells.
    let mut lone_lines: Vec<(&Path, Vec<u8>)> = Vec::new();
    for path in paths {
        let mut source = open(path, Arc::clone(&bytes_read))?;
        if understood.is_none() {
            if let Some(line) = source.only_line()? {
                lone_lines.push((path, line.to_vec()));
                sources.push(source.finish());
                continue;
            }
            understood = Some((path, layout_of(path, source.peek()?, &lone_lines, options)?));
        }
        if let Some((_, layout)) = &understood {
            for (path, line) in std::mem::take(&mut lone_lines) {
                let job = FileJob { path, layout, options, pool, batch, is_whole: true };
                job.run(Source::of_text(path, line)?, &mut table, &mut report)?;
            }
            let job = FileJob { path, layout, options, pool, batch, is_whole: true };
            source = job.run(source, &mut table, &mut report)?;
        }
        sources.push(source.finish());
    }
    if let Some(place) = telling(&lone_lines) {
        let (path, line) = &lone_lines[place];
        let path = *path;
        let layout = layout_of(path, line, &lone_lines[..place], options)?;
        for (path, line) in std::mem::take(&mut lone_lines) {
            let job = FileJob { path, layout: &layout, options, pool, batch, is_whole: true };
            job.run(Source::of_text(path, line)?, &mut table, &mut report)?;
        }
        understood = Some((path, layout));
    }
    let (first, layout) =
        understood.ok_or_else(|| Error::argument("paths", "at least one file", ""))?;
    if table.counts.read == 0 {
        let found = if layout.has_header { "a header and no rows" } else { "no rows" };
        return Err(Error::log(first, "interactions", found));
    }
    Log::of(first.to_owned(), layout, table, sources)
}

/// The layout of a part, given the parts of one line that come before it.
fn layout_of<P>(
    path: &Path,
    head: &[u8],
    lone_lines: &[(P, Vec<u8>)],
    options: &LogOptions,
) -> Result<Layout> {
    match lone_lines.iter().find(|(_, line)| !is_blank(line)) {
        Some((_, line)) => Layout::after_line(line, path, head, options),
        None => Layout::sniff(path, head, options),
    }
}

/// The first that differs from the first that is not blank, for that may be the header; without
/// such, the first that is not blank, or the last.
fn telling<P>(lone_lines: &[(P, Vec<u8>)]) -> Option<usize> {
    let mut written = (0..lone_lines.len()).filter(|&place| !is_blank(&lone_lines[place].1));
    let Some(first) = written.next() else { return lone_lines.len().checked_sub(1) };
    let text = |place: usize| {
        let line = lone_lines[place].1.as_slice();
        line.strip_prefix(BOM).unwrap_or(line).trim_ascii()
    };
    Some(written.find(|&place| text(place) != text(first)).unwrap_or(first))
}

fn is_blank(line: &[u8]) -> bool {
    line.trim_ascii().is_empty()
}

/// A part of a log that tells its layout, and the parts of one line before it.
type TellingPart<'a> = (&'a PathBuf, Vec<(&'a PathBuf, Vec<u8>)>);

/// The first part of more than one line, or what [`telling`] finds.
fn telling_part(paths: &[PathBuf]) -> Result<TellingPart<'_>> {
    if let [path] = paths {
        return Ok((path, Vec::new())); // what a pipe gives is gone once it is read
    }
    let mut lone_lines = Vec::new();
    for path in paths {
        match Source::open(path, Arc::default())?.only_line()? {
            Some(line) => lone_lines.push((path, line.to_vec())),
            None => return Ok((path, lone_lines)),
        }
    }
    let place =
        telling(&lone_lines).ok_or_else(|| Error::argument("paths", "at least one file", ""))?;
    let path = lone_lines[place].0;
    lone_lines.truncate(place);
    Ok((path, lone_lines))
}

/// Blocks that are read of a log that is only inspected.
const INSPECTED_BLOCKS: usize = 8;

/// What the first blocks of a log tell about it.
#[derive(Debug)]
pub struct Inspection {
    /// The part that was looked at.
    pub path: PathBuf,
    /// How the log is understood.
    pub layout: Layout,
    /// The first records, split into fields.
    pub sample: Vec<Vec<String>>,
    /// How the file is compressed: `none`, `gzip` or `zstd`.
    pub compression: &'static str,
    /// The size of the file; 0 of a pipe.
    pub bytes: u64,
    /// Bytes of the file that were looked at.
    pub bytes_used: u64,
    /// Whether it was looked at to its end.
    pub has_ended: bool,
    /// What became of the rows that were looked at.
    pub rows: RowCounts,
    /// What is wrong with the first of those that cannot be read.
    pub messages: Vec<String>,
    /// What is odd about the times that were looked at, if anything.
    pub warning: Option<String>,
    /// The unit, the oldest and the newest of the times that were looked at.
    pub time: Option<TimeRange>,
}

/// Reads the first blocks of the part of a log that tells its layout, and says how it is
/// understood.
pub fn inspect(
    paths: &[PathBuf],
    options: &LogOptions,
    pool: &rayon::ThreadPool,
    hook: &mut Hook,
) -> Result<Inspection> {
    let (path, lone_lines) = telling_part(paths)?;
    let bytes = total_bytes(std::slice::from_ref(path))?;
    let mut source = Source::open(path, Arc::default())?.limit(INSPECTED_BLOCKS);
    let layout = layout_of(path, source.peek()?, &lone_lines, options)?;
    let sample = layout.sample(source.peek()?);
    let options = LogOptions { on_bad_row: OnBadRow::Skip, ..options.clone() };
    let batch = 2 * pool.current_num_threads();
    let job = FileJob { path, layout: &layout, options: &options, pool, batch, is_whole: false };
    let mut table = Table::default();
    let mut report = || hook(Progress { done: 0, total: bytes });
    let source = job.run(source, &mut table, &mut report)?;
    let (rows, messages) = (table.counts, std::mem::take(&mut table.messages));
    let warning = table.warning();
    let Finished { rows: interactions, time_unit, .. } = table.finish(path, &layout)?;
    let time = TimeRange::of(interactions.in_memory().timestamps.as_deref(), time_unit);
    let (compression, bytes_used) = (source.compression(), source.bytes_used());
    let has_ended = source.has_ended();
    let path = path.clone();
    Ok(Inspection {
        path,
        layout,
        sample,
        compression,
        bytes,
        bytes_used,
        has_ended,
        rows,
        messages,
        warning,
        time,
    })
}

fn total_bytes(paths: &[PathBuf]) -> Result<u64> {
    let size = |path: &PathBuf| std::fs::metadata(path).map(|data| data.len());
    paths.iter().map(|path| size(path).map_err(|error| Error::io(path, error))).sum()
}

/// One file on its way into the table.
struct FileJob<'a> {
    path: &'a Path,
    layout: &'a Layout,
    options: &'a LogOptions,
    pool: &'a rayon::ThreadPool,
    /// Blocks that are parsed together.
    batch: usize,
    /// Whether the file is read to its end, so that its last record must be whole.
    is_whole: bool,
}

/// A block and what was made of it.
#[derive(Default)]
struct Slot {
    block: Vec<u8>,
    /// Where the first row of the block begins.
    start: usize,
    rows: Rows,
    has_quote: bool,
}

impl FileJob<'_> {
    fn run(
        &self,
        source: Source,
        table: &mut Table,
        report: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Source> {
        let (sender, blocks) = sync_channel(self.batch);
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || send_blocks(source, &sender));
            let outcome = self.parse_all(&blocks, table, report);
            drop(blocks);
            let source = reader.join().expect("the reading thread does not panic");
            outcome.and(source)
        })
    }

    fn parse_all(
        &self,
        blocks: &Receiver<Vec<u8>>,
        table: &mut Table,
        report: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let reader = Parser::new(self.layout, self.options);
        let mut parsed: Vec<Slot> = Vec::new();
        let mut fresh: Vec<Slot> = Vec::new();
        let mut is_first = true;
        loop {
            receive(blocks, self.batch, &mut fresh, report)?;
            if let (true, Some(slot)) = (is_first, fresh.first_mut()) {
                self.start_file(slot, table);
                is_first = false;
            }
            if fresh.is_empty() && parsed.is_empty() {
                return Ok(());
            }
            let (appended, ()) = self.pool.install(|| {
                rayon::join(
                    || self.append(&mut parsed, table),
                    || fresh.par_iter_mut().for_each(|slot| reader.parse(slot)),
                )
            });
            appended?;
            std::mem::swap(&mut parsed, &mut fresh);
            if let (Parser::Table(table_reader), Some(quoted)) =
                (&reader, parsed.iter().position(|slot| slot.has_quote))
            {
                let mut rest = parsed.split_off(quoted);
                self.pool.install(|| self.append(&mut parsed, table))?;
                return self.parse_quoted(table_reader, &mut rest, blocks, table, report);
            }
        }
    }

    /// Passes over a byte order mark and the header.
    fn start_file(&self, slot: &mut Slot, table: &mut Table) {
        slot.start = self.layout.bytes_before_rows(&slot.block);
        let lines = memchr::memchr_iter(b'\n', &slot.block[..slot.start]).count();
        table.start_file(lines as u64);
    }

    fn append(&self, slots: &mut [Slot], table: &mut Table) -> Result<()> {
        slots
            .iter_mut()
            .try_for_each(|slot| table.append(&mut slot.rows, self.path, self.options.on_bad_row))
    }

    /// The rest of a file from the first block that holds a quote.
    fn parse_quoted(
        &self,
        reader: &TableReader,
        slots: &mut Vec<Slot>,
        blocks: &Receiver<Vec<u8>>,
        table: &mut Table,
        report: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let delimiter = self.layout.delimiter.as_bytes()[0];
        let mut quoted = QuotedReader::new(reader, delimiter, table.lines_of_file());
        table.start_file(0);
        let mut rows = Rows::default();
        while !slots.is_empty() {
            for slot in slots.iter() {
                rows.clear();
                quoted.read_block(&slot.block[slot.start..], &mut rows);
                self.append_rows(&mut rows, table)?;
            }
            slots.clear();
            receive(blocks, 1, slots, report)?;
        }
        rows.clear();
        if self.is_whole {
            quoted.finish(&mut rows);
        }
        self.append_rows(&mut rows, table)
    }

    fn append_rows(&self, rows: &mut Rows, table: &mut Table) -> Result<()> {
        self.pool.install(|| table.append(rows, self.path, self.options.on_bad_row))
    }
}

/// What makes rows of a block.
enum Parser<'a> {
    Table(TableReader<'a>),
    Lists(ListReader<'a>),
    Json(JsonReader<'a>),
}

impl<'a> Parser<'a> {
    fn new(layout: &'a Layout, options: &LogOptions) -> Self {
        match layout.format {
            Format::Table => Self::Table(TableReader::new(layout, options)),
            Format::JsonLines | Format::Columns => Self::Json(JsonReader::new(layout, options)),
            Format::Sequences => {
                Self::Lists(ListReader::new(&layout.delimiter, options.on_bad_row))
            }
        }
    }

    fn parse(&self, slot: &mut Slot) {
        slot.rows.clear();
        let bytes = &slot.block[slot.start..];
        match self {
            Self::Table(reader) => {
                slot.has_quote = reader.has_quote(bytes);
                if !slot.has_quote {
                    reader.read_block(bytes, &mut slot.rows);
                }
            }
            Self::Lists(reader) => reader.read_block(bytes, &mut slot.rows),
            Self::Json(reader) => reader.read_block(bytes, &mut slot.rows),
        }
    }
}

/// Reads a file to its end, or until nobody wants its blocks any more.
fn send_blocks(mut source: Source, sender: &SyncSender<Vec<u8>>) -> Result<Source> {
    while let Some(block) = source.next_block()? {
        if sender.send(block).is_err() {
            break;
        }
    }
    Ok(source)
}

/// Puts the next blocks into `slots`, at most `limit`; none at the end of the file.
fn receive(
    blocks: &Receiver<Vec<u8>>,
    limit: usize,
    slots: &mut Vec<Slot>,
    report: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    slots.resize_with(limit, Slot::default);
    let mut received = 0;
    while received < limit {
        match blocks.recv_timeout(PATIENCE) {
            Ok(block) => {
                slots[received].block = block;
                slots[received].start = 0;
                received += 1;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        report()?;
    }
    slots.truncate(received);
    Ok(())
}
