//! Entrances for a fuzzer: each takes any bytes and panics where a parser is wrong.
//!
//! `fuzz/README.md` says how to run them. The tests at the end of this file run each of them on
//! the inputs in `fuzz/corpus/`, which keep what was found once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use rayon::ThreadPool;
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::ingest::LogOptions;
use crate::ingest::columnar::{Column, ColumnarLog, Values};
use crate::ingest::columns::Role;
use crate::ingest::json::JsonReader;
use crate::ingest::layout::{Format, Layout};
use crate::ingest::lists::ListReader;
use crate::ingest::quoted::{QuotedReader, Splitter};
use crate::ingest::reader::{Log, read_from};
use crate::ingest::rows::{
    Finished, MAX_ID_BYTES, OnBadRow, RowCounts, Rows, Table, is_missing_user,
};
use crate::ingest::source::Source;
use crate::ingest::table::TableReader;
use crate::ingest::time::{Time, TimeColumn, TimeStyle, TimeUnit, UnitWatch, parse, style_of};

/// An entrance and its name.
pub type Target = (&'static str, fn(&[u8]));

/// All entrances.
pub const TARGETS: [Target; 10] = [
    ("table", table),
    ("quoted", quoted),
    ("json", json),
    ("lists", lists),
    ("time", time),
    ("layout", layout),
    ("gzip", gzip),
    ("zstd", zstd),
    ("columns", columns),
    ("log", log),
];

/// Lets the calling thread do what is otherwise given to a pool: a fuzzer calls from one thread,
/// and to hand over so little work would take most of the time.
pub fn init() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread();
    pool.build_global().expect("there is no other pool yet");
}

/// What was made of a log, in a form that can be compared.
#[derive(Debug, PartialEq)]
struct Outcome {
    rows: Vec<(Vec<u8>, Vec<u8>, Option<i64>)>,
    counts: RowCounts,
    messages: Vec<String>,
    warning: Option<String>,
    unit: Option<TimeUnit>,
}

fn outcome_of(mut table: Table, layout: &Layout) -> Outcome {
    let (counts, warning) = (table.counts, table.warning());
    let messages = std::mem::take(&mut table.messages);
    let finished = table.finish(path(), layout).expect("no memory limit, no disk");
    let Finished { rows: interactions, time_unit: unit, user_ids, item_ids } = finished;
    let interactions = interactions.in_memory();
    let row = |row: usize| {
        let user = user_ids.get(interactions.users[row] as usize).to_vec();
        let item = item_ids.get(interactions.items[row] as usize).to_vec();
        (user, item, interactions.timestamps.as_ref().map(|times| times[row]))
    };
    let rows = (0..interactions.len()).map(row).collect();
    Outcome { rows, counts, messages, warning, unit }
}

fn path() -> &'static Path {
    Path::new("log")
}

/// The first byte chooses among `choices`, the rest is the input.
fn choose<'a, T>(choices: &'a [T], data: &'a [u8]) -> Option<(&'a T, &'a [u8])> {
    let (&first, rest) = data.split_first()?;
    Some((&choices[usize::from(first) % choices.len()], rest))
}

/// Whole lines, with a newline after the last.
fn lines_of(data: &[u8]) -> Vec<u8> {
    let mut lines = data.to_vec();
    if lines.last().is_some_and(|&last| last != b'\n') {
        lines.push(b'\n');
    }
    lines
}

/// Cuts after the line in the middle.
fn halves(lines: &[u8]) -> [&[u8]; 2] {
    let middle = lines.len() / 2;
    let cut = memchr::memchr(b'\n', &lines[middle..]).map_or(lines.len(), |at| middle + at + 1);
    [&lines[..cut], &lines[cut..]]
}

/// What is made of these blocks; too few bits for the times is the only thing that may go wrong.
fn append_all(
    blocks: &[&[u8]],
    layout: &Layout,
    mut read: impl FnMut(&[u8], &mut Rows),
) -> Option<Outcome> {
    let mut table = Table::default();
    let mut rows = Rows::default();
    for block in blocks {
        rows.clear();
        read(block, &mut rows);
        table.append(&mut rows, path(), OnBadRow::Skip).ok()?;
    }
    Some(outcome_of(table, layout))
}

