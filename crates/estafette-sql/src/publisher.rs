//! Publishing: limits are checked here, the rest is one transaction of the store.

use estafette_core::{Error, ErrorKind, Outgoing, Receipt, Result};

use crate::Shared;

/// How many messages one transaction stores at most, so that a long batch does not keep others waiting.
const CHUNK_MAX: usize = 5000;

/// Stores a batch: one result for each message, in order.
pub(crate) async fn publish(shared: &Shared, batch: &[Outgoing]) -> Vec<Result<Receipt>> {
    let mut results = Vec::with_capacity(batch.len());
    for chunk in batch.chunks(CHUNK_MAX) {
        let checks: Vec<Result<()>> = chunk.iter().map(|outgoing| check(shared, outgoing)).collect();
        let accepted: Vec<Outgoing> = chunk
            .iter()
            .zip(&checks)
            .filter(|(_, check)| check.is_ok())
            .map(|(item, _)| item.clone())
            .collect();
        let stored = if accepted.is_empty() { Ok(Vec::new()) } else { store(shared, accepted).await };
        match stored {
            Ok(receipts) => {
                let mut receipts = receipts.into_iter();
                let missing = || Err(ErrorKind::Engine.into());
                results.extend(
                    checks
                        .into_iter()
                        .map(|check| check.and_then(|()| receipts.next().unwrap_or_else(missing))),
                );
            }
            Err(error) => {
                results.extend(checks.into_iter().map(|check| check.and_then(|()| Err(error.clone()))));
            }
        }
    }
    results
}

async fn store(shared: &Shared, batch: Vec<Outgoing>) -> Result<Vec<Result<Receipt>>> {
    let stored = shared.store.publish(batch).await?;
    shared.wake.arrived(&stored.queues);
    Ok(stored.receipts)
}

fn check(shared: &Shared, outgoing: &Outgoing) -> Result<()> {
    shared.check_open()?;
    let (size, limit) = (outgoing.envelope.body.len(), shared.promises.body_bytes_max);
    if size > limit {
        let sentence = format!("the body has {size} bytes, the limit body_max is {limit}");
        return Err(Error::new(ErrorKind::TooLarge, sentence));
    }
    Ok(())
}
