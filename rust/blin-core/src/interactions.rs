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
    let mut renumbering = Renumbering::new(num_old);
    column.iter_mut().for_each(|index| *index = renumbering.new_of(*index));
    renumbering.old_of_new
}

/// New indices by first appearance.
pub struct Renumbering {
    new_of_old: Vec<u32>,
    /// The old index of each new one.
    pub old_of_new: Vec<u32>,
}

const UNSEEN: u32 = u32::MAX;

impl Renumbering {
    /// No new index for any of so many old ones.
    pub fn new(num_old: usize) -> Self {
        Self { new_of_old: vec![UNSEEN; num_old], old_of_new: Vec::new() }
    }

    /// The new index of an old one.
    #[inline]
    pub fn new_of(&mut self, old: u32) -> u32 {
        let new = &mut self.new_of_old[old as usize];
        if *new == UNSEEN {
            *new = self.old_of_new.len() as u32;
            self.old_of_new.push(old);
        }
        *new
    }
}