struct Known {
    layout: Layout,
    options: LogOptions,
}

fn known(head: &str, format: Option<Format>, min_rating: Option<f64>) -> Known {
    let options =
        LogOptions { format, min_rating, on_bad_row: OnBadRow::Skip, ..LogOptions::default() };
    let layout = Layout::sniff(path(), head.as_bytes(), &options);
    Known { layout: layout.expect("it is a good log"), options }
}

static TABLES: LazyLock<[Known; 6]> = LazyLock::new(|| {
    let table = |head, min_rating| known(head, Some(Format::Table), min_rating);
    [
        table("user,item,time\na,b,1700000000\n", None),
        table("user\titem\trating\ttime\na\tb\t3\t2001-01-31\n", Some(2.0)),
        table("user;time;item\na;1.5;b\n", None),
        table("a b 1700000000\n", None),
        table("user,item\na,b\n", None),
        table("user::item::rating::time\na::b::3::978300760\n", Some(2.0)),
    ]
});

/// Tables: whole, in two blocks and by the way of quoted ones.
pub fn table(data: &[u8]) {
    let Some((Known { layout, options }, body)) = choose(&*TABLES, data) else { return };
    let lines = lines_of(body);
    let reader = TableReader::new(layout, options);
    if reader.has_quote(&lines) {
        return;
    }
    let whole = append_all(&[&lines], layout, |block, rows| reader.read_block(block, rows));
    let parts = append_all(&halves(&lines), layout, |block, rows| reader.read_block(block, rows));
    assert_eq!(whole, parts);
    if layout.delimiter.len() == 1 {
        assert_eq!(whole, read_quoted(&[&lines], layout, &reader));
    }
}

fn read_quoted(blocks: &[&[u8]], layout: &Layout, reader: &TableReader) -> Option<Outcome> {
    let mut quoted = QuotedReader::new(reader, layout.delimiter.as_bytes()[0], 0);
    let last = blocks.len();
    let blocks: Vec<&[u8]> = blocks.iter().copied().chain([&b""[..]]).collect();
    let mut number = 0;
    append_all(&blocks, layout, |block, rows| {
        if number == last {
            quoted.finish(rows);
        } else {
            quoted.read_block(block, rows);
        }
        number += 1;
    })
}

/// Tables with quotes: whole, in two blocks, and each record as a plain state machine splits it.
pub fn quoted(data: &[u8]) {
    let Some((Known { layout, options }, body)) = choose(&TABLES[..5], data) else { return };
    let lines = lines_of(body);
    let reader = TableReader::new(layout, options);
    let whole = read_quoted(&[&lines], layout, &reader);
    assert_eq!(whole, read_quoted(&halves(&lines), layout, &reader));
    let delimiter = layout.delimiter.as_bytes()[0];
    let mut splitter = Splitter::new(delimiter);
    let mut rest = &lines[..];
    while !rest.is_empty() {
        let split = splitter.split(rest);
        let (slow, len) = split_slowly(rest, delimiter);
        assert_eq!(split, len);
        let Some(len) = len else { break };
        let fields: Vec<&[u8]> = splitter.fields().collect();
        assert_eq!(fields, slow);
        rest = &rest[len..];
    }
}

/// Splits one record; a quote begins a field or stands for itself.
fn split_slowly(bytes: &[u8], delimiter: u8) -> (Vec<Vec<u8>>, Option<usize>) {
    let (mut fields, mut field) = (Vec::new(), Vec::new());
    let (mut is_quoted, mut starts, mut position) = (false, true, 0);
    while position < bytes.len() {
        let byte = bytes[position];
        position += 1;
        if is_quoted {
            if byte != b'"' {
                field.push(byte);
            } else if bytes.get(position) == Some(&b'"') {
                field.push(byte);
                position += 1;
            } else {
                is_quoted = false;
            }
        } else if byte == b'"' && starts {
            (is_quoted, starts) = (true, false);
        } else if byte == delimiter {
            fields.push(std::mem::take(&mut field));
            starts = true;
        } else if byte == b'\n' {
            if bytes[..position].ends_with(b"\r\n") {
                field.pop();
            }
            fields.push(field);
            return (fields, Some(position));
        } else {
            field.push(byte);
            starts = false;
        }
    }
    (fields, None)
}

