//! `blin._core`: blin-core as a Python module. Conversions and error mapping, nothing else.

use pyo3::prelude::*;

mod batch;
mod errors;
mod health;
mod ingest;

#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use crate::batch::{Batcher, NegativeSampler, fill_histories, shuffle_users};
    #[pymodule_export]
    use crate::health::data_health;
    #[pymodule_export]
    use crate::ingest::{ColumnReader, inspect_log, read_log};
}
