//! A large backlog of messages that are a file each, which is the worst case: batches share files.
//!
//! 20,000 of them; with `ESTAFETTE_TEST_LONG=1` a million.

use std::time::{Duration, Instant};

use crate::common::{LEASE_LONG, PATIENCE, declare, distinct, number_of, quick, receiver, send};

fn waiting() -> usize {
    if std::env::var_os("ESTAFETTE_TEST_LONG").is_some() { 1_000_000 } else { 20_000 }
}

#[tokio::test]
async fn a_large_backlog_is_worked_off_in_order_and_without_listing_it_again_and_again() {
    let directory = tempfile::tempdir().unwrap();
    let transport = quick(directory.path());
    declare(&transport).await;
    let started = Instant::now();
    for number in 0..waiting() {
        send(&transport, number..number + 1).await;
    }
    let published = started.elapsed();

    // Another handle, which knows nothing of the backlog yet.
    let other = quick(directory.path());
    let started = Instant::now();
    let mut receiver = receiver(&other, LEASE_LONG).await;
    let mut numbers = Vec::with_capacity(waiting());
    let mut first = Duration::ZERO;
    while numbers.len() < waiting() {
        let taken = receiver.receive(1000, PATIENCE).await.unwrap();
        assert!(!taken.is_empty(), "only {} of {} came", numbers.len(), waiting());
        if numbers.is_empty() {
            first = started.elapsed();
        }
        numbers.extend(taken.iter().map(number_of));
        for delivery in taken {
            delivery.ack().await.unwrap();
        }
    }
    let taken = started.elapsed();
    println!("{} published in {published:?}, the first came after {first:?}, all after {taken:?}", waiting());
    assert!(numbers.is_sorted(), "the order of publishing is kept");
    assert_eq!(distinct(numbers).len(), waiting());
    // Listing everything for each batch would take hundreds of times as long at a million.
    assert!(taken < 10 * published, "published in {published:?}, taken in {taken:?}");
}
