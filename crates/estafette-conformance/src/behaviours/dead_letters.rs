//! Dead letters: kept with everything that explains them, and put back or deleted as asked.

use std::time::Duration;

use bytes::Bytes;
use estafette_core::{
    DeadLetter, DeadQuery, Envelope, ErrorKind, Failure, MessageId, Outcome, QueueName, QueueStatus, Reason,
    Settlement, Timestamp,
};
use tokio::time::Instant;

use crate::{
    stage::{MOMENT, Stage, must_fail, patience},
    taking::{
        ack_all, at_least_once, drain, each_once, ids_of, nothing_comes, sent_ids, take, take_one, unchanged,
    },
    violation::{Check, Violation, ensure},
};

pub(crate) async fn keeps_the_message_and_the_failure(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let before = Timestamp::now() - Duration::from_millis(5);
    let mut sent = Vec::new();
    for (number, reason) in Reason::ALL.into_iter().enumerate() {
        let mut message = stage.message(number)?;
        message.headers.insert("reason", reason.as_str())?;
        message.correlation_id = Some("correlation".into());
        message.body = Bytes::from((0..=255).collect::<Vec<u8>>());
        sent.push(message);
    }
    sent.push(Envelope::undecodable(Bytes::from_static(b"{\"torn\xff\n\0")));
    stage.send_these(&queue, &sent).await?;
    let mut receiver = stage.receiver(&queue).await?;
    for delivery in take(&mut receiver, sent.len()).await? {
        delivery.settle(Outcome::Retry { after: Duration::ZERO, error: Some("first try".into()) }).await?;
    }
    for delivery in take(&mut receiver, sent.len()).await? {
        let reason = reason_of(delivery.envelope());
        delivery.reject(Failure::new(reason, format!("{reason}:\n\"refused\" größer"))).await?;
    }
    let dead = dead(stage, &queue, &DeadQuery::all()).await?;
    ensure!(dead.len() == sent.len(), "{} were rejected, {} are dead letters", sent.len(), dead.len());
    for letter in &dead {
        let of_it = sent.iter().find(|message| message.id == letter.envelope.id);
        unchanged(of_it.unwrap_or(&letter.envelope), &letter.envelope)?;
        explains(stage, letter, &queue, before)?;
    }
    Ok(())
}

fn explains(stage: &Stage, letter: &DeadLetter, queue: &QueueName, before: Timestamp) -> Check {
    let reason = reason_of(&letter.envelope);
    let error = format!("{reason}:\n\"refused\" größer");
    ensure!(letter.queue == *queue, "the dead letter says it died in {}", letter.queue);
    ensure!(letter.reason == reason, "expected the reason `{reason}`, found `{}`", letter.reason);
    ensure!(letter.error == error, "expected the error {error:?}, found {:?}", letter.error);
    if stage.guarantees().attempts.is_some() {
        ensure!(letter.attempts == 2, "it was handed over twice, but counts {} attempts", letter.attempts);
    }
    let (first, last) = (letter.first_failed_at, letter.last_failed_at);
    // The store's clock may be another machine's.
    let until = Timestamp::now() + Duration::from_secs(3600);
    let from = before - Duration::from_secs(3600);
    ensure!(first <= last, "the first failure, {first}, is after the last, {last}");
    ensure!(from <= first && last <= until, "the failures are said to be at {first} and {last}");
    Ok(())
}

/// Which reason a message is rejected for: in its header.
fn reason_of(envelope: &Envelope) -> Reason {
    let word = envelope.headers.get("reason").unwrap_or_default();
    word.parse().unwrap_or(Reason::Undecodable)
}

