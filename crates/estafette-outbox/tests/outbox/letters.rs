//! Dead letters in the table, and transactions of other libraries.

use std::{sync::Arc, time::Duration};

use estafette_core::{
    DeadQuery, Envelope, Failure, Outgoing, QueueSpec, Reason, ReceiveOptions, Transport as _,
};
use estafette_memory::MemoryTransport;
use estafette_outbox::{Dialect, Relay, export};

use crate::support::{Base, Recorder, event, on_every_database};

on_every_database!(dead_letters_are_stored_once_and_redriven_one_by_one, seaorm_writes_in_its_transaction);

async fn dead_letters_are_stored_once_and_redriven_one_by_one(base: Base) {
    let broker = MemoryTransport::default();
    let queue = QueueSpec::durable("billing".try_into().unwrap()).subscribe("order.*".try_into().unwrap());
    broker.declare(&queue).await.unwrap();
    for number in 0..3 {
        let mut envelope = Envelope::new("order.created".try_into().unwrap(), vec![0, 255, number].into());
        envelope.headers.insert("tenant", "a").unwrap();
        broker.publish(&[Outgoing::publish(envelope)]).await.remove(0).unwrap();
    }
    let mut receiver = broker.receiver(&queue.name, ReceiveOptions::default()).await.unwrap();
    for delivery in receiver.receive(10, Duration::from_secs(1)).await.unwrap() {
        delivery.reject(Failure::new(Reason::Rejected, "no such customer ü")).await.unwrap();
    }
    let letters = broker.admin().dead(&queue.name, &DeadQuery::all()).await.unwrap();
    // As if it had been stored before a crash.
    base.store.store_dead(&letters[0]).await.unwrap();
    assert_eq!(export(&broker, &queue.name, &DeadQuery::all(), &base.store).await.unwrap(), 3);
    assert_eq!(broker.admin().queue(&queue.name).await.unwrap().dead, 0);

    let stored = base.store.dead_letters(None, 0, 100).await.unwrap();
    let kept: Vec<_> = stored.iter().map(|stored| stored.letter.clone()).collect();
    assert_eq!(kept, letters);
    let number = stored[1].number;
    base.store.redrive_dead(number, &broker).await.unwrap();
    let back = receiver.receive(10, Duration::from_secs(1)).await.unwrap();
    assert_eq!(back.len(), 1);
    assert_eq!(back[0].envelope().body[..], [0, 255, 1]);
    assert_eq!(back[0].envelope().headers.get("redriven"), Some("1"));
    let of_queue = base.store.dead_letters(Some(&queue.name), 0, 100).await.unwrap();
    assert_eq!(of_queue.iter().filter(|stored| stored.redriven_at.is_some()).count(), 1);
    let other = "other".try_into().unwrap();
    assert!(base.store.dead_letters(Some(&other), 0, 100).await.unwrap().is_empty());
    assert!(base.store.redrive_dead(number + 1000, &broker).await.is_err());
}

async fn seaorm_writes_in_its_transaction(base: Base) {
    use sea_orm::{Database, TransactionTrait as _};

    let database = Database::connect(&base.url).await.unwrap();
    for (id, is_good) in [(1, true), (2, false)] {
        let mut transaction = database.begin().await.unwrap();
        event(id, 0).header("by", "seaorm").publish(&mut transaction).await.unwrap();
        if is_good { transaction.commit().await.unwrap() } else { transaction.rollback().await.unwrap() }
    }
    let recorder = Recorder::new();
    Relay::new(base.store.clone(), recorder.clone()).run_until_empty().await.unwrap();
    assert_eq!(recorder.bodies(), ["1:0"]);
}

#[tokio::test]
async fn diesel_writes_in_its_transaction() {
    use diesel::{Connection as _, SqliteConnection, result::Error};
    use estafette_outbox::Inbox;

    let base = Base::new(Dialect::Sqlite).await;
    let mut database = SqliteConnection::establish(base.url.strip_prefix("sqlite:").unwrap()).unwrap();
    let inbox = Inbox::new("billing".try_into().unwrap());
    for (id, is_good) in [(1, true), (2, false)] {
        let outcome = database.transaction(|transaction| {
            let id = event(id, 0).publish_blocking(transaction).unwrap();
            assert!(inbox.once_blocking(transaction, &id).unwrap());
            assert!(!inbox.once_blocking(transaction, &id).unwrap());
            if is_good { Ok(()) } else { Err(Error::RollbackTransaction) }
        });
        assert_eq!(outcome.is_ok(), is_good);
    }
    let recorder: Arc<Recorder> = Recorder::new();
    Relay::new(base.store.clone(), recorder.clone()).run_until_empty().await.unwrap();
    assert_eq!(recorder.bodies(), ["1:0"]);
}
