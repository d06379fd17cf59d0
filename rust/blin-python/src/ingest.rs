//! Logs: paths and options in, arrays and a report out.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use blin_core::error::Error;
use blin_core::ingest::columnar::{Column, ColumnarLog, Values};
use blin_core::ingest::source::SourceSummary;
use blin_core::ingest::{self, Format, Inspection, Layout, LogOptions};
use blin_core::kcore::{Counts, Thresholds};
use blin_core::prepared::{
    PrepareOptions, Prepared, Report, RowCounts, SequenceFiles, TimeRange, prepare, prepare_log,
    thread_pool,
};
use blin_core::progress::{Hook, Progress};
use blin_core::spill::MemoryLimit;
use blin_core::split::{Moment, Split};
use blin_core::vocabulary::Vocabulary;
use numpy::{IntoPyArray, PyArray1, PyArrayMethods, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::errors::{Failure, Result};

/// How often Python is asked whether to go on.
const PATIENCE: Duration = Duration::from_millis(100);

/// Says how a log is understood by the first lines of the part that tells most.
#[pyfunction]
#[pyo3(signature = (
    paths, *, delimiter = None, header = None, user_column = None, item_column = None,
    time_column = None, rating_column = None, min_rating = None, log_format = None,
))]
#[expect(clippy::too_many_arguments, reason = "keyword-only in Python")]
pub fn inspect_log<'py>(
    py: Python<'py>,
    paths: Vec<PathBuf>,
    delimiter: Option<String>,
    header: Option<bool>,
    user_column: Option<String>,
    item_column: Option<String>,
    time_column: Option<String>,
    rating_column: Option<String>,
    min_rating: Option<f64>,
    log_format: Option<&str>,
) -> Result<Bound<'py, PyDict>> {
    let options = LogOptions {
        format: log_format.map(str::parse).transpose()?,
        delimiter,
        header,
        user_column,
        item_column,
        time_column,
        rating_column,
        min_rating,
        ..LogOptions::default()
    };
    let inspection = supervise(py, None, move |hook| {
        let pool = thread_pool(None)?;
        ingest::inspect(&paths, &options, &pool, hook)
    })?;
    Ok(inspection_dict(py, &inspection)?)
}

/// Bytes of memory for everything, bytes of these that are taken, and where rows beyond go.
type Spill = (usize, usize, PathBuf);

fn memory_limit((bytes, reserved, directory): Spill) -> MemoryLimit {
    MemoryLimit { bytes, reserved, directory }
}

/// Reads a log, filters, indexes, sorts and splits it.
#[pyfunction]
#[pyo3(signature = (
    paths, *, delimiter = None, header = None, user_column = None, item_column = None,
    time_column = None, rating_column = None, min_rating = None, log_format = None,
    on_bad_row = "fail", min_interactions = 5, min_user_interactions = None,
    min_item_interactions = None, duplicates = "keep", split = "leave-one-out",
    valid_from = None, test_from = None, threads = None, spill = None, on_progress = None,
))]
#[expect(clippy::too_many_arguments, reason = "keyword-only in Python")]
pub fn read_log<'py>(
    py: Python<'py>,
    paths: Vec<PathBuf>,
    delimiter: Option<String>,
    header: Option<bool>,
    user_column: Option<String>,
    item_column: Option<String>,
    time_column: Option<String>,
    rating_column: Option<String>,
    min_rating: Option<f64>,
    log_format: Option<&str>,
    on_bad_row: &str,
    min_interactions: u32,
    min_user_interactions: Option<u32>,
    min_item_interactions: Option<u32>,
    duplicates: &str,
    split: &str,
    valid_from: Option<&str>,
    test_from: Option<&str>,
    threads: Option<usize>,
    spill: Option<Spill>,
    on_progress: Option<Py<PyAny>>,
) -> Result<Bound<'py, PyDict>> {
    let options = PrepareOptions {
        log: LogOptions {
            format: log_format.map(str::parse).transpose()?,
            delimiter,
            header,
            user_column,
            item_column,
            time_column,
            rating_column,
            min_rating,
            on_bad_row: on_bad_row.parse()?,
        },
        thresholds: Thresholds {
            users: min_user_interactions.unwrap_or(min_interactions),
            items: min_item_interactions.unwrap_or(min_interactions),
        },
        duplicates: duplicates.parse()?,
        split: split_of(split, valid_from, test_from)?,
        memory: spill.map(memory_limit),
        threads,
    };
    let prepared =
        supervise(py, on_progress.as_ref(), move |hook| prepare(&paths, &options, hook))?;
    Ok(prepared_dict(py, prepared)?)
}

