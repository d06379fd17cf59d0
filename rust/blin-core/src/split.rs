//! Two cut points per user: `[0, train_end)` trains, `[train_end, valid_end)` validates, the rest
//! tests. Nothing after the split knows which protocol made it.

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