pub(crate) async fn lists_what_is_asked_for(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let red = stage.send_about(&queue, "red", 3).await?;
    reject_all(stage, &queue, 3, Reason::Rejected).await?;
    let blue = stage.send_about(&queue, "blue", 4).await?;
    reject_all(stage, &queue, 4, Reason::Unhandled).await?;
    let every = DeadQuery::all;
    let [red_ids, blue_ids] = [sent_ids(&red), sent_ids(&blue)];
    let pair = vec![red_ids[0].clone(), blue_ids[1].clone(), MessageId::new()];
    for (query, expected, what) in [
        (every(), 7, "everything"),
        (DeadQuery::id(red_ids[1].clone()), 1, "one id"),
        (DeadQuery { ids: pair, ..every() }, 2, "two ids and one unknown"),
        (DeadQuery { reason: Some(Reason::Unhandled), ..every() }, 4, "a reason"),
        (DeadQuery { reason: Some(Reason::Expired), ..every() }, 0, "a reason none has"),
        (DeadQuery { topic: Some(stage.pattern("red")?), ..every() }, 3, "a topic"),
        (DeadQuery { topic: Some(stage.pattern("*")?), limit: Some(5), ..every() }, 5, "a limit"),
        (DeadQuery { skip: 5, ..every() }, 2, "all but the first five"),
        (DeadQuery { skip: 3, limit: Some(2), ..every() }, 2, "the second page"),
        (DeadQuery { limit: Some(0), ..every() }, 0, "none at all"),
    ] {
        let found = dead(stage, &queue, &query).await?.len();
        ensure!(found == expected, "asked for {what}, expected {expected} dead letters, found {found}");
    }
    let all = dead(stage, &queue, &every()).await?;
    let times: Vec<_> = all.iter().map(|letter| letter.last_failed_at).collect();
    ensure!(times.is_sorted(), "the dead letters are not oldest first: {times:?}");
    let mut pages = Vec::new();
    for skip in [0, 3, 6] {
        pages.extend(dead(stage, &queue, &DeadQuery { skip, limit: Some(3), ..every() }).await?);
    }
    ensure!(pages == all, "the pages together are not the whole list");
    Ok(())
}

pub(crate) async fn buries_once(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    stage.send(&queue, 1).await?;
    let delivery = take_one(&mut stage.receiver(&queue).await?).await?;
    let Some(settler) = delivery.settler().cloned() else {
        return Err(Violation::Broken("a new delivery has no settler".into()));
    };
    let outcome = Outcome::Reject(Failure::new(Reason::Rejected, "no"));
    let settlement = Settlement { ticket: delivery.ticket(), outcome };
    for result in settler.settle(vec![settlement.clone()]).await {
        result?;
    }
    for result in settler.settle(vec![settlement]).await {
        must_fail(result, ErrorKind::LeaseLost, "rejecting a second time")?;
    }
    drop(delivery);
    let count = dead(stage, &queue, &DeadQuery::all()).await?.len();
    ensure!(count == 1, "it was rejected twice and is {count} dead letters");
    nothing_comes(&mut stage.receiver(&queue).await?, MOMENT).await
}

pub(crate) async fn redrives_one_some_and_all(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let sent = stage.send(&queue, 10).await?;
    reject_all(stage, &queue, 10, Reason::Rejected).await?;
    let one = sent[3].id.clone();
    let some = DeadQuery { limit: Some(4), ..DeadQuery::all() };
    let mut came = Vec::new();
    for (query, expected) in
        [(DeadQuery::id(one), 1), (some, 4), (DeadQuery::all(), 5), (DeadQuery::all(), 0)]
    {
        let count = stage.transport.admin().redrive(&queue, &query).await?;
        ensure!(count == expected as u64, "expected {expected} messages to be redriven, it said {count}");
        let mut receiver = stage.receiver(&queue).await?;
        let deliveries = take(&mut receiver, expected).await?;
        for delivery in &deliveries {
            let envelope = delivery.envelope();
            let of_it = sent.iter().find(|message| message.id == envelope.id);
            let mut bare = (**envelope).clone();
            let _count = bare.headers.remove("redriven");
            unchanged(of_it.unwrap_or(&bare), &bare)?;
        }
        came.extend(ids_of(&deliveries));
        ack_all(deliveries).await?;
        nothing_comes(&mut receiver, MOMENT).await?;
        let left = dead(stage, &queue, &DeadQuery::all()).await?.len();
        ensure!(
            left == sent.len() - came.len(),
            "{left} dead letters are left, expected {}",
            sent.len() - came.len()
        );
    }
    each_once(&sent, &came)
}

pub(crate) async fn redrives_from_the_first_attempt(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    stage.send(&queue, 1).await?;
    let mut receiver = stage.receiver(&queue).await?;
    for times in 1..=2 {
        for _ in 0..2 {
            take_one(&mut receiver).await?.retry(Duration::ZERO).await?;
        }
        let delivery = take_one(&mut receiver).await?;
        ensure!(delivery.attempt() == 3, "the third delivery says attempt {}", delivery.attempt());
        delivery.reject(Failure::new(Reason::AttemptsExhausted, "three times")).await?;
        let count = stage.transport.admin().redrive(&queue, &DeadQuery::all()).await?;
        ensure!(count == 1, "expected 1 message to be redriven, it said {count}");
        let delivery = take_one(&mut receiver).await?;
        ensure!(delivery.attempt() == 1, "redriven, it came at attempt {} instead of 1", delivery.attempt());
        let header = delivery.envelope().headers.get("redriven").map(str::to_owned);
        ensure!(
            header.as_deref() == Some(times.to_string().as_str()),
            "redriven {times} times, but the header `redriven` is {header:?}"
        );
        delivery.release().await?;
    }
    take_one(&mut receiver).await?.ack().await?;
    Ok(())
}