/// The options of `preprocess`, as a dict.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Options {
    user_column: Option<String>,
    item_column: Option<String>,
    time_column: Option<String>,
    rating_column: Option<String>,
    min_rating: Option<f64>,
    on_bad_row: String,
    min_interactions: u32,
    min_user_interactions: Option<u32>,
    min_item_interactions: Option<u32>,
    duplicates: String,
    split: String,
    valid_from: Option<String>,
    test_from: Option<String>,
}

impl Options {
    fn prepare_options(
        self,
        threads: Option<usize>,
        spill: Option<Spill>,
    ) -> Result<PrepareOptions> {
        Ok(PrepareOptions {
            log: LogOptions {
                user_column: self.user_column,
                item_column: self.item_column,
                time_column: self.time_column,
                rating_column: self.rating_column,
                min_rating: self.min_rating,
                on_bad_row: self.on_bad_row.parse()?,
                ..LogOptions::default()
            },
            thresholds: Thresholds {
                users: self.min_user_interactions.unwrap_or(self.min_interactions),
                items: self.min_item_interactions.unwrap_or(self.min_interactions),
            },
            duplicates: self.duplicates.parse()?,
            split: split_of(&self.split, self.valid_from.as_deref(), self.test_from.as_deref())?,
            memory: spill.map(memory_limit),
            threads,
        })
    }
}

/// Reads a log that comes as columns, batch by batch.
#[pyclass(module = "blin._core")]
pub struct ColumnReader {
    log: Option<ColumnarLog>,
    options: PrepareOptions,
    pool: rayon::ThreadPool,
}

/// Integers, or bytes and offsets, and which of them are there.
type ColumnArrays<'py> = (
    PyReadonlyArray1<'py, i64>,
    Option<PyReadonlyArray1<'py, u8>>,
    Option<PyReadonlyArray1<'py, bool>>,
);

#[pymethods]
impl ColumnReader {
    #[new]
    #[pyo3(signature = (path, names, sample, is_nanos, options, *, threads = None, spill = None))]
    fn new(
        path: PathBuf,
        names: Vec<String>,
        sample: Vec<Vec<String>>,
        is_nanos: Vec<bool>,
        options: Options,
        threads: Option<usize>,
        spill: Option<Spill>,
    ) -> Result<Self> {
        let options = options.prepare_options(threads, spill)?;
        let memory = options.memory.as_ref();
        let log = ColumnarLog::new(path, names, &sample, &is_nanos, options.log.clone(), memory)?;
        let pool = thread_pool(options.threads)?;
        Ok(Self { log: Some(log), options, pool })
    }

    /// The places of the columns to give, in this order.
    fn places(&mut self) -> Result<Vec<usize>> {
        Ok(self.log()?.places())
    }

    /// Names the file whose batches come next.
    fn start_file(&mut self, path: PathBuf) -> Result<()> {
        self.log()?.start_file(path);
        Ok(())
    }

    /// Appends a batch: of each column integers, or offsets and bytes, and which are there.
    fn append(&mut self, py: Python<'_>, columns: Vec<ColumnArrays<'_>>) -> Result<()> {
        let columns: Result<Vec<Column>> = columns.iter().map(column_of).collect();
        let columns = columns?;
        let Self { log, pool, .. } = self;
        let log = log.as_mut().ok_or_else(finished)?;
        Ok(py.detach(|| log.append(&columns, pool))?)
    }

