//! The health of a dataset: arrays in, counts out.

use blin_core::health::{Arrays, Distribution, Targets, health};
use blin_core::prepared::thread_pool;
use numpy::{IntoPyArray, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::Result;

/// Counts what there is to know of a dataset before anything is trained on it.
#[pyfunction]
#[pyo3(signature = (items, offsets, splits, timestamps, luck, *, num_items, threads = None))]
#[expect(clippy::too_many_arguments, reason = "the arrays of a dataset")]
pub fn data_health<'py>(
    py: Python<'py>,
    items: PyReadonlyArray1<'py, u32>,
    offsets: PyReadonlyArray1<'py, i64>,
    splits: PyReadonlyArray2<'py, i64>,
    timestamps: Option<PyReadonlyArray1<'py, i64>>,
    luck: PyReadonlyArray1<'py, f64>,
    num_items: usize,
    threads: Option<usize>,
) -> Result<Bound<'py, PyDict>> {
    let arrays = Arrays {
        items: items.as_slice()?,
        offsets: offsets.as_slice()?,
        splits: splits.as_slice()?,
        timestamps: timestamps.as_ref().map(PyReadonlyArray1::as_slice).transpose()?,
        num_items,
    };
    let luck = luck.as_slice()?;
    let found = py.detach(|| thread_pool(threads)?.install(|| health(arrays, luck)))?;
    let result = PyDict::new(py);
    result.set_item("training", found.training)?;
    result.set_item("valid", targets_dict(py, &found.valid)?)?;
    result.set_item("test", targets_dict(py, &found.test)?)?;
    result.set_item("popularity_ranks", found.popularity_ranks.into_pyarray(py))?;
    result.set_item("lengths", distribution_dict(py, &found.lengths)?)?;
    result.set_item("popularity", distribution_dict(py, &found.popularity)?)?;
    result.set_item("gini", found.gini)?;
    result.set_item("top", found.top)?;
    result.set_item("rank_curve", found.rank_curve)?;
    let periods = found.periods.map(|periods| (periods.first, periods.width, periods.counts));
    result.set_item("periods", periods)?;
    Ok(result)
}

fn targets_dict<'py>(py: Python<'py>, targets: &Targets) -> PyResult<Bound<'py, PyDict>> {
    let result = PyDict::new(py);
    result.set_item("count", targets.count)?;
    result.set_item("cold", targets.cold)?;
    result.set_item("leaking", targets.leaking)?;
    result.set_item("newer_pairs", targets.newer_pairs)?;
    Ok(result)
}

fn distribution_dict<'py>(
    py: Python<'py>,
    distribution: &Distribution,
) -> PyResult<Bound<'py, PyDict>> {
    let result = PyDict::new(py);
    result.set_item("quantiles", distribution.quantiles)?;
    result.set_item("bins", &distribution.bins)?;
    Ok(result)
}
