//! From the fields of one record to one interaction, whatever the record was written in.

use crate::ingest::LogOptions;
use crate::ingest::columns::Role;
use crate::ingest::layout::Layout;
use crate::ingest::rows::{BadRow, RowFault, Rows, expected_id, is_missing_user};
use crate::ingest::time::{EXPECTED_DATE, EXPECTED_NANOS, EXPECTED_NUMBER, Time, TimeStyle, parse};

/// Longest piece of a field that a message repeats.
const QUOTED_CHARS: usize = 60;

/// What to take from a record, worked out once per log.
pub struct RecordReader<'a> {
    layout: &'a Layout,
    user: usize,
    item: usize,
    time: Option<(usize, TimeStyle)>,
    tie_break: Option<(usize, TimeStyle)>,
    rating: Option<(usize, f64)>,
}

impl<'a> RecordReader<'a> {
    /// A reader of records with this layout.
    pub fn new(layout: &'a Layout, options: &LogOptions) -> Self {
        let place = |role| layout.place(role).expect("the layout has a place for it");
        Self {
            layout,
            user: place(Role::User),
            item: place(Role::Item),
            time: layout.place(Role::Time).zip(layout.time_style),
            tie_break: layout.place(Role::TieBreak).zip(layout.tie_break_style),
            rating: options.min_rating.map(|threshold| (place(Role::Rating), threshold)),
        }
    }

    /// The columns that are looked at.
    pub fn places(&self) -> impl Iterator<Item = usize> {
        let times = [self.time, self.tie_break].map(|time| time.map(|(place, _)| place));
        let rating = self.rating.map(|(place, _)| place);
        [Some(self.user), Some(self.item)].into_iter().chain(times).chain([rating]).flatten()
    }

    /// How the times and the tie-breaks are written, unless ratings decide about a record.
    pub fn time_styles_without_rating(&self) -> Option<[Option<TimeStyle>; 2]> {
        let styles = [self.time, self.tie_break].map(|time| time.map(|(_, style)| style));
        self.rating.is_none().then_some(styles)
    }

    /// Takes one record, given by its fields; says what is wrong with it otherwise.
    #[inline]
    pub fn take<'b>(
        &self,
        field: impl Fn(usize) -> &'b [u8],
        rows: &mut Rows,
    ) -> Result<(), BadRow> {
        let (user, item) = (field(self.user), field(self.item));
        if self.is_left_out(user, item, rows) {
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
        let time = self.take_time(self.time, &field)?;
        let tie_break = self.take_time(self.tie_break, &field)?;
        rows.push(user, item, time, tie_break).map_err(|fault| self.explain(fault, field))
    }

    /// Counts a row that names no user or no item.
    #[inline]
    pub fn is_left_out(&self, user: &[u8], item: &[u8], rows: &mut Rows) -> bool {
        let (without_user, without_item) = (is_missing_user(user), item.is_empty());
        rows.counts.without_user += u64::from(without_user);
        rows.counts.without_item += u64::from(!without_user && without_item);
        without_user || without_item
    }

    #[inline]
    fn take_time<'b>(
        &self,
        column: Option<(usize, TimeStyle)>,
        field: impl Fn(usize) -> &'b [u8],
    ) -> Result<Option<Time>, BadRow> {
        let Some((place, style)) = column else { return Ok(None) };
        let time = parse(field(place), style);
        time.map(Some).ok_or_else(|| self.bad_time((place, style), field(place)))
    }

    fn explain<'b>(&self, fault: RowFault, field: impl Fn(usize) -> &'b [u8]) -> BadRow {
        let bad_id = |place| self.bad_value(place, &expected_id(field(place)), field(place));
        match fault {
            RowFault::User => bad_id(self.user),
            RowFault::Item => bad_id(self.item),
        }
    }

    #[cold]
    fn bad_time(&self, (place, style): (usize, TimeStyle), value: &[u8]) -> BadRow {
        let expected = match style {
            TimeStyle::Number => EXPECTED_NUMBER,
            TimeStyle::Date => EXPECTED_DATE,
            TimeStyle::Nanos => EXPECTED_NANOS,
        };
        self.bad_value(place, expected, value)
    }

    /// A value that is not what its column should hold.
    #[cold]
    pub fn bad_value(&self, place: usize, expected: &str, value: &[u8]) -> BadRow {
        BadRow {
            column: Some(shown(&self.layout.columns[place])),
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
pub fn quote(field: &[u8]) -> String {
    if field.is_empty() {
        return "nothing".to_owned();
    }
    let text = String::from_utf8_lossy(&field[..field.len().min(4 * QUOTED_CHARS)]);
    format!("{:?}", shorten(&text, field.len()))
}

/// A column's name for a message that puts it in quotes: on one line and not too long.
pub fn shown(name: &str) -> String {
    let quoted = format!("{:?}", shorten(name, name.len()));
    quoted[1..quoted.len() - 1].to_owned()
}

/// The beginning of a text of which there are so many bytes.
fn shorten(text: &str, num_bytes: usize) -> String {
    let short: String = text.chars().take(QUOTED_CHARS).collect();
    let dots = if short.len() < num_bytes { "…" } else { "" };
    short + dots
}
