//! Changed sequences, for losses that compare two of them.
//!
//! Each operator takes a sequence of L items and changes ⌊ratio · L⌋ of them, at least one (Xie et
//! al., *Contrastive Learning for Sequential Recommendation*, ICDE 2022, section 3.2). A sequence of
//! one item stays as it is: nothing but a mask would say nothing.

use std::str::FromStr;

use crate::error::{Error, Result};
use crate::rng::Stream;

/// What is done to a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// A stretch of the sequence is kept, the rest is dropped.
    Crop,
    /// Some items become the mask token.
    Mask,
    /// A stretch of the sequence is put into a random order.
    Reorder,
}

impl FromStr for Operator {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "crop" => Ok(Self::Crop),
            "mask" => Ok(Self::Mask),
            "reorder" => Ok(Self::Reorder),
            _ => Err(Error::argument("augmentations", "crop, mask or reorder", text)),
        }
    }
}

/// An operator and the share of a sequence that it takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augmentation {
    operator: Operator,
    ratio: f64,
}

impl Augmentation {
    /// Checks the ratio.
    ///
    /// # Errors
    /// When the ratio is not in (0, 1].
    pub fn new(operator: Operator, ratio: f64) -> Result<Self> {
        if ratio > 0.0 && ratio <= 1.0 {
            return Ok(Self { operator, ratio });
        }
        Err(Error::argument("augmentations", "ratios above 0, at most 1", ratio))
    }

    /// Changes a sequence in place; it never becomes longer, and never empty.
    pub fn apply(self, items: &mut Vec<u32>, mask: u32, stream: &mut Stream) {
        let length = items.len();
        if length < 2 {
            return;
        }
        let count = ((self.ratio * length as f64) as usize).clamp(1, length);
        let starts = (length - count + 1) as u32;
        match self.operator {
            Operator::Crop => {
                let start = stream.below(starts) as usize;
                items.truncate(start + count);
                items.drain(..start);
            }
            Operator::Mask => {
                // Floyd's choice: any set of `count` places is as likely as any other.
                for last in length - count..length {
                    let place = stream.below(last as u32 + 1) as usize;
                    let place = if items[place] == mask { last } else { place };
                    items[place] = mask;
                }
            }
            Operator::Reorder => {
                let start = stream.below(starts) as usize;
                stream.shuffle(&mut items[start..start + count]);
            }
        }
    }
}

/// Chooses the operators of the two augmented views of a user: two that differ, if there are two.
pub fn choose(augmentations: &[Augmentation], stream: &mut Stream) -> [Augmentation; 2] {
    let count = augmentations.len() as u32;
    let first = stream.below(count);
    if count == 1 {
        return [augmentations[0]; 2];
    }
    let other = stream.below(count - 1);
    let second = other + u32::from(other >= first);
    [augmentations[first as usize], augmentations[second as usize]]
}
