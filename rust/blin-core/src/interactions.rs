//! The rows of a log as columns of integers.

/// Who did what when: columns of equal length, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interactions {
    /// The user of each row.
    pub users: Vec<u32>,
    /// The item of each row.
    pub items: Vec<u32>,
    /// The time of each row, or nothing when the log has none.
    pub timestamps: Option<Vec<i64>>,
    /// What orders rows of one user and the same time before their order in the file does.
    pub tie_breaks: Option<Vec<i64>>,
}

impl Interactions {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Drops every row that is not marked, in place.
    pub fn retain(&mut self, kept: &[bool]) {
        retain(&mut self.users, kept);
        retain(&mut self.items, kept);
        for times in [&mut self.timestamps, &mut self.tie_breaks].into_iter().flatten() {
            retain(times, kept);
        }
    }
}

fn retain<T>(column: &mut Vec<T>, kept: &[bool]) {
    let mut marks = kept.iter();
    column.retain(|_| *marks.next().expect("one mark per row"));
    column.shrink_to_fit();
}

/// Renumbers a column by first appearance and returns the old index of each new one.
///
/// ```
/// let mut column = vec![7, 2, 7, 5];
/// assert_eq!(blin_core::interactions::renumber(&mut column, 8), [7, 2, 5]);
/// assert_eq!(column, [0, 1, 0, 2]);
/// ```
pub fn renumber(column: &mut [u32], num_old: usize) -> Vec<u32> {
    const UNSEEN: u32 = u32::MAX;
    let mut new_of_old = vec![UNSEEN; num_old];
    let mut old_of_new = Vec::new();
    for index in column {
        let new = &mut new_of_old[*index as usize];
        if *new == UNSEEN {
            *new = old_of_new.len() as u32;
            old_of_new.push(*index);
        }
        *index = *new;
    }
    old_of_new
}
