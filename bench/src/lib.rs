//! What `calos-bench` shares with tests: the simulation of the ledger.

pub mod simulate;
