//! Sequence files: one user per line, `user item item …`, oldest first.

use crate::ingest::layout::without_end;
use crate::ingest::record::quote;
use crate::ingest::rows::{BadRow, OnBadRow, RowFault, Rows, expected_id, is_missing_user};

/// A reader of sequence files.
pub struct ListReader<'a> {
    delimiter: &'a [u8],
    on_bad_row: OnBadRow,
}

impl<'a> ListReader<'a> {
    /// A reader of lists with this delimiter; runs of spaces count as one space.
    pub fn new(delimiter: &'a str, on_bad_row: OnBadRow) -> Self {
        Self { delimiter: delimiter.as_bytes(), on_bad_row }
    }

    /// Reads a block of whole lines.
    pub fn read_block(&self, block: &[u8], rows: &mut Rows) {
        rows.look_for_nul(block);
        for line in block.split_inclusive(|&byte| byte == b'\n') {
            rows.lines += 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            if let Err(bad) = self.read_line(without_end(line), rows) {
                rows.push_bad(rows.lines, bad);
                if self.on_bad_row == OnBadRow::Fail {
                    return;
                }
            }
        }
    }

    fn read_line(&self, line: &[u8], rows: &mut Rows) -> Result<(), BadRow> {
        if self.delimiter == b" " {
            let mut fields = line.split(|byte| *byte == b' ').filter(|id| !id.is_empty());
            let user = fields.next().unwrap_or_default();
            return push_sequence(user, fields, rows);
        }
        let mut start = 0;
        let mut ended = false;
        let mut fields = std::iter::from_fn(|| {
            if ended {
                return None;
            }
            let rest = &line[start..];
            let end = memchr::memmem::find(rest, self.delimiter);
            ended = end.is_none();
            let field = &rest[..end.unwrap_or(rest.len())];
            start += field.len() + self.delimiter.len();
            Some(field)
        });
        let user = fields.next().unwrap_or_default();
        push_sequence(user, fields.filter(|id| !id.is_empty()), rows)
    }
}

/// Appends the interactions of a line; of a line that has a fault none.
fn push_sequence<'a>(
    user: &[u8],
    items: impl Iterator<Item = &'a [u8]>,
    rows: &mut Rows,
) -> Result<(), BadRow> {
    let bad = |expected: &str, found: &str| BadRow {
        column: None,
        expected: expected.to_owned(),
        found: found.to_owned(),
    };
    let is_missing = is_missing_user(user);
    let before = rows.count();
    let mut num_items = 0;
    let mut fault = None;
    for item in items {
        num_items += 1;
        if is_missing || fault.is_some() {
            continue;
        }
        if let Err(which) = rows.push(user, item, None, None) {
            let (role, id) = if which == RowFault::User { ("user", user) } else { ("item", item) };
            fault = Some(bad(&format!("{role}s that are {}", expected_id(id)), &quote(id)));
        }
    }
    if num_items == 0 {
        rows.counts.read += 1;
        return Err(bad("a user and at least one item", "no item"));
    }
    rows.counts.read += num_items;
    if is_missing {
        rows.counts.without_user += num_items;
    }
    let Some(fault) = fault else { return Ok(()) };
    rows.truncate(before);
    rows.counts.skipped += num_items - 1;
    Err(fault)
}
