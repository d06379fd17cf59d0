//! What a prepared dataset can be trusted with, counted before anything is trained on it.
//!
//! One pass over the interactions for each question; beside the answers only the users, the items
//! and the bins of a histogram are held.

use rayon::prelude::*;

use crate::error::{Error, Result};

/// The arrays of a prepared dataset.
#[derive(Clone, Copy, Debug)]
pub struct Arrays<'a> {
    /// Items from 1 to `num_items`, each user's oldest first.
    pub items: &'a [u32],
    /// User u owns `items[offsets[u]..offsets[u + 1]]`.
    pub offsets: &'a [i64],
    /// Two cut points per user, laid end to end.
    pub splits: &'a [i64],
    /// The time of each interaction, which never falls inside a user.
    pub timestamps: Option<&'a [i64]>,
    /// V, the number of items.
    pub num_items: usize,
}

/// What [`health`] counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// Interactions that train.
    pub training: u64,
    /// The targets of the validation.
    pub valid: Targets,
    /// The targets of the test.
    pub test: Targets,
    /// The rank of each test target by its number of training interactions, users in order.
    pub popularity_ranks: Vec<i64>,
    /// Interactions per user.
    pub lengths: Distribution,
    /// Interactions per item.
    pub popularity: Distribution,
    /// How unevenly interactions spread over the items: 0 all alike, towards 1 all on one.
    pub gini: f64,
    /// Interactions of the ⌈V/100⌉ and of the ⌈V/10⌉ items that have most.
    pub top: [u64; 2],
    /// The number of interactions of the items of some ranks, the first rank being 1.
    pub rank_curve: Vec<(u64, u64)>,
    /// Interactions by time, if there are times.
    pub periods: Option<Periods>,
}

/// The items that are ranked: each user's first one after a cut, if there is something before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    /// How many there are.
    pub count: u64,
    /// Those that nobody's training part holds.
    pub cold: u64,
    /// Those that are older than the newest training interaction of another user.
    pub leaking: Option<u64>,
    /// Pairs of a target and a training interaction of a later one of the [`SLICES`] of the time.
    pub newer_pairs: Option<u64>,
}

/// Numbers from 1 up, summed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// The quantiles of [`QUANTILES`].
    pub quantiles: [u64; QUANTILES.len()],
    /// How many numbers lie in each bin, with its first and its last number.
    pub bins: Vec<(u64, u64, u64)>,
}

/// Of n numbers in order, the quantile q is the one at place ⌈q·n⌉ (at least the first), in
/// thousandths.
pub const QUANTILES: [usize; 7] = [0, 50, 250, 500, 750, 950, 1000];

/// Interactions in periods of equal width.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Periods {
    /// Where the first begins: the oldest time.
    pub first: i64,
    /// How long each is, a power of two in the unit of the timestamps.
    pub width: u64,
    /// How many interactions of each train, validate and test.
    pub counts: Vec<[u64; 3]>,
}

/// At most this many periods, and more than half of it unless there are fewer times.
const MAX_PERIODS: u64 = 64;

/// Likewise the slices by which interactions are told apart as older and newer.
pub const SLICES: u64 = 1024;

/// Users that one task takes.
const USERS_PER_TASK: usize = 1 << 14;

