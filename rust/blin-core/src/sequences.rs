//! From rows to sequences: each user's items in time order.

use crate::interactions::Interactions;

/// All users' sequences laid end to end: user u owns `items[offsets[u]..offsets[u + 1]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequences {
    /// The items, oldest first.
    pub items: Vec<u32>,
    /// Where each user's sequence starts, and the end of the last.
    pub offsets: Vec<i64>,
    /// The time of each item, or nothing when the log has none.
    pub timestamps: Option<Vec<i64>>,
}

/// Users sorted by one task, so that many tasks share the work evenly.
const USERS_PER_TASK: usize = 4096;

impl Sequences {
    /// Groups the rows by user and sorts each user's rows by time.
    ///
    /// Equal times are ordered by the tie-breaks, if there are any. The sort is stable: what is
    /// equal by that, too, stays in the order of the file.
    ///
    /// ```
    /// use blin_core::{interactions::Interactions, sequences::Sequences};
    ///
    /// let rows = Interactions {
    ///     users: vec![1, 0, 1, 1],
    ///     items: vec![5, 6, 7, 8],
    ///     timestamps: Some(vec![30, 10, 20, 30]),
    ///     ..Interactions::default()
    /// };
    /// let sequences = Sequences::new(rows, 2);
    /// assert_eq!(sequences.offsets, [0, 1, 4]);
    /// assert_eq!(sequences.items, [6, 7, 5, 8]);
    /// ```
    pub fn new(interactions: Interactions, num_users: usize) -> Self {
        let Interactions { users, items, timestamps, tie_breaks } = interactions;
        let offsets = offsets(&users, num_users);
        let mut grouped_items = group(&users, items, &offsets);
        let grouped_times = timestamps.map(|timestamps| {
            let mut times = group(&users, timestamps, &offsets);
            let tie_breaks = tie_breaks.map(|times| group(&users, times, &offsets));
            drop(users);
            sort_by_time(&offsets, &mut grouped_items, &mut times, tie_breaks.as_deref());
            times
        });
        Self { items: grouped_items, offsets, timestamps: grouped_times }
    }

    /// How many users there are.
    pub fn num_users(&self) -> usize {
        self.offsets.len() - 1
    }
}

/// Where each user's rows start when they are laid end to end.
fn offsets(users: &[u32], num_users: usize) -> Vec<i64> {
    let mut offsets = vec![0_i64; num_users + 1];
    users.iter().for_each(|&user| offsets[user as usize + 1] += 1);
    for user in 0..num_users {
        offsets[user + 1] += offsets[user];
    }
    offsets
}

/// Moves each row's value to the next free place of its user.
fn group<T: Copy + Default>(users: &[u32], values: Vec<T>, offsets: &[i64]) -> Vec<T> {
    let mut next = offsets.to_vec();
    let mut grouped = vec![T::default(); values.len()];
    for (&user, value) in users.iter().zip(values) {
        let place = &mut next[user as usize];
        grouped[*place as usize] = value;
        *place += 1;
    }
    grouped
}

fn sort_by_time(offsets: &[i64], items: &mut [u32], times: &mut [i64], tie_breaks: Option<&[i64]>) {
    let num_users = offsets.len() - 1;
    if num_users <= USERS_PER_TASK {
        return sort_each_user(offsets, items, times, tie_breaks);
    }
    let middle = num_users / 2;
    let cut = (offsets[middle] - offsets[0]) as usize;
    let (left_items, right_items) = items.split_at_mut(cut);
    let (left_times, right_times) = times.split_at_mut(cut);
    let (left_breaks, right_breaks) = tie_breaks.map(|times| times.split_at(cut)).unzip();
    rayon::join(
        || sort_by_time(&offsets[..=middle], left_items, left_times, left_breaks),
        || sort_by_time(&offsets[middle..], right_items, right_times, right_breaks),
    );
}

fn sort_each_user(
    offsets: &[i64],
    items: &mut [u32],
    times: &mut [i64],
    tie_breaks: Option<&[i64]>,
) {
    let mut rows = Vec::new();
    for bounds in offsets.windows(2) {
        let user = (bounds[0] - offsets[0]) as usize..(bounds[1] - offsets[0]) as usize;
        let (items, times) = (&mut items[user.clone()], &mut times[user.clone()]);
        if tie_breaks.is_none() && times.is_sorted() {
            continue;
        }
        rows.clear();
        rows.extend(times.iter().copied().zip(items.iter().copied()).zip(0..));
        let tie_breaks = tie_breaks.map(|tie_breaks| &tie_breaks[user]);
        let tie_break = |row: usize| tie_breaks.map_or(0, |tie_breaks| tie_breaks[row]);
        rows.sort_by_key(|&((time, _), row)| (time, tie_break(row)));
        for ((time, item), (sorted, _)) in times.iter_mut().zip(items).zip(&rows) {
            (*time, *item) = *sorted;
        }
    }
}
