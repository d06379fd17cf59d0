//! Times as people write them, kept as `i64` and never as a float.
//!
//! Integers stay as they are; their size tells the unit. Decimals and dates become nanoseconds,
//! and a column of those is brought to the coarsest unit that loses nothing.

use crate::error::Result;

const NANOS: i64 = 1_000_000_000;

/// What a time can look like, for messages.
pub const EXPECTED_NUMBER: &str = "a time such as 978300760 or 978300760.25";

/// What nanoseconds of 64 bits can hold, for messages.
pub const EXPECTED_NANOS: &str = "a time between 1677-09-22 and 2262-04-11";

/// What a date can look like, for messages.
pub const EXPECTED_DATE: &str = "a date such as 2001-01-31 or 2001-01-31T12:00:00Z";

/// How the times of one column are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeStyle {
    /// Integers and decimals since 1970.
    Number,
    /// ISO-8601 dates and date-times; UTC where no zone is given.
    Date,
    /// Integers that are nanoseconds since 1970, whatever their size.
    Nanos,
}

/// The unit of a column of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Numbers too small to be times since 1970, such as steps.
    Number,
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Milliseconds,
    /// Microseconds since 1970.
    Microseconds,
    /// Nanoseconds since 1970.
    Nanoseconds,
}

impl TimeUnit {
    /// The unit's short name: `number`, `s`, `ms`, `us` or `ns`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::Microseconds => "us",
            Self::Nanoseconds => "ns",
        }
    }

    /// The unit in which a number of this size is a time of our days.
    fn of_magnitude(value: u64) -> Self {
        let holds = |unit: &Self| value <= unit.range().1 as u64;
        let units = [Self::Number, Self::Seconds, Self::Milliseconds, Self::Microseconds];
        units.into_iter().find(holds).unwrap_or(Self::Nanoseconds)
    }

    /// The least and the greatest positive number of this size.
    fn range(self) -> (i64, i64) {
        match self {
            Self::Number => (0, 9_999_999),
            Self::Seconds => (10_000_000, 99_999_999_999),
            Self::Milliseconds => (100_000_000_000, 99_999_999_999_999),
            Self::Microseconds => (100_000_000_000_000, 99_999_999_999_999_999),
            Self::Nanoseconds => (100_000_000_000_000_000, i64::MAX),
        }
    }

    /// How many nanoseconds it has; a plain number counts as a second.
    pub fn nanos(self) -> i64 {
        match self {
            Self::Number | Self::Seconds => NANOS,
            Self::Milliseconds => 1_000_000,
            Self::Microseconds => 1_000,
            Self::Nanoseconds => 1,
        }
    }
}

/// The unit and the range of the timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    /// Their unit.
    pub unit: TimeUnit,
    /// The oldest.
    pub first: i64,
    /// The newest.
    pub last: i64,
}

impl TimeRange {
    /// The range of these times, if there are any.
    pub fn of(times: Option<&[i64]>, unit: Option<TimeUnit>) -> Option<Self> {
        let times = times?;
        Some(Self { unit: unit?, first: *times.iter().min()?, last: *times.iter().max()? })
    }
}

/// One time as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// An integer in a unit that only the whole column can tell.
    Integer(i64),
    /// Nanoseconds since 1970.
    Nanos(i64),
}

impl Time {
    /// The first moment of `unit` that is not before this time; a small number means itself.
    pub fn in_unit(self, unit: TimeUnit) -> i64 {
        let nanos = match self {
            Self::Integer(value) => {
                let own = TimeUnit::of_magnitude(value.unsigned_abs());
                if own == unit || own == TimeUnit::Number || unit == TimeUnit::Number {
                    return value;
                }
                i128::from(value) * i128::from(own.nanos())
            }
            Self::Nanos(value) => value.into(),
        };
        let ceiling = -(-nanos).div_euclid(unit.nanos().into());
        ceiling.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }
}