static OBJECTS: LazyLock<Known> = LazyLock::new(|| {
    let head = "{\"user\": \"a\", \"item\": \"b\", \"time\": 1700000000}\n";
    known(head, Some(Format::JsonLines), None)
});

/// JSON lines: whole, in two blocks, and each line as a map of raw values.
pub fn json(data: &[u8]) {
    let Known { layout, options } = &*OBJECTS;
    let lines = lines_of(data);
    let reader = JsonReader::new(layout, options);
    let whole = append_all(&[&lines], layout, |block, rows| reader.read_block(block, rows));
    let parts = append_all(&halves(&lines), layout, |block, rows| reader.read_block(block, rows));
    assert_eq!(whole, parts);
    let Some(whole) = whole else { return };
    let slow: Vec<(Vec<u8>, Vec<u8>)> =
        lines.split(|&byte| byte == b'\n').filter_map(pair).collect();
    let fast: Vec<_> =
        whole.rows.iter().map(|(user, item, _)| (user.clone(), item.clone())).collect();
    assert_eq!(fast, slow);
}

/// The user and the item of an object whose time is a time.
fn pair(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let text = std::str::from_utf8(line.trim_ascii()).ok()?;
    let object: HashMap<String, &RawValue> = serde_json::from_str(text).ok()?;
    let field = |key: &str| {
        let raw = object.get(key)?.get();
        match raw.as_bytes()[0] {
            b'"' => serde_json::from_str::<String>(raw).ok(),
            b'n' => Some(String::new()),
            b'-' | b'0'..=b'9' => Some(raw.to_owned()),
            _ => None,
        }
    };
    let (user, item, time) = (field("user")?, field("item")?, field("time")?);
    parse(time.as_bytes(), TimeStyle::Number)?;
    let is_id = |id: &str| !id.is_empty() && id.len() <= MAX_ID_BYTES && !id.contains('\0');
    let is_there = is_id(&user) && is_id(&item) && !is_missing_user(user.as_bytes());
    is_there.then(|| (user.into_bytes(), item.into_bytes()))
}

static SEQUENCES: LazyLock<Known> =
    LazyLock::new(|| known("u i i\n", Some(Format::Sequences), None));

/// Sequences: whole, in two blocks, and split by the standard library.
pub fn lists(data: &[u8]) {
    let Some((&delimiter, body)) = choose(&[" ", "\t", ",", "::"], data) else { return };
    let layout = &SEQUENCES.layout;
    let lines = lines_of(body);
    let reader = ListReader::new(delimiter, OnBadRow::Skip);
    let whole = append_all(&[&lines], layout, |block, rows| reader.read_block(block, rows));
    let parts = append_all(&halves(&lines), layout, |block, rows| reader.read_block(block, rows));
    assert_eq!(whole, parts);
    let Ok(text) = std::str::from_utf8(&lines) else { return };
    if text.contains('\0') {
        return;
    }
    let mut slow = Vec::new();
    for line in text.split('\n') {
        let line = line.trim_end_matches(|c: char| c.is_ascii_whitespace());
        let mut fields = line.split(delimiter).filter(|field| !field.is_empty());
        let user = fields.next().unwrap_or_default();
        if !is_missing_user(user.as_bytes()) {
            slow.extend(
                fields.map(|item| (user.as_bytes().to_vec(), item.as_bytes().to_vec(), None)),
            );
        }
    }
    assert_eq!(whole.expect("there are no times").rows, slow);
}

