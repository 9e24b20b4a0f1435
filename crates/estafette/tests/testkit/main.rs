//! The test kit, used as an application's tests would use it.
#![cfg(feature = "testkit")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod clock;
mod faults;
mod running;
mod story;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use estafette::{Bus, Consumer, Context, Error, ErrorKind, Message, Retry, testkit::TestKit};
use serde::{Deserialize, Serialize};

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Message, Serialize, Deserialize, Debug, PartialEq)]
#[message(topic = "order.created")]
struct OrderCreated {
    id: u32,
}

#[derive(Message, Serialize, Deserialize, Debug, PartialEq)]
#[message(topic = "invoice.sent")]
struct InvoiceSent {
    order: u32,
}

fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "the printer is off")
}

/// Sends an invoice for each order.
fn billing(bus: &Bus) -> Consumer {
    let bus_of_handler = bus.clone();
    bus.consumer("billing").subscribe::<OrderCreated>().handle(move |order: OrderCreated, _: Context| {
        let bus = bus_of_handler.clone();
        async move { bus.publish(&InvoiceSent { order: order.id }).await.map(drop) }
    })
}

/// Fails as long as `failures` are left, a minute apart.
fn failing(failures: &Arc<AtomicU32>) -> impl Fn(&Bus) -> Consumer + Send + Sync + 'static {
    let failures = Arc::clone(failures);
    move |bus| {
        let failures = Arc::clone(&failures);
        bus.consumer("failing")
            .subscribe::<OrderCreated>()
            .retry(Retry::fixed(MINUTE).attempts_max(3))
            .handle(move |_: OrderCreated, _: Context| {
                let left =
                    failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
                async move { if left.is_ok() { Err(unavailable()) } else { Ok(()) } }
            })
    }
}

/// Counts how often each order was handled.
fn counting(handled: &Arc<Mutex<Vec<u32>>>) -> impl Fn(&Bus) -> Consumer + Send + Sync + 'static {
    let handled = Arc::clone(handled);
    move |bus| {
        let handled = Arc::clone(&handled);
        bus.consumer("counting").subscribe::<OrderCreated>().handle(move |order: OrderCreated, _: Context| {
            handled.lock().unwrap().push(order.id);
            async {}
        })
    }
}

async fn publish(kit: &TestKit, ids: impl IntoIterator<Item = u32>) {
    for id in ids {
        kit.bus().publish(&OrderCreated { id }).await.unwrap();
    }
}
