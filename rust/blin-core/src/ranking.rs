//! Ranks by counting: how many scores of a row lie above one of them.

/// Scores counted before their count is carried over to 64 bits.
const CHUNK: usize = 1 << 16;

/// Counts what is above a score, and what equals it.
///
/// Nothing is above or equal to a NaN, and a NaN is neither.
///
/// ```
/// use blin_core::ranking::above_and_level;
///
/// assert_eq!(above_and_level(&[0.5, 2.0, 0.5, f32::NEG_INFINITY], 0.5), (1, 2));
/// ```
#[must_use]
pub fn above_and_level(scores: &[f32], own: f32) -> (i64, i64) {
    let mut counts = (0, 0);
    for chunk in scores.chunks(CHUNK) {
        let (mut above, mut level) = (0_i32, 0_i32);
        for &score in chunk {
            above += i32::from(score > own);
            level += i32::from(score == own);
        }
        counts.0 += i64::from(above);
        counts.1 += i64::from(level);
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_a_filter() {
        let values = [-2.0, -0.0, 0.0, 1.5, f32::NEG_INFINITY, f32::INFINITY, f32::NAN];
        for length in 0..40 {
            let scores: Vec<f32> = (0..length).map(|place| values[place * place % 7]).collect();
            for own in values {
                let above = scores.iter().filter(|&&score| score > own).count() as i64;
                let level = scores.iter().filter(|&&score| score == own).count() as i64;
                assert_eq!(above_and_level(&scores, own), (above, level));
            }
        }
    }

    #[test]
    fn rows_longer_than_a_chunk_are_counted_whole() {
        let scores: Vec<f32> = (0..3 * CHUNK + 7).map(|place| (place % 5) as f32).collect();
        let fours = scores.iter().filter(|&&score| score == 4.0).count() as i64;
        let threes = scores.iter().filter(|&&score| score == 3.0).count() as i64;
        assert_eq!(above_and_level(&scores, 3.0), (fours, threes));
    }
}
