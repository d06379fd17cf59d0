//! Rank counting: arrays in, arrays out.

use blin_core::ranking::above_and_level;
use numpy::{PyReadonlyArray1, PyReadonlyArray2, PyReadwriteArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::Result;

/// Counts, for each row of scores, those above its own score and those that equal it.
#[pyfunction]
pub fn count_above<'py>(
    py: Python<'py>,
    scores: PyReadonlyArray2<'py, f32>,
    own: PyReadonlyArray1<'py, f32>,
    mut above: PyReadwriteArray1<'py, i64>,
    mut level: PyReadwriteArray1<'py, i64>,
) -> Result<()> {
    let width = scores.as_array().ncols();
    let (scores, own) = (scores.as_slice()?, own.as_slice()?);
    let (above, level) = (above.as_slice_mut()?, level.as_slice_mut()?);
    if width == 0
        || own.len() * width != scores.len()
        || [above.len(), level.len()] != [own.len(); 2]
    {
        return Err(PyValueError::new_err("expected one own score and two counts a row").into());
    }
    py.detach(|| {
        for (row, (&own, counts)) in
            scores.chunks_exact(width).zip(own.iter().zip(above.iter_mut().zip(level)))
        {
            (*counts.0, *counts.1) = above_and_level(row, own);
        }
    });
    Ok(())
}
