//! What to do when a user meets the same item again.

use std::ops::Range;
use std::str::FromStr;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::interactions::Interactions;

/// Which of a user's interactions with one item stay in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duplicates {
    /// All of them.
    #[default]
    Keep,
    /// The oldest.
    First,
    /// The newest.
    Last,
}

impl FromStr for Duplicates {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "keep" => Ok(Self::Keep),
            "first" => Ok(Self::First),
            "last" => Ok(Self::Last),
            _ => Err(Error::argument("duplicates", r#""keep", "first" or "last""#, name)),
        }
    }
}

/// Marks the rows to keep, or returns nothing when all stay.
///
/// Of rows with equal times and tie-breaks the one that stands first in the file is the older one.
///
/// ```
/// use blin_core::{duplicates::{Duplicates, keep}, interactions::Interactions};
///
/// let rows = Interactions {
///     users: vec![0, 0, 0],
///     items: vec![4, 4, 5],
///     timestamps: Some(vec![20, 10, 30]),
///     ..Interactions::default()
/// };
/// assert_eq!(keep(&rows, Duplicates::First).unwrap(), [false, true, true]);
/// ```
pub fn keep(interactions: &Interactions, duplicates: Duplicates) -> Option<Vec<bool>> {
    if duplicates == Duplicates::Keep {
        return None;
    }
    let Interactions { users, items, timestamps, tie_breaks } = interactions;
    let time = |row: u32| {
        [timestamps, tie_breaks].map(|times| times.as_ref().map_or(0, |times| times[row as usize]))
    };
    let pair = |row: u32| (users[row as usize], items[row as usize]);
    let mut rows: Vec<u32> = (0..users.len() as u32).collect();
    rows.par_sort_unstable_by_key(|&row| (pair(row), time(row), row));
    let mut kept = vec![false; rows.len()];
    for run in rows.chunk_by(|&a, &b| pair(a) == pair(b)) {
        let survivor = if duplicates == Duplicates::First { run[0] } else { run[run.len() - 1] };
        kept[survivor as usize] = true;
    }
    Some(kept)
}

/// Counts the interactions of users with items they have met before.
pub fn count_repeats(items: &[u32], offsets: &[i64]) -> u64 {
    let users: Vec<Range<usize>> =
        offsets.windows(2).map(|bounds| bounds[0] as usize..bounds[1] as usize).collect();
    users
        .par_iter()
        .with_min_len(1024)
        .map_init(Vec::new, |scratch, user| {
            scratch.clear();
            scratch.extend_from_slice(&items[user.clone()]);
            scratch.sort_unstable();
            scratch.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64
        })
        .sum()
}
