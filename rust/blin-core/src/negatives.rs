//! Wrong items, drawn to be told from the right ones.

use hashbrown::HashSet;
use rustc_hash::FxBuildHasher;

use crate::batch::{Corpus, RowOptions, Steps};
use crate::error::{Error, Result};
use crate::rng::{Purpose, Stream};

/// Draws for one user, or one negative, before the rest is given up as too rare.
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
        let ticket = stream.below(self.total());
        1 + cumulative.partition_point(|&sum| sum <= ticket) as u32
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
        let left = self.drawable - taken.iter().filter(|&&item| self.weight(item) > 0).count();
        if left < out.len() {
            let expected = format!("at most {left}, the items left to draw for one of the users");
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
                let expected = "fewer: for one of the users only rare items are left to draw";
                return Err(Error::argument("negatives", expected, out.len()));
            };
            *slot = i64::from(item);
        }
        Ok(())
    }

    /// Marks the negatives that are in the sequence of each user, in a row a user.
    ///
    /// # Errors
    /// When a user is unknown.
    pub fn mark_history(
        &self,
        corpus: &Corpus<'_>,
        users: &[u32],
        negatives: &[i64],
        marks: &mut [bool],
    ) -> Result<()> {
        let mut history = ItemSet::new(self.num_items);
        for (&user, row) in users.iter().zip(marks.chunks_exact_mut(negatives.len().max(1))) {
            let sequence = &corpus.items[corpus.range(user)?];
            for &item in sequence {
                history.insert(item);
            }
            for (mark, &item) in row.iter_mut().zip(negatives) {
                *mark = history.contains(item as u32);
            }
            for &item in sequence {
                history.remove(item);
            }
        }
        Ok(())
    }

    /// Draws `count` negatives for every step of a batch of so many views, with replacement.
    ///
    /// The target of a step is never drawn for it, nor, with `outside_history`, any item of its
    /// user's sequence. `out` and `log_q` are T × `count`; the latter is the logarithm of how often
    /// each negative is expected among the step's draws. Each `copy` has draws of its own.
    ///
    /// # Errors
    /// When a user is unknown or has fewer than two items, a buffer is too small, or only rare items
    /// are left to draw.
    #[expect(clippy::too_many_arguments, reason = "a batch, and what to draw for it")]
    pub fn for_steps(
        &self,
        corpus: &Corpus<'_>,
        options: &RowOptions,
        users: &[u32],
        epoch: u32,
        views: usize,
        outside_history: bool,
        copy: u16,
        count: usize,
        out: &mut [i64],
        log_q: &mut [f32],
    ) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let mut steps = Steps::new(views);
        let mut taken = ItemSet::new(self.num_items);
        let mut rows = out.chunks_exact_mut(count).zip(log_q.chunks_exact_mut(count));
        for &user in users {
            steps.choose(corpus, options, user, epoch)?;
            let mut stream =
                Stream::new(options.seed, Purpose::StepNegatives { copy }, epoch, user);
            let history = if outside_history { &corpus.items[corpus.range(user)?] } else { &[] };
            let mut left = self.total();
            for &item in history {
                left -= if taken.insert(item) { self.weight(item) } else { 0 };
            }
            for step in steps.iter() {
                let Some((out, log_q)) = rows.next() else {
                    return Err(Error::argument("buffer", "a row for each step", out.len()));
                };
                let target = corpus.items[step + 1];
                let apart = taken.insert(target);
                let left = left - if apart { self.weight(target) } else { 0 };
                self.draw_outside(&taken, left, out, log_q, &mut stream).ok_or_else(|| {
                    let expected = "for each user an item to draw that is not rare";
                    Error::argument("negatives", expected, "none")
                })?;
                if apart {
                    taken.remove(target);
                }
            }
            for &item in history {
                taken.remove(item);
            }
        }
        Ok(())
    }

    /// Draws items that are not taken; `left` is the weight of these.
    fn draw_outside(
        &self,
        taken: &ItemSet,
        left: u32,
        out: &mut [i64],
        log_q: &mut [f32],
        stream: &mut Stream,
    ) -> Option<()> {
        if left == 0 {
            return None;
        }
        let expected = out.len() as f64 / f64::from(left);
        for (slot, log_q) in out.iter_mut().zip(log_q) {
            let mut draws = (0..MOST_DRAWS).map(|_| self.draw(stream));
            let item = draws.find(|&item| !taken.contains(item))?;
            *slot = i64::from(item);
            *log_q = (f64::from(self.weight(item)) * expected).ln() as f32;
        }
        Some(())
    }

    /// How many tickets an item has.
    fn weight(&self, item: u32) -> u32 {
        if item == 0 || item > self.num_items {
            return 0;
        }
        let Some(cumulative) = &self.cumulative else { return 1 };
        let before = if item == 1 { 0 } else { cumulative[item as usize - 2] };
        cumulative[item as usize - 1] - before
    }

    /// How many tickets there are.
    fn total(&self) -> u32 {
        self.cumulative
            .as_ref()
            .map_or(self.num_items, |cumulative| cumulative[cumulative.len() - 1])
    }
}

/// A set of items, with room for all there are.
struct ItemSet {
    words: Vec<u64>,
}

impl ItemSet {
    fn new(num_items: u32) -> Self {
        Self { words: vec![0; num_items as usize / 64 + 1] }
    }

    /// Adds an item; items beyond the last are left out. Returns whether it was not there.
    fn insert(&mut self, item: u32) -> bool {
        let Some(word) = self.words.get_mut(item as usize / 64) else { return false };
        let fresh = *word & 1 << (item % 64) == 0;
        *word |= 1 << (item % 64);
        fresh
    }

    fn remove(&mut self, item: u32) {
        if let Some(word) = self.words.get_mut(item as usize / 64) {
            *word &= !(1 << (item % 64));
        }
    }

    fn contains(&self, item: u32) -> bool {
        self.words.get(item as usize / 64).is_some_and(|word| word & 1 << (item % 64) != 0)
    }
}
