//! RandomPad: how the copies of one sequence fill a row.
//!
//! A sequence `s` is learned from as inputs `x = s[..-1]` and targets `y = s[1..]`, m steps long. In
//! a row of n positions it may stand several times, with a delimiter (0) between its copies:
//!
//! ```text
//! n = 11, m = 3, two copies     0 0 0 0 x x x 0 x x x      the newest copy is at the right
//! segments                      0 0 0 0 2 2 2 0 1 1 1
//! ```
//!
//! Blin, Eq. 1–4; RepPad (Dang et al., RecSys 2024).

use std::ops::Range;

use crate::error::{Error, Result};
use crate::rng::Stream;

/// How many copies of a sequence a row holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// A number drawn anew for each user, epoch and view.
    RandomRepeat,
    /// As many as fit.
    Repeat,
    /// One; the room left over stays empty.
    Zero,
}

/// What "fit" means for copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Whole copies only: at most ⌊(n+1) / (m+1)⌋, drawn from 1 on.
    Whole,
    /// RepPad's rule: 1…⌊n/m⌋ copies on top of the first, the row cut to its newest n positions, so
    /// that the oldest copy may have lost its beginning.
    Truncate,
}

/// What becomes of the copies of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// Each copy is a segment of its own.
    Reset,
    /// All copies are one segment.
    Attend,
    /// One copy stands for all; each of its steps weighs as much as it would stand in the row.
    Weight,
}

/// What a position counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// The place in a row of n positions that holds nothing but this sequence and its copies.
    Absolute,
    /// The steps since the first item of the copy.
    PerCopy,
}

macro_rules! named {
    ($type:ident, $name:literal, { $($text:literal => $variant:ident),+ $(,)? }) => {
        impl std::str::FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(Error::Argument {
                        name: $name,
                        expected: format!("one of {}", [$($text),+].join(", ")),
                        found: format!("{text:?}"),
                    }),
                }
            }
        }
    };
}

named!(Padding, "padding", { "random-repeat" => RandomRepeat, "repeat" => Repeat, "zero" => Zero });
named!(Fit, "fit", { "whole" => Whole, "truncate" => Truncate });
named!(Copies, "copies", { "reset" => Reset, "attend" => Attend, "weight" => Weight });
named!(Positions, "positions", { "absolute" => Absolute, "per-copy" => PerCopy });

/// Draws the number of copies of a sequence of m steps in a row of n positions; at least 1.
///
/// Nothing is drawn from the stream unless there is a choice.
pub fn number_of_copies(
    m: usize,
    n: usize,
    padding: Padding,
    fit: Fit,
    stream: &mut Stream,
) -> usize {
    let (fewest, most) = match fit {
        Fit::Whole => (1, ((n + 1) / (m + 1)).max(1)),
        Fit::Truncate if m >= n => (1, 1),
        Fit::Truncate => (2, n / m + 1),
    };
    match padding {
        Padding::Zero => 1,
        Padding::Repeat => most,
        Padding::RandomRepeat if fewest == most => most,
        Padding::RandomRepeat => fewest + stream.below((most - fewest + 1) as u32) as usize,
    }
}

/// The room that some copies of m steps take in a row of n positions, delimiters included.
pub fn room(m: usize, copies: usize, n: usize) -> usize {
    (copies * (m + 1) - 1).min(n)
}

/// How often a step stands in a row of n positions that holds some copies of m steps.
///
/// `from_right` counts the steps of the sequence after it. The oldest copy may be cut.
pub fn times(from_right: usize, m: usize, copies: usize, n: usize) -> usize {
    copies.min((n - 1 - from_right) / (m + 1) + 1)
}

/// The arrays of a view, or a stretch of them; all of the same length.
pub struct Slots<'a> {
    /// Inputs.
    pub items: &'a mut [i64],
    /// Targets.
    pub targets: &'a mut [i64],
    /// Segments.
    pub segments: &'a mut [i32],
    /// Positions.
    pub positions: &'a mut [i32],
    /// Numbers of the copies, 1 for the newest.
    pub copies: &'a mut [i32],
    /// Numbers of the steps, -1 for none.
    pub steps: &'a mut [i64],
    /// Weights of the targets, where they are wanted.
    pub weights: Option<&'a mut [f32]>,
}

/// A sequence, and how it is to stand in its slots.
#[derive(Clone, Copy, Debug)]
pub struct Unit<'a> {
    /// Its items, one more than a copy has steps.
    pub sequence: &'a [u32],
    /// How many copies were drawn.
    pub drawn: usize,
    /// Slots that its copies take, delimiters included.
    pub room: usize,
    /// The number of its oldest step.
    pub first_step: i64,
}

