//! Transitions: arrays in, arrays out.

use blin_core::transitions;
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;

use crate::errors::Result;

/// Lengths, targets and counts.
type Arrays<'py> =
    (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i32>>, Bound<'py, PyArray1<i64>>);

/// Counts how often each item comes 1 to `span` steps after each other one, inside a user.
#[pyfunction]
pub fn count_transitions<'py>(
    py: Python<'py>,
    items: PyReadonlyArray1<'py, i64>,
    users: PyReadonlyArray1<'py, i64>,
    num_items: usize,
    span: usize,
) -> Result<Arrays<'py>> {
    let (items, users) = (items.as_slice()?, users.as_slice()?);
    let found = py.detach(|| transitions::count(items, users, num_items, span))?;
    Ok((
        found.lengths.into_pyarray(py),
        found.targets.into_pyarray(py),
        found.counts.into_pyarray(py),
    ))
}
