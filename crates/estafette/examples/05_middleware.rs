//! Middleware: a tower layer of one's own around every handler, and one that comes with Estafette.
//!
//! Run: cargo run --example 05_middleware
//! Expect:
//! | began ping
//! | handled
//! | ended ping: Ack
//! | 2 acked, 0 retried, 0 dead (queue empty)
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example")]

use std::{num::NonZeroUsize, sync::Arc};

use estafette::{BoxError, BoxHandler, Bus, Context, Deduplicate, Envelope, Outgoing, QueueSpec, Verdict};
use tower::{ServiceBuilder, ServiceExt, service_fn};

/// Wraps a handler so that it says when it begins and ends.
fn log(inner: BoxHandler) -> BoxHandler {
    BoxHandler::new(service_fn(move |context: Context| {
        let handler = inner.clone();
        async move {
            let topic = context.envelope().topic.clone();
            println!("began {topic}");
            let verdict: Verdict = handler.oneshot(context).await?;
            println!("ended {topic}: {verdict:?}");
            Ok::<_, BoxError>(verdict)
        }
    }))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let bus = Bus::connect("memory:").await?;
    bus.declare(&QueueSpec::durable("pings".try_into()?).subscribe("ping".try_into()?)).await?;

    // The same message twice, as after a lost acknowledgement.
    let ping = Arc::new(Envelope::new("ping".parse()?, "{}".into()));
    let twice = vec![Outgoing::publish(Arc::clone(&ping)), Outgoing::publish(ping)];
    bus.publish_batch(twice).await.into_iter().collect::<Result<Vec<_>, _>>()?;

    let layers = ServiceBuilder::new()
        .layer(Deduplicate::new(NonZeroUsize::new(1000).unwrap())) // outermost
        .layer_fn(log);
    let summary = bus
        .consumer("pings")
        .handle_any(|_: Context| async { println!("handled") })
        .layer(layers)
        .run_until_empty()
        .await?;
    println!("{summary}");
    Ok(())
}
