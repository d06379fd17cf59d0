//! Understanding a log by its first lines.

use std::path::Path;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::ingest::LogOptions;
use crate::ingest::columns::{self, Places, Role, text};
use crate::ingest::json;
use crate::ingest::quoted::Splitter;
use crate::ingest::time::{TimeStyle, style_of};

/// Records that are shown of a log.
const SHOWN: usize = 3;

/// Lines that are looked at.
const SAMPLE: usize = 200;

/// The most columns of a table, and keys in the first lines of JSON.
pub const MAX_COLUMNS: usize = 10_000;

/// Bytes that are looked at, unless one line is longer.
const SAMPLE_BYTES: usize = 128 << 10;

/// A space is looked for last: dates and titles contain it.
const DELIMITERS: [&str; 6] = ["\t", "::", ",", ";", "|", " "];

/// The byte order mark that some programs put before UTF-8.
pub(super) const BOM: &[u8] = b"\xef\xbb\xbf";

/// The kinds of log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One interaction per line, in columns.
    Table,
    /// One user per line: `user item item …`, oldest first.
    Sequences,
    /// One object of JSON per line.
    JsonLines,
    /// Columns, as Parquet and tables in memory have them.
    Columns,
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "table" => Ok(Self::Table),
            "sequences" => Ok(Self::Sequences),
            "jsonl" => Ok(Self::JsonLines),
            _ => Err(Error::argument("log_format", r#""table", "sequences" or "jsonl""#, name)),
        }
    }
}

impl Format {
    /// `table`, `sequences`, `jsonl` or `columns`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Sequences => "sequences",
            Self::JsonLines => "jsonl",
            Self::Columns => "columns",
        }
    }
}

/// How a log is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Rows, sequences or JSON lines.
    pub format: Format,
    /// What stands between two fields; nothing in JSON lines and columns.
    pub delimiter: String,
    /// Whether the first line names the columns.
    pub has_header: bool,
    /// The names of the columns or keys, or their numbers from 1 where there is no header.
    pub columns: Vec<String>,
    /// How the times are written, if there are any.
    pub time_style: Option<TimeStyle>,
    /// How the times that decide between equal ones are written, if there are any.
    pub tie_break_style: Option<TimeStyle>,
    places: Places,
    /// The first line as it stands in the file, without its end, if it is a header.
    header: Vec<u8>,
}

impl Layout {
    /// Recognises what the options leave open from the first lines of the file.
    pub fn sniff(path: &Path, head: &[u8], options: &LogOptions) -> Result<Self> {
        let head = sample_of(head.strip_prefix(BOM).unwrap_or(head));
        if head.trim_ascii().is_empty() {
            return Err(Error::log(path, "interactions", "an empty file"));
        }
        refuse_other_text(path, head)?;
        if is_json(path, head, options)? {
            return Self::json_lines(path, head, options);
        }
        match choose_format(path, head, options)? {
            (Format::Sequences, delimiter) => Ok(Self::sequences(delimiter)),
            (_, delimiter) => Self::table(path, head, delimiter, options),
        }
    }