/// Times: one field per line, alone and as a column in one and in two parts.
pub fn time(data: &[u8]) {
    let fields: Vec<&[u8]> = data.split(|&byte| byte == b'\n').collect();
    for field in &fields {
        let number =
            std::str::from_utf8(field.trim_ascii()).ok().and_then(|text| text.parse().ok());
        if let Some(integer) = number {
            assert_eq!(parse(field, TimeStyle::Number), Some(Time::Integer(integer)));
        }
        let style = style_of(field);
        assert_eq!(style.is_some(), style.is_some_and(|style| parse(field, style).is_some()));
        for unit in [TimeUnit::Number, TimeUnit::Seconds, TimeUnit::Microseconds] {
            if let Some(time) = style.and_then(|style| parse(field, style)) {
                time.in_unit(unit);
            }
        }
    }
    for style in [TimeStyle::Number, TimeStyle::Date, TimeStyle::Nanos] {
        let times: Vec<Time> = fields.iter().filter_map(|field| parse(field, style)).collect();
        let (mut whole, mut seen) = (TimeColumn::default(), UnitWatch::default());
        times.iter().for_each(|&time| whole.push(time));
        let (left, right) = times.split_at(times.len() / 2);
        let mut parts = [left, right].map(|part| {
            let mut column = TimeColumn::default();
            part.iter().for_each(|&time| column.push(time));
            column
        });
        let [left_part, right_part] = &mut parts;
        let whole_fits = TimeColumn::default().append(&mut whole.clone());
        assert_eq!(whole_fits, left_part.append(right_part));
        if whole_fits {
            assert_eq!(whole.finish(), std::mem::take(left_part).finish());
        }
        let (mut left_seen, mut right_seen) = (UnitWatch::default(), UnitWatch::default());
        for (line, &time) in (1..).zip(&times) {
            if let Time::Integer(value) = time {
                seen.see(value, line);
                let half =
                    if line as usize <= left.len() { &mut left_seen } else { &mut right_seen };
                half.see(value, line);
            }
        }
        let mut all = UnitWatch::default();
        let in_parts = all.merge(&left_seen).or_else(|| all.merge(&right_seen));
        assert_eq!(UnitWatch::default().merge(&seen), in_parts);
    }
}

/// What is understood of the first block of a file.
pub fn layout(data: &[u8]) {
    let header = [None, Some(true), Some(false)];
    let Some((&header, body)) = choose(&header, data) else { return };
    let lines = lines_of(body);
    let options = LogOptions { header, ..LogOptions::default() };
    match Layout::sniff(path(), &lines, &options) {
        Ok(layout) => {
            let start = layout.bytes_before_rows(&lines);
            assert!(start <= lines.len());
            layout.sample(&lines);
            if layout.format != Format::Sequences {
                let place = |role| layout.place(role).expect("every log has users and items");
                assert!(place(Role::User).max(place(Role::Item)) < layout.columns.len());
            }
        }
        Err(error) => assert_is_one_line(&error),
    }
}

fn assert_is_one_line(error: &Error) {
    let message = error.to_string();
    assert!(!message.contains(['\n', '\r']) && message.len() < 8000, "{message:?}");
}

/// gzip behind its first bytes, whatever follows.
pub fn gzip(data: &[u8]) {
    unpack(&[&[0x1f, 0x8b, 8], data].concat());
}

/// zstd behind its first bytes, whatever follows.
pub fn zstd(data: &[u8]) {
    unpack(&[&[0x28, 0xb5, 0x2f, 0xfd], data].concat());
}

/// Most blocks that are unpacked of one input.
const UNPACKED: usize = 64;

fn unpack(file: &[u8]) {
    let bytes = Box::new(std::io::Cursor::new(file.to_vec()));
    let source = Source::of_bytes(path(), bytes, Arc::default());
    let mut source = source.expect("it begins as it should").limit(UNPACKED);
    loop {
        match source.next_block() {
            Ok(Some(block)) => assert_eq!(block.last(), Some(&b'\n')),
            Ok(None) => break,
            Err(error) => return assert_is_one_line(&error),
        }
    }
    assert!(source.finish().bytes <= file.len() as u64);
}

