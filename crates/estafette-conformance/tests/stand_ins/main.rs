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

/// Those of the behaviours that did not notice the fault, with what they said.
async fn overlooked(fault: Fault, behaviours: &[&'static str]) -> Vec<(&'static str, Verdict)> {
    let report = report_on(fault, behaviours).await;
    let verdict_on = |name: &'static str| {
        let is_named =
            |finding: &&Finding| format!("{}::{}", finding.behaviour.group, finding.behaviour.name) == name;
        let finding = report.findings.iter().find(is_named);
        (name, finding.unwrap_or_else(|| panic!("there is no behaviour {name}")).verdict.clone())
    };
    let verdicts = behaviours.iter().copied().map(verdict_on);
    verdicts.filter(|(_, verdict)| !matches!(verdict, Verdict::Violated(_))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stand_in_is_noticed() {
    let mut asked = JoinSet::new();
    for (fault, behaviours) in NOTICED {
        asked.spawn(async move {
            let mut left = overlooked(*fault, behaviours).await;
            // What comes too early looks as if it came in time when the machine stood still meanwhile; not every time.
            for _again in 0..3 {
                if !left.is_empty() {
                    let names: Vec<_> = left.iter().map(|(name, _)| *name).collect();
                    left = overlooked(*fault, &names).await;
                }
            }
            left.into_iter().map(|(name, verdict)| format!("{fault:?} by {name}: {verdict:?}")).collect()
        });
    }
    let mut lines: Vec<String> =
        asked.join_all().await.into_iter().flat_map(|lines: Vec<String>| lines).collect();
    lines.sort();
    assert!(lines.is_empty(), "overlooked:\n{}", lines.join("\n"));
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
