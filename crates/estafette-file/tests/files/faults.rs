//! Files that do not belong there, disks that are full, clocks that are wrong.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::common::{
    LEASE_LONG, declare, distinct, drain, number_of, numbered, queue_name, quick, receiver, send, take_one,
};
use estafette_core::{
    Admin, DeadQuery, Envelope, ErrorKind, Outgoing, Pattern, QueueName, QueueSpec, Reason, ReceiveOptions,
    Topic, Transport, wire,
};
use estafette_file::{FileConfig, FileDurability, FileTransport};

fn new_folder(root: &Path) -> PathBuf {
    root.join("queues").join(queue_name().as_str()).join("new")
}

fn line(number: usize) -> String {
    String::from_utf8(wire::encode(&numbered(number).envelope)).unwrap() + "\n"
}

#[tokio::test]
async fn files_put_there_by_hand_are_messages() {
    let directory = tempfile::tempdir().unwrap();
    let transport = quick(directory.path());
    declare(&transport).await;
    let new = new_folder(directory.path());
    fs::write(new.join("one.json"), line(0)).unwrap();
    fs::write(new.join("many.ndjson"), line(1) + "\n" + &line(2) + line(3).trim_end()).unwrap();
    let pretty: serde_json::Value = serde_json::from_str(&line(4)).unwrap();
    fs::write(new.join("pretty"), serde_json::to_string_pretty(&pretty).unwrap()).unwrap();
    fs::write(new.join(".hidden"), line(5)).unwrap();
    fs::write(new.join("unfinished.tmp"), line(6)).unwrap();
    let mut receiver = receiver(&transport, LEASE_LONG).await;
    let mut taken = Vec::new();
    while taken.len() < 5 {
        taken.push(take_one(&mut receiver).await);
    }
    assert_eq!(distinct(taken.iter().map(number_of)), (0..5).collect());
    for delivery in taken {
        delivery.ack().await.unwrap();
    }
    let left: Vec<_> = fs::read_dir(&new).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[tokio::test]
async fn garbage_is_set_aside_and_the_queue_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let transport = quick(directory.path());
    declare(&transport).await;
    send(&transport, 0..10).await;
    let new = new_folder(directory.path());
    // A file of ours that lost its end, in the middle of a line.
    let ours = fs::read_dir(&new).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&ours).unwrap();
    let two_lines = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0;
    fs::write(&ours, &whole[..two_lines + 20]).unwrap();
    fs::write(new.join("binary.dat"), [0u8, 159, 146, 150, 10, 255]).unwrap();
    fs::write(new.join("empty.json"), "").unwrap();
    fs::write(new.join("0000000000000001-looks-like-ours.msg"), "but is not").unwrap();
    fs::create_dir(new.join("directory")).unwrap();
    fs::write(new.join("mixed.json"), format!("{}not json\n", line(100))).unwrap();
    send(&transport, 200..210).await;
    let mut receiver = receiver(&transport, LEASE_LONG).await;
    let mut taken = Vec::new();
    while taken.len() < 13 {
        taken.push(take_one(&mut receiver).await);
    }
    let numbers = distinct(taken.iter().map(number_of));
    assert_eq!(numbers, [0, 1, 100].into_iter().chain(200..210).collect());
    for delivery in taken {
        delivery.ack().await.unwrap();
    }
    assert!(receiver.receive(1, Duration::from_millis(1500)).await.unwrap().is_empty());
    let dead = transport.admin().dead(&queue_name(), &DeadQuery::all()).await.unwrap();
    assert_eq!(dead.len(), 2, "{dead:?}");
    assert!(dead.iter().all(|letter| letter.reason == Reason::Undecodable));
    assert!(dead.iter().any(|letter| letter.envelope.body == "not json"));
    let aside = fs::read_dir(directory.path().join("aside")).unwrap().map(|entry| entry.unwrap().file_name());
    let aside: Vec<_> = aside.collect();
    // Four that never were messages, and the file whose end is missing.
    assert_eq!(aside.len(), 5, "{aside:?}");
    assert_eq!(fs::read_dir(&new).unwrap().count(), 0);
}

#[tokio::test]
async fn a_damaged_description_stops_its_queue_only() {
    let directory = tempfile::tempdir().unwrap();
    let transport = quick(directory.path());
    declare(&transport).await;
    let other: QueueName = "other".parse().unwrap();
    transport.declare(&QueueSpec::durable(other.clone())).await.unwrap();
    fs::write(directory.path().join("queues/other/queue.json"), "{").unwrap();
    let fresh = quick(directory.path());
    send(&fresh, 0..3).await;
    assert_eq!(drain(&fresh).await, [0, 1, 2]);
}

/// A small file system of its own. Needs the right to mount: root, or a user namespace.
struct SmallDisk {
    directory: tempfile::TempDir,
}

