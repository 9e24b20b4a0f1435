//! Watches over one receiver: ends leases, and puts back what nobody asks for.

use std::sync::Weak;

use estafette_core::Ticket;
use tokio::time::Instant;

use crate::{
    hold::{Hold, IDLE},
    settler::AmqpSettler,
};

/// Watches until the receiver and its deliveries are gone.
pub(crate) async fn watch(settler: Weak<AmqpSettler>) {
    let Some(hold) = settler.upgrade().map(|settler| std::sync::Arc::clone(settler.hold())) else { return };
    let mut closed = false;
    loop {
        let told = hold.watch.notified();
        let (dropped, look_at) = {
            let state = hold.lock();
            (state.dropped, state.look_at)
        };
        if dropped && !closed {
            closed = true;
            let Some(settler) = settler.upgrade() else { return };
            settler.close_dropped().await;
            continue;
        }
        match look_at {
            Some(at) if at <= Instant::now() => {
                let Some(settler) = settler.upgrade() else { return };
                look(&hold, &settler).await;
            }
            Some(at) => {
                tokio::select! {
                    () = told => {}
                    () = tokio::time::sleep_until(at) => {}
                }
            }
            None => told.await,
        }
    }
}

async fn look(hold: &Hold, settler: &AmqpSettler) {
    let now = Instant::now();
    let (ended, is_idle): (Vec<Ticket>, bool) = {
        let mut state = hold.lock();
        let (ended, next) = state.ended(now);
        let idle_from = state.received_at.map_or(now, |at| at + IDLE);
        let has_idle = !state.fresh.is_empty() && !state.receiving && !hold.is_temporary;
        let is_idle = has_idle && idle_from <= now;
        let next_idle = (has_idle && !is_idle).then_some(idle_from);
        state.look_at = next.into_iter().chain(next_idle).min();
        if is_idle || !ended.is_empty() {
            state.park();
        }
        (ended, is_idle)
    };
    for ticket in ended {
        tracing::debug!(queue = %hold.queue, "a lease ended before its message was settled");
        hold.give_back(ticket);
    }
    if is_idle {
        settler.return_fresh().await;
    }
}
