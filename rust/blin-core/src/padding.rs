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

/// Whether the copies of a sequence see each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// Each copy is a segment of its own.
    Reset,
    /// All copies are one segment.
    Attend,
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
named!(Copies, "copies", { "reset" => Reset, "attend" => Attend });
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

/// The five arrays of a view, or a stretch of them; all of the same length.
pub struct Slots<'a> {
    /// Inputs.
    pub items: &'a mut [i64],
    /// Targets.
    pub targets: &'a mut [i64],
    /// Segments.
    pub segments: &'a mut [i64],
    /// Positions.
    pub positions: &'a mut [i64],
    /// Marks of the newest copies.
    pub newest: &'a mut [bool],
}

impl Slots<'_> {
    /// The length of the shortest array.
    pub fn len(&self) -> usize {
        let Self { items, targets, segments, positions, newest } = self;
        let rest = [targets.len(), segments.len(), positions.len(), newest.len()];
        rest.into_iter().fold(items.len(), usize::min)
    }

    /// Whether there is nothing to fill.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A stretch of all five.
    pub fn part(&mut self, range: Range<usize>) -> Slots<'_> {
        Slots {
            items: &mut self.items[range.clone()],
            targets: &mut self.targets[range.clone()],
            segments: &mut self.segments[range.clone()],
            positions: &mut self.positions[range.clone()],
            newest: &mut self.newest[range],
        }
    }

    /// Empties all five.
    pub fn clear(&mut self) {
        self.items.fill(0);
        self.targets.fill(0);
        self.segments.fill(0);
        self.positions.fill(0);
        self.newest.fill(false);
    }

    /// Fills slots that are empty and exactly as many as [`room`] says, from the right.
    ///
    /// `sequence` holds one more item than a copy has steps; `row` is n; `segment` is the number of
    /// the newest copy. Returns the number of segments used.
    pub fn fill(
        &mut self,
        sequence: &[u32],
        row: usize,
        copies: Copies,
        positions: Positions,
        segment: i64,
    ) -> i64 {
        let (x, y) = (&sequence[..sequence.len() - 1], &sequence[1..]);
        let length = self.items.len();
        let mut end = length;
        let mut copy = 0;
        loop {
            let start = end.saturating_sub(x.len());
            let cut = x.len() - (end - start);
            widen(&x[cut..], &mut self.items[start..end]);
            widen(&y[cut..], &mut self.targets[start..end]);
            let number = match copies {
                Copies::Reset => segment + copy,
                Copies::Attend => segment,
            };
            self.segments[start..end].fill(number);
            let first = match positions {
                Positions::Absolute => row - length + start,
                Positions::PerCopy => cut,
            };
            count_from(first as i64, &mut self.positions[start..end]);
            self.newest[start..end].fill(copy == 0);
            copy += 1;
            if start <= 1 {
                break;
            }
            end = start - 1;
        }
        match copies {
            Copies::Reset => copy,
            Copies::Attend => 1,
        }
    }
}

/// Copies items into slots of 64 bits.
pub(crate) fn widen(items: &[u32], slots: &mut [i64]) {
    for (slot, &item) in slots.iter_mut().zip(items) {
        *slot = i64::from(item);
    }
}

/// Fills slots with `first`, `first + 1`, ….
pub(crate) fn count_from(first: i64, slots: &mut [i64]) {
    for (slot, number) in slots.iter_mut().zip(first..) {
        *slot = number;
    }
}