/// Columns as Arrow gives them, sound or not: three of text or integers, whose bytes, offsets and
/// marks are whatever the input says.
pub fn columns(data: &[u8]) {
    let names = ["user", "item", "time"].map(str::to_owned).to_vec();
    let sample = [["a", "b", "1700000000"].map(str::to_owned).to_vec()];
    let options = LogOptions { on_bad_row: OnBadRow::Skip, ..LogOptions::default() };
    let is_nanos = [false, false, data.first() == Some(&b'n')];
    let log = ColumnarLog::new(path().to_owned(), names, &sample, &is_nanos, options, None);
    let mut log = log.expect("these are good columns");
    let pieces: Vec<&[u8]> = data.split(|&byte| byte == b';').skip(1).collect();
    for piece in pieces.chunks_exact(6) {
        let integers: Vec<Vec<i64>> = piece[..3]
            .iter()
            .map(|bytes| {
                bytes.iter().map(|&byte| i64::from(byte.wrapping_sub(b'0') as i8)).collect()
            })
            .collect();
        let valid: Vec<bool> = piece[5].iter().map(|&byte| byte != b'0').collect();
        let text = |number: usize| Values::Text(piece[3 + number], &integers[number]);
        let values = [text(0), text(1), Values::Integers(&integers[2])];
        let valid = (!valid.is_empty()).then_some(&valid[..]);
        let columns = values.map(|values| Column { values, valid });
        if let Err(error) = log.append(&columns, &POOLS[0]) {
            assert_is_one_line(&error);
        }
    }
    match log.finish(Vec::new()) {
        Ok(log) => assert!(log.interactions.in_memory().len() as u64 <= log.rows.read),
        Err(error) => assert_is_one_line(&error),
    }
}

static POOLS: LazyLock<[ThreadPool; 2]> = LazyLock::new(|| {
    [1, 3].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("a few threads are always there")
    })
});

/// A whole log of one or two files, by one thread and, if the input says so, by three as well.
pub fn log(data: &[u8]) {
    let Some((&choice, body)) = data.split_first() else { return };
    let delimiters = [None, None, Some("::"), Some("\t")];
    let options = LogOptions {
        delimiter: delimiters[usize::from(choice) % 4].map(str::to_owned),
        header: [None, Some(true), Some(false), None][usize::from(choice >> 2) % 4],
        on_bad_row: if choice & 16 == 0 { OnBadRow::Fail } else { OnBadRow::Skip },
        ..LogOptions::default()
    };
    let files: Vec<&[u8]> =
        body.splitn(1 + usize::from(choice >> 5 & 1), |&byte| byte == 0).collect();
    let paths: Vec<PathBuf> = (0..files.len()).map(|number| number.to_string().into()).collect();
    let open = |path: &Path, counter| {
        let number: usize = path.to_str().and_then(|name| name.parse().ok()).expect("a number");
        Source::of_bytes(path, Box::new(std::io::Cursor::new(files[number].to_vec())), counter)
    };
    let run = |pool| read_from(&paths, open, &options, None, pool, &mut |_| Ok(()));
    let outcome = comparable(run(&POOLS[0]));
    if choice & 64 != 0 {
        assert_eq!(outcome, comparable(run(&POOLS[1])));
    }
}

fn comparable(log: Result<Log>) -> std::result::Result<String, String> {
    match log {
        Ok(log) => Ok(format!("{log:?}")),
        Err(error) => {
            assert_is_one_line(&error);
            Err(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::TARGETS;

    /// Every target meets every input, whatever it was meant for.
    #[test]
    fn what_was_found_once_stays_mended() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (name, _) in TARGETS {
            let files = std::fs::read_dir(corpus.join(name)).expect("every target has a corpus");
            for file in files {
                let input = std::fs::read(file.unwrap().path()).unwrap();
                TARGETS.iter().for_each(|(_, target)| target(&input));
            }
        }
    }
}