/// Watches for integers of several units among the times of one column.
///
/// Numbers too small to be times since 1970 tell nothing: many logs write 0 for a missing time.
#[derive(Clone, Copy, Debug)]
pub struct UnitWatch {
    /// The first unit, and the line on which it was met.
    first: Option<(TimeUnit, u64)>,
    /// Another one, and the line on which it was met.
    other: Option<(TimeUnit, u64)>,
    /// From here to there are times that are nothing new.
    from: i64,
    to: i64,
}

impl Default for UnitWatch {
    fn default() -> Self {
        let (_, to) = TimeUnit::Number.range();
        Self { first: None, other: None, from: -to, to }
    }
}

impl UnitWatch {
    /// Looks at an integer on this line.
    #[inline]
    pub fn see(&mut self, value: i64, line: u64) {
        if value < self.from || value > self.to {
            self.look(value, line);
        }
    }

    fn look(&mut self, value: i64, line: u64) {
        let unit = TimeUnit::of_magnitude(value.unsigned_abs());
        let is_new = unit != TimeUnit::Number && self.first.is_none_or(|(first, _)| first != unit);
        if !is_new {
            return;
        }
        if self.first.is_some() {
            self.other = Some((unit, line));
            (self.from, self.to) = (i64::MIN, i64::MAX);
        } else {
            self.first = Some((unit, line));
            (self.from, self.to) = unit.range();
        }
    }

    /// Takes up what was seen in a later part of the column; returns the first mix of units.
    pub fn merge(&mut self, later: &Self) -> Option<UnitMix> {
        let (first, _) = *self.first.get_or_insert(later.first?);
        let other = [later.first, later.other].into_iter().flatten().find(|seen| seen.0 != first);
        other.map(|(other, line)| UnitMix { first, other, line })
    }
}

/// Two units in one column of integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitMix {
    first: TimeUnit,
    other: TimeUnit,
    line: u64,
}

impl UnitMix {
    /// Tells where the mix begins; lines were counted from `lines_before` on.
    pub fn warning(&self, path: &std::path::Path, lines_before: u64) -> String {
        let (line, path) = (lines_before + self.line, path.display());
        let (first, other) = (self.first.name(), self.other.name());
        format!(
            "{path}:{line}: this time is as large as one in {other}, times before as one in \
             {first}: all are taken as they stand, so the order is wrong if the units differ"
        )
    }
}

/// A column of times under construction: integers as read until something finer turns up.
#[derive(Clone, Debug, Default)]
pub struct TimeColumn {
    /// The times, in nanoseconds if `is_nanos`.
    pub values: Vec<i64>,
    is_nanos: bool,
    /// Whether an integer does not fit into 64 bits of nanoseconds, which the column needs.
    is_too_wide: bool,
}

impl TimeColumn {
    /// Appends a time.
    #[inline]
    pub fn push(&mut self, time: Time) {
        match (time, self.is_nanos) {
            (Time::Integer(value), false) => self.values.push(value),
            (Time::Integer(value), true) => {
                let nanos = self.nanos_of(value);
                self.values.push(nanos);
            }
            (Time::Nanos(value), _) => {
                self.make_nanos();
                self.values.push(value);
            }
        }
    }

    /// Appends a later part of the same column; false if something does not fit into 64 bits of
    /// nanoseconds, which does not depend on where the parts were cut.
    pub fn append(&mut self, later: &mut Self) -> bool {
        match (self.is_nanos, later.is_nanos) {
            (false, true) => self.make_nanos(),
            (true, false) => later.make_nanos(),
            _ => {}
        }
        self.is_too_wide |= later.is_too_wide;
        self.values.append(&mut later.values);
        !self.is_too_wide
    }

    /// Whether the times are nanoseconds.
    pub fn is_nanos(&self) -> bool {
        self.is_nanos
    }

    /// Forgets all times and keeps the memory.
    pub fn clear(&mut self) {
        self.values.clear();
        (self.is_nanos, self.is_too_wide) = (false, false);
    }

    /// The times in the coarsest unit that is exact, and that unit.
    pub fn finish(mut self) -> (Vec<i64>, TimeUnit) {
        let mut scale = TimeScale::new(self.is_nanos);
        scale.add(&self.values);
        let unit = scale.unit();
        if self.is_nanos {
            self.values.iter_mut().for_each(|value| *value /= unit.nanos());
        }
        (self.values, unit)
    }