pub(crate) async fn redrives_to_its_own_queue_only(stage: &Stage) -> Check {
    let failing = stage.queue_with(&["event"]).await?;
    let other = stage.queue_with(&["event"]).await?;
    let sent = stage.publish("event", 3).await?;
    reject_all(stage, &failing, 3, Reason::Rejected).await?;
    let mut of_other = stage.receiver(&other).await?;
    ack_all(take(&mut of_other, 3).await?).await?;
    stage.transport.admin().redrive(&failing, &DeadQuery::all()).await?;
    let deliveries = take(&mut stage.receiver(&failing).await?, 3).await?;
    each_once(&sent, &ids_of(&deliveries))?;
    ack_all(deliveries).await?;
    nothing_comes(&mut of_other, MOMENT).await
}

pub(crate) async fn redrives_everything_when_interrupted(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let sent = stage.send(&queue, 100).await?;
    reject_all(stage, &queue, 100, Reason::Rejected).await?;
    for micros in [0, 100, 300, 1000, 3000] {
        let query = DeadQuery { limit: Some(20), ..DeadQuery::all() };
        let redriving = stage.transport.admin().redrive(&queue, &query);
        if let Ok(count) = tokio::time::timeout(Duration::from_micros(micros), redriving).await {
            count?;
        }
        let all_there = |status: &QueueStatus| status.ready + status.leased + status.dead >= 100;
        stage
            .status_becomes(&queue, "100 messages, ready or dead, after an interrupted redrive", all_there)
            .await?;
    }
    // What an interrupted redrive held may be on its way back to the dead letters still.
    let deadline = Instant::now() + patience();
    let mut receiver = stage.receiver(&queue).await?;
    let mut came = Vec::new();
    loop {
        stage.transport.admin().redrive(&queue, &DeadQuery::all()).await?;
        came.extend(drain(&mut receiver).await?);
        let result = at_least_once(&sent, &came);
        if result.is_ok() || Instant::now() > deadline {
            return result;
        }
    }
}

pub(crate) async fn purges_what_is_asked_for(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let sent = stage.send(&queue, 5).await?;
    reject_all(stage, &queue, 5, Reason::Rejected).await?;
    let admin = stage.transport.admin();
    let count = admin.purge_dead(&queue, &DeadQuery::id(sent[2].id.clone())).await?;
    ensure!(count == 1, "expected 1 dead letter to be purged, it said {count}");
    let left: Vec<_> = dead(stage, &queue, &DeadQuery::all()).await?;
    ensure!(left.len() == 4, "5 dead letters, 1 purged, {} left", left.len());
    ensure!(left.iter().all(|letter| letter.envelope.id != sent[2].id), "another dead letter was purged");
    let count = admin.purge_dead(&queue, &DeadQuery::all()).await?;
    ensure!(count == 4, "expected 4 dead letters to be purged, it said {count}");
    ensure!(dead(stage, &queue, &DeadQuery::all()).await?.is_empty(), "all were purged, but some are left");
    nothing_comes(&mut stage.receiver(&queue).await?, MOMENT).await
}

pub(crate) async fn outlive_their_handle(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let sent = stage.send(&queue, 3).await?;
    reject_all(stage, &queue, 3, Reason::Rejected).await?;
    let reopened = stage.reopened().await?;
    let dead = reopened.admin().dead(&queue, &DeadQuery::all()).await?;
    let ids: Vec<_> = dead.into_iter().map(|letter| letter.envelope.id).collect();
    each_once(&sent, &ids)
}

async fn dead(stage: &Stage, queue: &QueueName, query: &DeadQuery) -> Check<Vec<DeadLetter>> {
    Ok(stage.transport.admin().dead(queue, query).await?)
}

/// Takes so many messages and rejects them.
async fn reject_all(stage: &Stage, queue: &QueueName, count: usize, reason: Reason) -> Check {
    let mut receiver = stage.receiver(queue).await?;
    for delivery in take(&mut receiver, count).await? {
        delivery.reject(Failure::new(reason, "refused")).await?;
    }
    receiver.close().await?;
    Ok(())
}
