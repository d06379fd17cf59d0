//! Wrong items, drawn to be told from the right ones.

use hashbrown::HashSet;
use rustc_hash::FxBuildHasher;

use crate::error::{Error, Result};
use crate::rng::{Purpose, Stream};

/// Draws for one user before the rest is given up as too rare.
const MOST_DRAWS: u32 = 1 << 24;

/// A distribution over the items 1…V.
#[derive(Clone, Debug)]
pub struct Sampler {
    num_items: u32,
    /// For each i, the sum of the counts of the items up to and including item i + 1; nothing when
    /// all items are alike.
    cumulative: Option<Vec<u32>>,
    /// How many items can be drawn at all.
    drawable: usize,
}

impl Sampler {
    /// Draws every item with the same probability.
    ///
    /// # Errors
    /// When there are no items.
    pub fn uniform(num_items: u32) -> Result<Self> {
        if num_items == 0 {
            return Err(Error::argument("num_items", "at least 1", 0));
        }
        Ok(Self { num_items, cumulative: None, drawable: num_items as usize })
    }

    /// Draws items in proportion to their counts; `counts[i]` belongs to item i + 1.
    ///
    /// # Errors
    /// When a count is negative, or their sum is 0 or does not fit 32 bits.
    pub fn popularity(counts: &[i64]) -> Result<Self> {
        let mut sum = 0_u32;
        let cumulative: Option<Vec<u32>> = counts
            .iter()
            .map(|&count| {
                sum = sum.checked_add(u32::try_from(count).ok()?)?;
                Some(sum)
            })
            .collect();
        match cumulative {
            Some(cumulative) if sum > 0 => Ok(Self {
                num_items: cumulative.len() as u32,
                cumulative: Some(cumulative),
                drawable: counts.iter().filter(|&&count| count > 0).count(),
            }),
            _ => Err(Error::argument("counts", "a sum between 1 and 2^32 - 1", counts.len())),
        }
    }

    #[inline]
    fn draw(&self, stream: &mut Stream) -> u32 {
        let Some(cumulative) = &self.cumulative else { return 1 + stream.below(self.num_items) };
        let ticket = stream.below(cumulative[cumulative.len() - 1]);
        1 + cumulative.partition_point(|&sum| sum <= ticket) as u32
    }

    fn is_drawable(&self, item: u32) -> bool {
        let Some(cumulative) = &self.cumulative else { return item <= self.num_items };
        let up_to = |item: u32| if item == 0 { 0 } else { cumulative[item as usize - 1] };
        item <= self.num_items && up_to(item) > up_to(item.saturating_sub(1))
    }

    /// Draws the negatives that a training batch shares, with replacement.
    pub fn shared(&self, out: &mut [i64], seed: u64, epoch: u32, step: u32) {
        let mut stream = Stream::new(seed, Purpose::TrainingNegatives, epoch, step);
        for item in out {
            *item = i64::from(self.draw(&mut stream));
        }
    }

    /// Draws distinct items that a user has never touched.
    ///
    /// The draw depends on the seed, the user and the user's whole history, and on nothing else.
    ///
    /// # Errors
    /// When there are too few items outside the history, or the rest of them are too rare.
    pub fn outside_history(
        &self,
        out: &mut [i64],
        history: &[u32],
        seed: u64,
        user: u32,
    ) -> Result<()> {
        let mut taken: HashSet<u32, FxBuildHasher> = history.iter().copied().collect();
        let left = self.drawable - taken.iter().filter(|&&item| self.is_drawable(item)).count();
        if left < out.len() {
            let expected = format!("at most {left}, the items left to draw for user {user}");
            return Err(Error::argument("negatives", &expected, out.len()));
        }
        let mut stream = Stream::new(seed, Purpose::RankingNegatives, 0, user);
        let mut draws = 0..MOST_DRAWS;
        for slot in &mut *out {
            let fresh = draws.find_map(|_| {
                let item = self.draw(&mut stream);
                taken.insert(item).then_some(item)
            });
            let Some(item) = fresh else {
                let expected = format!("fewer: for user {user} only rare items are left to draw");
                return Err(Error::argument("negatives", &expected, out.len()));
            };
            *slot = i64::from(item);
        }
        Ok(())
    }
}
