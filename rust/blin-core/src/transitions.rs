//! What follows what: a sparse matrix of how often.

use rayon::prelude::*;

use crate::error::{Error, Result};

/// The entries above 0 of a matrix of V + 1 rows, row by row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transitions {
    /// How many entries each row has; row 0, of padding, has none.
    pub lengths: Vec<i64>,
    /// The column of each entry, rising within a row.
    pub targets: Vec<i32>,
    /// The value of each entry.
    pub counts: Vec<i64>,
}

/// Counts how often each item comes 1 to `span` steps after each other one, inside a user.
///
/// `items` are of 1 to `num_items`; those of one user stand together, the oldest first. They are
/// read once, and the pairs they make are sorted; beside what it returns it holds those, of eight
/// bytes each.
///
/// ```
/// use blin_core::transitions::count;
///
/// let found = count(&[1, 2, 1, 2, 2], &[0, 0, 0, 0, 7], 2, 1)?;
/// assert_eq!(found.lengths, [0, 1, 1]);
/// assert_eq!((found.targets, found.counts), (vec![2, 1], vec![2, 1]));
/// # Ok::<(), blin_core::error::Error>(())
/// ```
///
/// # Errors
///
/// An item is none, or the columns are of different lengths.
pub fn count(items: &[i64], users: &[i64], num_items: usize, span: usize) -> Result<Transitions> {
    if items.len() != users.len() {
        return Err(Error::argument("users", "as many as items", users.len()));
    }
    if i32::try_from(num_items).is_err() {
        return Err(Error::argument("num_items", "a number below 2^31", num_items));
    }
    let known = 1..=num_items as i64;
    let mut pairs = Vec::with_capacity(items.len());
    for (place, &item) in items.iter().enumerate() {
        if !known.contains(&item) {
            let expected = format!("numbers from 1 to {num_items}");
            return Err(Error::argument("items", &expected, item));
        }
        let after = following(items, users, place, span);
        // A target that is no item is refused when its own turn comes.
        pairs.extend(after.iter().map(|&target| (item as u64) << 32 | target as u64));
    }
    pairs.par_sort_unstable();
    let mut found = Transitions { lengths: vec![0; num_items + 1], ..Transitions::default() };
    for equal in pairs.chunk_by(|one, other| one == other) {
        found.lengths[(equal[0] >> 32) as usize] += 1;
        found.targets.push(equal[0] as i32);
        found.counts.push(equal.len() as i64);
    }
    Ok(found)
}

/// The next items of the same user, at most `span` of them.
fn following<'a>(items: &'a [i64], users: &[i64], place: usize, span: usize) -> &'a [i64] {
    let last = place.saturating_add(span).min(items.len() - 1);
    let own = users[place + 1..=last].iter().take_while(|&&user| user == users[place]).count();
    &items[place + 1..=place + own]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn slow(items: &[i64], users: &[i64], span: usize) -> BTreeMap<(i64, i64), i64> {
        let mut counts = BTreeMap::new();
        for first in 0..items.len() {
            for second in first + 1..items.len() {
                if second - first <= span && users[first] == users[second] {
                    *counts.entry((items[first], items[second])).or_insert(0) += 1;
                }
            }
        }
        counts
    }

    #[test]
    fn counts_are_those_of_all_pairs() {
        let mut state = 7_u64;
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for round in 0..200 {
            let length = draw(30) as usize;
            let items: Vec<i64> = (0..length).map(|_| 1 + draw(5) as i64).collect();
            let mut users: Vec<i64> = (0..length).map(|_| draw(4) as i64).collect();
            users.sort_unstable();
            let span = [0, 1, 2, 9, usize::MAX][round % 5];
            let found = count(&items, &users, 6, span).expect("valid");
            let rows = (0..7).flat_map(|row| vec![row; found.lengths[row as usize] as usize]);
            let columns = found.targets.iter().map(|&target| i64::from(target));
            let entries: BTreeMap<_, _> =
                rows.zip(columns).zip(found.counts.iter().copied()).collect();
            assert_eq!(entries, slow(&items, &users, span));
            assert_eq!(entries.len(), found.targets.len());
        }
    }

    #[test]
    fn what_is_no_item_is_refused() {
        for item in [0, 3, -1, i64::MIN] {
            let error = count(&[1, item], &[0, 0], 2, 1).expect_err("no item").to_string();
            assert_eq!(error, format!("items: expected numbers from 1 to 2, found {item}"));
        }
        assert!(count(&[1], &[], 2, 1).is_err());
        assert!(count(&[], &[], usize::MAX, 1).is_err());
    }
}