/// Counts what there is to know of a dataset.
///
/// `luck` holds a number in [0, 1) per user, which decides the rank of a target among items that
/// are as popular as it is.
///
/// ```
/// use blin_core::health::{Arrays, health};
///
/// // Two users train on item 1 and are tested with items 2 and 1, the first before the second
/// // has begun.
/// let arrays = Arrays {
///     items: &[1, 2, 1, 1],
///     offsets: &[0, 2, 4],
///     splits: &[1, 1, 1, 1],
///     timestamps: Some(&[10, 20, 30, 40]),
///     num_items: 2,
/// };
/// let found = health(arrays, &[0.0, 0.0]).unwrap();
/// assert_eq!((found.test.count, found.test.cold, found.test.leaking), (2, 1, Some(1)));
/// assert_eq!(found.popularity_ranks, [1, 1]);
/// ```
pub fn health(arrays: Arrays, luck: &[f64]) -> Result<Health> {
    arrays.check(luck)?;
    let (training_counts, counts) = arrays.item_counts();
    let (popularity_ranks, slices) =
        rayon::join(|| arrays.popularity_ranks(&training_counts, luck), || arrays.slices());
    let [valid, test] = [1, 2].map(|part| arrays.targets(part, &training_counts, slices.as_ref()));
    let mut lengths: Vec<u64> =
        arrays.offsets.windows(2).map(|bounds| (bounds[1] - bounds[0]) as u64).collect();
    lengths.par_sort_unstable();
    let mut popularity: Vec<u64> = counts[1..].iter().map(|&count| u64::from(count)).collect();
    popularity.par_sort_unstable();
    let top = |share: usize| popularity.iter().rev().take(popularity.len().div_ceil(share)).sum();
    Ok(Health {
        training: training_counts.iter().map(|&count| u64::from(count)).sum(),
        valid,
        test,
        popularity_ranks,
        lengths: Distribution::of(&lengths),
        gini: gini(&popularity),
        top: [top(100), top(10)],
        rank_curve: rank_curve(&popularity),
        popularity: Distribution::of(&popularity),
        periods: slices.as_ref().map(Slices::periods),
    })
}

impl<'a> Arrays<'a> {
    fn check(&self, luck: &[f64]) -> Result<()> {
        let num_users = self.offsets.len().saturating_sub(1);
        let fits = num_users > 0
            && self.num_items > 0
            && self.offsets[0] == 0
            && self.offsets[num_users] as usize == self.items.len()
            && self.offsets.is_sorted()
            && self.splits.len() == 2 * num_users
            && self.parts().all(|(parts, end)| parts.is_sorted() && parts[3] == end)
            && self.timestamps.is_none_or(|times| times.len() == self.items.len())
            && self.items.iter().min() >= Some(&1)
            && self.items.iter().max().is_some_and(|&item| item as usize <= self.num_items)
            && luck.len() == num_users
            && luck.iter().all(|luck| (0.0..1.0).contains(luck));
        if fits { Ok(()) } else { Err(Error::argument("arrays", "those of a dataset", "others")) }
    }