    /// Ends the log and says how it is understood.
    fn inspect<'py>(&mut self, py: Python<'py>) -> Result<Bound<'py, PyDict>> {
        let log = self.log.take().ok_or_else(finished)?.finish(Vec::new())?;
        let interactions = log.interactions.in_memory();
        let times = interactions.timestamps.as_deref();
        let result = PyDict::new(py);
        result.set_item("layout", layout_dict(py, &log.layout)?)?;
        result.set_item("roles", log.layout.roles())?;
        set_rows(&result, log.rows)?;
        result.set_item("skipped_messages", &log.messages)?;
        result.set_item("time_warning", &log.warning)?;
        result.set_item("time", time_dict(py, TimeRange::of(times, log.time_unit))?)?;
        Ok(result)
    }

    /// Ends the log, read from files of these paths, hashes and sizes, and prepares it.
    fn finish<'py>(
        &mut self,
        py: Python<'py>,
        sources: Vec<(PathBuf, String, u64)>,
    ) -> Result<Bound<'py, PyDict>> {
        let summary = |(path, sha256, bytes)| SourceSummary { path, bytes, sha256 };
        let sources = sources.into_iter().map(summary).collect();
        let log = self.log.take().ok_or_else(finished)?;
        let options = self.options.clone();
        let prepared =
            supervise(py, None, move |hook| prepare_log(log.finish(sources)?, &options, hook))?;
        Ok(prepared_dict(py, prepared)?)
    }
}

impl ColumnReader {
    fn log(&mut self) -> Result<&mut ColumnarLog> {
        self.log.as_mut().ok_or_else(finished)
    }
}

fn finished() -> Failure {
    PyValueError::new_err("the log has ended").into()
}

fn column_of<'a>((values, text, valid): &'a ColumnArrays<'_>) -> Result<Column<'a>> {
    let values = values.as_slice()?;
    let values = match text {
        Some(bytes) => Values::Text(bytes.as_slice()?, values),
        None => Values::Integers(values),
    };
    let valid = valid.as_ref().map(PyReadonlyArray1::as_slice).transpose()?;
    Ok(Column { values, valid })
}

fn split_of(rule: &str, valid_from: Option<&str>, test_from: Option<&str>) -> Result<Split> {
    let moment =
        |option, text: Option<&str>| text.map(|text| Moment::parse(option, text)).transpose();
    match (rule, test_from.or(valid_from)) {
        ("leave-one-out", None) => Ok(Split::LeaveOneOut),
        ("leave-one-out", Some(_)) => {
            Err(Error::argument("split", "\"temporal\", to cut at a time", rule).into())
        }
        ("temporal", _) => Ok(Split::Temporal {
            valid_from: moment("valid_from", valid_from)?,
            test_from: moment("test_from", test_from)?.unwrap_or(Moment::Share(0.9)),
        }),
        _ => Err(Error::argument("split", r#""leave-one-out" or "temporal""#, rule).into()),
    }
}

/// What a thread that works and the one that waits for it tell each other.
#[derive(Default)]
struct Supervision {
    done: AtomicU64,
    total: AtomicU64,
    stop: AtomicBool,
}

impl Supervision {
    fn report(&self, progress: Progress) -> blin_core::error::Result<()> {
        self.done.store(progress.done, Ordering::Relaxed);
        self.total.store(progress.total, Ordering::Relaxed);
        if self.stop.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }
}

/// Works on another thread. The calling one reports progress and lets pending signals, such as
/// Ctrl-C, raise their exception, also while a file gives nothing or a long step asks nobody; the
/// work then ends as soon as it can, and nobody waits for it.
fn supervise<T: Send + 'static>(
    py: Python<'_>,
    on_progress: Option<&Py<PyAny>>,
    work: impl FnOnce(&mut Hook) -> blin_core::error::Result<T> + Send + 'static,
) -> Result<T> {
    let supervision = Arc::new(Supervision::default());
    let (sender, outcome) = sync_channel(1);
    let outcome = Mutex::new(outcome);
    let shared = Arc::clone(&supervision);
    let worker = std::thread::spawn(move || {
        // Nobody listens any more after an interruption.
        let _ = sender.send(work(&mut |progress| shared.report(progress)));
    });
    let receive = || outcome.lock().expect("only this thread locks it").recv_timeout(PATIENCE);
    loop {
        match py.detach(receive) {
            Ok(result) => {
                py.check_signals()?;
                return Ok(result?);
            }
            Err(RecvTimeoutError::Timeout) => {
                let asked = py.check_signals().and_then(|()| {
                    let Some(on_progress) = on_progress else { return Ok(()) };
                    let [done, total] = [&supervision.done, &supervision.total]
                        .map(|count| count.load(Ordering::Relaxed));
                    on_progress.call1(py, (done, total)).map(drop)
                });
                asked.inspect_err(|_| supervision.stop.store(true, Ordering::Relaxed))?;
            }
            Err(RecvTimeoutError::Disconnected) => match worker.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => unreachable!("a thread that does not panic sends its outcome"),
            },
        }
    }
}

