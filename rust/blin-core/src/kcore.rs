//! The k-core filter in linear time.
//!
//! A round removes, at once, every interaction of the users and items that are below the threshold
//! when it begins. While rounds are few or remove much, a round is one pass over the rows. A log
//! that unravels slowly is finished with a queue: lists of each user's and each item's rows are
//! built once, and a round then touches only what it removes. Both ways remove the same
//! interactions in the same rounds.

use crate::error::Result;

/// How much of a log is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Users with at least one interaction.
    pub users: u64,
    /// Items with at least one interaction.
    pub items: u64,
    /// Interactions.
    pub interactions: u64,
}

/// How many interactions a user and an item must have to stay; 0 and 1 leave all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Interactions of a user.
    pub users: u32,
    /// Interactions of an item.
    pub items: u32,
}

/// What the filter did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KCore {
    /// Which interactions survive; nothing when all do.
    pub kept: Option<Vec<bool>>,
    /// What there was before.
    pub before: Counts,
    /// What was left after each round; empty when the log was a k-core already.
    pub rounds: Vec<Counts>,
}

/// Passes over all rows, other than those that removed much, before the queue takes over.
const PASSES: u32 = 8;

/// A pass that removes less than one row in this many has not removed much.
const MUCH: u64 = 8;

/// Finds the largest subset in which every user and every item has at least as many interactions
/// as is asked of it.
///
/// Removing an interaction only ever lowers counts, so the result does not depend on the order of
/// removal. `between_rounds` may stop the work.
///
/// ```
/// use blin_core::kcore::{Thresholds, k_core};
///
/// // Item 1 occurs once; without it user 1 has one interaction left and goes too.
/// let two = Thresholds { users: 2, items: 2 };
/// let core = k_core(&[0, 0, 1, 1], &[0, 0, 0, 1], two, &mut || Ok(())).unwrap();
/// assert_eq!(core.kept.unwrap(), [true, true, false, false]);
/// assert_eq!(core.rounds.len(), 2);
/// ```
pub fn k_core(
    users: &[u32],
    items: &[u32],
    thresholds: Thresholds,
    between_rounds: &mut dyn FnMut() -> Result<()>,
) -> Result<KCore> {
    let mut filter = Filter::new(users, items, thresholds);
    let before = filter.left;
    let mut rounds = Vec::new();
    let mut lists = None;
    let mut passes = 0;
    while filter.has_work() {
        between_rounds()?;
        let start = filter.left.interactions;
        if passes < PASSES {
            filter.remove_by_pass();
            passes += u32::from((start - filter.left.interactions) * MUCH < start);
        } else {
            let lists = lists.get_or_insert_with(|| RowLists::new(&filter));
            filter.remove_by_queue(lists);
        }
        rounds.push(filter.left);
    }
    let kept = (!rounds.is_empty()).then_some(filter.kept);
    Ok(KCore { kept, before, rounds })
}

/// One side of the log, users or items.
struct Side {
    threshold: u32,
    counts: Vec<u32>,
    /// Those below the threshold that this round removes; each still has an interaction.
    doomed: Vec<u32>,
    is_doomed: Vec<bool>,
    /// Those that fell below the threshold during this round.
    fallen: Vec<u32>,
    left: u64,
}

impl Side {
    fn new(column: &[u32], threshold: u32) -> Self {
        let size = column.iter().max().map_or(0, |&max| max as usize + 1);
        let mut counts = vec![0_u32; size];
        column.iter().for_each(|&index| counts[index as usize] += 1);
        let left = counts.iter().filter(|&&count| count > 0).count() as u64;
        let fallen = (0..size as u32).filter(|&index| counts[index as usize] < threshold).collect();
        let mut side = Self {
            threshold,
            counts,
            doomed: Vec::new(),
            is_doomed: vec![false; size],
            fallen,
            left,
        };
        side.next_round();
        side
    }

    /// Loses one interaction of `index`.
    #[inline]
    fn lose(&mut self, index: u32) {
        let count = &mut self.counts[index as usize];
        *count -= 1;
        if *count + 1 == self.threshold {
            self.fallen.push(index);
        }
        self.left -= u64::from(*count == 0);
    }

