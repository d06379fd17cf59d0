//! The k-core filter in linear time.
//!
//! A round removes, at once, every interaction of the users and items that are below the threshold
//! when it begins. While rounds are few or remove much, a round is one pass over the rows. A log
//! that unravels slowly is finished with a queue: lists of each user's and each item's rows are
//! built once, and a round then touches only what it removes. Both ways remove the same
//! interactions in the same rounds.

use std::collections::LinkedList;

use rayon::prelude::*;

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

/// Rows that one task of a pass looks at, at least.
const ROWS_PER_TASK: usize = 1 << 16;

/// Finds the largest subset in which every user and every item has at least as many interactions
/// as is asked of it.
///
/// Removing an interaction only ever lowers counts, so the result does not depend on the order of
/// removal.
///
/// ```
/// use blin_core::kcore::{Thresholds, k_core};
///
/// // Item 1 occurs once; without it user 1 has one interaction left and goes too.
/// let core = k_core(&[0, 0, 1, 1], &[0, 0, 0, 1], Thresholds { users: 2, items: 2 });
/// assert_eq!(core.kept.unwrap(), [true, true, false, false]);
/// assert_eq!(core.rounds.len(), 2);
/// ```
pub fn k_core(users: &[u32], items: &[u32], thresholds: Thresholds) -> KCore {
    let mut filter = Filter::new(users, items, thresholds);
    while filter.has_work() {
        filter.round();
    }
    filter.finish()
}

/// The filter round by round.
pub struct Filter<'a> {
    user_of_row: &'a [u32],
    item_of_row: &'a [u32],
    state: State,
    kept: Vec<bool>,
    before: Counts,
    rounds: Vec<Counts>,
    lists: Option<RowLists>,
    passes: u32,
}

impl<'a> Filter<'a> {
    /// Counts the interactions of each user and item.
    pub fn new(users: &'a [u32], items: &'a [u32], thresholds: Thresholds) -> Self {
        let state = State::new(users, items, thresholds);
        let kept = if state.has_work() { vec![true; users.len()] } else { Vec::new() };
        Self {
            user_of_row: users,
            item_of_row: items,
            before: state.left,
            state,
            kept,
            rounds: Vec::new(),
            lists: None,
            passes: 0,
        }
    }

    /// Whether another round would remove something.
    pub fn has_work(&self) -> bool {
        self.state.has_work()
    }

    /// Removes what is below the thresholds.
    pub fn round(&mut self) {
        let before = self.state.left.interactions;
        if self.passes < PASSES {
            self.remove_by_pass();
            let removed = before - self.state.left.interactions;
            self.passes += u32::from(removed * MUCH < before);
        } else {
            self.remove_by_queue();
        }
        self.rounds.push(self.state.left);
    }

    /// What the rounds did.
    pub fn finish(self) -> KCore {
        let kept = (!self.rounds.is_empty()).then_some(self.kept);
        KCore { kept, before: self.before, rounds: self.rounds }
    }

    fn remove_by_pass(&mut self) {
        let Self { user_of_row, item_of_row, state, kept, .. } = self;
        let is_doomed =
            |row: usize| kept[row] && state.is_doomed(user_of_row[row], item_of_row[row]);
        let rows = (0..kept.len() as u32).into_par_iter().with_min_len(ROWS_PER_TASK);
        let doomed: LinkedList<Vec<u32>> =
            rows.filter(|&row| is_doomed(row as usize)).collect_vec_list();
        for row in doomed.into_iter().flatten().map(|row| row as usize) {
            kept[row] = false;
            state.lose(user_of_row[row], item_of_row[row]);
        }
        state.next_round();
    }

    fn remove_by_queue(&mut self) {
        let Self { user_of_row, item_of_row, state, kept, lists, .. } = self;
        let lists =
            lists.get_or_insert_with(|| RowLists::new(user_of_row, item_of_row, kept, state));
        let of_users = state.users.doomed.iter().map(|&user| lists.users.of(user));
        let of_items = state.items.doomed.iter().map(|&item| lists.items.of(item));
        let doomed: Vec<u32> = of_users.chain(of_items).flatten().copied().collect();
        for row in doomed.into_iter().map(|row| row as usize) {
            if std::mem::replace(&mut kept[row], false) {
                state.lose(user_of_row[row], item_of_row[row]);
            }
        }
        state.next_round();
    }
}

/// How many interactions are left of everyone, and who goes in the next round.
pub(crate) struct State {
    users: Side,
    items: Side,
    /// What is left.
    pub left: Counts,
}

impl State {
    fn new(users: &[u32], items: &[u32], thresholds: Thresholds) -> Self {
        let (users, items) = rayon::join(|| counts_of(users), || counts_of(items));
        Self::of_counts(users, items, thresholds)
    }

    /// Nothing is removed yet of users and items with so many interactions.
    pub fn of_counts(users: Vec<u32>, items: Vec<u32>, thresholds: Thresholds) -> Self {
        let interactions = users.iter().map(|&count| u64::from(count)).sum();
        let (users, items) =
            (Side::new(users, thresholds.users), Side::new(items, thresholds.items));
        let left = Counts { users: users.left, items: items.left, interactions };
        Self { users, items, left }
    }

    /// Whether somebody goes in the next round.
    pub fn has_work(&self) -> bool {
        !self.users.doomed.is_empty() || !self.items.doomed.is_empty()
    }

    /// Whether an interaction goes in this round.
    #[inline]
    pub fn is_doomed(&self, user: u32, item: u32) -> bool {
        self.users.is_doomed[user as usize] | self.items.is_doomed[item as usize]
    }

    /// Loses one interaction.
    #[inline]
    pub fn lose(&mut self, user: u32, item: u32) {
        self.left.interactions -= 1;
        self.users.lose(user);
        self.items.lose(item);
    }

    /// Ends a round in which all doomed interactions were lost.
    pub fn next_round(&mut self) {
        self.users.next_round();
        self.items.next_round();
        (self.left.users, self.left.items) = (self.users.left, self.items.left);
    }
}

fn counts_of(column: &[u32]) -> Vec<u32> {
    let size = column.iter().max().map_or(0, |&max| max as usize + 1);
    let mut counts = vec![0_u32; size];
    column.iter().for_each(|&index| counts[index as usize] += 1);
    counts
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
    fn new(counts: Vec<u32>, threshold: u32) -> Self {
        let left = counts.iter().filter(|&&count| count > 0).count() as u64;
        let fallen =
            (0..counts.len() as u32).filter(|&index| counts[index as usize] < threshold).collect();
        let mut side = Self {
            threshold,
            is_doomed: vec![false; counts.len()],
            counts,
            doomed: Vec::new(),
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

/// The rows still kept of every user and of every item.
struct RowLists {
    users: Lists,
    items: Lists,
}

impl RowLists {
    fn new(user_of_row: &[u32], item_of_row: &[u32], kept: &[bool], state: &State) -> Self {
        let (users, items) = rayon::join(
            || Lists::new(user_of_row, kept, &state.users.counts),
            || Lists::new(item_of_row, kept, &state.items.counts),
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
