//! The behaviours every transport must show: one suite, called by each transport in one line.
//!
//! Differences between transports are data, never forks of the suite: a behaviour names what it needs, and a transport
//! whose [`Guarantees`](estafette_core::Guarantees) do not promise that is not asked for it (but must then refuse it).
//!
//! # On a transport of your own
//!
//! Add this crate to your `[dev-dependencies]`, and one line to `tests/conformance.rs`: how to connect, and the URL of
//! a store in a directory that the suite makes for each behaviour and removes again.
//!
//! ```
//! estafette_conformance::suite!(estafette_memory::connect, |_directory| "memory:".to_owned());
//! # fn main() {}
//! ```
//!
//! Each behaviour is a test of its own then: `cargo nextest run settlement::`. A transport that promises to be `shared`
//! is also tried from other processes, which are this test program started again.
//!
//! Without the test runner, as on an engine that is already installed:
//!
//! ```
//! # #[tokio::main] async fn main() -> estafette_core::Result<()> {
//! use estafette_conformance::{Options, Subject, run};
//!
//! let subject = Subject::new(estafette_memory::connect, "memory:");
//! let options = Options { only: vec!["order::".into()], ..Options::default() };
//! let report = run(subject, options).await?;
//! assert!(report.passed(), "{}", report.to_table());
//! # Ok(())
//! # }
//! ```
//!
//! The suite uses names that nothing else has, and deletes the queues it made.
//!
//! Reading order: `list` (all behaviours), `behaviours` (their checks, a module per group), `stage` and `taking` (what the
//! checks are written with), `run`, `report`; `agent` and `crew` for those with several processes.
//!
//! Deliberately not here: what is the consumer loop's affair (retry policies, time-outs, panics of handlers, limits).

mod agent;
mod behaviour;
mod behaviours;
mod crew;
mod list;
mod needs;
mod report;
mod run;
mod stage;
mod subject;
mod taking;
#[doc(hidden)]
pub mod testing;
mod violation;

pub use agent::serve_agent;
pub use behaviour::{BEHAVIOURS, Behaviour};
pub use needs::Need;
pub use report::{Finding, Report, guarantees_markdown};
pub use run::{Options, Verdict, run};
pub use subject::{AgentProgram, Subject};
pub use violation::Violation;

/// Generates a test for each behaviour: `suite!(connect, url)`.
///
/// `connect` is an `async fn(TransportUrl) -> Result<Arc<dyn Transport>>`; `url` is a function from a directory, which
/// the test makes and removes, to the URL of a store in it.
#[macro_export]
macro_rules! suite {
    ($connect:expr, $url:expr $(,)?) => {
        $crate::__each_behaviour! { tests ($connect) ($url) }
    };
}