fn prepared_dict(py: Python<'_>, prepared: Prepared) -> PyResult<Bound<'_, PyDict>> {
    let Prepared { sequences, files, splits, user_ids, item_ids, item_counts, report } = prepared;
    let result = PyDict::new(py);
    let num_users = sequences.num_users();
    result.set_item("items", sequences.items.into_pyarray(py))?;
    result.set_item("offsets", sequences.offsets.into_pyarray(py))?;
    result.set_item("timestamps", sequences.timestamps.map(|times| times.into_pyarray(py)))?;
    result.set_item("files", files_dict(py, files)?)?;
    result.set_item("splits", splits.into_pyarray(py).reshape([num_users, 2])?)?;
    result.set_item("user_ids", vocabulary_arrays(py, user_ids))?;
    result.set_item("item_ids", vocabulary_arrays(py, item_ids))?;
    result.set_item("item_counts", item_counts.into_pyarray(py))?;
    result.set_item("report", report_dict(py, &report)?)?;
    Ok(result)
}

/// The arrays that are in files, by their names.
fn files_dict(py: Python<'_>, files: Option<SequenceFiles>) -> PyResult<Bound<'_, PyDict>> {
    let result = PyDict::new(py);
    if let Some(SequenceFiles { items, timestamps }) = files {
        result.set_item("items", items)?;
        if let Some(timestamps) = timestamps {
            result.set_item("timestamps", timestamps)?;
        }
    }
    Ok(result)
}

type VocabularyArrays<'py> = (Bound<'py, PyArray1<u8>>, Bound<'py, PyArray1<i64>>);

fn vocabulary_arrays(py: Python<'_>, vocabulary: Vocabulary) -> VocabularyArrays<'_> {
    let (bytes, offsets) = vocabulary.into_parts();
    (bytes.into_pyarray(py), offsets.into_pyarray(py))
}

fn report_dict<'py>(py: Python<'py>, report: &Report) -> PyResult<Bound<'py, PyDict>> {
    let result = PyDict::new(py);
    result.set_item("layout", layout_dict(py, &report.layout)?)?;
    result.set_item("sources", sources_list(py, report)?)?;
    set_rows(&result, report.rows)?;
    result.set_item("rows_duplicate", report.rows_duplicate)?;
    result.set_item("skipped_messages", &report.messages)?;
    result.set_item("time_warning", &report.warning)?;
    result.set_item("before_k_core", counts_dict(py, report.before)?)?;
    let rounds: PyResult<Vec<_>> =
        report.rounds.iter().map(|&round| counts_dict(py, round)).collect();
    result.set_item("k_core_rounds", rounds?)?;
    result.set_item("users", report.counts.users)?;
    result.set_item("items", report.counts.items)?;
    result.set_item("interactions", report.counts.interactions)?;
    result.set_item("tied_neighbours", report.tied_neighbours)?;
    result.set_item("users_with_tied_last", report.users_with_tied_last)?;
    result.set_item("repeats", report.repeats)?;
    result.set_item("time", time_dict(py, report.time)?)?;
    let cuts = report.cuts.map(|cuts| (cuts.valid_from, cuts.test_from));
    result.set_item("cuts", cuts)?;
    result.set_item("fingerprint", format!("sha256:{}", report.fingerprint))?;
    Ok(result)
}

fn inspection_dict<'py>(py: Python<'py>, inspection: &Inspection) -> PyResult<Bound<'py, PyDict>> {
    let result = PyDict::new(py);
    result.set_item("path", &inspection.path)?;
    result.set_item("layout", layout_dict(py, &inspection.layout)?)?;
    result.set_item("roles", inspection.layout.roles())?;
    result.set_item("sample", &inspection.sample)?;
    result.set_item("compression", inspection.compression)?;
    result.set_item("bytes", inspection.bytes)?;
    result.set_item("bytes_used", inspection.bytes_used)?;
    result.set_item("has_ended", inspection.has_ended)?;
    set_rows(&result, inspection.rows)?;
    result.set_item("skipped_messages", &inspection.messages)?;
    result.set_item("time_warning", &inspection.warning)?;
    result.set_item("time", time_dict(py, inspection.time)?)?;
    Ok(result)
}

