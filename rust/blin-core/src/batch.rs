//! From users to rows: the views of a training batch, and the rows of histories to score.
//!
//! A view is seven arrays of R × n, filled in place; a buffer with a row for each user is always
//! large enough. With packing, several users share a row: their stretches stand side by side in the
//! order of the users, the row's free room at its left. Segments keep them apart, so packing changes
//! the cost of a batch and nothing else.
//!
//! The steps of a batch are numbered user by user, and by time within a user: every step that stands
//! in some view, once. What is drawn depends on (seed, epoch, user, view) alone.

use std::ops::Range;

use crate::augment::{Augmentation, choose};
use crate::error::{Error, Result};
use crate::padding::{
    Copies, Fit, Padding, Positions, Slots, Unit, count_from, number_of_copies, room, widen,
};
use crate::rng::{Purpose, Stream};

/// The sequences to learn from: user u owns `items[starts[u]..ends[u]]`.
#[derive(Clone, Copy, Debug)]
pub struct Corpus<'a> {
    pub(crate) items: &'a [u32],
    starts: &'a [i64],
    ends: &'a [i64],
}

impl<'a> Corpus<'a> {
    /// Takes the bounds as they are; each is checked when it is used.
    ///
    /// # Errors
    /// When there are not as many starts as ends.
    pub fn new(items: &'a [u32], starts: &'a [i64], ends: &'a [i64]) -> Result<Self> {
        if starts.len() != ends.len() {
            let expected = format!("as many as starts, {}", starts.len());
            return Err(Error::argument("ends", &expected, ends.len()));
        }
        Ok(Self { items, starts, ends })
    }

    /// Checks that the items of every user are inside the items.
    ///
    /// # Errors
    /// When those of a user are not.
    pub fn check(&self) -> Result<()> {
        (0..self.num_users()).try_for_each(|user| self.range(user as u32).map(drop))
    }

    /// Number of users.
    pub fn num_users(&self) -> usize {
        self.starts.len()
    }

    /// Where a user's items are.
    ///
    /// # Errors
    /// When the user is unknown, or its range is not inside the items.
    pub(crate) fn range(&self, user: u32) -> Result<Range<usize>> {
        let row = user as usize;
        if row >= self.num_users() {
            let expected = format!("indices below {}", self.num_users());
            return Err(Error::argument("users", &expected, user));
        }
        let (start, end) = (self.starts[row], self.ends[row]);
        if 0 <= start && start <= end && end <= self.items.len() as i64 {
            return Ok(start as usize..end as usize);
        }
        let expected = format!("ranges inside 0..{}", self.items.len());
        Err(Error::Argument {
            name: "starts, ends",
            expected,
            found: format!("{start}..{end} for user {user}"),
        })
    }

    /// Where the items are of a user with something to learn from.
    ///
    /// # Errors
    /// When the user is unknown or has fewer than two items.
    fn learnable(&self, user: u32) -> Result<Range<usize>> {
        let range = self.range(user)?;
        if range.len() < 2 {
            return Err(Error::Argument {
                name: "users",
                expected: "users with at least two items to learn from".into(),
                found: format!("user {user} with {}", range.len()),
            });
        }
        Ok(range)
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
    /// What becomes of the copies.
    pub copies: Copies,
    /// What a position counts.
    pub positions: Positions,
    /// Whether users share rows.
    pub pack: bool,
    /// The least share of a sequence that a random crop keeps before it is padded; 0 for no crop.
    pub crop: f64,
    /// The seed of all draws.
    pub seed: u64,
}

/// How much of its buffers a batch takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    /// Rows of each view.
    pub rows: Vec<usize>,
    /// Steps, T.
    pub steps: usize,
}

