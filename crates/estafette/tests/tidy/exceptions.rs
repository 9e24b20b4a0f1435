//! Who may break a rule. An entry that is no longer needed fails the tests, so the list only holds what is true.

use crate::rules::Rule;

/// One file that may break one rule.
pub(crate) struct Exception {
    /// The file, from the root of the workspace, with `/` between names.
    pub(crate) file: &'static str,
    /// The rule it may break.
    pub(crate) rule: Rule,
    /// Why breaking it is clearer than keeping it.
    pub(crate) reason: &'static str,
}

/// All exceptions, sorted by file.
pub(crate) const EXCEPTIONS: &[Exception] = &[
    Exception {
        file: "crates/estafette-workers/src/environment.rs",
        rule: Rule::ProgramsOnly,
        reason: "a worker process is told who it is through its environment, which this file alone reads",
    },
    Exception {
        file: "crates/estafette-workers/src/process.rs",
        rule: Rule::ProgramsOnly,
        reason: "a worker ends with its function: what main does after run is for the supervisor to do",
    },
];