fn set_rows(result: &Bound<'_, PyDict>, rows: RowCounts) -> PyResult<()> {
    result.set_item("rows_read", rows.read)?;
    result.set_item("rows_skipped", rows.skipped)?;
    result.set_item("rows_without_user", rows.without_user)?;
    result.set_item("rows_without_item", rows.without_item)?;
    result.set_item("rows_below_rating", rows.below_rating)
}

fn layout_dict<'py>(py: Python<'py>, layout: &Layout) -> PyResult<Bound<'py, PyDict>> {
    let result = PyDict::new(py);
    result.set_item("format", layout.format.name())?;
    let is_named = matches!(layout.format, Format::JsonLines | Format::Columns);
    result.set_item("delimiter", (!is_named).then_some(&layout.delimiter))?;
    result.set_item("header", (!is_named).then_some(layout.has_header))?;
    result.set_item("columns", &layout.columns)?;
    result.set_item("user_column", layout.user_column())?;
    result.set_item("item_column", layout.item_column())?;
    result.set_item("time_column", layout.time_column())?;
    result.set_item("tie_break_column", layout.tie_break_column())?;
    result.set_item("rating_column", layout.rating_column())?;
    Ok(result)
}

fn sources_list<'py>(py: Python<'py>, report: &Report) -> PyResult<Bound<'py, PyList>> {
    let sources = PyList::empty(py);
    for source in &report.sources {
        let entry = PyDict::new(py);
        entry.set_item("path", &source.path)?;
        entry.set_item("sha256", &source.sha256)?;
        entry.set_item("bytes", source.bytes)?;
        sources.append(entry)?;
    }
    Ok(sources)
}

fn time_dict(py: Python<'_>, time: Option<TimeRange>) -> PyResult<Option<Bound<'_, PyDict>>> {
    let Some(time) = time else { return Ok(None) };
    let result = PyDict::new(py);
    result.set_item("unit", time.unit.name())?;
    result.set_item("first", time.first)?;
    result.set_item("last", time.last)?;
    Ok(Some(result))
}

fn counts_dict(py: Python<'_>, counts: Counts) -> PyResult<Bound<'_, PyDict>> {
    let result = PyDict::new(py);
    result.set_item("users", counts.users)?;
    result.set_item("items", counts.items)?;
    result.set_item("interactions", counts.interactions)?;
    Ok(result)
}
