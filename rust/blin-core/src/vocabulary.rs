//! Raw ids and their indices: index → id in an arena, id → index in hash tables.

use hashbrown::HashTable;

/// Raw ids in index order, laid end to end as Arrow lays a string column.
///
/// ```
/// use blin_core::vocabulary::Vocabulary;
///
/// let ids: Vocabulary = ["007", "7", "é"].into_iter().collect();
/// assert_eq!(ids.len(), 3);
/// assert_eq!(ids.get(2), "é".as_bytes());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    bytes: Vec<u8>,
    offsets: Vec<i64>,
}

impl Default for Vocabulary {
    fn default() -> Self {
        Self { bytes: Vec::new(), offsets: vec![0] }
    }
}

impl Vocabulary {
    /// How many ids there are.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory it takes.
    pub fn memory(&self) -> usize {
        self.bytes.len() + 8 * self.offsets.len()
    }

    /// The id with this index.
    pub fn get(&self, index: usize) -> &[u8] {
        &self.bytes[self.offsets[index] as usize..self.offsets[index + 1] as usize]
    }

    /// All ids in index order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Gives `id` the next index.
    pub fn push(&mut self, id: &[u8]) {
        self.bytes.extend_from_slice(id);
        self.offsets.push(self.bytes.len() as i64);
    }

    /// The ids with these indices, in this order.
    pub fn select(&self, indices: &[u32]) -> Self {
        let mut selected = Self::default();
        selected.offsets.reserve_exact(indices.len());
        for &index in indices {
            selected.push(self.get(index as usize));
        }
        selected
    }

    /// The arena and the `len() + 1` offsets into it.
    pub fn into_parts(self) -> (Vec<u8>, Vec<i64>) {
        (self.bytes, self.offsets)
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.offsets.truncate(1);
    }
}

impl<'a> FromIterator<&'a str> for Vocabulary {
    fn from_iter<T: IntoIterator<Item = &'a str>>(ids: T) -> Self {
        let mut vocabulary = Self::default();
        ids.into_iter().for_each(|id| vocabulary.push(id.as_bytes()));
        vocabulary
    }
}

/// An id of up to 7 bytes as one word: an integer below 10⁷ as itself, any other by its bytes, with
/// their number in the highest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortId(u64);

/// Marks integers in the highest byte.
const INTEGER: u64 = 0x80 << 56;

impl ShortId {
    /// The word of an id, or nothing if the id is longer than 7 bytes.
    #[inline]
    pub fn new(id: &[u8]) -> Option<Self> {
        if id.len() > 7 {
            return None;
        }
        let word = pack(id) | (id.len() as u64) << 56;
        Some(Self(decimal(word).map_or(word, |integer| INTEGER | integer)))
    }

    /// The id of an integer's digits, if that is not negative and below 10⁷.
    #[inline]
    pub fn of_integer(integer: i64) -> Option<Self> {
        (0..INTEGERS as i64).contains(&integer).then_some(Self(INTEGER | integer as u64))
    }

    /// The word, whose highest byte is less than 8 or 128.
    #[inline]
    pub fn word(self) -> u64 {
        self.0
    }

    /// The id with this [word](ShortId::word).
    #[inline]
    pub fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// Whether all bytes are ASCII.
    #[inline]
    pub fn is_ascii(self) -> bool {
        self.0 >= INTEGER || self.0 & 0x0080_8080_8080_8080 == 0
    }
}

/// The number that an id's bytes, with their number in the highest one, are in decimal digits; none
/// if a zero stands before it.
///
/// Neighbouring digits are joined to numbers below 100, those to numbers below 10⁴, and those.
#[inline]
fn decimal(word: u64) -> Option<u64> {
    let len = word >> 56;
    if len == 0 || len > 1 && word as u8 == b'0' {
        return None;
    }
    // The last digit is in the highest byte, so missing ones are zeros before the first.
    let digits = (word ^ 0x3030_3030_3030_3030) << (64 - 8 * len);
    if (digits.wrapping_add(0x0606_0606_0606_0606) | digits) & 0xf0f0_f0f0_f0f0_f0f0 != 0 {
        return None;
    }
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    Some(fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff)
}

