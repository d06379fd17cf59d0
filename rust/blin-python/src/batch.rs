//! Batches: arrays in, arrays filled.

use blin_core::augment::Augmentation;
use blin_core::batch::{self, Corpus, Filled, RowOptions};
use blin_core::error::Error;
use blin_core::negatives::Sampler;
use blin_core::padding::{Positions, Slots};
use numpy::{
    PyArray1, PyArrayMethods, PyReadonlyArray1, PyReadwriteArray1, PyReadwriteArray2,
    PyUntypedArrayMethods,
};
use pyo3::prelude::*;
use rayon::prelude::*;

use crate::errors::Result;

/// The arrays of a view: items, targets, segments, positions, copies, steps and perhaps weights.
type ViewArrays<'py> = (
    PyReadwriteArray2<'py, i64>,
    PyReadwriteArray2<'py, i64>,
    PyReadwriteArray2<'py, i32>,
    PyReadwriteArray2<'py, i32>,
    PyReadwriteArray2<'py, i32>,
    PyReadwriteArray2<'py, i64>,
    Option<PyReadwriteArray2<'py, f32>>,
);

fn slots<'a>(arrays: &'a mut ViewArrays<'_>) -> Result<Slots<'a>> {
    let (items, targets, segments, positions, copies, steps, weights) = arrays;
    Ok(Slots {
        items: items.as_slice_mut()?,
        targets: targets.as_slice_mut()?,
        segments: segments.as_slice_mut()?,
        positions: positions.as_slice_mut()?,
        copies: copies.as_slice_mut()?,
        steps: steps.as_slice_mut()?,
        weights: weights.as_mut().map(|weights| weights.as_slice_mut()).transpose()?,
    })
}

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
    #[pyo3(signature = (
        items, starts, ends, *, max_len, padding, fit, copies, positions, pack, seed, crop = 0.0
    ))]
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
        crop: f64,
    ) -> Result<Self> {
        let options = RowOptions {
            max_len,
            padding: padding.parse()?,
            fit: fit.parse()?,
            copies: copies.parse()?,
            positions: positions.parse()?,
            pack,
            crop: if (0.0..=1.0).contains(&crop) {
                crop
            } else {
                return Err(Error::argument("crop", "a share between 0 and 1", crop).into());
            },
            seed,
        };
        let (items_view, starts_view, ends_view) =
            (items.try_readonly()?, starts.try_readonly()?, ends.try_readonly()?);
        Corpus::new(items_view.as_slice()?, starts_view.as_slice()?, ends_view.as_slice()?)?
            .check()?;
        Ok(Self { items: items.unbind(), starts: starts.unbind(), ends: ends.unbind(), options })
    }

    /// Fills the views of a batch of these users, and for each step the place of its user.
    ///
    /// Returns the rows of each view and the number of steps.
    fn fill(
        &self,
        py: Python<'_>,
        users: PyReadonlyArray1<'_, u32>,
        epoch: u32,
        mut views: Vec<ViewArrays<'_>>,
        mut step_users: PyReadwriteArray1<'_, i64>,
    ) -> Result<(Vec<usize>, usize)> {
        let users = users.as_slice()?;
        let views = views.iter_mut().map(slots).collect::<Result<Vec<_>>>()?;
        let step_users = step_users.as_slice_mut()?;
        let Filled { rows, steps } = self.with_corpus(py, |corpus| {
            batch::fill_views(corpus, &self.options, users, epoch, views, step_users)
        })?;
        Ok((rows, steps))
    }

    /// Fills two augmented views of these users and returns the rows of each.
    #[expect(clippy::too_many_arguments, reason = "one argument an array")]
    fn fill_augmented(
        &self,
        py: Python<'_>,
        users: PyReadonlyArray1<'_, u32>,
        epoch: u32,
        augmentations: Vec<(String, f64)>,
        mask: u32,
        mut first: ViewArrays<'_>,
        mut second: ViewArrays<'_>,
    ) -> Result<[usize; 2]> {
        let augmentations = augmentations
            .iter()
            .map(|(operator, ratio)| Augmentation::new(operator.parse()?, *ratio))
            .collect::<std::result::Result<Vec<_>, Error>>()?;
        let users = users.as_slice()?;
        let views = [slots(&mut first)?, slots(&mut second)?];
        self.with_corpus(py, |corpus| {
            batch::fill_augmented(corpus, &self.options, &augmentations, mask, users, epoch, views)
        })
    }

    /// Fills one row of negatives for each step of a batch of so many views, and their `log_q`.
    #[expect(clippy::too_many_arguments, reason = "one argument an array")]
    fn fill_negatives(
        &self,
        py: Python<'_>,
        sampler: &NegativeSampler,
        users: PyReadonlyArray1<'_, u32>,
        epoch: u32,
        views: usize,
        outside_history: bool,
        copy: u16,
        mut negatives: PyReadwriteArray2<'_, i64>,
        mut log_q: PyReadwriteArray2<'_, f32>,
    ) -> Result<()> {
        let users = users.as_slice()?;
        let count = negatives.shape()[1];
        let (negatives, log_q) = (negatives.as_slice_mut()?, log_q.as_slice_mut()?);
        self.with_corpus(py, |corpus| {
            sampler.sampler.for_steps(
                corpus,
                &self.options,
                users,
                epoch,
                views,
                outside_history,
                copy,
                count,
                negatives,
                log_q,
            )
        })
    }

    /// Marks, in one row a user, which of the negatives are in the user's sequence.
    fn mark_history(
        &self,
        py: Python<'_>,
        sampler: &NegativeSampler,
        users: PyReadonlyArray1<'_, u32>,
        negatives: PyReadonlyArray1<'_, i64>,
        mut marks: PyReadwriteArray2<'_, bool>,
    ) -> Result<()> {
        let (users, negatives) = (users.as_slice()?, negatives.as_slice()?);
        let marks = marks.as_slice_mut()?;
        self.with_corpus(py, |corpus| sampler.sampler.mark_history(corpus, users, negatives, marks))
    }
}

impl Batcher {
    /// Does something with the sequences while other threads run Python.
    fn with_corpus<T: Send>(
        &self,
        py: Python<'_>,
        job: impl Send + FnOnce(&Corpus<'_>) -> blin_core::error::Result<T>,
    ) -> Result<T> {
        let items = self.items.bind(py).try_readonly()?;
        let starts = self.starts.bind(py).try_readonly()?;
        let ends = self.ends.bind(py).try_readonly()?;
        let corpus = Corpus::new(items.as_slice()?, starts.as_slice()?, ends.as_slice()?)?;
        Ok(py.detach(|| job(&corpus))?)
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
    mut segments: PyReadwriteArray2<'_, i32>,
    mut positions: PyReadwriteArray2<'_, i32>,
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
        Corpus::new(items, starts, ends)?.check()?;
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
