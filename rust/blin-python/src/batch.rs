//! Batches: arrays in, arrays filled.

use blin_core::batch::{self, Corpus, RowOptions};
use blin_core::negatives::Sampler;
use blin_core::padding::{Positions, Slots};
use numpy::{
    PyArray1, PyArrayMethods, PyReadonlyArray1, PyReadwriteArray1, PyReadwriteArray2,
    PyUntypedArrayMethods,
};
use pyo3::prelude::*;
use rayon::prelude::*;

use crate::errors::Result;

/// Fills the views of training batches from sequences that it keeps a reference to.
#[pyclass(frozen, module = "blin._core")]
pub struct Batcher {
    items: Py<PyArray1<u32>>,
    starts: Py<PyArray1<i64>>,
    ends: Py<PyArray1<i64>>,
    options: RowOptions,
}

#[pymethods]
impl Batcher {
    #[new]
    #[pyo3(signature = (items, starts, ends, *, max_len, padding, fit, copies, positions, pack, seed))]
    #[expect(clippy::too_many_arguments, reason = "keyword-only in Python")]
    fn new(
        items: Bound<'_, PyArray1<u32>>,
        starts: Bound<'_, PyArray1<i64>>,
        ends: Bound<'_, PyArray1<i64>>,
        max_len: usize,
        padding: &str,
        fit: &str,
        copies: &str,
        positions: &str,
        pack: bool,
        seed: u64,
    ) -> Result<Self> {
        let options = RowOptions {
            max_len,
            padding: padding.parse()?,
            fit: fit.parse()?,
            copies: copies.parse()?,
            positions: positions.parse()?,
            pack,
            seed,
        };
        let (items_view, starts_view, ends_view) =
            (items.try_readonly()?, starts.try_readonly()?, ends.try_readonly()?);
        Corpus::new(items_view.as_slice()?, starts_view.as_slice()?, ends_view.as_slice()?)?;
        Ok(Self { items: items.unbind(), starts: starts.unbind(), ends: ends.unbind(), options })
    }

    /// Fills one view for these users and returns the number of rows used.
    #[expect(clippy::too_many_arguments, reason = "one argument an array")]
    fn fill(
        &self,
        py: Python<'_>,
        users: PyReadonlyArray1<'_, u32>,
        epoch: u32,
        view: u8,
        mut items: PyReadwriteArray2<'_, i64>,
        mut targets: PyReadwriteArray2<'_, i64>,
        mut segments: PyReadwriteArray2<'_, i64>,
        mut positions: PyReadwriteArray2<'_, i64>,
        mut newest: PyReadwriteArray2<'_, bool>,
    ) -> Result<usize> {
        let corpus_items = self.items.bind(py).try_readonly()?;
        let starts = self.starts.bind(py).try_readonly()?;
        let ends = self.ends.bind(py).try_readonly()?;
        let corpus = Corpus::new(corpus_items.as_slice()?, starts.as_slice()?, ends.as_slice()?)?;
        let users = users.as_slice()?;
        let slots = Slots {
            items: items.as_slice_mut()?,
            targets: targets.as_slice_mut()?,
            segments: segments.as_slice_mut()?,
            positions: positions.as_slice_mut()?,
            newest: newest.as_slice_mut()?,
        };
        let options = &self.options;
        Ok(py.detach(|| batch::fill_view(&corpus, options, users, epoch, view, slots))?)
    }
}

/// Fills the rows of histories to score, the newest item at the right.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "one argument an array")]
pub fn fill_histories(
    py: Python<'_>,
    history_items: PyReadonlyArray1<'_, u32>,
    starts: PyReadonlyArray1<'_, i64>,
    ends: PyReadonlyArray1<'_, i64>,
    max_len: usize,
    mode: &str,
    mut items: PyReadwriteArray2<'_, i64>,
    mut segments: PyReadwriteArray2<'_, i64>,
    mut positions: PyReadwriteArray2<'_, i64>,
) -> Result<()> {
    let corpus = Corpus::new(history_items.as_slice()?, starts.as_slice()?, ends.as_slice()?)?;
    let mode: Positions = mode.parse()?;
    let width = items.shape()[1];
    let (items, segments, positions) =
        (items.as_slice_mut()?, segments.as_slice_mut()?, positions.as_slice_mut()?);
    Ok(py.detach(|| {
        batch::fill_histories(&corpus, width, max_len, mode, items, segments, positions)
    })?)
}

/// Puts users, in place, into the order of an epoch.
#[pyfunction]
pub fn shuffle_users(
    py: Python<'_>,
    mut users: PyReadwriteArray1<'_, u32>,
    seed: u64,
    epoch: u32,
) -> Result<()> {
    let users = users.as_slice_mut()?;
    py.detach(|| batch::shuffle_users(users, seed, epoch));
    Ok(())
}

/// Draws wrong items: uniformly, or in proportion to counts.
#[pyclass(frozen, module = "blin._core")]
pub struct NegativeSampler {
    sampler: Sampler,
}

#[pymethods]
impl NegativeSampler {
    #[new]
    #[pyo3(signature = (num_items, *, counts = None))]
    fn new(num_items: u32, counts: Option<PyReadonlyArray1<'_, i64>>) -> Result<Self> {
        let sampler = match counts {
            None => Sampler::uniform(num_items)?,
            Some(counts) => Sampler::popularity(counts.as_slice()?)?,
        };
        Ok(Self { sampler })
    }

    /// Fills an array with the negatives that a training batch shares.
    fn fill_shared(
        &self,
        py: Python<'_>,
        mut out: PyReadwriteArray1<'_, i64>,
        seed: u64,
        epoch: u32,
        step: u32,
    ) -> Result<()> {
        let out = out.as_slice_mut()?;
        py.detach(|| self.sampler.shared(out, seed, epoch, step));
        Ok(())
    }

    /// Fills one row a user with distinct items from outside the user's whole history.
    #[expect(clippy::too_many_arguments, reason = "one argument an array")]
    fn fill_outside_history(
        &self,
        py: Python<'_>,
        history_items: PyReadonlyArray1<'_, u32>,
        starts: PyReadonlyArray1<'_, i64>,
        ends: PyReadonlyArray1<'_, i64>,
        users: PyReadonlyArray1<'_, u32>,
        seed: u64,
        mut out: PyReadwriteArray2<'_, i64>,
    ) -> Result<()> {
        let (items, starts, ends) =
            (history_items.as_slice()?, starts.as_slice()?, ends.as_slice()?);
        Corpus::new(items, starts, ends)?;
        let users = users.as_slice()?;
        let count = out.shape()[1].max(1);
        let rows = out.as_slice_mut()?;
        py.detach(|| {
            rows.par_chunks_exact_mut(count)
                .zip(users.par_iter().zip(starts.par_iter().zip(ends)))
                .try_for_each(|(row, (&user, (&start, &end)))| {
                    let history = &items[start as usize..end as usize];
                    self.sampler.outside_history(row, history, seed, user)
                })
        })?;
        Ok(())
    }
}