/// How many integers have up to 7 digits.
const INTEGERS: usize = 10_000_000;

/// Ids that are looked up together.
pub const TOGETHER: usize = 32;

/// Gives every distinct id an index by first appearance.
///
/// Integers below 10⁷ are places in a table. Other ids of up to 7 bytes are hashed and compared as
/// one 64-bit word, ids of up to 15 bytes as two; only longer ones are looked up in the arena.
#[derive(Default)]
pub struct Interner {
    /// One more than the index of each integer; 0 is none. The system gives its memory page by
    /// page, where integers are.
    integers: Vec<u32>,
    largest_integer: usize,
    short: HashTable<(u64, u32)>,
    medium: HashTable<(u64, u64, u32)>,
    long: HashTable<u32>,
    vocabulary: Vocabulary,
}

impl Interner {
    /// The index of `id`, which is new if it equals [`Interner::len`] as it was before.
    #[inline]
    pub fn intern(&mut self, id: &[u8]) -> u32 {
        match ShortId::new(id) {
            Some(short) => self.intern_short(short),
            None if id.len() < 16 => self.intern_medium(pack(&id[..8]), pack(&id[8..]), id),
            None => self.intern_long(id),
        }
    }

    /// How many distinct ids were seen.
    pub fn len(&self) -> usize {
        self.vocabulary.len()
    }

    /// Whether no id was seen.
    pub fn is_empty(&self) -> bool {
        self.vocabulary.is_empty()
    }

    /// Bytes of memory it takes, also while a table grows and is there twice.
    pub fn memory(&self) -> usize {
        let tables = self.short.capacity() * size_of::<(u64, u32)>()
            + self.medium.capacity() * size_of::<(u64, u64, u32)>()
            + self.long.capacity() * size_of::<u32>();
        // Each integer may have a page of its own.
        let integers = (self.len() * 4096).min(self.largest_integer * size_of::<u32>());
        self.vocabulary.memory() + 3 * tables + integers
    }

    /// The ids seen so far.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// The ids seen, without the tables to look them up.
    pub fn into_vocabulary(self) -> Vocabulary {
        self.vocabulary
    }

    /// Forgets all ids and keeps the memory.
    pub fn clear(&mut self) {
        self.integers.clear();
        self.short.clear();
        self.medium.clear();
        self.long.clear();
        self.vocabulary.clear();
    }

    /// One more than the index of each word that is an integer seen before; 0 for all others.
    ///
    /// Each place in the table is somewhere else in memory: they are read in a loop that does
    /// nothing else, so that many are on their way at once.
    #[inline]
    pub fn find_integers(&self, words: &[u64]) -> [u32; TOGETHER] {
        let mut found = [0; TOGETHER];
        for (found, word) in found.iter_mut().zip(words) {
            *found = self.integers.get((word ^ INTEGER) as usize).copied().unwrap_or(0);
        }
        found
    }

    /// The index of a short id.
    #[inline]
    pub fn intern_short(&mut self, id: ShortId) -> u32 {
        let ShortId(key) = id;
        if key >= INTEGER {
            return match self.integers.get((key ^ INTEGER) as usize) {
                Some(&found) if found != 0 => found - 1,
                _ => self.insert_integer(key ^ INTEGER),
            };
        }
        let hash = mix(key, 0);
        match self.short.find(hash, |entry| entry.0 == key) {
            Some(&(_, index)) => index,
            None => self.insert_short(hash, key),
        }
    }

    #[cold]
    fn insert_integer(&mut self, integer: u64) -> u32 {
        if self.integers.is_empty() {
            self.integers = vec![0; INTEGERS];
        }
        let index = self.vocabulary.len() as u32;
        self.vocabulary.push(integer.to_string().as_bytes());
        self.integers[integer as usize] = index + 1;
        self.largest_integer = self.largest_integer.max(integer as usize);
        index
    }

