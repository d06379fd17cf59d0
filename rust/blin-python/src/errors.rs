//! From the core's errors to Python's exceptions.

use blin_core::error::Error;
use numpy::{AsSliceError, BorrowError};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// The result of a function that Python calls.
pub type Result<T> = std::result::Result<T, Failure>;

/// What a function that Python calls can fail with.
pub enum Failure {
    /// The core's verdict; becomes one of the classes in `blin.errors`.
    Core(Error),
    /// An exception of Python itself.
    Python(PyErr),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

impl From<AsSliceError> for Failure {
    fn from(error: AsSliceError) -> Self {
        Self::Python(error.into())
    }
}

impl From<BorrowError> for Failure {
    fn from(error: BorrowError) -> Self {
        Self::Python(error.into())
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Python(error) => error,
            Failure::Core(error) => Python::attach(|py| {
                let class = match error {
                    Error::Argument { .. } | Error::MemoryLimit { .. } => "ConfigError",
                    Error::Spill { .. } => "BlinError",
                    _ => "DataError",
                };
                let message = error.to_string();
                match py.import("blin.errors").and_then(|module| module.getattr(class)) {
                    Ok(class) => match class.call1((message,)) {
                        Ok(value) => PyErr::from_value(value),
                        Err(error) => error,
                    },
                    Err(_) => PyValueError::new_err(message),
                }
            }),
        }
    }
}
