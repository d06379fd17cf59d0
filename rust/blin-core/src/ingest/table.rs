//! One interaction per line: the fast path for blocks without a quote, and what both paths share.

use crate::ingest::LogOptions;
use crate::ingest::columns::Role;
use crate::ingest::layout::Layout;
use crate::ingest::rows::{BadRow, OnBadRow, RowFault, Rows, is_missing_user};
use crate::ingest::time::{EXPECTED_DATE, EXPECTED_NUMBER, TimeStyle, parse};

/// Longest piece of a field that a message repeats.
const QUOTED_CHARS: usize = 60;

/// What to take from a row, worked out once per log.
pub struct TableReader<'a> {
    layout: &'a Layout,
    num_columns: usize,
    user: usize,
    item: usize,
    time: Option<(usize, TimeStyle)>,
    rating: Option<(usize, f64)>,
    on_bad_row: OnBadRow,
}

/// Where a field begins and ends.
type Span = (usize, usize);

impl<'a> TableReader<'a> {
    /// A reader of tables with this layout.
    pub fn new(layout: &'a Layout, options: &LogOptions) -> Self {
        let place = |role| layout.place(role).expect("the layout has a place for it");
        let rating = options.min_rating.map(|threshold| (place(Role::Rating), threshold));
        Self {
            layout,
            num_columns: layout.columns.len(),
            user: place(Role::User),
            item: place(Role::Item),
            time: layout.place(Role::Time).zip(layout.time_style),
            rating,
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
            .and_then(|()| self.take_row(|place| &bytes[spans[place].0..spans[place].1], rows));
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

    #[inline]
    fn take_row<'b>(
        &self,
        field: impl Fn(usize) -> &'b [u8],
        rows: &mut Rows,
    ) -> Result<(), BadRow> {
        let (user, item) = (field(self.user), field(self.item));
        if is_missing_user(user) {
            rows.counts.without_user += 1;
            return Ok(());
        }
        if item.is_empty() {
            rows.counts.without_item += 1;
            return Ok(());
        }
        if let Some((place, threshold)) = self.rating {
            let rating = parse_rating(field(place))
                .ok_or_else(|| self.bad_value(place, "a number", field(place)))?;
            if rating < threshold {
                rows.counts.below_rating += 1;
                return Ok(());
            }
        }
        let time = match self.time {
            Some((place, style)) => {
                Some(parse(field(place), style).ok_or_else(|| self.bad_time(place, field(place)))?)
            }
            None => None,
        };
        rows.push(user, item, time).map_err(|fault| self.explain(fault, field))
    }

    fn explain<'b>(&self, fault: RowFault, field: impl Fn(usize) -> &'b [u8]) -> BadRow {
        match (fault, self.time) {
            (RowFault::User, _) => self.bad_value(self.user, "text in UTF-8", field(self.user)),
            (RowFault::Item, _) => self.bad_value(self.item, "text in UTF-8", field(self.item)),
            (RowFault::Time, Some((place, _))) => self.bad_time(place, field(place)),
            (RowFault::Time, None) => unreachable!("a log without times has no bad time"),
        }
    }

    #[cold]
    fn bad_time(&self, place: usize, value: &[u8]) -> BadRow {
        let is_date = self.layout.time_style == Some(TimeStyle::Date);
        self.bad_value(place, if is_date { EXPECTED_DATE } else { EXPECTED_NUMBER }, value)
    }

    #[cold]
    fn bad_value(&self, place: usize, expected: &str, value: &[u8]) -> BadRow {
        BadRow {
            column: Some(self.layout.columns[place].clone()),
            expected: expected.to_owned(),
            found: quote(value),
        }
    }
}

/// A rating that can be compared; NaN cannot.
fn parse_rating(field: &[u8]) -> Option<f64> {
    let rating: f64 = std::str::from_utf8(field.trim_ascii()).ok()?.parse().ok()?;
    (!rating.is_nan()).then_some(rating)
}

/// A field for a message: quoted, on one line and not too long.
fn quote(field: &[u8]) -> String {
    if field.is_empty() {
        return "nothing".to_owned();
    }
    let text = String::from_utf8_lossy(&field[..field.len().min(4 * QUOTED_CHARS)]);
    let short: String = text.chars().take(QUOTED_CHARS).collect();
    let dots = if short.len() < field.len() { "…" } else { "" };
    format!("{:?}", short + dots)
}

/// The first of two bytes at or after `start`; the second one is known to come.
///
/// Eight bytes at a time: a byte of `word ^ pattern` is zero where they agree, and the lowest bit
/// set by the subtraction belongs to the first such byte.
#[inline]
fn find_either(bytes: &[u8], start: usize, first: u8, second: u8) -> usize {
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
