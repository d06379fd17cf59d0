//! Two cut points per user: `[0, train_end)` trains, `[train_end, valid_end)` validates, the rest
//! tests. Nothing after the split knows which protocol made it.

use crate::error::{Error, Result};
use crate::ingest::time::{Time, TimeUnit, parse, style_of};
use crate::sequences::Sequences;

/// Which interactions train, validate and test.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Split {
    /// Each user's last interaction tests, the one before validates.
    #[default]
    LeaveOneOut,
    /// What everybody does from two points in time on validates and tests.
    Temporal {
        /// Where the validation begins; by default it takes as many interactions as the test.
        valid_from: Option<Moment>,
        /// Where the test begins.
        test_from: Moment,
    },
}

/// A point in time, by itself or by the share of interactions that come before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Moment {
    /// A time as it was given.
    Time(Time),
    /// More than 0 and less than 1.
    Share(f64),
}

impl Moment {
    /// Numbers between 0 and 1 are shares, everything else a time as a log may hold it; an error
    /// names the option.
    pub fn parse(option: &'static str, text: &str) -> Result<Self> {
        let share = text.parse().ok().filter(|share| 0.0 < *share && *share < 1.0);
        let time = || parse(text.as_bytes(), style_of(text.as_bytes())?);
        share.map(Self::Share).or_else(|| time().map(Self::Time)).ok_or_else(|| {
            Error::argument(option, "a time such as 2024-05-31 or a share such as 0.9", text)
        })
    }
}

/// The two points of a temporal split, in the unit of the timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cuts {
    /// What is older trains.
    pub valid_from: i64,
    /// What is not older tests.
    pub test_from: i64,
}

/// All times of a log, in any order, as often as they are wanted: calls what it is given with one
/// piece after the other.
pub type Times<'a> = dyn FnMut(&mut dyn FnMut(&[i64])) -> Result<()> + 'a;

impl Cuts {
    /// Finds the points in time for a log of these times.
    ///
    /// A share f stands for the time of the interaction before which ⌊f·n + ½⌋ of all n come.
    ///
    /// ```
    /// use blin_core::ingest::time::TimeUnit;
    /// use blin_core::split::{Cuts, Moment};
    ///
    /// let times = [50, 10, 40, 20, 30];
    /// let mut log = |visit: &mut dyn FnMut(&[i64])| {
    ///     visit(&times);
    ///     Ok(())
    /// };
    /// let cuts = Cuts::find(&mut log, TimeUnit::Seconds, None, Moment::Share(0.8)).unwrap();
    /// assert_eq!(cuts, Cuts { valid_from: 40, test_from: 50 });
    /// ```
    pub fn find(
        times: &mut Times,
        unit: TimeUnit,
        valid_from: Option<Moment>,
        test_from: Moment,
    ) -> Result<Self> {
        let num_times = count(times, |_| true)?;
        let test_from = time_of(test_from, times, num_times, unit)?;
        let num_test = count(times, |time| time >= test_from)?;
        if num_test == 0 {
            let expected = "a test that begins before the newest interaction is over";
            return Err(Error::argument("test_from", expected, test_from));
        }
        let valid_from = match valid_from {
            Some(moment) => time_of(moment, times, num_times, unit)?,
            None => nth(times, (num_times - num_test).saturating_sub(num_test))?,
        };
        if count(times, |time| time < valid_from)? == 0 {
            let expected = "a validation that leaves older interactions to train on";
            return Err(Error::argument("valid_from", expected, valid_from));
        }
        if valid_from >= test_from {
            let expected = format!("a validation that begins before the test ({test_from})");
            return Err(Error::argument("valid_from", &expected, valid_from));
        }
        Ok(Self { valid_from, test_from })
    }
}

fn count(times: &mut Times, is_counted: impl Fn(i64) -> bool) -> Result<usize> {
    let mut count = 0;
    times(&mut |times| count += times.iter().filter(|&&time| is_counted(time)).count())?;
    Ok(count)
}

fn time_of(moment: Moment, times: &mut Times, num_times: usize, unit: TimeUnit) -> Result<i64> {
    match moment {
        Moment::Time(time) => Ok(time.in_unit(unit)),
        Moment::Share(share) => {
            let before = (share * num_times as f64 + 0.5) as usize;
            nth(times, before.min(num_times - 1))
        }
    }
}

/// The time at this place of all times sorted, found 16 bits at a time from the highest on, so
/// that no copy of them is needed.
fn nth(times: &mut Times, mut place: usize) -> Result<i64> {
    const BITS: u32 = 16;
    const SIGN: u64 = 1 << 63;
    let mut found = 0;
    for shift in (0..u64::BITS).step_by(BITS as usize).rev() {
        let mut counts = vec![0_usize; 1 << BITS];
        let above = |key: u64| key.checked_shr(shift + BITS).unwrap_or(0);
        times(&mut |times| {
            for key in times.iter().map(|&time| time as u64 ^ SIGN) {
                if above(key) == above(found) {
                    counts[(key >> shift) as usize & ((1 << BITS) - 1)] += 1;
                }
            }
        })?;
        let mut digit = 0;
        while place >= counts[digit as usize] {
            place -= counts[digit as usize];
            digit += 1;
        }
        found |= digit << shift;
    }
    Ok((found ^ SIGN) as i64)
}

/// Cuts every sequence at two points in time; sequences without times are not cut.
///
/// ```
/// use blin_core::{sequences::Sequences, split::{Cuts, temporal}};
///
/// let sequences = Sequences {
///     items: vec![1, 2, 3, 4, 5],
///     offsets: vec![0, 3, 5],
///     timestamps: Some(vec![10, 20, 30, 30, 40]),
/// };
/// let cuts = Cuts { valid_from: 20, test_from: 30 };
/// assert_eq!(temporal(&sequences, cuts), [1, 2, 0, 0]);
/// ```
pub fn temporal(sequences: &Sequences, cuts: Cuts) -> Vec<i64> {
    let times = sequences.timestamps.as_deref().unwrap_or_default();
    let cut = |bounds: &[i64]| {
        let times = &times[bounds[0] as usize..bounds[1] as usize];
        [cuts.valid_from, cuts.test_from]
            .map(|from| times.partition_point(|&time| time < from) as i64)
    };
    sequences.offsets.windows(2).flat_map(cut).collect()
}

/// The shortest sequence that can give away a validation and a test item and still train.
const MIN_LENGTH: i64 = 3;

/// Holds out each user's last item for the test and the one before for validation.
///
/// The result has two cuts per user, `[train_end, valid_end]`, laid end to end. A user with fewer
/// than three interactions only trains.
///
/// ```
/// // Two users, with five and with two interactions.
/// assert_eq!(blin_core::split::leave_one_out(&[0, 5, 7]), [3, 4, 2, 2]);
/// ```
pub fn leave_one_out(offsets: &[i64]) -> Vec<i64> {
    offsets
        .windows(2)
        .map(|bounds| bounds[1] - bounds[0])
        .flat_map(|n| if n < MIN_LENGTH { [n, n] } else { [n - 2, n - 1] })
        .collect()
}
