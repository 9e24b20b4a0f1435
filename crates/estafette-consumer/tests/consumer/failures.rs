//! What becomes of a message whose handler fails, one way or another.

use std::{fmt, time::Duration};

use estafette_consumer::{Context, Verdict};
use estafette_core::{BoxError, DeadQuery, Failure, Reason, Retry, Transport};
use tokio::time::Instant;

use crate::stage::{Counter, Notes, Order, Stage, not_to_be_handled, queue};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn attempts_max_handler_calls_and_then_one_dead_letter() {
    for concurrency in [1, 8] {
        let stage = Stage::with_orders([1]).await;
        let notes = Notes::new();
        let (calls, began) = (notes.clone(), Instant::now());
        let handler = move |_: Order, context: Context| {
            calls.add((context.attempt(), began.elapsed().as_secs()));
            std::future::ready(Err::<(), _>("no paper"))
        };
        let retry = Retry::fixed(10 * SECOND).attempts_max(4);
        let consumer = stage.consumer().concurrency(concurrency).retry(retry).handle(handler);
        let summary = consumer.run_until_empty().await.unwrap();
        assert_eq!((summary.acked, summary.retried, summary.dead), (0, 3, 1));
        assert_eq!(notes.all(), [(1, 0), (2, 10), (3, 20), (4, 30)]);
        let letter = stage.dead_letter().await;
        assert_eq!((letter.reason, letter.attempts), (Reason::AttemptsExhausted, 4));
        assert_eq!(letter.error, "no paper");
        assert!(letter.last_failed_at.since(letter.first_failed_at) >= 30 * SECOND);
        assert!(stage.status().await.is_idle());
    }
}

#[tokio::test(start_paused = true)]
async fn delays_grow_as_the_policy_says() {
    let stage = Stage::with_orders([1]).await;
    let notes = Notes::new();
    let (calls, began) = (notes.clone(), Instant::now());
    let handler = move |_: Order, _| {
        calls.add(began.elapsed().as_secs());
        std::future::ready(Err::<(), _>("no"))
    };
    let retry = Retry::exponential(SECOND).jitter(0.0).delay_max(5 * SECOND).attempts_max(6);
    stage.consumer().retry(retry).handle(handler).run_until_empty().await.unwrap();
    assert_eq!(notes.all(), [0, 1, 3, 7, 12, 17]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_does_not_keep_others_waiting() {
    let stage = Stage::with_orders([1, 2, 3]).await;
    let notes = Notes::new();
    let done = notes.clone();
    let handler = move |order: Order, context: Context| {
        let fails = order.id == 1 && context.attempt() == 1;
        if !fails {
            done.add(order.id);
        }
        std::future::ready(if fails { Err("later") } else { Ok(()) })
    };
    stage.consumer().retry(Retry::fixed(SECOND)).handle(handler).run_until_empty().await.unwrap();
    assert_eq!(notes.all(), [2, 3, 1]);
}

/// An error with a cause.
#[derive(Debug)]
struct Broken(std::fmt::Error);

impl fmt::Display for Broken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("printer broken")
    }
}

