//! Wrong items, drawn to be told from the right ones.

use hashbrown::HashSet;
use rustc_hash::FxBuildHasher;

use crate::error::{Error, Result};
use crate::rng::{Purpose, Stream};

/// Draws the negatives that a training batch shares, uniformly from 1…`num_items`, with
/// replacement.
///
/// # Errors
/// When there are no items.
pub fn shared(out: &mut [i64], num_items: u32, seed: u64, epoch: u32, step: u32) -> Result<()> {
    if num_items == 0 {
        return Err(Error::Argument {
            name: "num_items",
            expected: "at least 1".into(),
            found: "0".into(),
        });
    }
    let mut stream = Stream::new(seed, Purpose::TrainingNegatives, epoch, step);
    for item in out {
        *item = i64::from(1 + stream.below(num_items));
    }
    Ok(())
}

/// Draws distinct items that a user has never touched, uniformly from 1…`num_items`.
///
/// The draw depends on the seed, the user and the user's whole history, and on nothing else.
///
/// # Errors
/// When fewer than `out.len()` items are left outside the history.
pub fn outside_history(
    out: &mut [i64],
    history: &[u32],
    num_items: u32,
    seed: u64,
    user: u32,
) -> Result<()> {
    let mut taken: HashSet<u32, FxBuildHasher> = history.iter().copied().collect();
    let left = (num_items as usize).saturating_sub(taken.len());
    if left < out.len() {
        return Err(Error::Argument {
            name: "negatives",
            expected: format!("at most {left}, the items that user {user} has never touched"),
            found: out.len().to_string(),
        });
    }
    let mut stream = Stream::new(seed, Purpose::RankingNegatives, 0, user);
    for slot in out {
        let item = loop {
            let item = 1 + stream.below(num_items);
            if taken.insert(item) {
                break item;
            }
        };
        *slot = i64::from(item);
    }
    Ok(())
}
