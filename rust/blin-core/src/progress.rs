//! How the core tells its caller where it is, and how the caller tells it to stop.

use crate::error::Result;

/// How much of the input has been read, in bytes of the files as they lie on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read so far.
    pub done: u64,
    /// Bytes of all files together.
    pub total: u64,
}

/// Called many times a second; an error, such as
/// [`Interrupted`](crate::error::Error::Interrupted), ends the work.
pub type Hook<'a> = dyn FnMut(Progress) -> Result<()> + 'a;
