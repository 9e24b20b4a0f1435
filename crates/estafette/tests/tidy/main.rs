//! The house rules that no compiler lint checks, as tests: lengths, module docs, dependency arrows, calls that
//! only the programs may make.
//!
//! Reading order: `rules` (what is forbidden where), `exceptions` (who may break a rule, and why),
//! `manifests` (`Cargo.toml`: arrows and lints), `functions` (lengths), `tokens` (just enough of Rust's
//! lexer to look past strings and comments), `project` (the files).
//!
//! Deliberately not here: anything clippy or rustfmt can say, and a real parser; the rules need words, braces
//! and lines.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, and its helpers are tests too"
)]

mod exceptions;
mod functions;
mod manifests;
mod project;
mod rules;
mod tokens;

use exceptions::{EXCEPTIONS, Exception};
use rules::Finding;

/// Every finding of every rule in the whole workspace.
fn findings() -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in project::sources() {
        findings.extend(rules::check_source(&source));
    }
    for manifest in project::manifests() {
        findings.extend(manifests::check_manifest(&manifest.name, &manifest.text));
    }
    findings
}

fn excuses(exception: &Exception, finding: &Finding) -> bool {
    exception.file == finding.file && exception.rule == finding.rule
}

#[test]
fn the_workspace_keeps_the_house_rules() {
    let broken: Vec<String> = findings()
        .iter()
        .filter(|finding| !EXCEPTIONS.iter().any(|exception| excuses(exception, finding)))
        .map(ToString::to_string)
        .collect();
    assert!(broken.is_empty(), "house rules broken:\n{}", broken.join("\n"));
}

#[test]
fn every_exception_is_still_needed_and_has_a_reason() {
    let findings = findings();
    for exception in EXCEPTIONS {
        let Exception { file, rule, reason } = exception;
        assert!(reason.len() > 20, "the exception of {file} from {rule:?} gives no reason");
        assert!(
            findings.iter().any(|finding| excuses(exception, finding)),
            "{file} no longer breaks {rule:?}: remove its exception"
        );
    }
}

#[test]
fn the_workspace_is_found() {
    assert!(project::sources().iter().any(|source| source.file == "crates/estafette/src/lib.rs"));
    assert!(project::manifests().iter().any(|manifest| manifest.name == "estafette-core"));
}