    /// What each column is taken for: `user`, `item`, `time`, `tie_break` or `rating`.
    pub fn roles(&self) -> Vec<Option<&'static str>> {
        let role = |place| columns::ROLES.into_iter().find(|&role| self.place(role) == Some(place));
        (0..self.columns.len()).map(|place| role(place).map(Role::key)).collect()
    }

    /// The name of the users' column.
    pub fn user_column(&self) -> Option<&str> {
        self.column(Role::User)
    }

    /// The name of the items' column.
    pub fn item_column(&self) -> Option<&str> {
        self.column(Role::Item)
    }

    /// The name of the times' column.
    pub fn time_column(&self) -> Option<&str> {
        self.column(Role::Time)
    }

    /// The name of the column that orders events of the same time.
    pub fn tie_break_column(&self) -> Option<&str> {
        self.column(Role::TieBreak)
    }

    /// The name of the ratings' column.
    pub fn rating_column(&self) -> Option<&str> {
        self.column(Role::Rating)
    }

    /// Bytes of a file's first block that stand before its first row: a byte order mark, and the
    /// header if this file repeats it.
    pub fn bytes_before_rows(&self, block: &[u8]) -> usize {
        let bom = if block.starts_with(BOM) { BOM.len() } else { 0 };
        if !self.has_header {
            return bom;
        }
        let start = bom + blank_lines(&block[bom..]);
        let rows = &block[start..];
        // The parts of a log may end their lines differently.
        match rows.strip_prefix(self.header.as_slice()) {
            Some([]) => return block.len(),
            Some([b'\n', ..]) => return start + self.header.len() + 1,
            Some([b'\r', b'\n', ..]) => return start + self.header.len() + 2,
            _ => {}
        }
        // And quote their names differently.
        let line = &rows[..memchr::memchr(b'\n', rows).map_or(rows.len(), |newline| newline + 1)];
        let is_header = Sample::new(line, &self.delimiter).rows.first().is_some_and(|names| {
            names.len() == self.columns.len()
                && names.iter().zip(&self.columns).all(|(found, name)| text(found) == *name)
        });
        if is_header { start + line.len() } else { bom }
    }

    /// The layout of a log whose first part is one line and whose next part begins with `head`:
    /// that line may be the header, or a row.
    pub(super) fn after_line(
        line: &[u8],
        path: &Path,
        head: &[u8],
        options: &LogOptions,
    ) -> Result<Self> {
        let own = Self::sniff(path, head, options);
        let guessed = LogOptions { header: None, ..options.clone() };
        let has_own_header = match options.header {
            Some(true) => Self::sniff(path, head, &guessed).is_ok_and(|layout| layout.has_header),
            Some(false) => true,
            None => own.as_ref().is_ok_and(|layout| layout.has_header),
        };
        if has_own_header || own.as_ref().is_ok_and(|layout| layout.format == Format::JsonLines) {
            return own;
        }
        let line = line.strip_prefix(BOM).unwrap_or(line);
        let whole = [line, head.strip_prefix(BOM).unwrap_or(head)].concat();
        match Self::sniff(path, &whole, options) {
            Ok(layout) if layout.has_header => Ok(layout),
            _ => own,
        }
    }

    /// The first records below the head of a file, split into fields.
    pub fn sample(&self, head: &[u8]) -> Vec<Vec<String>> {
        let head = sample_of(&head[self.bytes_before_rows(head)..]);
        let rows = match self.format {
            Format::JsonLines => json::sample(head, SAMPLE).1,
            _ => Sample::new(head, &self.delimiter).rows,
        };
        rows.iter().take(SHOWN).map(|row| row.iter().map(|field| text(field)).collect()).collect()
    }

    pub(super) fn place(&self, role: Role) -> Option<usize> {
        self.places.of(role)
    }

    fn column(&self, role: Role) -> Option<&str> {
        self.places.of(role).map(|place| self.columns[place].as_str())
    }

    fn sequences(delimiter: String) -> Self {
        Self {
            format: Format::Sequences,
            delimiter,
            has_header: false,
            columns: Vec::new(),
            time_style: None,
            tie_break_style: None,
            places: Places::default(),
            header: Vec::new(),
        }
    }

    fn json_lines(path: &Path, head: &[u8], options: &LogOptions) -> Result<Self> {
        let (columns, rows) = json::sample(head, SAMPLE);
        if columns.is_empty() {
            let found = "none in the first lines";
            return Err(Error::log(path, "JSON lines, one object on each", found));
        }
        if columns.len() > MAX_COLUMNS {
            let expected = format!("objects of at most {MAX_COLUMNS} keys");
            return Err(Error::log(path, expected, "more in the first lines"));
        }
        let places = columns::find(path, &columns, true, &rows, options)?;
        let [time_style, tie_break_style] =
            [Role::Time, Role::TieBreak].map(|role| time_style(role, &places, &rows));
        let named = Self::of_columns(columns, places, time_style, tie_break_style);
        Ok(Self { format: Format::JsonLines, ..named })
    }

    /// The layout of columns that have names and nothing between them.
    pub(super) fn of_columns(
        columns: Vec<String>,
        places: Places,
        time_style: Option<TimeStyle>,
        tie_break_style: Option<TimeStyle>,
    ) -> Self {
        let (format, delimiter, header) = (Format::Columns, String::new(), Vec::new());
        let has_header = false;
        Self { format, delimiter, has_header, columns, time_style, tie_break_style, places, header }
    }

    fn table(path: &Path, head: &[u8], delimiter: String, options: &LogOptions) -> Result<Self> {
        let Sample { mut rows, first_bytes } = Sample::new(head, &delimiter);
        let first = rows.remove(0);
        if first.len() > MAX_COLUMNS {
            let expected = format!("at most {MAX_COLUMNS} columns separated by {delimiter:?}");
            return Err(Error::log(path, expected, "more in the first line"));
        }
        let has_header = options.header.unwrap_or_else(|| columns::is_header(&first, &rows));
        let names: Vec<String> = if has_header {
            first.iter().map(|field| text(field)).collect()
        } else {
            (1..=first.len()).map(|number| number.to_string()).collect()
        };
        if !has_header {
            rows.insert(0, first);
        }
        let places = columns::find(path, &names, has_header, &rows, options)?;
        let [time_style, tie_break_style] =
            [Role::Time, Role::TieBreak].map(|role| time_style(role, &places, &rows));
        let first_line = &head[..if has_header { first_bytes } else { 0 }];
        let header = without_end(&first_line[blank_lines(first_line)..]).to_vec();
        let (format, columns) = (Format::Table, names);
        Ok(Self {
            format,
            delimiter,
            has_header,
            columns,
            time_style,
            tie_break_style,
            places,
            header,
        })
    }
}

