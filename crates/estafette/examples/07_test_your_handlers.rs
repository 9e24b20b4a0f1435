//! Testing one's own consumers: in process, under a clock and with faults that the test decides.
//!
//! Run: cargo run --example 07_test_your_handlers
//! Expect:
//! | the first try failed, 1 waits for its retry
//! | a minute later: charged [7]
//! | with every message twice and every second ack lost: charged 20 orders 20 times
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example")]

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use estafette::testkit::{Faults, TestKit, When};
use estafette::{Bus, Consumer, Context, Message, Retry, Verdict};
use serde::{Deserialize, Serialize};

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "order.created")]
struct OrderCreated {
    id: u32,
}

#[derive(Default)]
struct Books {
    paid: BTreeSet<u32>,
    charges: Vec<u32>,
    is_down: bool,
}

/// The application's consumer, as it runs in production.
fn charging(bus: &Bus, books: &Arc<Mutex<Books>>) -> Consumer {
    let books = Arc::clone(books);
    let retry = Retry::fixed(Duration::from_secs(60)).attempts_max(5);
    bus.consumer("charging").subscribe::<OrderCreated>().retry(retry).handle(
        move |order: OrderCreated, _: Context| {
            let mut books = books.lock().unwrap();
            let verdict = if std::mem::take(&mut books.is_down) {
                Verdict::retry("the bank is down")
            } else {
                // Idempotent: an order is charged once, however often its message comes.
                if books.paid.insert(order.id) {
                    books.charges.push(order.id);
                }
                Verdict::Ack
            };
            async move { verdict }
        },
    )
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let books = Arc::new(Mutex::new(Books { is_down: true, ..Books::default() }));
    let kit = TestKit::new();
    let of_consumer = Arc::clone(&books);
    kit.consumer(move |bus| charging(bus, &of_consumer)).await?;
    kit.bus().publish(&OrderCreated { id: 7 }).await?;
    kit.run_until_idle().await?;
    kit.assert_retried("charging", 1);
    println!("the first try failed, 1 waits for its retry");
    kit.advance(Duration::from_secs(60)).await?;
    println!("a minute later: charged {:?}", books.lock().unwrap().charges);

    let books = Arc::<Mutex<Books>>::default();
    let faults = Faults::none().duplicate(When::always()).lose_acks(When::every(2)).reorder(When::always());
    let kit = TestKit::with_faults(faults);
    let of_consumer = Arc::clone(&books);
    kit.consumer(move |bus| charging(bus, &of_consumer)).await?;
    for id in 0..20 {
        kit.bus().publish(&OrderCreated { id }).await?;
    }
    kit.run_to_the_end().await?;
    let Books { paid, charges, .. } = &*books.lock().unwrap();
    let (paid, charges) = (paid.len(), charges.len());
    println!("with every message twice and every second ack lost: charged {paid} orders {charges} times");
    Ok(())
}
