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
        let (mut items, mut timestamps) = rayon::join(
            || group(&users, items, &offsets),
            || timestamps.map(|times| group(&users, times, &offsets)),
        );
        let tie_breaks = tie_breaks.map(|times| group(&users, times, &offsets));
        drop(users);
        if let Some(times) = &mut timestamps {
            sort_by_time(&offsets, &mut items, times, tie_breaks.as_deref());
        }
        Self { items, offsets, timestamps }
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
    // A log has less than 2^32 rows, and smaller places are found faster.
    let mut next: Vec<u32> = offsets.iter().map(|&start| start as u32).collect();
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
    let mut sorter = Sorter::default();
    for bounds in offsets.windows(2) {
        let user = (bounds[0] - offsets[0]) as usize..(bounds[1] - offsets[0]) as usize;
        let (items, times) = (&mut items[user.clone()], &mut times[user.clone()]);
        match tie_breaks {
            Some(tie_breaks) => sorter.sort_by_both(items, times, &tie_breaks[user]),
            None => sorter.sort(items, times),
        }
    }
}

/// Sorts one user after the other, with the same scratch memory.
#[derive(Default)]
struct Sorter {
    keys: Vec<u64>,
    items: Vec<u32>,
    rows: Vec<((i64, i64), u32)>,
}

impl Sorter {
    /// Sorts by time; where the span of the times leaves room for it, a time and the number of
    /// its row are one word, whose order is that of a stable sort.
    fn sort(&mut self, items: &mut [u32], times: &mut [i64]) {
        if times.is_sorted() {
            return;
        }
        let (oldest, newest) =
            times.iter().fold((i64::MAX, i64::MIN), |(a, b), &time| (a.min(time), b.max(time)));
        let row_bits = usize::BITS - times.len().leading_zeros();
        if newest.abs_diff(oldest) >> (u64::BITS - row_bits) != 0 {
            return self.sort_by_both(items, times, &[]);
        }
        self.keys.clear();
        self.keys.extend(
            times.iter().zip(0..).map(|(time, row)| time.abs_diff(oldest) << row_bits | row),
        );
        self.keys.sort_unstable();
        self.items.clear();
        self.items.extend_from_slice(items);
        for ((time, item), key) in times.iter_mut().zip(items).zip(&self.keys) {
            *time = oldest.wrapping_add_unsigned(key >> row_bits);
            *item = self.items[(key & ((1 << row_bits) - 1)) as usize];
        }
    }

    /// Sorts by time, and rows of the same time by their tie-breaks, if there are any.
    fn sort_by_both(&mut self, items: &mut [u32], times: &mut [i64], tie_breaks: &[i64]) {
        let tie_breaks = tie_breaks.iter().copied().chain(std::iter::repeat(0));
        self.rows.clear();
        self.rows.extend(times.iter().copied().zip(tie_breaks).zip(items.iter().copied()));
        self.rows.sort_by_key(|&(moment, _)| moment);
        for ((time, item), &((sorted, _), moved)) in times.iter_mut().zip(items).zip(&self.rows) {
            (*time, *item) = (sorted, moved);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Sorter;

    #[test]
    fn times_sort_alike_with_and_without_room_for_their_rows() {
        let mut sorter = Sorter::default();
        let start = [3, -1, 3, 0, -1, 7, 0];
        for stretch in [1, 1 << 40, 1 << 60, i64::MAX / 8] {
            let mut times = start.map(|time| time * stretch);
            let mut items = [0, 1, 2, 3, 4, 5, 6];
            sorter.sort(&mut items, &mut times);
            assert_eq!(items, [1, 4, 3, 6, 0, 2, 5]);
            assert_eq!(times, [-1, -1, 0, 0, 3, 3, 7].map(|time| time * stretch));
        }
        let mut times = [i64::MAX, i64::MIN, 0, i64::MIN];
        let mut items = [0, 1, 2, 3];
        sorter.sort(&mut items, &mut times);
        assert_eq!((items, times), ([1, 3, 2, 0], [i64::MIN, i64::MIN, 0, i64::MAX]));
    }
}