/// Fills the views of a batch, and for each of its steps the place of its user among `users`.
///
/// What lies in the buffers behind the rows and the steps is left as it was.
///
/// # Errors
/// When a user is unknown or has fewer than two items, or a buffer is too small.
pub fn fill_views(
    corpus: &Corpus<'_>,
    options: &RowOptions,
    users: &[u32],
    epoch: u32,
    mut views: Vec<Slots<'_>>,
    step_users: &mut [i64],
) -> Result<Filled> {
    let n = options.max_len;
    check_length("max_len", n, 1)?;
    let mut units: Vec<Vec<Unit<'_>>> = vec![Vec::with_capacity(users.len()); views.len()];
    let mut steps = Steps::new(views.len());
    let mut total = 0;
    for (row, &user) in users.iter().enumerate() {
        steps.choose(corpus, options, user, epoch)?;
        for (view, units) in units.iter_mut().enumerate() {
            let range = &steps.ranges[view];
            let mut stream =
                Stream::new(options.seed, Purpose::Repeats { view: view as u8 }, epoch, user);
            let m = range.len();
            let drawn = number_of_copies(m, n, options.padding, options.fit, &mut stream);
            units.push(Unit {
                sequence: &corpus.items[range.start..=range.end],
                drawn,
                room: room(m, if options.copies == Copies::Weight { 1 } else { drawn }, n),
                first_step: (total + steps.number(range.start)) as i64,
            });
        }
        let next = total + steps.count();
        check_length("buffer", step_users.len(), next)?;
        step_users[total..next].fill(row as i64);
        total = next;
    }
    let mut filled = Filled { rows: Vec::with_capacity(views.len()), steps: total };
    for (units, slots) in units.iter().zip(&mut views) {
        let rows = share_rows(units.iter().map(|unit| unit.room), n, options.pack);
        check_length("buffer", slots.len(), rows.len() * n)?;
        for (number, row) in rows.iter().enumerate() {
            fill_row(slots.part(number * n..(number + 1) * n), &units[row.clone()], options);
        }
        filled.rows.push(rows.len());
    }
    Ok(filled)
}

/// Fills two views of the inputs of users, augmented, and returns the rows of each.
///
/// Each user draws two operators, and for each view what its operator does to the newest `max_len`
/// inputs. `mask` is the token of masked items.
///
/// # Errors
/// When a user is unknown or has fewer than two items, there is no operator, or a buffer is too
/// small.
pub fn fill_augmented(
    corpus: &Corpus<'_>,
    options: &RowOptions,
    augmentations: &[Augmentation],
    mask: u32,
    users: &[u32],
    epoch: u32,
    views: [Slots<'_>; 2],
) -> Result<[usize; 2]> {
    let n = options.max_len;
    check_length("max_len", n, 1)?;
    check_length("augmentations", augmentations.len(), 1)?;
    let mut sequences: [Vec<Vec<u32>>; 2] = [Vec::new(), Vec::new()];
    for &user in users {
        let Range { start, end } = corpus.learnable(user)?;
        let inputs = &corpus.items[start.max((end - 1).saturating_sub(n))..end - 1];
        let mut choice = Stream::new(options.seed, Purpose::Operators, epoch, user);
        for (view, augmentation) in choose(augmentations, &mut choice).into_iter().enumerate() {
            let purpose = Purpose::Augmentation { view: view as u8 };
            let mut inputs = inputs.to_vec();
            let mut stream = Stream::new(options.seed, purpose, epoch, user);
            augmentation.apply(&mut inputs, mask, &mut stream);
            sequences[view].push(inputs);
        }
    }
    let mut counts = [0; 2];
    for ((sequences, mut slots), count) in sequences.iter().zip(views).zip(&mut counts) {
        let rows = share_rows(sequences.iter().map(Vec::len), n, options.pack);
        check_length("buffer", slots.len(), rows.len() * n)?;
        for (number, row) in rows.iter().enumerate() {
            let mut row_slots = slots.part(number * n..(number + 1) * n);
            row_slots.clear();
            let mut end = n;
            for (segment, inputs) in (1..).zip(sequences[row.clone()].iter().rev()) {
                let start = end - inputs.len();
                row_slots.part(start..end).fill_inputs(inputs, n, options.positions, segment);
                end = start;
            }
        }
        *count = rows.len();
    }
    Ok(counts)
}

/// The steps of one user that the views of a batch hold. A step is named by the place of its input
/// among all items.
pub(crate) struct Steps {
    /// The steps of each view.
    ranges: Vec<Range<usize>>,
    /// All steps of all views, as few ranges as can be, in order.
    blocks: Vec<Range<usize>>,
}

impl Steps {
    pub(crate) fn new(views: usize) -> Self {
        Self { ranges: vec![0..0; views], blocks: Vec::with_capacity(views) }
    }

    /// Draws what each view holds of a user.
    ///
    /// # Errors
    /// When the user is unknown or has fewer than two items.
    pub(crate) fn choose(
        &mut self,
        corpus: &Corpus<'_>,
        options: &RowOptions,
        user: u32,
        epoch: u32,
    ) -> Result<()> {
        let all = corpus.learnable(user)?;
        for (view, range) in self.ranges.iter_mut().enumerate() {
            let purpose = Purpose::Crop { view: view as u8 };
            let kept = if options.crop > 0.0 {
                crop(&all, options.crop, Stream::new(options.seed, purpose, epoch, user))
            } else {
                all.clone()
            };
            let last = kept.end - 1;
            *range = kept.start.max(last.saturating_sub(options.max_len))..last;
        }
        self.blocks.clear();
        self.blocks.extend_from_slice(&self.ranges);
        self.blocks.sort_unstable_by_key(|range| range.start);
        self.blocks.dedup_by(|next, block| {
            let touches = next.start <= block.end;
            if touches {
                block.end = block.end.max(next.end);
            }
            touches
        });
        Ok(())
    }

    /// The number of steps.
    pub(crate) fn count(&self) -> usize {
        self.blocks.iter().map(Range::len).sum()
    }

    /// The number of a step among those of the user, the oldest being 0.
    fn number(&self, step: usize) -> usize {
        let before = |block: &Range<usize>| step.clamp(block.start, block.end) - block.start;
        self.blocks.iter().map(before).sum()
    }

    /// The steps in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.blocks.iter().cloned().flatten()
    }
}