/// How most times of the sample are written: some logs put a 0 where there is no time.
pub(super) fn time_style(role: Role, places: &Places, rows: &[Vec<Vec<u8>>]) -> Option<TimeStyle> {
    let place = places.of(role)?;
    let styles = rows.iter().filter_map(|row| style_of(row.get(place)?));
    let (numbers, dates): (Vec<_>, Vec<_>) = styles.partition(|style| *style == TimeStyle::Number);
    Some(if dates.len() > numbers.len() { TimeStyle::Date } else { TimeStyle::Number })
}

/// Bytes of the blank lines that text begins with.
fn blank_lines(text: &[u8]) -> usize {
    let is_blank = |line: &&[u8]| line.trim_ascii().is_empty();
    text.split_inclusive(|&byte| byte == b'\n').take_while(is_blank).map(<[u8]>::len).sum()
}

/// A line without the newline, or the carriage return and the newline, at its end.
pub(super) fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Refuses what would otherwise be text on one endless line, or text with a NUL beside each letter.
fn refuse_other_text(path: &Path, head: &[u8]) -> Result<()> {
    let head = &head[..head.len().min(SAMPLE_BYTES)];
    let nuls = memchr::memchr_iter(0, head).count();
    if nuls * 10 > head.len() {
        let found = "NUL bytes, as UTF-16 and binary files have them";
        return Err(Error::log(path, "text in UTF-8", found));
    }
    let returns = memchr::memchr_iter(b'\r', head).count();
    let newlines = memchr::memchr_iter(b'\n', head).count();
    if returns > 1 && newlines <= 1 {
        return Err(Error::log(path, "lines that end with a newline", "carriage returns only"));
    }
    Ok(())
}

/// Whether a log is JSON lines, by the option or by its first characters; what is JSON and not
/// lines of it is refused.
fn is_json(path: &Path, head: &[u8], options: &LogOptions) -> Result<bool> {
    if let Some(format) = options.format {
        return Ok(format == Format::JsonLines);
    }
    let mut first = head.iter().filter(|byte| !byte.is_ascii_whitespace());
    let found = match (first.next(), first.next(), &options.delimiter) {
        (Some(b'{'), Some(b'"'), None) => return Ok(true),
        (Some(b'{'), Some(b'\''), None) => "dictionaries of Python; write them as JSON",
        (Some(b'['), Some(b'{'), None) => "one list of JSON; write its objects to lines",
        _ => return Ok(false),
    };
    Err(Error::log(path, "JSON lines, one object on each", found))
}

/// As many of the first lines as are worth looking at.
fn sample_of(head: &[u8]) -> &[u8] {
    let short = &head[..head.len().min(SAMPLE_BYTES)];
    match memchr::memrchr(b'\n', short) {
        Some(newline) => &head[..=newline],
        None => &head[..memchr::memchr(b'\n', head).map_or(head.len(), |newline| newline + 1)],
    }
}

fn choose_format(path: &Path, head: &[u8], options: &LogOptions) -> Result<(Format, String)> {
    if options
        .delimiter
        .as_deref()
        .is_some_and(|delimiter| delimiter.is_empty() || delimiter.contains(['\n', '\r', '"']))
    {
        let found = options.delimiter.as_deref().unwrap_or_default();
        return Err(Error::argument("delimiter", "one or more characters within a line", found));
    }
    if options.format == Some(Format::Sequences) && options.names_columns() {
        let expected = "table, where a column or the least rating is named";
        return Err(Error::argument("format", expected, "sequences"));
    }
    let delimiter = match (&options.delimiter, options.format) {
        (Some(delimiter), _) => delimiter.clone(),
        (None, Some(Format::Sequences)) => best_for_sequences(head),
        (None, _) => best_for_table(path, head)?,
    };
    let format = options.format.unwrap_or_else(|| {
        let is_table = delimiter != " "
            || options.header == Some(true)
            || options.names_columns()
            || is_spaced_table(head);
        if is_table { Format::Table } else { Format::Sequences }
    });
    Ok((format, delimiter))
}