    fn num_users(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Where a user's training, validation and test begin, and where the user ends.
    fn user(&self, user: usize) -> [usize; 4] {
        let start = self.offsets[user];
        let cuts = [self.splits[2 * user], self.splits[2 * user + 1]];
        [start, start + cuts[0], start + cuts[1], self.offsets[user + 1]].map(|end| end as usize)
    }

    fn parts(&self) -> impl Iterator<Item = ([usize; 4], usize)> {
        (0..self.num_users()).map(|user| (self.user(user), self.offsets[user + 1] as usize))
    }

    /// Where the target of a part stands, if the user has one.
    fn target(&self, user: usize, part: usize) -> Option<usize> {
        let ends = self.user(user);
        (ends[0] < ends[part] && ends[part] < ends[part + 1]).then_some(ends[part])
    }

    /// How often each item occurs in the training parts and in all; item 0 never does.
    fn item_counts(&self) -> (Vec<u32>, Vec<u32>) {
        let mut training = vec![0; self.num_items + 1];
        let mut held_out = training.clone();
        for user in 0..self.num_users() {
            let [start, train_end, _, end] = self.user(user);
            self.items[start..train_end].iter().for_each(|&item| training[item as usize] += 1);
            self.items[train_end..end].iter().for_each(|&item| held_out[item as usize] += 1);
        }
        let all = training.iter().zip(&held_out).map(|(a, b)| a + b).collect();
        (training, all)
    }

    fn targets(&self, part: usize, counts: &[u32], slices: Option<&Slices>) -> Targets {
        let places: Vec<usize> =
            (0..self.num_users()).filter_map(|user| self.target(user, part)).collect();
        let is_cold = |place: &&usize| counts[self.items[**place] as usize] == 0;
        let times = || self.timestamps.map(|times| places.iter().map(|&place| times[place]));
        // No training interaction of the target's own user is newer than the target, so what is
        // newer belongs to somebody else.
        let newest = self.newest_training();
        let leaks = |time: &i64| newest.is_some_and(|newest| *time < newest);
        Targets {
            count: places.len() as u64,
            cold: places.iter().filter(is_cold).count() as u64,
            leaking: times().map(|times| times.filter(leaks).count() as u64),
            newer_pairs: times()
                .zip(slices)
                .map(|(times, slices)| times.map(|time| slices.training_after(time)).sum()),
        }
    }

    fn newest_training(&self) -> Option<i64> {
        let times = self.timestamps?;
        self.parts().filter(|(ends, _)| ends[0] < ends[1]).map(|(ends, _)| times[ends[1] - 1]).max()
    }

    /// The rank of each test target among the items that the user has not had before.
    fn popularity_ranks(&self, counts: &[u32], luck: &[f64]) -> Vec<i64> {
        let mut by_count: Vec<u32> = (1..=self.num_items as u32).collect();
        by_count.par_sort_unstable_by_key(|&item| std::cmp::Reverse(counts[item as usize]));
        let mut standing = vec![(0, 0); self.num_items + 1];
        let mut above = 0;
        for level in by_count.chunk_by(|&a, &b| counts[a as usize] == counts[b as usize]) {
            level.iter().for_each(|&item| standing[item as usize] = (above, level.len() as i64));
            above += level.len() as i64;
        }
        let scratch = || (vec![u32::MAX; self.num_items + 1], Vec::new());
        let ranks = self.par_users().map_init(scratch, |(seen_by, rivals), user| {
            let place = self.target(user, 2)?;
            let target = self.items[place];
            let own = counts[target as usize];
            let history = &self.items[self.offsets[user] as usize..place];
            // Which items are as popular cannot be foreseen, so nothing is decided while they are
            // gathered.
            rivals.resize(rivals.len().max(history.len() + 1), 0);
            let mut num_rivals = 0;
            for &item in history {
                rivals[num_rivals] = item;
                num_rivals += usize::from(counts[item as usize] >= own && item != target);
            }
            let (mut above, mut level) = standing[target as usize];
            for &item in &rivals[..num_rivals] {
                if std::mem::replace(&mut seen_by[item as usize], user as u32) != user as u32 {
                    *if counts[item as usize] > own { &mut above } else { &mut level } -= 1;
                }
            }
            Some(1 + above + (luck[user] * level as f64) as i64)
        });
        ranks.collect::<Vec<_>>().into_iter().flatten().collect()
    }

    fn slices(&self) -> Option<Slices> {
        let times = self.timestamps?;
        let ends = || self.parts().map(|(ends, _)| (ends[0], ends[3])).filter(|(a, b)| a < b);
        let first = ends().map(|(start, _)| times[start]).min()?;
        let last = ends().map(|(_, end)| times[end - 1]).max()?;
        let buckets = Buckets::new(first, last, SLICES);
        let zeros = || [0; 3].map(|_: u64| vec![0_u64; buckets.len()]);
        let count = |mut counts: [Vec<u64>; 3], user| {
            for (counts, ends) in counts.iter_mut().zip(self.user(user).windows(2)) {
                times[ends[0]..ends[1]].iter().for_each(|&time| counts[buckets.of(time)] += 1);
            }
            counts
        };
        let counts = self.par_users().fold(zeros, count).reduce(zeros, |mut counts, others| {
            counts.iter_mut().flatten().zip(others.iter().flatten()).for_each(|(a, b)| *a += b);
            counts
        });
        let mut later = 0;
        let mut training_after = vec![0; buckets.len()];
        for (after, training) in training_after.iter_mut().zip(&counts[0]).rev() {
            *after = later;
            later += training;
        }
        Some(Slices { buckets, counts, training_after })
    }

    fn par_users(&self) -> impl IndexedParallelIterator<Item = usize> + use<'a> {
        (0..self.num_users()).into_par_iter().with_min_len(USERS_PER_TASK)
    }
}