/// Draws a stretch of a sequence: its length from the least share on, then where it begins.
fn crop(sequence: &Range<usize>, least_share: f64, mut stream: Stream) -> Range<usize> {
    let length = sequence.len();
    let least = ((least_share * length as f64).ceil() as usize).clamp(2, length);
    let kept = least + stream.below((length - least + 1) as u32) as usize;
    let start = sequence.start + stream.below((length - kept + 1) as u32) as usize;
    start..start + kept
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
    segments: &mut [i32],
    positions: &mut [i32],
) -> Result<()> {
    check_length("width", width, 1)?;
    check_length("max_len", max_len, width)?;
    for length in [items.len(), segments.len(), positions.len()] {
        check_length("buffer", length, corpus.num_users() * width)?;
    }
    for user in 0..corpus.num_users() {
        let Range { start, end } = corpus.range(user as u32)?;
        let history = &corpus.items[start.max(end.saturating_sub(width))..end];
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
        count_from(first as i32, &mut positions[filled]);
    }
    Ok(())
}

/// Puts users into the order of an epoch.
pub fn shuffle_users(users: &mut [u32], seed: u64, epoch: u32) {
    Stream::new(seed, Purpose::Shuffle, epoch, 0).shuffle(users);
}

/// Assigns units to rows in their order: a row takes units as long as they fit.
fn share_rows(
    rooms: impl ExactSizeIterator<Item = usize>,
    n: usize,
    pack: bool,
) -> Vec<Range<usize>> {
    let count = rooms.len();
    let mut rows = Vec::with_capacity(count);
    let (mut first, mut used) = (0, 0);
    for (index, room) in rooms.enumerate() {
        if index > first && (!pack || used + room > n) {
            rows.push(first..index);
            (first, used) = (index, 0);
        }
        used += room;
    }
    if first < count {
        rows.push(first..count);
    }
    rows
}

/// Fills a row with its units, side by side and up against its right end.
fn fill_row(mut row: Slots<'_>, units: &[Unit<'_>], options: &RowOptions) {
    let RowOptions { max_len, copies, positions, .. } = *options;
    let mut end = row.len();
    let mut segment = 1;
    for unit in units.iter().rev() {
        let start = end - unit.room;
        segment += row.part(start..end).fill(unit, max_len, copies, positions, segment);
        end = start;
    }
    row.part(0..end).clear();
}

fn check_length(name: &'static str, found: usize, least: usize) -> Result<()> {
    if found >= least {
        return Ok(());
    }
    Err(Error::Argument { name, expected: format!("at least {least}"), found: found.to_string() })
}
