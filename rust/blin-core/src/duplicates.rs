//! What to do when a user meets the same item again.

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

/// Counts the interactions of users with items they have met before; items are at most `max_item`.
pub fn count_repeats(items: &[u32], offsets: &[i64], max_item: u32) -> u64 {
    // Each task remembers who met an item last, so there are few tasks where there are many items.
    let most_tasks = items.len() / (4 * (max_item as usize + 1));
    let tasks = rayon::current_num_threads().min(most_tasks).max(1);
    let num_users = offsets.len() - 1;
    let users = |task: usize| num_users * task / tasks;
    (0..tasks)
        .into_par_iter()
        .map(|task| {
            let mut last_user = vec![0_u32; max_item as usize + 1];
            let mut repeats = 0;
            for (bounds, user) in offsets[users(task)..=users(task + 1)].windows(2).zip(1..) {
                for &item in &items[bounds[0] as usize..bounds[1] as usize] {
                    let last = std::mem::replace(&mut last_user[item as usize], user);
                    repeats += u64::from(last == user);
                }
            }
            repeats
        })
        .sum()
}
