//! `blin._core`: blin-core as a Python module. Conversions and error mapping, nothing else.

use pyo3::prelude::*;

mod batch;
mod errors;
mod health;
mod ingest;
mod ranking;
mod transitions;

#[pymodule(gil_used = false)]
mod _core {
    use numpy::PyArray1;
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::batch::{Batcher, NegativeSampler, fill_histories, shuffle_users};
    #[pymodule_export]
    use crate::health::data_health;
    #[pymodule_export]
    use crate::ingest::{ColumnReader, inspect_log, read_log};
    #[pymodule_export]
    use crate::ranking::count_above;
    #[pymodule_export]
    use crate::transitions::count_transitions;

    /// Asks NumPy for its C interface. On the first array, which is made after minutes of work, it
    /// would be asked as well, and Ctrl-C in that moment be a panic.
    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.py().check_signals()?;
        PyArray1::<u8>::zeros(module.py(), 0, false);
        Ok(())
    }
}