/// Interactions of each part in slices of the time.
struct Slices {
    buckets: Buckets,
    /// Of each part, how many interactions each slice has.
    counts: [Vec<u64>; 3],
    /// Training interactions of later slices.
    training_after: Vec<u64>,
}

impl Slices {
    fn training_after(&self, time: i64) -> u64 {
        self.training_after[self.buckets.of(time)]
    }

    fn periods(&self) -> Periods {
        let Buckets { first, last, shift } = self.buckets;
        let periods = Buckets::new(first, last, MAX_PERIODS);
        let mut counts = vec![[0; 3]; periods.len()];
        for (part, slices) in self.counts.iter().enumerate() {
            for (slice, count) in slices.iter().enumerate() {
                counts[slice >> (periods.shift - shift)][part] += count;
            }
        }
        Periods { first, width: 1 << periods.shift, counts }
    }
}

/// Times from `first` to `last` in buckets as wide as a power of two.
struct Buckets {
    first: i64,
    last: i64,
    shift: u32,
}

impl Buckets {
    fn new(first: i64, last: i64, most: u64) -> Self {
        let span = last.wrapping_sub(first) as u64;
        let shift = (0..u64::BITS).find(|&shift| span >> shift < most).expect("most is not 0");
        Self { first, last, shift }
    }

    fn len(&self) -> usize {
        self.of(self.last) + 1
    }

    #[inline]
    fn of(&self, time: i64) -> usize {
        (time.wrapping_sub(self.first) as u64 >> self.shift) as usize
    }
}

impl Distribution {
    /// Sums up numbers that are sorted; there is at least one.
    fn of(sorted: &[u64]) -> Self {
        let place = |thousandths: usize| (thousandths * sorted.len()).div_ceil(1000).max(1) - 1;
        let bins = sorted
            .chunk_by(|&a, &b| bin(a) == bin(b))
            .map(|numbers| {
                let first = first_of_bin(bin(numbers[0]));
                (first, first_of_bin(bin(first) + 1) - 1, numbers.len() as u64)
            })
            .collect();
        Self { quantiles: QUANTILES.map(|thousandths| sorted[place(thousandths)]), bins }
    }
}

/// The bin of a number: numbers below 8 have their own, from there on four bins double it.
fn bin(number: u64) -> u64 {
    let shift = number.max(4).ilog2() - 2;
    u64::from(shift) * 4 + (number >> shift)
}

fn first_of_bin(bin: u64) -> u64 {
    if bin < 8 { bin } else { (bin % 4 + 4) << (bin / 4 - 1) }
}

/// The Gini coefficient of numbers that are sorted and not all 0.
fn gini(sorted: &[u64]) -> f64 {
    let (n, total) = (sorted.len() as u128, sorted.iter().map(|&x| u128::from(x)).sum::<u128>());
    let weighted: u128 = (1..).zip(sorted).map(|(place, &x)| place * u128::from(x)).sum();
    (2 * weighted - (n + 1) * total) as f64 / (n * total) as f64
}

/// The first rank of each bin and the last of all, with the number that stands there.
fn rank_curve(sorted: &[u64]) -> Vec<(u64, u64)> {
    let last = sorted.len() as u64;
    let firsts = (1..).map(first_of_bin).take_while(|&rank| rank < last);
    firsts.chain([last]).map(|rank| (rank, sorted[(last - rank) as usize])).collect()
}

#[cfg(test)]
mod tests {
    use super::{Buckets, bin, first_of_bin};

    #[test]
    fn bins_follow_each_other_without_gaps() {
        for number in 1..5000 {
            let bin = bin(number);
            assert!((first_of_bin(bin)..first_of_bin(bin + 1)).contains(&number), "{number}");
        }
        assert_eq!(first_of_bin(bin(1 << 40)), 1 << 40);
    }

    #[test]
    fn buckets_hold_the_widest_range_of_times() {
        let buckets = Buckets::new(i64::MIN, i64::MAX, 64);
        assert_eq!((buckets.of(i64::MIN), buckets.of(i64::MAX), buckets.len()), (0, 63, 64));
        assert_eq!(Buckets::new(7, 7, 64).len(), 1);
    }
}
