//! A suite that cannot fail proves nothing: it must notice each of these stand-ins.
//!
//! A stand-in is the memory transport but for one fault. Reading order: `faults`, then `transport`, `receiver`, `admin`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod admin;
mod faults;
mod receiver;
mod transport;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use estafette_conformance::{BEHAVIOURS, Finding, Options, Report, Subject, Verdict, run};
use estafette_core::{Transport, TransportUrl};
use tokio::task::JoinSet;

use faults::{Fault, NOTICED};
use transport::Broken;

/// Groups without a stand-in: one that several processes share would be another transport.
const WITHOUT_STAND_IN: [&str; 1] = ["processes"];

async fn report_on(fault: Fault, behaviours: &[&str]) -> Report {
    let connect =
        move |_url: TransportUrl| async move { Ok(Arc::new(Broken::new(fault)) as Arc<dyn Transport>) };
    let options = Options {
        only: behaviours.iter().map(|name| (*name).to_owned()).collect(),
        // What does not come from memory within a second does not come.
        patience: Duration::from_secs(1),
        concurrency: 8,
        ..Options::default()
    };
    run(Subject::new(connect, "memory:"), options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stand_in_is_noticed() {
    let mut reports = JoinSet::new();
    for (fault, behaviours) in NOTICED {
        reports.spawn(async move { (fault, behaviours, report_on(*fault, behaviours).await) });
    }
    let mut overlooked = Vec::new();
    while let Some(done) = reports.join_next().await {
        let (fault, behaviours, report) = done.unwrap();
        for name in *behaviours {
            let is_named = |finding: &&Finding| {
                format!("{}::{}", finding.behaviour.group, finding.behaviour.name) == *name
            };
            let finding = report.findings.iter().find(is_named);
            let verdict = &finding.unwrap_or_else(|| panic!("there is no behaviour {name}")).verdict;
            if !matches!(verdict, Verdict::Violated(_)) {
                overlooked.push(format!("{fault:?} by {name}: {verdict:?}"));
            }
        }
    }
    overlooked.sort();
    assert!(overlooked.is_empty(), "overlooked:\n{}", overlooked.join("\n"));
}

#[test]
fn every_group_has_a_stand_in() {
    let group = |name: &str| name.split("::").next().unwrap_or_default().to_owned();
    let noticed: BTreeSet<String> =
        NOTICED.iter().flat_map(|(_, names)| names.iter()).map(|name| group(name)).collect();
    let expected: BTreeSet<String> = BEHAVIOURS
        .iter()
        .map(|behaviour| behaviour.group.to_owned())
        .filter(|group| !WITHOUT_STAND_IN.contains(&group.as_str()))
        .collect();
    assert_eq!(noticed, expected);
}

#[test]
fn every_fault_is_in_the_table_once() {
    let named: BTreeSet<String> = NOTICED.iter().map(|(fault, _)| format!("{fault:?}")).collect();
    assert_eq!(named.len(), NOTICED.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_untouched_transport_passes() {
    let subject = Subject::new(estafette_memory::connect, "memory:?body_max=1048576");
    let report = run(subject, Options { concurrency: 16, ..Options::default() }).await.unwrap();
    assert!(report.passed(), "{}", report.to_table());
}
