//! What holds whatever handlers do.

use std::{collections::HashMap, time::Duration};

use estafette_consumer::{Context, Verdict};
use estafette_core::Retry;
use proptest::prelude::{Just, Strategy, any, prop_oneof};

use crate::stage::{Notes, Order, Stage, order};

/// What the handler of one message does at each attempt; what comes after the last is `Ack`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Fail,
    Panic,
    Hang,
    Snooze,
    Reject,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Fail),
        1 => Just(Step::Panic),
        1 => Just(Step::Hang),
        2 => Just(Step::Snooze),
        1 => Just(Step::Reject),
    ];
    proptest::collection::vec(step, 0..6)
}

const ATTEMPTS_MAX: usize = 3;

/// How many calls those steps lead to, and whether the message is acknowledged in the end.
fn expected(steps: &[Step]) -> (usize, bool) {
    let mut failures = 0;
    for (index, step) in steps.iter().enumerate() {
        match step {
            Step::Reject => return (index + 1, false),
            Step::Snooze => {}
            Step::Fail | Step::Panic | Step::Hang => failures += 1,
        }
        if failures == ATTEMPTS_MAX {
            return (index + 1, false);
        }
    }
    (steps.len() + 1, true)
}

async fn act(step: Option<Step>) -> Result<Verdict, &'static str> {
    match step {
        None => Ok(Verdict::Ack),
        Some(Step::Fail) => Err("failed"),
        Some(Step::Panic) => std::panic::resume_unwind(Box::new("quietly")),
        Some(Step::Hang) => std::future::pending().await,
        Some(Step::Snooze) => Ok(Verdict::Snooze(Duration::from_millis(300))),
        Some(Step::Reject) => Ok(Verdict::reject("refused")),
    }
}

async fn check(messages: Vec<Vec<Step>>, concurrency: usize, ordered: bool) {
    let stage = Stage::new();
    for id in 0..messages.len() as u64 {
        stage.send(&Order { customer: (id % 3).to_string(), ..order(id) }).await;
    }
    let calls: Notes<u64> = Notes::new();
    let (script, seen) = (messages.clone(), calls.clone());
    let handler = move |order: Order, _: Context| {
        let index = seen.all().iter().filter(|id| **id == order.id).count();
        seen.add(order.id);
        act(script[usize::try_from(order.id).unwrap()].get(index).copied())
    };
    let mut consumer = stage
        .consumer()
        .concurrency(concurrency)
        .time_limit(Duration::from_secs(1))
        .retry(Retry::exponential(Duration::from_millis(100)).attempts_max(ATTEMPTS_MAX as u32))
        .handle(handler);
    if ordered {
        consumer = consumer.ordered_by_key();
    }
    let summary = consumer.run_until_empty().await.unwrap();
    let mut made: HashMap<u64, usize> = HashMap::new();
    for id in calls.all() {
        *made.entry(id).or_default() += 1;
    }
    let mut acked = 0;
    for (id, steps) in messages.iter().enumerate() {
        let (count, is_acked) = expected(steps);
        assert_eq!(made.get(&(id as u64)), Some(&count), "message {id}: {steps:?}");
        acked += u64::from(is_acked);
    }
    assert_eq!((summary.acked, summary.dead, summary.lost), (acked, messages.len() as u64 - acked, 0));
    assert_eq!(stage.dead().await.len() as u64, summary.dead);
    assert!(stage.status().await.is_idle());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn every_message_is_tried_as_often_as_allowed_and_ends_once(
        messages in proptest::collection::vec(steps(), 1..20),
        concurrency in 1usize..6,
        ordered in any::<bool>(),
    ) {
        let builder = || tokio::runtime::Builder::new_current_thread();
        let runtime = builder().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(check(messages, concurrency, ordered));
    }
}
