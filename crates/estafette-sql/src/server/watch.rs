//! Noticing what other processes stored, and waking the receivers that wait for it.

use std::{sync::Arc, time::Duration};

#[cfg(feature = "postgres")]
use estafette_core::Result;
#[cfg(feature = "postgres")]
use tokio::time::Instant;

use super::store::ServerStore;
#[cfg(feature = "postgres")]
use super::{config::Engine, connector, error::while_connecting, postgres};
use crate::wake::Wake;

/// How often somebody who is told of new messages looks all the same, in case a word was lost.
#[cfg(feature = "postgres")]
const LOOK_ALL_THE_SAME: Duration = Duration::from_secs(5);

/// How often somebody who is not told looks: this soon after something came, and after nothing came each time later up to that.
const POLL_MIN: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_millis(200);

/// How long before the server is asked again to tell.
#[cfg(feature = "postgres")]
const PAUSE: Duration = Duration::from_millis(200);

/// Watches for as long as the transport is open.
pub(crate) async fn watch(store: Arc<ServerStore>, wake: Arc<Wake>) {
    tokio::join!(store.do_later(), notice(&store, &wake));
}

async fn notice(store: &ServerStore, wake: &Wake) {
    #[cfg(feature = "postgres")]
    if store.config().engine == Engine::Postgres && store.config().notify {
        return be_told(store, wake).await;
    }
    poll(store, wake).await;
}

/// Has the server tell, over a connection of its own.
#[cfg(feature = "postgres")]
async fn be_told(store: &ServerStore, wake: &Wake) {
    loop {
        // Without a waiting receiver nobody need be told; the first one looks for itself before it waits.
        while !wake.is_awaited() {
            wake.changed.notified().await;
        }
        if let Err(error) = listen(store, wake).await {
            tracing::warn!(error = error.report(), "the server tells of no new messages; asking it again");
        }
        // What came meanwhile nobody told of.
        wake.all();
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(feature = "postgres")]
async fn listen(store: &ServerStore, wake: &Wake) -> Result<()> {
    let options = connector::postgres_address(store.config())?;
    let pool = sqlx::postgres::PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(store.config().patience)
        .connect_lazy_with(options);
    let mut listener = sqlx::postgres::PgListener::connect_with(&pool).await.map_err(while_connecting)?;
    listener.eager_reconnect(false);
    let channel = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT {}", postgres::CHANNEL)));
    let channel: String = channel.fetch_one(&mut listener).await.map_err(while_connecting)?;
    listener.listen(&channel).await.map_err(while_connecting)?;
    wake.all();
    let mut looked = Instant::now();
    loop {
        let told = tokio::time::timeout_at(looked + LOOK_ALL_THE_SAME, listener.try_recv()).await;
        match told {
            Ok(Ok(Some(notification))) => {
                if let Ok(queue) = notification.payload().parse() {
                    wake.arrived(&[queue]);
                }
            }
            // The connection is gone; what is told now is lost.
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => return Err(while_connecting(error)),
            Err(_elapsed) => {
                wake.all();
                store.forget_others(&wake.queues());
                looked = Instant::now();
            }
        }
    }
}

/// Looks for what is due, more rarely the longer there is nothing, and not at all while nobody waits.
async fn poll(store: &ServerStore, wake: &Wake) {
    let mut pause = POLL_MIN;
    let mut before = Vec::new();
    loop {
        while !wake.is_awaited() {
            wake.changed.notified().await;
            pause = POLL_MIN;
        }
        tokio::time::sleep(pause).await;
        let queues = wake.queues();
        store.forget_others(&queues);
        let due = if queues.is_empty() { Ok(Vec::new()) } else { store.with_something_due(&queues).await };
        match due {
            Ok(due) => {
                wake.arrived(&due);
                // What is still due was not taken: it waits for another message of its key.
                let is_news = due.iter().any(|queue| !before.contains(queue));
                pause = if is_news { POLL_MIN } else { (pause * 2).min(POLL_MAX) };
                before = due;
            }
            Err(error) => {
                tracing::warn!(error = error.report(), "looking for new messages failed; trying again");
                pause = POLL_MAX;
            }
        }
    }
}
