/// One mark per row.
pub(super) struct Bits(Vec<u64>);

impl Bits {
    /// All marked.
    pub fn new(len: usize) -> Self {
        Self(vec![u64::MAX; len.div_ceil(64)])
    }

    #[inline]
    pub fn has(&self, place: usize) -> bool {
        self.0[place / 64] >> (place % 64) & 1 != 0
    }

    #[inline]
    pub fn clear(&mut self, place: usize) {
        self.0[place / 64] &= !(1 << (place % 64));
    }
}