    fn next_round(&mut self) {
        for &index in &self.doomed {
            self.is_doomed[index as usize] = false;
        }
        std::mem::swap(&mut self.doomed, &mut self.fallen);
        self.fallen.clear();
        self.doomed.retain(|&index| self.counts[index as usize] > 0);
        for &index in &self.doomed {
            self.is_doomed[index as usize] = true;
        }
    }
}

struct Filter<'a> {
    user_of_row: &'a [u32],
    item_of_row: &'a [u32],
    users: Side,
    items: Side,
    kept: Vec<bool>,
    left: Counts,
}

impl<'a> Filter<'a> {
    fn new(user_of_row: &'a [u32], item_of_row: &'a [u32], thresholds: Thresholds) -> Self {
        let (users, items) = rayon::join(
            || Side::new(user_of_row, thresholds.users),
            || Side::new(item_of_row, thresholds.items),
        );
        let left =
            Counts { users: users.left, items: items.left, interactions: user_of_row.len() as u64 };
        let kept = if users.doomed.is_empty() && items.doomed.is_empty() {
            Vec::new()
        } else {
            vec![true; user_of_row.len()]
        };
        Self { user_of_row, item_of_row, users, items, kept, left }
    }

    fn has_work(&self) -> bool {
        !self.users.doomed.is_empty() || !self.items.doomed.is_empty()
    }

    fn remove_by_pass(&mut self) {
        for row in 0..self.kept.len() {
            let (user, item) = (self.user_of_row[row], self.item_of_row[row]);
            let doomed = self.users.is_doomed[user as usize] | self.items.is_doomed[item as usize];
            if doomed && self.kept[row] {
                self.remove(row);
            }
        }
        self.end_round();
    }

    fn remove_by_queue(&mut self, lists: &RowLists) {
        for user in std::mem::take(&mut self.users.doomed) {
            self.remove_rows(lists.users.of(user));
            self.users.is_doomed[user as usize] = false;
        }
        for item in std::mem::take(&mut self.items.doomed) {
            self.remove_rows(lists.items.of(item));
            self.items.is_doomed[item as usize] = false;
        }
        self.end_round();
    }

    fn remove_rows(&mut self, rows: &[u32]) {
        for &row in rows {
            if self.kept[row as usize] {
                self.remove(row as usize);
            }
        }
    }

    #[inline]
    fn remove(&mut self, row: usize) {
        self.kept[row] = false;
        self.left.interactions -= 1;
        self.users.lose(self.user_of_row[row]);
        self.items.lose(self.item_of_row[row]);
    }

    fn end_round(&mut self) {
        self.users.next_round();
        self.items.next_round();
        self.left.users = self.users.left;
        self.left.items = self.items.left;
    }
}

/// The rows still kept of every user and of every item.
struct RowLists {
    users: Lists,
    items: Lists,
}

impl RowLists {
    fn new(filter: &Filter) -> Self {
        let kept = &filter.kept;
        let (users, items) = rayon::join(
            || Lists::new(filter.user_of_row, kept, &filter.users.counts),
            || Lists::new(filter.item_of_row, kept, &filter.items.counts),
        );
        Self { users, items }
    }
}

struct Lists {
    rows: Vec<u32>,
    offsets: Vec<usize>,
}

impl Lists {
    fn new(column: &[u32], kept: &[bool], counts: &[u32]) -> Self {
        let mut offsets = Vec::with_capacity(counts.len() + 1);
        offsets.push(0);
        offsets.extend(counts.iter().scan(0, |end, &count| {
            *end += count as usize;
            Some(*end)
        }));
        let mut next = offsets.clone();
        let mut rows = vec![0; offsets[counts.len()]];
        for (row, _) in kept.iter().enumerate().filter(|(_, kept)| **kept) {
            let slot = &mut next[column[row] as usize];
            rows[*slot] = row as u32;
            *slot += 1;
        }
        Self { rows, offsets }
    }

    fn of(&self, index: u32) -> &[u32] {
        &self.rows[self.offsets[index as usize]..self.offsets[index as usize + 1]]
    }
}
