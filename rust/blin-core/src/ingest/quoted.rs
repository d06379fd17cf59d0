//! Tables with quoted fields, which may hold delimiters and newlines: read in order.

use crate::ingest::rows::{BadRow, Rows};
use crate::ingest::table::{Span, TableReader, find_either};

/// The longest record that goes over several lines. A quote that is still open here is a stray one.
pub const MAX_RECORD_BYTES: usize = 1 << 20;

/// Splits one record after the other. A quote at the beginning of a field goes up to the next quote
/// that is not doubled; anywhere else it stands for itself.
pub struct Splitter {
    delimiter: u8,
    /// The fields of the record, one after the other.
    text: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
}

impl Splitter {
    /// A splitter of fields with this delimiter.
    pub fn new(delimiter: u8) -> Self {
        Self { delimiter, text: Vec::new(), ends: Vec::new() }
    }

    /// Splits the record at the beginning of `bytes`, which end with a newline; returns how many
    /// bytes it takes up, or nothing if a quote is never closed.
    pub fn split(&mut self, bytes: &[u8]) -> Option<usize> {
        self.text.clear();
        self.ends.clear();
        let mut position = 0;
        loop {
            if bytes[position] == b'"' {
                position = self.unquote(bytes, position + 1)?;
            }
            let end = find_either(bytes, position, self.delimiter, b'\n');
            let is_last = bytes[end] == b'\n';
            let rest = &bytes[position..end];
            let rest = if is_last { rest.strip_suffix(b"\r").unwrap_or(rest) } else { rest };
            self.text.extend_from_slice(rest);
            self.ends.push(self.text.len());
            position = end + 1;
            if is_last {
                return Some(position);
            }
        }
    }

    /// Takes what stands in quotes, and returns where it goes on behind them.
    fn unquote(&mut self, bytes: &[u8], mut position: usize) -> Option<usize> {
        loop {
            let quote = position + memchr::memchr(b'"', &bytes[position..])?;
            self.text.extend_from_slice(&bytes[position..quote]);
            if bytes.get(quote + 1) != Some(&b'"') {
                return Some(quote + 1);
            }
            self.text.push(b'"');
            position = quote + 2;
        }
    }

    /// The fields of the record.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.ends.len()).map(|field| {
            let (start, end) = self.span(field);
            &self.text[start..end]
        })
    }

    fn span(&self, field: usize) -> Span {
        let start = if field == 0 { 0 } else { self.ends[field - 1] };
        (start, self.ends[field])
    }

    /// Newlines in the fields before the one whose quote is never closed.
    fn newlines_before_open_field(&self) -> usize {
        let end = self.ends.last().copied().unwrap_or_default();
        memchr::memchr_iter(b'\n', &self.text[..end]).count()
    }
}

/// The part of a file from its first quote on.
pub struct QuotedReader<'a> {
    table: &'a TableReader<'a>,
    splitter: Splitter,
    /// The beginning of a record whose end the blocks so far do not hold.
    rest: Vec<u8>,
    spans: Vec<Span>,
    /// Lines of the file that lie behind.
    lines: u64,
}

impl<'a> QuotedReader<'a> {
    /// A reader that starts after the first `lines` lines of a file, at the start of a record.
    pub fn new(table: &'a TableReader<'a>, delimiter: u8, lines: u64) -> Self {
        let splitter = Splitter::new(delimiter);
        Self { table, splitter, rest: Vec::new(), spans: Vec::new(), lines }
    }

    /// Reads the next block; a record whose end it does not hold is kept for the next call.
    pub fn read_block(&mut self, block: &[u8], rows: &mut Rows) {
        if self.rest.is_empty() {
            self.read(block, false, rows);
        } else {
            let mut bytes = std::mem::take(&mut self.rest);
            bytes.extend_from_slice(block);
            self.read(&bytes, false, rows);
        }
    }

    /// Ends the file.
    pub fn finish(&mut self, rows: &mut Rows) {
        let bytes = std::mem::take(&mut self.rest);
        self.read(&bytes, true, rows);
    }

    fn read(&mut self, bytes: &[u8], is_last: bool, rows: &mut Rows) {
        rows.look_for_nul(bytes);
        let mut position = 0;
        while position < bytes.len() {
            let rest = &bytes[position..];
            if let Some(len) = self.splitter.split(rest) {
                self.take_record(&rest[..len], rows);
                position += len;
            } else if is_last || rest.len() > MAX_RECORD_BYTES {
                position += self.leave_out(rest, is_last, rows);
            } else {
                self.rest = rest.to_vec();
                break;
            }
        }
        // Lines are counted here, from the beginning of the file.
        rows.lines = 0;
    }

    fn take_record(&mut self, raw: &[u8], rows: &mut Rows) {
        let fields = self.splitter.ends.len();
        rows.lines = self.lines + 1;
        self.lines += memchr::memchr_iter(b'\n', raw).count() as u64;
        if fields == 1 && raw.trim_ascii().is_empty() {
            return;
        }
        self.spans.clear();
        self.spans.extend((0..fields).map(|field| self.splitter.span(field)));
        self.table.read_row(&self.splitter.text, &self.spans, fields, rows.lines, rows);
    }

    /// Leaves out the line on which a quote begins that is never closed; returns where the next
    /// line begins. All later quotes lie side by side in pairs, so no later line opens one before
    /// the end of `rest`, and no byte is read more than twice.
    fn leave_out(&mut self, rest: &[u8], is_last: bool, rows: &mut Rows) -> usize {
        let before = self.splitter.newlines_before_open_field();
        let line = self.lines + before as u64 + 1;
        let found = if is_last {
            "none up to the end of the file".to_owned()
        } else {
            format!("none within {} MiB", MAX_RECORD_BYTES >> 20)
        };
        rows.counts.read += 1;
        rows.push_bad(line, BadRow { column: None, expected: "a closing quote".to_owned(), found });
        self.lines = line;
        let end = memchr::memchr_iter(b'\n', rest).nth(before);
        end.expect("a block ends with a newline") + 1
    }
}
