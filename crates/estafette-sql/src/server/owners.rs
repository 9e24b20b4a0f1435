//! Temporary queues: whose they are, and what becomes of them when their owner is gone.

use estafette_core::{QueueName, Result};

use super::{connection::Connection, micros, queues};
use crate::{routes::QueueId, store::BELIEVED};

const OWNERLESS: &str = "q.owner IS NOT NULL AND NOT EXISTS
    (SELECT 1 FROM estafette_owner o WHERE o.name = q.owner AND o.alive_until > {now})";

/// Notes that `owner` lives.
pub(crate) async fn beat(connection: &mut Connection, owner: &str) -> Result<()> {
    let update = "UPDATE estafette_owner SET alive_until = {now} + ? WHERE name = ?";
    let values = [micros(BELIEVED).into(), owner.into()];
    if connection.execute(update, &values).await? == 0 {
        let insert = match connection {
            #[cfg(feature = "postgres")]
            Connection::Postgres(_) => {
                "INSERT INTO estafette_owner (alive_until, name) VALUES ({now} + ?, ?) ON CONFLICT DO NOTHING"
            }
            #[cfg(feature = "mysql")]
            Connection::MySql(_) => {
                "INSERT IGNORE INTO estafette_owner (alive_until, name) VALUES ({now} + ?, ?)"
            }
        };
        connection.execute(insert, &values).await?;
    }
    Ok(())
}

/// Makes `owner` the owner of a temporary queue: the process that consumes it.
pub(crate) async fn adopt(connection: &mut Connection, queue: QueueId, owner: &str) -> Result<()> {
    beat(connection, owner).await?;
    let update = "UPDATE estafette_queue SET owner = ? WHERE id = ? AND owner IS NOT NULL";
    connection.execute(update, &[owner.into(), queue.into()]).await.map(drop)
}

/// The temporary queues whose owner is gone.
pub(crate) async fn orphans(connection: &mut Connection) -> Result<Vec<QueueId>> {
    let select = format!("SELECT q.id FROM estafette_queue q WHERE {OWNERLESS}");
    connection.rows(&select, &[]).await?.iter().map(|row| row.integer(0)).collect()
}

/// Those temporary queues among `suspects` whose owner is gone; owners without queues are forgotten.
pub(crate) async fn still_orphans(connection: &mut Connection, suspects: &[QueueId]) -> Result<Vec<QueueId>> {
    let mut found = orphans(connection).await?;
    found.retain(|queue| suspects.contains(queue));
    let delete = "DELETE FROM estafette_owner WHERE alive_until <= {now}
        AND NOT EXISTS (SELECT 1 FROM estafette_queue q WHERE q.owner = estafette_owner.name)";
    connection.execute(delete, &[]).await?;
    Ok(found)
}

/// Forgets `owner`, which closes, and returns what it still owns.
pub(crate) async fn leave(connection: &mut Connection, owner: &str) -> Result<Vec<QueueId>> {
    connection.execute("DELETE FROM estafette_owner WHERE name = ?", &[owner.into()]).await?;
    let select = "SELECT id FROM estafette_queue WHERE owner = ?";
    connection.rows(select, &[owner.into()]).await?.iter().map(|row| row.integer(0)).collect()
}

/// A temporary queue of `owner`.
pub(crate) async fn temporary(
    connection: &mut Connection,
    name: &QueueName,
    owner: &str,
) -> Result<Option<QueueId>> {
    let select = "SELECT id FROM estafette_queue WHERE name = ? AND owner = ?";
    connection.integer(select, &[name.as_str().into(), owner.into()]).await
}

/// Deletes a queue, and what is in it.
pub(crate) async fn remove(connection: &mut Connection, queue: QueueId) -> Result<()> {
    queues::delete(connection, queue).await?;
    queues::sweep(connection, queue, super::CHUNK_MAX).await
}
