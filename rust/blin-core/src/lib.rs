//! From raw interaction logs to training batches, without Python.
//!
//! ```text
//! raw log → Interactions → k-core → Vocabulary → Sequences → Split → rows of a batch
//! ```

pub mod augment;
pub mod batch;
pub mod duplicates;
pub mod error;
pub mod health;
pub mod ingest;
pub mod interactions;
pub mod kcore;
pub mod negatives;
pub mod padding;
pub mod prepared;
pub mod progress;
pub mod ranking;
pub mod rng;
pub mod sequences;
pub mod spill;
pub mod split;
pub mod transitions;
pub mod vocabulary;