    #[cold]
    fn insert_short(&mut self, hash: u64, key: u64) -> u32 {
        let index = self.vocabulary.len() as u32;
        self.vocabulary.push(&key.to_le_bytes()[..(key >> 56) as usize]);
        self.short.insert_unique(hash, (key, index), |entry| mix(entry.0, 0));
        index
    }

    #[inline]
    fn intern_medium(&mut self, head: u64, tail: u64, id: &[u8]) -> u32 {
        let tail = tail | (id.len() as u64) << 56;
        let hash = mix(head, tail);
        if let Some(entry) = self.medium.find(hash, |entry| entry.0 == head && entry.1 == tail) {
            return entry.2;
        }
        let index = self.vocabulary.len() as u32;
        self.vocabulary.push(id);
        self.medium.insert_unique(hash, (head, tail, index), |entry| mix(entry.0, entry.1));
        index
    }

    fn intern_long(&mut self, id: &[u8]) -> u32 {
        let Self { long, vocabulary, .. } = self;
        let hash = hash_bytes(id);
        if let Some(&index) = long.find(hash, |&index| vocabulary.get(index as usize) == id) {
            return index;
        }
        let index = vocabulary.len() as u32;
        vocabulary.push(id);
        long.insert_unique(hash, index, |&index| hash_bytes(vocabulary.get(index as usize)));
        index
    }
}

/// Up to 8 bytes as a little-endian word.
#[inline]
fn pack(bytes: &[u8]) -> u64 {
    let len = bytes.len();
    if len >= 4 {
        let head = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
        let tail = u32::from_le_bytes(bytes[len - 4..].try_into().expect("four bytes"));
        return u64::from(head) | u64::from(tail) << (8 * (len - 4));
    }
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

/// A folded multiplication: every bit of the input reaches every bit of the hash.
#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x243f_6a88_85a3_08d3) * u128::from(b ^ 0x9e37_79b9_7f4a_7c15);
    (product as u64) ^ (product >> 64) as u64
}

fn hash_bytes(id: &[u8]) -> u64 {
    id.chunks(8).fold(id.len() as u64, |hash, chunk| mix(hash.rotate_left(5) ^ pack(chunk), 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_numbers_and_nothing_else_is() {
        let integer_of =
            |id: &[u8]| ShortId::new(id).and_then(|ShortId(word)| word.checked_sub(INTEGER));
        for number in [0, 1, 9, 10, 99, 100, 1_234, 56_789, 102_030, 987_654, 9_999_999] {
            assert_eq!(integer_of(number.to_string().as_bytes()), Some(number));
            assert_eq!(ShortId::of_integer(number as i64).unwrap().0, INTEGER | number);
        }
        for text in ["", "00", "07", "0123456", "-1", "+1", "1.5", "1e3", " 7", "7 ", "1:", "1/"] {
            assert_eq!(integer_of(text.as_bytes()), None, "{text:?}");
        }
        for byte in (0..=255).filter(|byte: &u8| !byte.is_ascii_digit()) {
            for place in 0..7 {
                let mut id = *b"1234567";
                id[place] = byte;
                assert_eq!(integer_of(&id), None, "{id:?}");
            }
        }
    }

    #[test]
    fn ids_of_every_length_are_told_apart_from_their_neighbours() {
        let mut interner = Interner::default();
        let ids: Vec<Vec<u8>> = (0..40)
            .flat_map(|n| [vec![0; n], vec![b'a'; n], [vec![b'a'; n], vec![0]].concat()])
            .collect();
        let first: Vec<u32> = ids.iter().map(|id| interner.intern(id)).collect();
        let again: Vec<u32> = ids.iter().map(|id| interner.intern(id)).collect();
        assert_eq!(first, again);
        for (id, &index) in ids.iter().zip(&first) {
            assert_eq!(interner.vocabulary().get(index as usize), id);
        }
    }
}
