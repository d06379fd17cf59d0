//! One interaction per line: the fast path for blocks without a quote, and what both paths share.

use crate::ingest::LogOptions;
use crate::ingest::layout::Layout;
use crate::ingest::record::RecordReader;
use crate::ingest::rows::{BadRow, OnBadRow, Rows};

/// How the lines of a log are split into fields, worked out once.
pub struct TableReader<'a> {
    layout: &'a Layout,
    num_columns: usize,
    record: RecordReader<'a>,
    on_bad_row: OnBadRow,
}

/// Where a field begins and ends.
pub type Span = (usize, usize);

impl<'a> TableReader<'a> {
    /// A reader of tables with this layout.
    pub fn new(layout: &'a Layout, options: &LogOptions) -> Self {
        Self {
            layout,
            num_columns: layout.columns.len(),
            record: RecordReader::new(layout, options),
            on_bad_row: options.on_bad_row,
        }
    }

    /// Whether a block may hold quoted fields; only one-byte delimiters go with quotes.
    pub fn has_quote(&self, block: &[u8]) -> bool {
        self.layout.delimiter.len() == 1 && memchr::memchr(b'"', block).is_some()
    }

    /// Reads a block of whole lines in which no field is quoted.
    pub fn read_block(&self, block: &[u8], rows: &mut Rows) {
        let mut spans = Vec::with_capacity(self.num_columns + 2);
        let mut position = 0;
        rows.look_for_nul(block);
        while position < block.len() {
            let (fields, end) = self.split_line(block, position, &mut spans);
            position = end;
            rows.lines += 1;
            if fields == 1 && block[spans[0].0..spans[0].1].trim_ascii().is_empty() {
                continue;
            }
            self.read_row(block, &spans, fields, rows.lines, rows);
            if self.on_bad_row == OnBadRow::Fail && rows.has_bad() {
                return;
            }
        }
    }

    /// Takes one record with `fields` fields, of which the first few have their place in `spans`.
    pub fn read_row(
        &self,
        bytes: &[u8],
        spans: &[Span],
        fields: usize,
        line: u64,
        rows: &mut Rows,
    ) {
        rows.counts.read += 1;
        let outcome = self
            .check_length(spans, fields)
            .and_then(|()| self.record.take(|place| &bytes[spans[place].0..spans[place].1], rows));
        if let Err(bad) = outcome {
            rows.push_bad(line, bad);
        }
    }

    /// Finds the fields of the line at `position`; returns how many there are and where the next
    /// line begins. Spans of more fields than a good row has are not kept.
    #[inline]
    fn split_line(&self, block: &[u8], start: usize, spans: &mut Vec<Span>) -> (usize, usize) {
        let delimiter = self.layout.delimiter.as_bytes();
        spans.clear();
        let (mut fields, mut field_start, mut position) = (0, start, start);
        loop {
            position = find_either(block, position, delimiter[0], b'\n');
            let is_end = block[position] == b'\n';
            if !is_end && delimiter.len() > 1 && !block[position..].starts_with(delimiter) {
                position += 1;
                continue;
            }
            let has_return = is_end && position > field_start && block[position - 1] == b'\r';
            fields += 1;
            if spans.len() <= self.num_columns {
                spans.push((field_start, position - usize::from(has_return)));
            }
            if is_end {
                return (fields, position + 1);
            }
            position += delimiter.len();
            field_start = position;
        }
    }

    /// A good row has as many fields as the header or the first row, or an empty one more.
    fn check_length(&self, spans: &[Span], fields: usize) -> Result<(), BadRow> {
        let wanted = self.num_columns;
        let ends_empty = |place: usize| spans[place].0 == spans[place].1;
        if fields == wanted || fields == wanted + 1 && ends_empty(wanted) {
            return Ok(());
        }
        let expected = format!("{wanted} fields separated by {:?}", self.layout.delimiter);
        Err(BadRow { column: None, expected, found: fields.to_string() })
    }
}

/// The first of two bytes at or after `start`; the second one is known to come.
///
/// Eight bytes at a time: a byte of `word ^ pattern` is zero where they agree, and the lowest bit
/// set by the subtraction belongs to the first such byte.
#[inline]
pub fn find_either(bytes: &[u8], start: usize, first: u8, second: u8) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let (first_pattern, second_pattern) = (ONES * u64::from(first), ONES * u64::from(second));
    let mut position = start;
    while let Some(chunk) = bytes.get(position..position + 8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
        let found = zeros(word ^ first_pattern) | zeros(word ^ second_pattern);
        if found != 0 {
            return position + found.trailing_zeros() as usize / 8;
        }
        position += 8;
    }
    let tail = bytes[position..].iter().position(|&byte| byte == first || byte == second);
    position + tail.expect("a block ends with a newline")
}

#[cfg(test)]
mod tests {
    use super::find_either;

    #[test]
    fn a_byte_is_found_at_every_distance_from_the_end() {
        for len in 1..40 {
            for place in 0..len {
                let mut bytes = vec![b'+'; len];
                bytes[len - 1] = b'\n';
                bytes[place] = if place == len - 1 { b'\n' } else { b',' };
                for start in 0..=place {
                    assert_eq!(find_either(&bytes, start, b',', b'\n'), place);
                }
            }
        }
    }
}
