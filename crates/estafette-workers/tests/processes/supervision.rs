//! Starting, restarting, reloading, scaling and stopping.

use std::time::Duration;

use estafette_core::ErrorKind;
use estafette_workers::{Group, Presence, To};
use rustix::process::Signal;
use serde_json::Value;

use crate::stage::{Stage, WAIT_MAX, eventually, kill, pid_of, pids, runs, there};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn status_tells_what_runs_since_when_and_what_it_counted() {
    let (stage, group) = Stage::up("chat").await;
    for _ in 0..100 {
        group.send("note", &"x", To::One(1)).await.unwrap();
    }
    let status = eventually("the messages are counted", async || {
        let status = group.status().await.unwrap();
        (status.members[1].counts?.messages_in >= 100).then_some(status)
    })
    .await;
    assert!(status.members[2].counts.is_some_and(|counts| counts.messages_in < 100));
    let addresses: Vec<_> = status.members.iter().map(|member| member.address.as_str()).collect();
    assert_eq!(addresses, ["0", "1", "2", "3", "scheduler"]);
    assert_eq!((status.group.as_str(), status.pid), ("app", stage.supervisor.id()));
    for member in &status.members {
        assert!(member.pid.is_some_and(runs), "{member:?}");
        assert!(member.memory_bytes.is_some_and(|bytes| bytes > 100_000), "{member:?}");
        assert_eq!(member.restarts, 0);
    }
}

#[tokio::test]
async fn a_killed_worker_is_started_again_and_found_again() {
    let (stage, group) = Stage::up("chat").await;
    let before = pid_of(&group, "2").await.unwrap();
    let _: Value = group.request("ask", &2, To::One(0), SECOND).await.unwrap();
    kill(before).unwrap();
    let reply: Value = eventually("the new one answers the old one's peers", async || {
        there(group.request("ask", &2, To::One(0), SECOND).await)
    })
    .await;
    assert_eq!(reply["here"], "2");
    let status = stage.all_up(&group).await;
    assert_ne!(status.members[2].pid, Some(before));
    assert_eq!(status.members[2].restarts, 1);
    assert!(!runs(before));
}

#[tokio::test]
async fn a_request_to_a_worker_that_dies_over_it_fails_at_once() {
    let (_stage, group) = Stage::up("chat").await;
    let start = std::time::Instant::now();
    let error = group.request::<_, ()>("exit", &3, To::One(1), WAIT_MAX).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "{}", error.report());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_reload_replaces_every_process() {
    let (stage, group) = Stage::up("chat").await;
    let before = pids(&group.status().await.unwrap());
    group.reload(WAIT_MAX).await.unwrap();
    let after = pids(&stage.all_up(&group).await);
    assert_eq!(after.len(), 5);
    assert!(after.iter().all(|pid| !before.contains(pid)), "{before:?} {after:?}");
}

#[tokio::test]
async fn a_hangup_reloads_without_losing_a_message() {
    let (mut stage, group) = Stage::up("busy").await;
    for _ in 0..3 {
        let sent = stage.text("sent").lines().count();
        eventually("messages flow", async || (stage.text("sent").lines().count() > sent + 100).then_some(()))
            .await;
        let before = pids(&group.status().await.unwrap());
        stage.signal(Signal::HUP);
        eventually("every worker was replaced", async || {
            let after = pids(&there(group.status().await)?);
            (after.len() == 4 && after.iter().all(|pid| !before.contains(pid))).then_some(())
        })
        .await;
        stage.all_up(&group).await;
    }
    stage.signal(Signal::TERM);
    assert!(stage.ended().await);
    // Neither the reloads nor the end may lose what a worker was told to be handed over.
    let received: std::collections::HashSet<String> =
        stage.text("received").lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect();
    let sent: Vec<String> =
        stage.text("sent").lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect();
    let lost: Vec<&String> = sent.iter().filter(|line| !received.contains(*line)).collect();
    assert!(sent.len() > 300, "{}", sent.len());
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), sent.len());
    assert_eq!(stage.text("wrong"), "");
}