fn best_for_sequences(head: &[u8]) -> String {
    let first_line = head.trim_ascii_start().split(|&byte| byte == b'\n').next().unwrap_or(head);
    let used = |delimiter: &&str| memchr::memmem::find(first_line, delimiter.as_bytes()).is_some();
    [" ", "\t", ","].into_iter().find(used).unwrap_or(" ").to_owned()
}

/// The delimiter that gives the most lines as many fields as the first.
fn best_for_table(path: &Path, head: &[u8]) -> Result<String> {
    let best = DELIMITERS
        .into_iter()
        .map(|delimiter| (Sample::new(head, delimiter).agreement(), delimiter))
        .rev()
        .max_by_key(|&(agreement, _)| agreement)
        .filter(|&(agreement, _)| agreement > 0);
    let spaced = || Sample::new(head, " ").rows.iter().all(|row| row.len() > 1);
    match best {
        Some((agreement, delimiter)) if agreement >= 500 || !spaced() => Ok(delimiter.to_owned()),
        _ if spaced() => Ok(" ".to_owned()),
        _ => Err(Error::log(
            path,
            "columns separated by a comma, tab, semicolon, pipe, space or \"::\"",
            "none of these in the first line; choose with --delimiter",
        )),
    }
}

/// Whether lines separated by spaces are rows rather than sequences: there is a header, or as many
/// fields in nearly every line and a column of times or a user that comes twice.
fn is_spaced_table(head: &[u8]) -> bool {
    let sample = Sample::new(head, " ");
    let (first, others) = (&sample.rows[0], &sample.rows[1..]);
    if first.len() > MAX_COLUMNS {
        return false;
    }
    if columns::is_header(first, others) {
        return true;
    }
    let mut users: Vec<&Vec<u8>> = sample.rows.iter().map(|row| &row[0]).collect();
    users.sort_unstable();
    let user_comes_twice = users.windows(2).any(|pair| pair[0] == pair[1]);
    let has_times = columns::has_time_like(first.len(), &sample.rows);
    sample.agreement() >= 900 && (user_comes_twice || has_times)
}

/// The first records of a file, split at one delimiter.
struct Sample {
    rows: Vec<Vec<Vec<u8>>>,
    /// Bytes of the first record and what stands before it.
    first_bytes: usize,
}

impl Sample {
    fn new(head: &[u8], delimiter: &str) -> Self {
        match delimiter.as_bytes() {
            [byte] => Self::quoted(head, *byte),
            _ => Self::unquoted(head, delimiter),
        }
    }

    /// Per mille of the lines that have as many fields as the first, if that has more than one.
    fn agreement(&self) -> usize {
        let wanted = self.rows[0].len();
        let alike = |row: &&Vec<Vec<u8>>| {
            row.len() == wanted || row.len() == wanted + 1 && row[wanted].is_empty()
        };
        if wanted < 2 { 0 } else { self.rows.iter().filter(alike).count() * 1000 / self.rows.len() }
    }

    fn quoted(head: &[u8], delimiter: u8) -> Self {
        let mut splitter = Splitter::new(delimiter);
        let (mut rows, mut position, mut first_bytes) = (Vec::new(), 0, 0);
        while rows.len() < SAMPLE && position < head.len() {
            let rest = &head[position..];
            let Some(len) = splitter.split(rest) else { break };
            position += len;
            let is_blank = splitter.fields().len() == 1 && rest[..len].trim_ascii().is_empty();
            if is_blank {
                continue;
            }
            rows.push(splitter.fields().take(MAX_COLUMNS + 1).map(<[u8]>::to_vec).collect());
            if rows.len() == 1 {
                first_bytes = position;
            }
        }
        if rows.is_empty() {
            rows.push(vec![head.trim_ascii().to_vec()]);
        }
        Self { rows, first_bytes }
    }

    fn unquoted(head: &[u8], delimiter: &str) -> Self {
        let (mut rows, mut first_bytes) = (Vec::new(), 0);
        for line in head.split_inclusive(|&byte| byte == b'\n') {
            if rows.len() == SAMPLE {
                break;
            }
            if rows.is_empty() {
                first_bytes += line.len();
            }
            let content = without_end(line);
            if !content.trim_ascii().is_empty() {
                rows.push(split(content, delimiter.as_bytes()));
            }
        }
        Self { rows, first_bytes }
    }
}

fn split(line: &[u8], delimiter: &[u8]) -> Vec<Vec<u8>> {
    let mut fields = Vec::new();
    let mut start = 0;
    for end in memchr::memmem::find_iter(line, delimiter).take(MAX_COLUMNS) {
        fields.push(line[start..end].to_vec());
        start = end + delimiter.len();
    }
    fields.push(line[start..].to_vec());
    fields
}
