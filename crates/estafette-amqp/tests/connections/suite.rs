//! The whole contract behind a proxy that cuts every connection at random.
//!
//! A cut takes leases along, and may repeat what was on its way. A behaviour that counts to one, or holds a lease, is broken
//! by a cut at the wrong moment, and is tried again with fewer cuts. What no cut may do is make one fail that does neither,
//! or hang.

use std::time::Duration;

use anyhow::{Result, ensure};
use estafette_conformance::{Options, Report, Subject, run};

use crate::support::{Proxy, url_through};

/// How often behaviours are tried, with twice as long between two cuts each time.
const ROUNDS: u32 = 6;

/// Runs behaviours while everything is cut again and again, from a tenth of `pause_max` to all of it apart.
async fn run_while_cutting(only: Vec<String>, pause_max: Duration) -> Result<Report> {
    let proxy = Proxy::start().await?;
    let subject = Subject::new(estafette_amqp::connect, url_through(&proxy, "heartbeat=3s"));
    let running = run(subject, Options { only, concurrency: 8, ..Options::default() });
    tokio::pin!(running);
    loop {
        let pause = pause_max.mul_f64(0.1 + 0.9 * fastrand::f64());
        match tokio::time::timeout(pause, &mut running).await {
            Ok(report) => return Ok(report?),
            Err(_) => proxy.cut(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_while_connections_are_cut() -> Result<()> {
    let mut left = Vec::new();
    let mut told = String::new();
    for round in 0..ROUNDS {
        let pause_max = Duration::from_secs(1) * 2_u32.pow(round);
        let report = run_while_cutting(std::mem::take(&mut left), pause_max).await?;
        let complaints: Vec<_> = report.complaints().collect();
        println!(
            "{} behaviours, cut within {pause_max:?}: {} broken",
            report.findings.len(),
            complaints.len()
        );
        if round == 0 {
            let most = complaints.len() * 2 < report.findings.len();
            ensure!(most, "most behaviours break when connections are cut:\n{}", report.to_table());
        }
        told = complaints.iter().map(|finding| format!("{:?}\n", finding.verdict)).collect();
        left = complaints
            .iter()
            .map(|finding| format!("{}::{}", finding.behaviour.group, finding.behaviour.name))
            .collect();
        if left.is_empty() {
            return Ok(());
        }
    }
    anyhow::bail!("still broken: {left:?}\n{told}")
}
