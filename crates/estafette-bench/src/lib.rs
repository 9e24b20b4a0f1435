//! Side-by-side benchmarks: each job done by Estafette and by a bare loop, in turns, in one run.
//!
//! Absolute figures differ from machine to machine and from hour to hour; only the ratio of two loops that ran in turns
//! says something. So a [`Case`] holds both loops, [`run`] interleaves them and takes medians, and [`table`] prints the ratio
//! beside what was aimed for.
//!
//! Reading order: [`case`] (a job, its loops, its target), [`harness`] (how it is run), [`report`] (how it is
//! shown), [`floor`] (the bare loops), [`ours`] (the same jobs through the bus), [`peer`] (others' programs), [`gateway`] (the load on a server of connections), [`cases`] (the list of jobs per transport).
//!
//! Deliberately not here: statistics beyond the median, and anything a floor would need from Estafette.

pub mod case;
pub mod cases;
pub mod floor;
pub mod gateway;
pub mod harness;
pub mod ours;
pub mod peer;
pub mod report;

pub use case::{Case, Loop, Rate, Target};
pub use harness::{Outcome, Settings, run};
pub use report::{json, table};