impl Slots<'_> {
    /// The length of the shortest array.
    pub fn len(&self) -> usize {
        let Self { items, targets, segments, positions, copies, steps, weights } = self;
        let weights = weights.as_ref().map_or(usize::MAX, |weights| weights.len());
        let rest =
            [targets.len(), segments.len(), positions.len(), copies.len(), steps.len(), weights];
        rest.into_iter().fold(items.len(), usize::min)
    }

    /// Whether there is nothing to fill.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A stretch of all.
    pub fn part(&mut self, range: Range<usize>) -> Slots<'_> {
        Slots {
            items: &mut self.items[range.clone()],
            targets: &mut self.targets[range.clone()],
            segments: &mut self.segments[range.clone()],
            positions: &mut self.positions[range.clone()],
            copies: &mut self.copies[range.clone()],
            steps: &mut self.steps[range.clone()],
            weights: self.weights.as_deref_mut().map(|weights| &mut weights[range]),
        }
    }

    /// Empties all.
    pub fn clear(&mut self) {
        self.items.fill(0);
        self.targets.fill(0);
        self.segments.fill(0);
        self.positions.fill(0);
        self.copies.fill(0);
        self.steps.fill(-1);
        if let Some(weights) = &mut self.weights {
            weights.fill(0.0);
        }
    }

    /// Fills as many slots as the unit's room is, all of them; returns the number of segments used.
    ///
    /// `row` is n; `segment` is the number of the newest copy.
    pub fn fill(
        &mut self,
        unit: &Unit<'_>,
        row: usize,
        copies: Copies,
        positions: Positions,
        segment: i32,
    ) -> i32 {
        let (x, y) = (&unit.sequence[..unit.sequence.len() - 1], &unit.sequence[1..]);
        let (m, period, length) = (x.len(), unit.sequence.len(), self.items.len());
        let newest = length - m;
        widen(x, &mut self.items[newest..]);
        widen(y, &mut self.targets[newest..]);
        count_from(unit.first_step, &mut self.steps[newest..]);
        self.copies[newest..].fill(1);
        repeat_to_the_left(self.items, period, 0, |item, _| item);
        repeat_to_the_left(self.targets, period, 0, |target, _| target);
        repeat_to_the_left(self.steps, period, -1, |step, _| step);
        repeat_to_the_left(self.copies, period, 0, |copy, more| copy + more * (copy > 0) as i32);
        let (each, base) = if copies == Copies::Reset { (1, segment - 1) } else { (0, segment) };
        for (slot, &copy) in self.segments.iter_mut().zip(&*self.copies) {
            *slot = (copy * each + base) * (copy > 0) as i32;
        }
        match positions {
            Positions::Absolute => {
                let places = (row - length) as i32..;
                for ((slot, &copy), place) in
                    self.positions.iter_mut().zip(&*self.copies).zip(places)
                {
                    *slot = place * (copy > 0) as i32;
                }
            }
            Positions::PerCopy => {
                count_from(0, &mut self.positions[newest..]);
                repeat_to_the_left(self.positions, period, 0, |position, _| position);
            }
        }
        if let Some(weights) = &mut self.weights {
            for (from_right, weight) in weights[newest..].iter_mut().rev().enumerate() {
                *weight = match copies {
                    Copies::Weight => times(from_right, m, unit.drawn, row) as f32,
                    _ => 1.0,
                };
            }
            repeat_to_the_left(weights, period, 0.0, |weight, _| weight);
        }
        if copies == Copies::Reset { length.div_ceil(period) as i32 } else { 1 }
    }

    /// Fills slots with inputs that nothing is to be predicted from.
    ///
    /// `row` and `segment` are as for [`Slots::fill`].
    pub fn fill_inputs(&mut self, x: &[u32], row: usize, positions: Positions, segment: i32) {
        widen(x, self.items);
        self.targets.fill(0);
        self.segments.fill(segment);
        self.copies.fill(1);
        self.steps.fill(-1);
        if let Some(weights) = &mut self.weights {
            weights.fill(0.0);
        }
        let first = if positions == Positions::Absolute { row - x.len() } else { 0 };
        count_from(first as i32, self.positions);
    }
}

/// Copies items into wider slots.
pub(crate) fn widen(items: &[u32], slots: &mut [i64]) {
    for (slot, &item) in slots.iter_mut().zip(items) {
        *slot = i64::from(item);
    }
}

/// Fills slots with `first`, `first + 1`, ….
pub(crate) fn count_from<T: Copy>(first: T, slots: &mut [T])
where
    std::ops::RangeFrom<T>: Iterator<Item = T>,
{
    for (slot, number) in slots.iter_mut().zip(first..) {
        *slot = number;
    }
}

/// Repeats the last `period - 1` slots, with `gap` before them, as far as there are slots.
///
/// `change` is given a slot and how many copies newer it is than the slot to come from it.
fn repeat_to_the_left<T: Copy>(
    slots: &mut [T],
    period: usize,
    gap: T,
    change: impl Fn(T, i32) -> T,
) {
    let Some(delimiter) = slots.len().checked_sub(period) else { return };
    slots[delimiter] = gap;
    // What is done is doubled until there is no room left.
    let (mut start, mut copies) = (delimiter, 1);
    while start > 0 {
        let (free, done) = slots.split_at_mut(start);
        let more = free.len().min(done.len());
        let newer = &done[done.len() - more..];
        start -= more;
        for (slot, &from) in free[start..].iter_mut().zip(newer) {
            *slot = change(from, copies);
        }
        copies *= 2;
    }
}
