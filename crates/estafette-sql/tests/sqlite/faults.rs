//! Files that are no databases, disks that are full, directories that cannot be written.

use std::{fs, path::Path, process::Command};

use estafette_core::{Delivery, Error, ErrorKind, Outgoing, Transport};
use estafette_sql::{SqlConfig, SqlTransport};

use crate::common::{PATIENCE, ack_all, drain, message, open, open_with_queue, receiver, send, try_send};

async fn refused(directory: &Path) -> Error {
    let opened = SqlTransport::connect(SqlConfig::sqlite(directory.join("mail.db"))).await;
    opened.err().expect("it was opened")
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mail.db");
    let text = "Dear Sir or Madam,\n".repeat(500);
    fs::write(&file, &text).unwrap();
    let error = refused(directory.path()).await;
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.report());
    assert!(error.report().contains("not a database"), "{}", error.report());
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "something was left beside it");
}

#[tokio::test]
async fn a_directory_that_does_not_exist_is_denied() {
    let directory = tempfile::tempdir().unwrap();
    let error = refused(&directory.path().join("nowhere")).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.report());
}

/// A small file system of its own. Needs the right to mount: root, or a user namespace.
struct SmallDisk {
    directory: tempfile::TempDir,
}

impl SmallDisk {
    fn mount() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(directory.path())
            .status()
            .expect("mount is there");
        assert!(mounted.success(), "this test mounts a small tmpfs: run it as root, or under `unshare -rm`");
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn remount(&self, how: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(self.path()).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _status = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_clearly_and_loses_nothing() {
    let disk = SmallDisk::mount();
    let transport = open_with_queue(disk.path()).await;
    let mut stored = 0;
    let error = loop {
        match try_send(&transport, stored..stored + 50).await {
            Ok(()) => stored += 50,
            Err(error) => break error,
        }
        // What makes the disk full, mostly.
        if let Err(error) = transport.publish(&[filler()]).await.pop().unwrap() {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Full, "{}", error.report());
    assert!(stored > 50, "{stored}");
    // Room, and it goes on where it was: with the same connection, and with a new one.
    disk.remount("size=16m");
    send(&transport, stored..stored + 10).await;
    transport.close().await.unwrap();
    let again = open(disk.path()).await;
    let mut receiver = receiver(&again, PATIENCE).await;
    let mut numbers: Vec<usize> = Vec::new();
    while numbers.len() < stored + 10 {
        let taken = receiver.receive(100, PATIENCE).await.unwrap();
        assert!(!taken.is_empty(), "{} of {} came", numbers.len(), stored + 10);
        let number = |delivery: &Delivery| std::str::from_utf8(&delivery.envelope().body).ok()?.parse().ok();
        numbers.extend(taken.iter().filter_map(number).collect::<Vec<usize>>());
        ack_all(taken).await.unwrap();
    }
    assert_eq!(numbers, (0..stored + 10).collect::<Vec<usize>>());
}

/// A message that is no number.
fn filler() -> Outgoing {
    message(vec![b'x'; 20_000])
}

#[tokio::test]
async fn a_read_only_directory_is_denied_and_keeps_what_it_has() {
    let disk = SmallDisk::mount();
    let transport = open_with_queue(disk.path()).await;
    send(&transport, 0..10).await;
    transport.close().await.unwrap();
    disk.remount("ro");
    let error = refused(disk.path()).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.report());
    disk.remount("rw");
    assert_eq!(drain(&open(disk.path()).await).await, (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_read_only_directory_cannot_get_a_new_database() {
    let disk = SmallDisk::mount();
    disk.remount("ro");
    let error = refused(disk.path()).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.report());
}
