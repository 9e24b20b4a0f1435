//! A worker of the demo: a process with a consumer for each queue.

use std::{error::Error, time::Duration};

use anyhow::{Context as _, bail};
use estafette::{Bus, Consumer, Context, Retry, Verdict};
use tokio::{io::AsyncReadExt as _, sync::watch, task::JoinSet};

use super::messages::{CodeEmail, IMAGE_START, ImageUploaded, OrderCancelled, OrderCreated, WelcomeEmail};
use crate::{
    commands::demo::tally::{Did, Heard},
    output,
    session::Session,
};

/// How many times a message is tried.
const ATTEMPTS_MAX: u32 = 4;

/// Messages of a queue that a worker handles at the same time.
const CONCURRENCY: usize = 2;

/// Works in the demo. Started by `demo`
#[derive(clap::Args)]
pub(crate) struct Arguments {}

impl Arguments {
    /// Works until standard input ends, so that no worker outlives the demo.
    pub(crate) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let Self {} = self;
        let bus = session.connect().await?;
        let (stop, stopped) = watch::channel(false);
        let mut consumers = JoinSet::new();
        for consumer in [orders(&bus), mailer(&bus), images(&bus)] {
            let mut stopped = stopped.clone();
            let consumer = consumer
                .concurrency(CONCURRENCY)
                .lease(Duration::from_secs(3))
                .retry(Retry::exponential(Duration::from_millis(150)).attempts_max(ATTEMPTS_MAX))
                .stop_when(async move {
                    if stopped.wait_for(|stop| *stop).await.is_err() {
                        tracing::debug!("nobody can ask to stop any more, so this is the end, too");
                    }
                });
            consumers.spawn(consumer.run());
        }
        let ended = tokio::select! {
            ended = consumers.join_next() => ended,
            () = end_of_input() => None,
        };
        stop.send_replace(true);
        let mut results: Vec<_> = ended.into_iter().collect();
        results.extend(consumers.join_all().await.into_iter().map(Ok));
        for result in results {
            result.context("a consumer panicked")?.context("cannot consume")?;
        }
        Ok(bus.close().await?)
    }
}

async fn end_of_input() {
    let mut input = tokio::io::stdin();
    let mut ignored = [0; 64];
    while let Ok(1..) = input.read(&mut ignored).await {}
}

type Outcome = Result<Verdict, Box<dyn Error + Send + Sync>>;

fn orders(bus: &Bus) -> Consumer {
    bus.consumer("orders")
        .handle(|order: OrderCreated, context: Context| async move {
            work(10..40).await;
            if context.attempt() <= order.bank_failures {
                return failed(&context, "the bank does not answer");
            }
            done(&context)
        })
        .handle(|_order: OrderCancelled, context: Context| async move {
            work(5..15).await;
            done(&context)
        })
}

fn mailer(bus: &Bus) -> Consumer {
    bus.consumer("mailer")
        .handle(|email: WelcomeEmail, context: Context| async move {
            work(5..20).await;
            if !email.to.contains('@') {
                return refused(&context, &format!("{} is no address", email.to));
            }
            if context.attempt() <= email.busy {
                return failed(&context, "the mail server is busy");
            }
            done(&context)
        })
        .handle(|email: CodeEmail, context: Context| async move {
            work(5..10).await;
            if !email.to.contains('@') {
                return refused(&context, &format!("{} is no address", email.to));
            }
            done(&context)
        })
        .handle(|_confirmation: OrderCreated, context: Context| async move {
            work(5..20).await;
            done(&context)
        })
}

fn images(bus: &Bus) -> Consumer {
    bus.consumer("images").handle(|image: ImageUploaded, context: Context| async move {
        work(40..120).await;
        if !image.as_ref().starts_with(IMAGE_START) {
            return refused(&context, "not an image");
        }
        done(&context)
    })
}

/// What stands for work in the demo takes so many milliseconds.
async fn work(milliseconds: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(fastrand::u64(milliseconds))).await;
}

fn done(context: &Context) -> Outcome {
    say(context, Did::Handle)?;
    Ok(Verdict::Ack)
}

fn refused(context: &Context, why: &str) -> Outcome {
    say(context, Did::Refuse)?;
    Ok(Verdict::reject(why))
}

fn failed(context: &Context, why: &str) -> Outcome {
    say(context, if context.attempt() < ATTEMPTS_MAX { Did::Fail } else { Did::GiveUp })?;
    Err(why.into())
}

/// Says what was done, before the message is settled: whatever was settled has been said.
fn say(context: &Context, did: Did) -> anyhow::Result<()> {
    let heard =
        Heard::Handled { queue: context.queue().to_string(), id: context.envelope().id.to_string(), did };
    if let Err(error) = output::print(&heard.line()) {
        bail!("nobody listens: {error}");
    }
    Ok(())
}