impl std::error::Error for Broken {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[tokio::test(start_paused = true)]
async fn the_dead_letter_keeps_the_whole_chain_of_the_error() {
    let stage = Stage::with_orders([1]).await;
    let handler = |_: Order, _| async { Err::<(), _>(Broken(fmt::Error)) };
    stage.consumer().retry(Retry::never()).handle(handler).run_until_empty().await.unwrap();
    let expected = format!("printer broken: {}", fmt::Error);
    assert_eq!(stage.dead_letter().await.error, expected);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failed_attempt_wherever_it_happens() {
    for concurrency in [1, 4] {
        let stage = Stage::with_orders([1, 2, 3]).await;
        let handler = |order: Order, _| {
            assert!(order.id != 1, "before the first await");
            async move {
                tokio::task::yield_now().await;
                assert!(order.id != 2, "after {}", "an await");
            }
        };
        let consumer = stage.consumer().concurrency(concurrency).retry(Retry::never()).handle(handler);
        let summary = consumer.run_until_empty().await.unwrap();
        assert_eq!((summary.acked, summary.dead), (1, 2));
        let mut errors: Vec<_> = stage.dead().await.into_iter().map(|letter| letter.error).collect();
        errors.sort();
        assert_eq!(
            errors,
            ["the handler panicked: after an await", "the handler panicked: before the first await"]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_over_its_time_limit_is_a_failed_attempt() {
    let stage = Stage::with_orders([1]).await;
    let began = Instant::now();
    let handler = |_: Order, _| std::future::pending::<()>();
    let retry = Retry::fixed(Duration::ZERO).attempts_max(2);
    let consumer = stage.consumer().time_limit(3 * SECOND).retry(retry).handle(handler);
    let summary = consumer.run_until_empty().await.unwrap();
    assert_eq!((summary.retried, summary.dead), (1, 1));
    assert_eq!(began.elapsed().as_secs(), 6);
    assert_eq!(stage.dead_letter().await.error, "the handler took longer than 3s");
}

#[tokio::test(start_paused = true)]
async fn a_handler_says_itself_when_it_wants_the_message_again() {
    let stage = Stage::with_orders([1]).await;
    let notes = Notes::new();
    let (calls, began) = (notes.clone(), Instant::now());
    let handler = move |_: Order, context: Context| {
        calls.add((context.attempt(), began.elapsed().as_secs()));
        std::future::ready(match context.attempt() {
            1 => Verdict::retry_after(100 * SECOND, "busy"),
            2 => Verdict::retry("busy"),
            _ => Verdict::Ack,
        })
    };
    let consumer = stage.consumer().retry(Retry::fixed(SECOND).attempts_max(3)).handle(handler);
    let summary = consumer.run_until_empty().await.unwrap();
    assert_eq!(notes.all(), [(1, 0), (2, 100), (3, 101)]);
    assert_eq!((summary.acked, summary.retried), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_handlers_retry_at_the_last_attempt_is_a_dead_letter() {
    let stage = Stage::with_orders([1]).await;
    let handler = |_: Order, _| async { Verdict::retry_after(SECOND, "busy") };
    let consumer = stage.consumer().retry(Retry::fixed(SECOND).attempts_max(2)).handle(handler);
    assert_eq!(consumer.run_until_empty().await.unwrap().dead, 1);
    assert_eq!(stage.dead_letter().await.error, "busy");
}

#[tokio::test(start_paused = true)]
async fn a_rejected_message_is_a_dead_letter_at_once() {
    let stage = Stage::with_orders([1]).await;
    let handler = |_: Order, _| async { Verdict::reject("the customer does not exist") };
    let summary = stage.consumer().handle(handler).run_until_empty().await.unwrap();
    assert_eq!((summary.dead, summary.retried), (1, 0));
    let letter = stage.dead_letter().await;
    assert_eq!((letter.reason, letter.attempts), (Reason::Rejected, 1));
    assert_eq!(letter.error, "the customer does not exist");
}

#[tokio::test(start_paused = true)]
async fn a_snooze_spends_no_attempt() {
    let stage = Stage::with_orders([1]).await;
    let calls = Counter::default();
    let seen = calls.clone();
    let handler = move |_: Order, context: Context| {
        assert_eq!(context.attempt(), 1);
        std::future::ready(if seen.raise() < 20 { Verdict::Snooze(SECOND) } else { Verdict::Ack })
    };
    let began = Instant::now();
    let summary = stage.consumer().retry(Retry::never()).handle(handler).run_until_empty().await.unwrap();
    assert_eq!((summary.acked, summary.released, calls.value()), (1, 19, 20));
    assert_eq!(began.elapsed().as_secs(), 19);
}

#[tokio::test(start_paused = true)]
async fn a_policy_by_error_comes_before_the_retry_policy() {
    let stage = Stage::with_orders([1, 2, 3]).await;
    let handler = |order: Order, _| async move {
        match order.id {
            1 => Err::<(), BoxError>(Box::new(Broken(fmt::Error))),
            2 => Err("unknown".into()),
            _ => Err("make the policy panic".into()),
        }
    };
    let policy = |error: &BoxError, attempt: u32| {
        assert!(error.to_string() != "make the policy panic", "bug in the policy");
        error.is::<Broken>().then(|| match attempt {
            1 => Verdict::retry_after(SECOND, "once more"),
            _ => Verdict::Reject(Failure::new(Reason::Rejected, "still broken")),
        })
    };
    let consumer = stage.consumer().retry(Retry::never()).retry_by_error(policy).handle(handler);
    let summary = consumer.run_until_empty().await.unwrap();
    // Even so the first is handled once only: no policy goes beyond the limit of attempts.
    assert_eq!(summary.dead, 3);
    let letters = stage.dead().await;
    let of =
        |id: u64| letters.iter().find(|letter| letter.envelope.decode::<Order>().unwrap().id == id).unwrap();
    assert_eq!((of(1).reason, &*of(1).error), (Reason::AttemptsExhausted, "once more"));
    assert_eq!((of(2).reason, &*of(2).error), (Reason::AttemptsExhausted, "unknown"));
    assert!(of(3).error.contains("bug in the policy"), "{}", of(3).error);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_ended_its_process_too_often_is_not_handled_again() {
    let stage = Stage::with_orders([1]).await;
    for _ in 0..3 {
        // As a process that dies with the message in hand does.
        drop(stage.take(1).await);
    }
    let consumer = stage.consumer().retry(Retry::fixed(SECOND).attempts_max(3)).handle(not_to_be_handled);
    assert_eq!(consumer.run_until_empty().await.unwrap().dead, 1);
    let letter = stage.dead_letter().await;
    assert_eq!((letter.reason, letter.attempts), (Reason::AttemptsExhausted, 4));
    assert!(letter.error.contains("3 times"), "{}", letter.error);
}

#[tokio::test(start_paused = true)]
async fn a_redriven_message_begins_again_at_the_first_attempt() {
    let stage = Stage::with_orders([1]).await;
    let fail = |_: Order, _| async { Err::<(), _>("no") };
    stage
        .consumer()
        .retry(Retry::fixed(SECOND).attempts_max(2))
        .handle(fail)
        .run_until_empty()
        .await
        .unwrap();
    stage.memory.admin().redrive(&queue(), &DeadQuery::all()).await.unwrap();
    let succeed = |_: Order, context: Context| async move { assert_eq!(context.attempt(), 1) };
    assert_eq!(stage.consumer().handle(succeed).run_until_empty().await.unwrap().acked, 1);
}
