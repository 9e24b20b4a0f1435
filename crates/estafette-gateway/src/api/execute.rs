//! Requests done to the hub, within the time a client waits for its answer.

use std::time::Duration;

use super::{
    access::Roles,
    dialect::{Code, Fault, Operation, Outcome},
};
use crate::{
    mesh::{Call, CallError, ConnectionId, Hub, Payload, Published},
    queues::Consumption,
};

/// Clients wait 5 s.
const ANSWER_MAX: Duration = Duration::from_millis(4_500);

/// Does what needs no registration.
pub(crate) async fn execute(hub: &Hub, operation: Operation, roles: Roles) -> Result<Outcome, Fault> {
    check(&operation, roles)?;
    let late = match operation {
        Operation::Call { .. } => Code::Call,
        _ => Code::Send,
    };
    let done = tokio::time::timeout(ANSWER_MAX, run(hub, operation)).await;
    done.unwrap_or_else(|_elapsed| Err(Fault::new(late, "no answer in time; it may still be done")))
}

/// Refuses what the roles do not permit.
pub(crate) fn check(operation: &Operation, roles: Roles) -> Result<(), Fault> {
    let permitted = match operation {
        Operation::Ping => true,
        Operation::Consume { .. } | Operation::Acknowledge { .. } | Operation::Cancel { .. } => roles.read,
        Operation::Call { .. }
        | Operation::Send { .. }
        | Operation::Publish { .. }
        | Operation::SendOrPublish { .. } => roles.write,
    };
    if permitted { Ok(()) } else { Err(Fault::new(Code::Denied, "the user lacks the role for this")) }
}

async fn run(hub: &Hub, operation: Operation) -> Result<Outcome, Fault> {
    match operation {
        Operation::Ping => Ok(Outcome::Pong),
        Operation::Call { id, calls } => call(hub, id, calls).await,
        Operation::Send { id, payload } => send(hub, id, payload).await,
        Operation::Publish { channel, payload } => {
            Ok(Outcome::Published(hub.publish(&channel, payload).await))
        }
        Operation::SendOrPublish { id, payload } => send_or_publish(hub, id, payload).await,
        Operation::Consume { .. } | Operation::Acknowledge { .. } | Operation::Cancel { .. } => {
            Err(Fault::new(Code::Consume, "queues are consumed over a WebSocket"))
        }
    }
}

async fn call(hub: &Hub, id: ConnectionId, calls: Vec<Call>) -> Result<Outcome, Fault> {
    if calls.is_empty() && !hub.is_live(id).await {
        return Err(Fault::new(Code::Call, CallError::NoConnection));
    }
    for call in calls {
        hub.call(id, call).await.map_err(|error| Fault::new(Code::Call, error))?;
    }
    Ok(Outcome::Done)
}

async fn send(hub: &Hub, id: ConnectionId, payload: Payload) -> Result<Outcome, Fault> {
    hub.send(id, payload).await.map_err(|error| Fault::new(Code::Send, error))?;
    Ok(Outcome::Done)
}

/// To the connection of this number, or else to the channel whose name is the number.
async fn send_or_publish(hub: &Hub, id: ConnectionId, payload: Payload) -> Result<Outcome, Fault> {
    match hub.send(id, payload.clone()).await {
        Ok(()) => Ok(Outcome::Done),
        Err(CallError::NoConnection) => match hub.publish(&id.to_string(), payload).await {
            Published { success: 0, fail: 0 } => Err(Fault::new(Code::Send, CallError::NoConnection)),
            published => Ok(Outcome::Published(published)),
        },
        Err(error) => Err(Fault::new(Code::Send, error)),
    }
}

/// Starts a consumption for a connection that may have one.
pub(crate) fn consume(
    hub: &Hub,
    queues: &[String],
    current: Option<&Consumption>,
) -> Result<Consumption, Fault> {
    if current.is_some() {
        return Err(Fault::new(Code::AlreadyConsuming, "this connection consumes already"));
    }
    // Always with acknowledgement: without the client's, writing the message to the socket is what settles it, so
    // that what waits for a slow reader comes back when its connection ends.
    hub.queues().register_acknowledging(queues).map_err(|error| Fault::new(Code::Consume, error))
}

/// Whether the connection's consumption may be cancelled by naming these queues; none means all.
pub(crate) fn check_cancel(current: Option<&Consumption>, queues: &[String]) -> Result<(), Fault> {
    let consumption = current.ok_or_else(|| Fault::new(Code::Cancel, "this connection does not consume"))?;
    let all = consumption.queues();
    let names_all = queues.is_empty() || all.iter().all(|queue| queues.contains(queue));
    if names_all && queues.iter().all(|queue| all.contains(queue)) {
        return Ok(());
    }
    Err(Fault::new(Code::Cancel, "only all queues can be cancelled together"))
}