    fn make_nanos(&mut self) {
        if !self.is_nanos {
            self.is_nanos = true;
            let mut values = std::mem::take(&mut self.values);
            values.iter_mut().for_each(|value| *value = self.nanos_of(*value));
            self.values = values;
        }
    }

    fn nanos_of(&mut self, value: i64) -> i64 {
        let nanos = to_nanos(value);
        self.is_too_wide |= nanos.is_none();
        nanos.unwrap_or_default()
    }
}

/// What decides the unit of a column of times.
pub struct TimeScale {
    is_nanos: bool,
    largest: u64,
    coarsest: TimeUnit,
}

impl TimeScale {
    /// No time was seen yet of nanoseconds or of integers as they were read.
    pub fn new(is_nanos: bool) -> Self {
        Self { is_nanos, largest: 0, coarsest: TimeUnit::Seconds }
    }

    /// Looks at times.
    pub fn add(&mut self, times: &[i64]) {
        if !self.is_nanos {
            let largest = times.iter().map(|time| time.unsigned_abs()).max().unwrap_or(0);
            self.largest = self.largest.max(largest);
            return;
        }
        let is_exact = |unit: &TimeUnit| times.iter().all(|time| time % unit.nanos() == 0);
        self.coarsest = [TimeUnit::Seconds, TimeUnit::Milliseconds, TimeUnit::Microseconds]
            .into_iter()
            .filter(|unit| unit.nanos() <= self.coarsest.nanos())
            .find(is_exact)
            .unwrap_or(TimeUnit::Nanoseconds);
    }

    /// The coarsest unit that is exact, or the one that the size of integers suggests.
    pub fn unit(&self) -> TimeUnit {
        if self.is_nanos { self.coarsest } else { TimeUnit::of_magnitude(self.largest) }
    }
}

/// An integer in the unit that its size suggests as nanoseconds, if it fits.
pub fn to_nanos(value: i64) -> Option<i64> {
    value.checked_mul(TimeUnit::of_magnitude(value.unsigned_abs()).nanos())
}

/// Reads one time, or nothing if it is not one.
///
/// ```
/// use blin_core::ingest::time::{Time, TimeStyle, parse};
///
/// assert_eq!(parse(b"978300760", TimeStyle::Number), Some(Time::Integer(978_300_760)));
/// assert_eq!(parse(b"1.5e9", TimeStyle::Number), Some(Time::Nanos(1_500_000_000_000_000_000)));
/// assert_eq!(parse(b"1970-01-01T01:00+01:00", TimeStyle::Date), Some(Time::Nanos(0)));
/// ```
#[inline]
pub fn parse(text: &[u8], style: TimeStyle) -> Option<Time> {
    match style {
        TimeStyle::Number => {
            short_integer(text).map(Time::Integer).or_else(|| parse_number(text.trim_ascii()))
        }
        TimeStyle::Date => parse_date(text.trim_ascii()).map(Time::Nanos),
        TimeStyle::Nanos => std::str::from_utf8(text).ok()?.parse().ok().map(Time::Nanos),
    }
}

/// The style in which `text` is a time, if it is one.
pub fn style_of(text: &[u8]) -> Option<TimeStyle> {
    [TimeStyle::Number, TimeStyle::Date].into_iter().find(|&style| parse(text, style).is_some())
}

/// Up to 18 digits and nothing else, the common case.
#[inline]
fn short_integer(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    let mut value = 0_i64;
    for &byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(value)
}

fn parse_number(text: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(value) = text.parse() {
        return Some(Time::Integer(value));
    }
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let nanos = decimal_nanos(unsigned)?;
    Some(Time::Nanos(if negative { -nanos } else { nanos }))
}

/// `whole.fraction` with an optional exponent, exactly, in the unit its size suggests.
fn decimal_nanos(text: &str) -> Option<i64> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: String = [whole, fraction].concat();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let point = i32::try_from(whole.len()).ok()?.checked_add(exponent)?;
    let integer = digits_up_to(&digits, point)?;
    let unit_digits = TimeUnit::of_magnitude(integer).nanos().ilog10() as i32;
    i64::try_from(digits_up_to(&digits, point.checked_add(unit_digits)?)?).ok()
}

