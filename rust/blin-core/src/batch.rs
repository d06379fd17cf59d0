//! From users to rows: the views of a training batch, and the rows of histories to score.
//!
//! A view is five arrays of R × n, filled in place; a buffer with a row for each user is always large
//! enough. With packing, several users share a row: their stretches stand side by side in the order
//! of the users, the row's free room at its left. Segments keep them apart, so packing changes the
//! cost of a batch and nothing else.

use crate::error::{Error, Result};
use crate::padding::{
    Copies, Fit, Padding, Positions, Slots, count_from, number_of_copies, room, widen,
};
use crate::rng::{Purpose, Stream};

/// The sequences to learn from: user u owns `items[starts[u]..ends[u]]`.
#[derive(Clone, Copy, Debug)]
pub struct Corpus<'a> {
    items: &'a [u32],
    starts: &'a [i64],
    ends: &'a [i64],
}

impl<'a> Corpus<'a> {
    /// Checks that every user's range lies inside the items.
    ///
    /// # Errors
    /// When the two lists of bounds differ in length or a range is not inside the items.
    pub fn new(items: &'a [u32], starts: &'a [i64], ends: &'a [i64]) -> Result<Self> {
        let total = items.len() as i64;
        let inside = |(&start, &end): (&i64, &i64)| 0 <= start && start <= end && end <= total;
        if starts.len() != ends.len() || !starts.iter().zip(ends).all(inside) {
            return Err(Error::Argument {
                name: "starts, ends",
                expected: format!("as many starts as ends, all ranges inside 0..{total}"),
                found: format!("{} starts and {} ends", starts.len(), ends.len()),
            });
        }
        Ok(Self { items, starts, ends })
    }

    /// Number of users.
    pub fn num_users(&self) -> usize {
        self.starts.len()
    }

    /// The newest items of a user, at most `limit`.
    fn newest(&self, user: usize, limit: usize) -> &'a [u32] {
        let (start, end) = (self.starts[user] as usize, self.ends[user] as usize);
        &self.items[start.max(end.saturating_sub(limit))..end]
    }
}

/// How rows are made.
#[derive(Clone, Copy, Debug)]
pub struct RowOptions {
    /// Positions in a row, n.
    pub max_len: usize,
    /// How many copies of a sequence.
    pub padding: Padding,
    /// Which number of copies fits.
    pub fit: Fit,
    /// Whether copies see each other.
    pub copies: Copies,
    /// What a position counts.
    pub positions: Positions,
    /// Whether users share rows.
    pub pack: bool,
    /// The seed of all draws.
    pub seed: u64,
}

/// A sequence and the room that its copies take.
struct Unit<'a> {
    sequence: &'a [u32],
    room: usize,
}

/// Fills one view of a batch and returns the number of rows used; the rest is left as it was.
///
/// What is drawn depends on (seed, epoch, user, view) alone.
///
/// # Errors
/// When a user is unknown or has fewer than two items, or a buffer is too small.
pub fn fill_view(
    corpus: &Corpus<'_>,
    options: &RowOptions,
    users: &[u32],
    epoch: u32,
    view: u8,
    mut slots: Slots<'_>,
) -> Result<usize> {
    let n = options.max_len;
    check_length("max_len", n, 1)?;
    let units = users
        .iter()
        .map(|&user| unit(corpus, options, user, epoch, view))
        .collect::<Result<Vec<_>>>()?;
    let rows = share_rows(&units, n, options.pack);
    check_length("buffer", slots.len(), rows.len() * n)?;
    slots.part(0..rows.len() * n).clear();
    for (number, row) in rows.iter().enumerate() {
        fill_row(slots.part(number * n..(number + 1) * n), &units[row.clone()], options);
    }
    Ok(rows.len())
}

/// Fills the rows of histories to score, one a user, with the newest items at the right.
///
/// `items`, `segments` and `positions` are R × `width`. Rows narrower than `max_len` leave out
/// positions at the left and number the others as if these were there. An empty history gives an
/// empty row.
///
/// # Errors
/// When a buffer is smaller than R × `width`, or `width` is 0 or above `max_len`.
pub fn fill_histories(
    corpus: &Corpus<'_>,
    width: usize,
    max_len: usize,
    mode: Positions,
    items: &mut [i64],
    segments: &mut [i64],
    positions: &mut [i64],
) -> Result<()> {
    check_length("width", width, 1)?;
    check_length("max_len", max_len, width)?;
    for length in [items.len(), segments.len(), positions.len()] {
        check_length("buffer", length, corpus.num_users() * width)?;
    }
    for user in 0..corpus.num_users() {
        let history = corpus.newest(user, width);
        let (row, start) = (user * width, width - history.len());
        let (empty, filled) = (row..row + start, row + start..row + width);
        items[empty.clone()].fill(0);
        segments[empty.clone()].fill(0);
        positions[empty].fill(0);
        widen(history, &mut items[filled.clone()]);
        segments[filled.clone()].fill(1);
        let first = match mode {
            Positions::Absolute => max_len - width + start,
            Positions::PerCopy => 0,
        };
        count_from(first as i64, &mut positions[filled]);
    }
    Ok(())
}

/// Puts users into the order of an epoch.
pub fn shuffle_users(users: &mut [u32], seed: u64, epoch: u32) {
    Stream::new(seed, Purpose::Shuffle, epoch, 0).shuffle(users);
}

fn unit<'a>(
    corpus: &Corpus<'a>,
    options: &RowOptions,
    user: u32,
    epoch: u32,
    view: u8,
) -> Result<Unit<'a>> {
    let n = options.max_len;
    if user as usize >= corpus.num_users() {
        return Err(Error::Argument {
            name: "users",
            expected: format!("indices below {}", corpus.num_users()),
            found: user.to_string(),
        });
    }
    let sequence = corpus.newest(user as usize, n + 1);
    if sequence.len() < 2 {
        return Err(Error::Argument {
            name: "users",
            expected: "users with at least two items to learn from".into(),
            found: format!("user {user} with {}", sequence.len()),
        });
    }
    let mut stream = Stream::new(options.seed, Purpose::Repeats { view }, epoch, user);
    let m = sequence.len() - 1;
    let copies = number_of_copies(m, n, options.padding, options.fit, &mut stream);
    Ok(Unit { sequence, room: room(m, copies, n) })
}

/// Assigns units to rows in their order: a row takes units as long as they fit.
fn share_rows(units: &[Unit<'_>], n: usize, pack: bool) -> Vec<std::ops::Range<usize>> {
    let mut rows = Vec::with_capacity(units.len());
    let (mut first, mut used) = (0, 0);
    for (index, unit) in units.iter().enumerate() {
        if index > first && (!pack || used + unit.room > n) {
            rows.push(first..index);
            (first, used) = (index, 0);
        }
        used += unit.room;
    }
    if first < units.len() {
        rows.push(first..units.len());
    }
    rows
}

/// Fills an empty row with its units, side by side and up against its right end.
fn fill_row(mut row: Slots<'_>, units: &[Unit<'_>], options: &RowOptions) {
    let RowOptions { max_len, copies, positions, .. } = *options;
    let mut end = row.len();
    let mut segment = 1;
    for unit in units.iter().rev() {
        let start = end - unit.room;
        let mut slots = row.part(start..end);
        segment += slots.fill(unit.sequence, max_len, copies, positions, segment);
        end = start;
    }
}

fn check_length(name: &'static str, found: usize, least: usize) -> Result<()> {
    if found >= least {
        return Ok(());
    }
    Err(Error::Argument { name, expected: format!("at least {least}"), found: found.to_string() })
}