impl SmallDisk {
    fn mount() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(directory.path())
            .status()
            .expect("mount is there");
        assert!(mounted.success(), "this test mounts a small tmpfs: run it as root, or under `unshare -rm`");
        Self { directory }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _status = Command::new("umount").arg("-l").arg(self.directory.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_clearly_and_recovers() {
    let disk = SmallDisk::mount();
    let transport = FileTransport::open(FileConfig::new(disk.directory.path().join("mail"))).unwrap();
    declare(&transport).await;
    let filler = "x".repeat(20_000);
    let mut stored = 0;
    let error = loop {
        let mut outgoing = numbered(stored);
        outgoing.envelope_mut().headers.insert("filler", &filler).unwrap();
        match transport.publish(&[outgoing]).await.pop().unwrap() {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Full, "{}", error.report());
    assert!(stored > 10, "{stored}");
    let new = new_folder(&disk.directory.path().join("mail"));
    assert_eq!(fs::read_dir(&new).unwrap().count(), stored, "a torn message was left");
    // What is there can be worked off although the disk is full, and then there is room again.
    assert_eq!(drain(&transport).await, (0..stored).collect::<Vec<_>>());
    send(&transport, 1000..1010).await;
    assert_eq!(drain(&transport).await, (1000..1010).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_read_only_directory_is_denied() {
    let disk = SmallDisk::mount();
    drop(quick(disk.directory.path()));
    let status =
        Command::new("mount").args(["-o", "remount,ro"]).arg(disk.directory.path()).status().unwrap();
    assert!(status.success());
    let error = FileTransport::open(FileConfig::new(disk.directory.path())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.report());
}

#[tokio::test]
async fn wrong_clocks_change_no_lease_and_no_delay() {
    const HOUR: Duration = Duration::from_secs(3600);
    const LEASE: Duration = Duration::from_millis(800);
    let directory = tempfile::tempdir().unwrap();
    let config = || FileConfig::new(directory.path()).durability(FileDurability::Os);
    let right = FileTransport::open(config()).unwrap();
    declare(&right).await;
    for wrong in [config().clock_ahead(HOUR), config().clock_behind(HOUR)] {
        let wrong = FileTransport::open(wrong).unwrap();
        for (holder, other) in [(&wrong, &right), (&right, &wrong)] {
            send(holder, 0..1).await;
            let mut delayed = numbered(1);
            delayed.delay = 2 * LEASE;
            let begun = Instant::now();
            holder.publish(&[delayed]).await.pop().unwrap().unwrap();
            let held = take_one(&mut receiver(holder, LEASE).await).await;
            let mut receiver = receiver(other, LEASE_LONG).await;
            let again = take_one(&mut receiver).await;
            assert_eq!((number_of(&again), again.attempt()), (0, 2));
            assert!(begun.elapsed() >= LEASE - Duration::from_millis(20), "after {:?}", begun.elapsed());
            assert!(begun.elapsed() < 2 * LEASE, "after {:?}", begun.elapsed());
            assert_eq!(held.ack().await.unwrap_err().kind(), ErrorKind::LeaseLost);
            again.ack().await.unwrap();
            let delayed = take_one(&mut receiver).await;
            assert_eq!(number_of(&delayed), 1);
            assert!(begun.elapsed() >= 2 * LEASE - Duration::from_millis(20), "after {:?}", begun.elapsed());
            assert!(begun.elapsed() < 4 * LEASE, "after {:?}", begun.elapsed());
            delayed.ack().await.unwrap();
        }
    }
}

#[tokio::test]
async fn ten_thousand_queues_do_not_slow_publishing_to_one() {
    const QUEUES: usize = 10_000;
    // In memory where there is such a place: tens of thousands of directories are a lot for a disk in a test.
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_none| tempfile::tempdir()).unwrap();
    let transport = quick(directory.path());
    let topic = |number: usize| -> Topic { format!("topic.{number}").parse().unwrap() };
    for number in 0..QUEUES {
        let name: QueueName = format!("queue-{number}").parse().unwrap();
        let everything: Pattern = "everything".parse().unwrap();
        let spec = QueueSpec::durable(name).subscribe(Pattern::from(&topic(number))).subscribe(everything);
        transport.declare(&spec).await.unwrap();
    }
    let fresh = quick(directory.path());
    let publish = async |topic: Topic| {
        let outgoing = Outgoing::publish(Envelope::new(topic, "1".into()));
        fresh.publish(&[outgoing]).await.pop().unwrap().unwrap().routing
    };
    let first = Instant::now();
    assert_eq!(publish(topic(7)).await, estafette_core::Routing::Queues(1));
    let first = first.elapsed();
    let others = Instant::now();
    for number in 0..300 {
        assert_eq!(publish(topic(number)).await, estafette_core::Routing::Queues(1));
    }
    let others = others.elapsed() / 300;
    assert!(others * 20 < first.max(Duration::from_millis(100)), "each {others:?}, the first {first:?}");
    assert_eq!(publish("everything".parse().unwrap()).await, estafette_core::Routing::Queues(10_000));
    assert_eq!(fresh.queue(&"queue-9999".parse().unwrap()).await.unwrap().ready, 1);
    let statuses = fresh.queues().await.unwrap();
    assert_eq!(statuses.iter().map(|status| status.ready).sum::<u64>(), 10_301);
}

#[tokio::test]
async fn acked_messages_of_a_batch_do_not_come_again_after_the_lease() {
    let directory = tempfile::tempdir().unwrap();
    let transport = quick(directory.path());
    declare(&transport).await;
    send(&transport, 0..10).await;
    let lease = Duration::from_millis(400);
    let options = ReceiveOptions { lease, ..ReceiveOptions::default() };
    let mut slow = transport.receiver(&queue_name(), options).await.unwrap();
    let mut held = slow.receive(10, Duration::ZERO).await.unwrap();
    for delivery in
        held.drain(..).filter(|delivery| number_of(delivery).is_multiple_of(2)).collect::<Vec<_>>()
    {
        delivery.ack().await.unwrap();
    }
    assert_eq!(drain(&transport).await, [1, 3, 5, 7, 9]);
    let claimed = directory.path().join("queues/work/claimed");
    assert_eq!(fs::read_dir(claimed).unwrap().count(), 0, "a claim or a journal was left");
}
