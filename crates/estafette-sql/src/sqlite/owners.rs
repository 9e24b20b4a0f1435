//! Temporary queues: whose they are, and what becomes of them when their owner is gone.

use estafette_core::{QueueName, Result};

use super::{
    queues,
    session::{Session, now},
};
use crate::{routes::QueueId, store::BELIEVED};

const ORPHANS: &str = "SELECT q.id FROM estafette_queue q WHERE q.owner IS NOT NULL AND NOT EXISTS
    (SELECT 1 FROM estafette_owner o WHERE o.name = q.owner AND o.alive_until > ?1)";

/// Notes that `owner` lives.
pub(crate) fn beat(session: &mut Session<'_>, owner: &str) -> Result<()> {
    let upsert = session.statement(
        "INSERT INTO estafette_owner (name, alive_until) VALUES (?1, ?2)
        ON CONFLICT (name) DO UPDATE SET alive_until = excluded.alive_until",
    )?;
    upsert.execute(&[owner.into(), (now() + BELIEVED).as_micros().into()])?;
    Ok(())
}

/// Makes `owner` the owner of a temporary queue: the process that consumes it.
pub(crate) fn adopt(session: &mut Session<'_>, queue: QueueId, owner: &str) -> Result<()> {
    beat(session, owner)?;
    session
        .statement("UPDATE estafette_queue SET owner = ?2 WHERE id = ?1 AND owner IS NOT NULL")?
        .execute(&[queue.into(), owner.into()])?;
    Ok(())
}

/// The temporary queues whose owner is gone.
pub(crate) fn orphans(session: &mut Session<'_>) -> Result<Vec<QueueId>> {
    let mut orphans = Vec::new();
    session.statement(ORPHANS)?.query(&[now().as_micros().into()], |row| {
        orphans.push(row.integer(0));
        Ok(())
    })?;
    Ok(orphans)
}

/// Deletes those temporary queues among `suspects` whose owner is gone, and owners without queues.
pub(crate) fn remove_orphans(session: &mut Session<'_>, suspects: &[QueueId]) -> Result<()> {
    for queue in orphans(session)? {
        if suspects.contains(&queue) {
            queues::delete(session, queue)?;
        }
    }
    let delete = session.statement(
        "DELETE FROM estafette_owner WHERE alive_until <= ?1
        AND NOT EXISTS (SELECT 1 FROM estafette_queue q WHERE q.owner = estafette_owner.name)",
    )?;
    delete.execute(&[now().as_micros().into()])?;
    Ok(())
}

/// Forgets `owner`, which closes, with what it still owns.
pub(crate) fn leave(session: &mut Session<'_>, owner: &str) -> Result<()> {
    session.statement("DELETE FROM estafette_owner WHERE name = ?1")?.execute(&[owner.into()])?;
    let mut owned = Vec::new();
    let select = session.statement("SELECT id FROM estafette_queue WHERE owner = ?1")?;
    select.query(&[owner.into()], |row| {
        owned.push(row.integer(0));
        Ok(())
    })?;
    owned.into_iter().try_for_each(|queue| queues::delete(session, queue))
}

/// Deletes a temporary queue of `owner`; does nothing for another queue.
pub(crate) fn remove_temporary(session: &mut Session<'_>, name: &QueueName, owner: &str) -> Result<()> {
    let select = session.statement("SELECT id FROM estafette_queue WHERE name = ?1 AND owner = ?2")?;
    match select.integer(&[name.as_str().into(), owner.into()])? {
        Some(queue) => queues::delete(session, queue),
        None => Ok(()),
    }
}
