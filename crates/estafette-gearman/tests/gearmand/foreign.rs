//! The tool `gearman` of Debian's gearman-tools, on both sides.

use std::process::Stdio;

use tokio::{io::AsyncWriteExt as _, process::Command};

use super::*;

fn gearman(queue: &QueueName) -> Command {
    let address = server().trim_start_matches("gearman://").to_owned();
    let (host, port) = address.split_once(':').unwrap();
    let mut command = Command::new("gearman");
    command.args(["-h", host, "-p", port, "-f", queue.as_str()]).kill_on_drop(true);
    command
}

#[tokio::test]
async fn a_job_of_another_program_is_a_message() {
    let place = place("").await;
    let mut child = gearman(&place.queue)
        .args(["-b"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the tool of the package gearman-tools");
    child.stdin.take().unwrap().write_all(b"plain \xff bytes").await.unwrap();
    assert!(child.wait().await.unwrap().success());
    let mut receiver = place.receiver().await;
    let delivery = take_one(&mut receiver).await;
    assert_eq!(&delivery.envelope().body[..], b"plain \xff bytes");
    assert_eq!(delivery.envelope().topic.as_str(), place.queue.as_str());
    assert_eq!(delivery.attempt(), 1);
    let id = delivery.envelope().id.clone();
    // Another turn, and the dead letters, as for any other message.
    delivery.retry(Duration::ZERO).await.unwrap();
    let again = take_one(&mut receiver).await;
    assert_eq!((again.attempt(), &again.envelope().id), (2, &id));
    assert_eq!(&again.envelope().body[..], b"plain \xff bytes");
    again.ack().await.unwrap();
    receiver.close().await.unwrap();
    place.transport.admin().delete(&place.queue).await.unwrap();
}

#[tokio::test]
async fn another_program_gets_the_very_bytes() {
    let place = place("&body=plain").await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("body");
    place.send("{\"id\":42}").await;
    let script = format!("cat > {0}.part && mv {0}.part {0}", file.display());
    let mut worker = gearman(&place.queue)
        .args(["-w", "-c", "1", "--", "sh", "-c", &script])
        .spawn()
        .expect("the tool of the package gearman-tools");
    tokio::time::timeout(Duration::from_secs(20), worker.wait()).await.expect("the worker ends").unwrap();
    let status = place.transport.admin().queue(&place.queue).await.unwrap();
    assert_eq!((status.ready, status.leased), (0, 0));
    assert_eq!(std::fs::read_to_string(file).unwrap(), "{\"id\":42}");
    place.transport.admin().delete(&place.queue).await.unwrap();
}

#[tokio::test]
async fn an_envelope_that_cannot_be_read_is_a_dead_letter_and_keeps_its_bytes() {
    let place = place("").await;
    let broken = br#"{"specversion":"1.0","id":7}"#;
    let mut child = gearman(&place.queue)
        .args(["-b"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the tool of the package gearman-tools");
    child.stdin.take().unwrap().write_all(broken).await.unwrap();
    assert!(child.wait().await.unwrap().success());
    let mut receiver = place.receiver().await;
    assert!(receiver.receive(1, Duration::from_millis(300)).await.unwrap().is_empty());
    let letters = place.transport.admin().dead(&place.queue, &Default::default()).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(&letters[0].envelope.body[..], broken);
    assert_eq!(letters[0].reason, estafette_core::Reason::Undecodable);
    receiver.close().await.unwrap();
    place.transport.admin().delete(&place.queue).await.unwrap();
}
