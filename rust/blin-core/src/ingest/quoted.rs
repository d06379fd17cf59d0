//! Tables with quoted fields, which may hold delimiters and newlines: read in order, by `csv-core`.

use std::path::Path;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use crate::error::{Error, Result};
use crate::ingest::rows::Rows;
use crate::ingest::source::MAX_LINE_BYTES;
use crate::ingest::table::TableReader;

/// A record that may have begun in an earlier block.
pub struct QuotedReader<'a> {
    table: &'a TableReader<'a>,
    csv: Reader,
    fields: Vec<u8>,
    num_bytes: usize,
    ends: Vec<usize>,
    num_fields: usize,
    /// Newlines seen, from the beginning of the file.
    lines: u64,
    /// The line on which the record begins, counted from 1.
    record_line: u64,
}

impl<'a> QuotedReader<'a> {
    /// A reader that starts after the first `lines` lines of a file, at the start of a record.
    pub fn new(table: &'a TableReader<'a>, delimiter: u8, lines: u64) -> Self {
        Self {
            table,
            csv: ReaderBuilder::new().delimiter(delimiter).build(),
            fields: vec![0; 4096],
            num_bytes: 0,
            ends: vec![0; 64],
            num_fields: 0,
            lines,
            record_line: 0,
        }
    }

    /// Reads the next block; a record whose end it does not hold is kept for the next call.
    pub fn read_block(&mut self, path: &Path, block: &[u8], rows: &mut Rows) -> Result<()> {
        let mut position = 0;
        while position < block.len() {
            position += self.skip_blank(&block[position..]);
            position += self.read_some(&block[position..], rows);
            if self.num_bytes > MAX_LINE_BYTES {
                return Err(self.never_closed(path));
            }
        }
        Ok(())
    }

    /// Ends the file.
    pub fn finish(&mut self, path: &Path, rows: &mut Rows) -> Result<()> {
        if self.num_fields > 0 || self.num_bytes > 0 {
            return Err(self.never_closed(path));
        }
        self.read_some(&[], rows);
        Ok(())
    }

    /// Between two records, passes over the ends of lines.
    fn skip_blank(&mut self, block: &[u8]) -> usize {
        if self.num_bytes > 0 || self.num_fields > 0 {
            return 0;
        }
        let blank = block.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        self.count_lines(&block[..blank]);
        self.record_line = self.lines + 1;
        blank
    }

    /// Lets `csv-core` work until it has a record, needs more room or needs more input.
    fn read_some(&mut self, block: &[u8], rows: &mut Rows) -> usize {
        let (result, read, written, ended) = self.csv.read_record(
            block,
            &mut self.fields[self.num_bytes..],
            &mut self.ends[self.num_fields..],
        );
        self.count_lines(&block[..read]);
        self.num_bytes += written;
        self.num_fields += ended;
        match result {
            ReadRecordResult::OutputFull => self.fields.resize(self.fields.len() * 2, 0),
            ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
            ReadRecordResult::Record => self.take_record(rows),
            ReadRecordResult::InputEmpty | ReadRecordResult::End => {}
        }
        read
    }

    fn take_record(&mut self, rows: &mut Rows) {
        let ends = &self.ends[..self.num_fields];
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let spans: Vec<_> = starts.zip(ends.iter().copied()).collect();
        self.table.read_row(&self.fields, &spans, spans.len(), self.record_line, rows);
        (self.num_bytes, self.num_fields) = (0, 0);
    }

    fn count_lines(&mut self, bytes: &[u8]) {
        self.lines += memchr::memchr_iter(b'\n', bytes).count() as u64;
    }

    fn never_closed(&self, path: &Path) -> Error {
        Error::Row {
            path: path.to_owned(),
            line: self.record_line,
            expected: "a closing quote".to_owned(),
            found: "none up to the end of the file".to_owned(),
        }
    }
}
