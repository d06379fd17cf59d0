//! Random numbers that depend on what they are for, not on when they are drawn.
//!
//! Philox4x32-10 (Salmon et al., *Parallel Random Numbers: As Easy as 1, 2, 3*, SC 2011) turns a
//! key and a counter into four words. The key is the seed; the counter names the purpose, the
//! epoch and the user or step. So any draw can be made at any time, by any thread, on any machine.

/// What a stream of random numbers is drawn for. Two purposes never share a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The order of the users in an epoch.
    Shuffle,
    /// How often a user's sequence is repeated in the given view.
    Repeats {
        /// 0 for the first view, 1 for the second.
        view: u8,
    },
    /// Negatives for the loss.
    TrainingNegatives,
    /// Negatives for a sampled ranking.
    RankingNegatives,
    /// Which part of a user's sequence is learned from in the given view.
    Crop {
        /// 0 for the first view, 1 for the second.
        view: u8,
    },
    /// Negatives for each step of a user.
    StepNegatives {
        /// 0 for those of the newest copy, or of all copies, 1 for the copy before it, and so on.
        copy: u16,
    },
    /// Which two operators augment a user's sequence.
    Operators,
    /// What an operator does to a user's sequence in the given augmented view.
    Augmentation {
        /// 0 for the first view, 1 for the second.
        view: u8,
    },
}

impl Purpose {
    fn tag(self) -> u32 {
        match self {
            Self::Shuffle => 0,
            Self::Repeats { view } => 1 << 8 | u32::from(view),
            Self::TrainingNegatives => 2 << 8,
            Self::RankingNegatives => 3 << 8,
            Self::Crop { view } => 4 << 8 | u32::from(view),
            Self::StepNegatives { copy } => u32::from(copy) << 16 | 5 << 8,
            Self::Operators => 6 << 8,
            Self::Augmentation { view } => 7 << 8 | u32::from(view),
        }
    }
}

/// An endless sequence of random words for one purpose, epoch and index.
///
/// ```
/// use blin_core::rng::{Purpose, Stream};
///
/// let mut stream = Stream::new(7, Purpose::TrainingNegatives, 0, 3);
/// let mut again = Stream::new(7, Purpose::TrainingNegatives, 0, 3);
/// assert_eq!(stream.below(1_000), again.below(1_000));
/// ```
#[derive(Clone, Debug)]
pub struct Stream {
    key: [u32; 2],
    counter: [u32; 4],
    words: [u32; 4],
    used: usize,
}

impl Stream {
    /// Opens the stream of a purpose, an epoch and an index (of a user or a step).
    pub fn new(seed: u64, purpose: Purpose, epoch: u32, index: u32) -> Self {
        let key = [seed as u32, (seed >> 32) as u32];
        Self { key, counter: [0, index, epoch, purpose.tag()], words: [0; 4], used: 4 }
    }

    /// Draws a word.
    pub fn word(&mut self) -> u32 {
        if self.used == 4 {
            self.words = philox4x32_10(self.counter, self.key);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// Draws uniformly from `0..bound`, without bias (Lemire, *Fast Random Integer Generation in
    /// an Interval*, 2019).
    ///
    /// # Panics
    /// When `bound` is 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        assert!(bound > 0, "an empty range has nothing to draw");
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u64::from(self.word()) * u64::from(bound);
            if product as u32 >= threshold {
                return (product >> 32) as u32;
            }
        }
    }

    /// Puts a slice into a random order (Fisher and Yates).
    ///
    /// # Panics
    /// When the slice has 2³² elements or more.
    pub fn shuffle<T>(&mut self, slice: &mut [T]) {
        for last in (1..slice.len()).rev() {
            let bound = u32::try_from(last + 1).expect("fewer than 2^32 elements");
            slice.swap(last, self.below(bound) as usize);
        }
    }
}

fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        let first = u64::from(counter[0]) * 0xD251_1F53;
        let second = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ key[1],
            first as u32,
        ];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known-answer vectors published with Random123.
    #[test]
    fn philox_gives_the_published_answers() {
        assert_eq!(
            philox4x32_10([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32_10(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn below_reaches_every_value_and_none_beyond() {
        let mut stream = Stream::new(1, Purpose::Shuffle, 0, 0);
        let mut counts = [0u32; 5];
        for _ in 0..50_000 {
            counts[stream.below(5) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }

    #[test]
    fn streams_of_other_purposes_epochs_and_indices_differ() {
        let first = |purpose, epoch, index| Stream::new(5, purpose, epoch, index).word();
        let words = [
            first(Purpose::Shuffle, 0, 0),
            first(Purpose::Repeats { view: 0 }, 0, 0),
            first(Purpose::Repeats { view: 1 }, 0, 0),
            first(Purpose::Repeats { view: 0 }, 1, 0),
            first(Purpose::Repeats { view: 0 }, 0, 1),
            first(Purpose::RankingNegatives, 0, 0),
            first(Purpose::Crop { view: 0 }, 0, 0),
            first(Purpose::Crop { view: 1 }, 0, 0),
            first(Purpose::StepNegatives { copy: 0 }, 0, 0),
            first(Purpose::StepNegatives { copy: 1 }, 0, 0),
            first(Purpose::Operators, 0, 0),
            first(Purpose::Augmentation { view: 0 }, 0, 0),
            first(Purpose::Augmentation { view: 1 }, 0, 0),
        ];
        for (i, word) in words.iter().enumerate() {
            assert!(!words[..i].contains(word));
        }
    }
}