#[tokio::test]
async fn scaling_starts_and_stops_workers_and_everybody_learns_of_it() {
    let (stage, group) = Stage::up("chat").await;
    group.scale(6).await.unwrap();
    stage.all_up(&group).await;
    let reply: Value = eventually("a worker reaches the new one", async || {
        there(group.request("ask", &5, To::One(0), SECOND).await)
    })
    .await;
    assert_eq!(reply["here"], "5");
    group.scale(2).await.unwrap();
    eventually("four workers are gone", async || {
        (there(group.status().await)?.members.len() == 3).then_some(())
    })
    .await;
    eventually("the others know", async || {
        let error = group.request::<_, Value>("ask", &3, To::One(0), SECOND).await.err()?;
        (error.kind() == ErrorKind::NotFound).then_some(())
    })
    .await;
    assert_eq!(group.scale(0).await.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_terminated_group_finishes_what_it_is_doing_and_leaves_nothing() {
    let (mut stage, group) = Stage::up("chat").await;
    let all = pids(&group.status().await.unwrap());
    let nap = group.request::<_, u64>("nap", &500, To::One(0), 5 * SECOND);
    let (slept, ()) = futures_util::join!(nap, async {
        // Asked after the nap was: when this is answered, the nap has begun.
        let _: Value = group.request("echo", &1, To::One(0), SECOND).await.unwrap();
        stage.signal(Signal::TERM);
    });
    assert_eq!(slept.unwrap(), 500);
    assert!(stage.ended().await);
    assert!(!all.iter().any(|pid| runs(*pid)));
    assert_eq!(Group::connect_below(&stage.root(), "app").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_group_is_stopped_from_outside() {
    let (mut stage, group) = Stage::up("chat").await;
    group.stop(WAIT_MAX).await.unwrap();
    assert!(stage.ended().await);
}

#[tokio::test]
async fn nothing_survives_a_killed_supervisor_not_even_what_workers_have_started() {
    let (mut stage, group) = Stage::up("chat").await;
    let mut all = pids(&group.status().await.unwrap());
    all.push(group.request("spawn", &(), To::One(1), SECOND).await.unwrap());
    all.push(group.request("spawn", &(), To::Process("scheduler"), SECOND).await.unwrap());
    assert_eq!(all.len(), 7);
    assert!(all.iter().all(|pid| runs(*pid)));
    stage.supervisor.kill().unwrap();
    stage.supervisor.wait().unwrap();
    eventually("all are gone", async || (!all.iter().any(|pid| runs(*pid))).then_some(())).await;
}

#[tokio::test]
async fn what_a_dead_worker_has_started_is_ended_too() {
    let (_stage, group) = Stage::up("chat").await;
    let started: u32 = group.request("spawn", &(), To::One(1), SECOND).await.unwrap();
    kill(pid_of(&group, "1").await.unwrap()).unwrap();
    eventually("it is gone", async || (!runs(started)).then_some(())).await;
}

#[tokio::test]
async fn a_worker_that_hangs_is_replaced() {
    let (stage, group) = Stage::up("watched").await;
    let before = pid_of(&group, "0").await.unwrap();
    group.send("block", &600_000, To::One(0)).await.unwrap();
    eventually("another one runs", async || (pid_of(&group, "0").await? != before).then_some(())).await;
    stage.all_up(&group).await;
    let other = group.status().await.unwrap().members[1].restarts;
    assert_eq!(other, 0, "the one that does not hang is left alone");
}

#[tokio::test]
async fn a_worker_that_dies_too_often_stops_the_group_with_what_it_printed_last() {
    let mut stage = Stage::start("frail");
    assert!(stage.ended().await);
    let outcome = stage.text("outcome");
    assert!(outcome.contains("worker 0 died 4 times within 60s"), "{outcome}");
    assert!(outcome.contains("worker 0 cannot open its file"), "{outcome}");
    assert!(outcome.contains("no such file"), "{outcome}");
    assert!(stage.text("output").contains("[0] worker 0 cannot open its file"), "lines are prefixed");
}

#[tokio::test]
async fn a_dead_worker_is_down_while_its_next_start_waits_and_messages_to_all_pass_it_by() {
    let (stage, group) = Stage::up("chat").await;
    for _ in 0..6 {
        let killed = async || {
            let pid = pid_of(&group, "3").await?;
            kill(pid).ok().map(|()| pid)
        };
        let pid = eventually("worker 3 runs and is killed", killed).await;
        eventually("it is gone", async || (!runs(pid)).then_some(())).await;
    }
    eventually("it is down", async || {
        let status = there(group.status().await)?;
        (status.members[3].presence == Presence::Down).then_some(())
    })
    .await;
    let fresh = stage.group().await;
    let start = std::time::Instant::now();
    assert_eq!(fresh.send("note", &"x", To::All).await.unwrap(), 3);
    assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_second_group_of_the_same_name_is_refused() {
    let (stage, _group) = Stage::up("chat").await;
    let root = stage.root();
    let outcome = tokio::task::spawn_blocking(move || {
        std::thread::spawn(move || {
            let builder = estafette_workers::Workers::builder(1).name("app").runtime_root(root);
            builder.run(|_worker| async { Ok::<_, estafette_core::Error>(()) })
        })
        .join()
        .unwrap()
    })
    .await
    .unwrap();
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn the_service_manager_is_told_when_all_are_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(WAIT_MAX)).unwrap();
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "programs::chat", "--nocapture"]).env("NOTIFY_SOCKET", &path);
    let stage = Stage::start_command(command);
    let mut told = [0; 64];
    let length = manager.recv(&mut told).unwrap();
    assert_eq!(&told[..length], b"READY=1\n");
    stage.signal(Signal::TERM);
    let length = manager.recv(&mut told).unwrap();
    assert_eq!(&told[..length], b"STOPPING=1\n");
}

#[tokio::test]
async fn workers_that_do_not_stop_in_time_are_killed() {
    let (mut stage, group) = Stage::up("stubborn").await;
    let all = pids(&group.status().await.unwrap());
    let start = std::time::Instant::now();
    stage.signal(Signal::TERM);
    assert!(stage.ended().await);
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    assert!(!all.iter().any(|pid| runs(*pid)));
    assert!(stage.text("output").contains("did not stop in time; killed"));
}

#[tokio::test]
async fn a_program_with_a_runtime_of_its_own_joins_the_group() {
    let (mut stage, group) = Stage::up("joined").await;
    for _ in 0..100 {
        let reply: Value = group.request("ask", &1, To::One(0), SECOND).await.unwrap();
        assert_eq!(reply["here"], "1");
    }
    stage.signal(Signal::TERM);
    assert!(stage.ended().await);
    assert!(!stage.text("output").contains("did not stop in time"), "{}", stage.text("output"));
}
