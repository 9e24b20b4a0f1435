//! Random deaths under load: nothing is delivered twice or to somebody else, and the supervisor does not grow.
//!
//! 30 rounds; with `ESTAFETTE_TEST_LONG=1` a thousand.

use std::{collections::HashSet, fs, path::Path};

use estafette_workers::{Group, Presence};

use crate::stage::{Stage, eventually, kill, there};

fn rounds() -> usize {
    if std::env::var_os("ESTAFETTE_TEST_LONG").is_some() { 1000 } else { 30 }
}

/// How many descriptors and how much memory a process has.
fn size(pid: u32) -> (usize, u64) {
    let process = Path::new("/proc").join(pid.to_string());
    let descriptors = fs::read_dir(process.join("fd")).unwrap().count();
    let status = fs::read_to_string(process.join("status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    (descriptors, line.split_whitespace().nth(1).unwrap().parse().unwrap())
}

/// Kills one of the workers that run and waits until all run again.
async fn kill_one(group: &Group, round: usize) {
    let status = group.status().await.unwrap();
    let victim = &status.members[(round * 7 + round / 5) % status.members.len()];
    if let Some(pid) = victim.pid {
        // It may have died in this moment by itself; then it is gone all the same.
        kill(pid).unwrap_or_default();
    }
    eventually("the group is whole again", async || {
        let now = there(group.status().await)?;
        let up = now.members.iter().all(|member| member.presence == Presence::Up);
        let replaced = now.members.iter().zip(&status.members).any(|(now, before)| now.pid != before.pid);
        (up && now.members.len() == 4 && replaced).then_some(())
    })
    .await;
}

#[tokio::test]
async fn killing_workers_at_random_delivers_nothing_twice_or_wrong_and_leaks_nothing() {
    let (stage, group) = Stage::up("busy").await;
    let supervisor = stage.supervisor.id();
    let warm_up = 10;
    for round in 0..warm_up {
        kill_one(&group, round).await;
    }
    let before = size(supervisor);
    for round in 0..rounds() {
        kill_one(&group, round).await;
    }
    let after = size(supervisor);
    assert!(after.0 <= before.0 + 3, "descriptors: {} before, {} after", before.0, after.0);
    assert!(after.1 <= before.1 + 2048, "kilobytes: {} before, {} after", before.1, after.1);

    let mut seen = HashSet::new();
    for line in stage.text("received").lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [here, to, number] = words[..] else { continue };
        assert_eq!(here, to, "delivered to another worker: {line}");
        assert!(seen.insert(number.to_owned()), "delivered twice: {line}");
    }
    assert!(seen.len() > 100, "{}", seen.len());
    assert_eq!(stage.text("wrong"), "");
    println!("{} rounds, {} messages; supervisor {before:?} -> {after:?}", rounds(), seen.len());
}