/// The first `count` digits as a number, filled up with zeros; what follows is cut off.
fn digits_up_to(digits: &str, count: i32) -> Option<u64> {
    let count = usize::try_from(count).unwrap_or(0);
    let significant = digits.trim_start_matches('0');
    let count = count.saturating_sub(digits.len() - significant.len());
    if significant.is_empty() || count == 0 {
        return Some(0);
    }
    if count > 19 {
        return None;
    }
    format!("{significant:0<count$}")[..count].parse().ok()
}

fn parse_date(text: &[u8]) -> Option<i64> {
    let mut rest = text;
    let year = digits(&mut rest, 4)?;
    let separator = *rest.first().filter(|byte| matches!(byte, b'-' | b'/'))?;
    let month = digits_after(&mut rest, separator, 2)?;
    let day = digits_after(&mut rest, separator, 2)?;
    let days = days_since_1970(year, month, day)?;
    let (seconds, nanos) = parse_clock(rest)?;
    (days * 86_400 + seconds).checked_mul(NANOS)?.checked_add(nanos)
}

/// `T12:34:56.789+01:00` and shorter forms, as seconds to add in UTC and nanoseconds.
fn parse_clock(mut rest: &[u8]) -> Option<(i64, i64)> {
    if rest.is_empty() {
        return Some((0, 0));
    }
    if !matches!(rest[0], b'T' | b't' | b' ') {
        return None;
    }
    rest = &rest[1..];
    let hour = digits(&mut rest, 2)?;
    let minute = digits_after(&mut rest, b':', 2)?;
    let second = if rest.first() == Some(&b':') { digits_after(&mut rest, b':', 2)? } else { 0 };
    let nanos = if matches!(rest.first(), Some(b'.' | b',')) { fraction(&mut rest)? } else { 0 };
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some((hour * 3600 + minute * 60 + second - zone_seconds(rest.trim_ascii_start())?, nanos))
}

fn fraction(rest: &mut &[u8]) -> Option<i64> {
    let len = rest[1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let digits = std::str::from_utf8(&rest[1..=len]).ok()?;
    *rest = &rest[len + 1..];
    (len > 0).then(|| format!("{digits:0<9}")[..9].parse().ok())?
}

fn zone_seconds(mut rest: &[u8]) -> Option<i64> {
    let sign = match rest {
        b"" | b"Z" | b"z" | b"UTC" => return Some(0),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        _ => return None,
    };
    rest = &rest[1..];
    let hours = digits(&mut rest, 2)?;
    let minutes = match rest {
        b"" => 0,
        [b':', ..] => digits_after(&mut rest, b':', 2)?,
        _ => digits(&mut rest, 2)?,
    };
    (rest.is_empty() && hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn digits(rest: &mut &[u8], count: usize) -> Option<i64> {
    let value = short_integer(rest.get(..count)?)?;
    *rest = &rest[count..];
    Some(value)
}

fn digits_after(rest: &mut &[u8], separator: u8, count: usize) -> Option<i64> {
    *rest = rest.strip_prefix(&[separator])?;
    digits(rest, count)
}

/// Days of the proleptic Gregorian calendar, counted in years that begin in March.
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    let march_year = if month < 3 { year - 1 } else { year };
    let march_month = (month + 9) % 12;
    let leap_days =
        march_year.div_euclid(4) - march_year.div_euclid(100) + march_year.div_euclid(400);
    Some(march_year * 365 + leap_days + (march_month * 153 + 2) / 5 + day - 1 - 719_468)
}

/// The error for a column whose times do not fit into 64 bits of nanoseconds.
pub fn too_wide(path: &std::path::Path) -> Result<()> {
    Err(crate::error::Error::log(
        path,
        "times that fit into 64 bits of nanoseconds (years 1678 to 2261)",
        "integers and decimals that together do not",
    ))
}
