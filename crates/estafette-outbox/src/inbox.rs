//! The inbox: the ids of messages whose effects are in the database already.

use std::time::Duration;

use estafette_core::{MessageId, QueueName, Result, Timestamp};

use crate::{BlockingExecutor, Executor, Store, Value, database::Database};

/// Remembers the messages a consumer has handled, in the handler's own transaction: what a message does to that database
/// happens once, however often the message comes.
#[derive(Clone, Debug)]
pub struct Inbox {
    consumer: QueueName,
}

impl Inbox {
    /// The inbox of a consumer: consumers of the same name share it. Usually the name of its queue.
    #[must_use]
    pub fn new(consumer: QueueName) -> Self {
        Self { consumer }
    }

    /// Remembers a message in `transaction`, and returns whether it is new. When it is not, its effects were
    /// committed before: acknowledge it and do nothing.
    ///
    /// Two transactions with the same message wait for each other; the second one sees what became of the first.
    ///
    /// # Errors
    ///
    /// Those of the database.
    pub async fn once<E: Executor + ?Sized>(&self, transaction: &mut E, id: &MessageId) -> Result<bool> {
        let (id, now) = (id.to_string(), Timestamp::now());
        let sql = transaction.dialect().choose(INSERT_POSTGRES, INSERT_MYSQL, INSERT_SQLITE);
        Ok(transaction.execute(sql, &self.values(&id, now)).await? == 1)
    }

    /// As [`once`](Self::once), in a transaction of a library that blocks.
    ///
    /// # Errors
    ///
    /// As [`once`](Self::once).
    pub fn once_blocking<E: BlockingExecutor + ?Sized>(
        &self,
        transaction: &mut E,
        id: &MessageId,
    ) -> Result<bool> {
        let (id, now) = (id.to_string(), Timestamp::now());
        let sql = transaction.dialect().choose(INSERT_POSTGRES, INSERT_MYSQL, INSERT_SQLITE);
        Ok(transaction.execute(sql, &self.values(&id, now))? == 1)
    }

    fn values<'v>(&'v self, id: &'v str, now: Timestamp) -> [Value<'v>; 3] {
        [Value::Text(Some(self.consumer.as_str())), Value::Text(Some(id)), Value::Integer(now.as_micros())]
    }
}

const INSERT_POSTGRES: &str = "INSERT INTO estafette_inbox (consumer, message_id, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
// There is no other statement in MySQL that does nothing and says so. What IGNORE hides besides cannot happen here: ids and
// names are shorter than their columns and never NULL.
const INSERT_MYSQL: &str =
    "INSERT IGNORE INTO estafette_inbox (consumer, message_id, created_at) VALUES (?, ?, ?)";
const INSERT_SQLITE: &str =
    "INSERT INTO estafette_inbox (consumer, message_id, created_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING";

impl Store {
    /// Forgets messages handled longer ago than `age`, and returns how many. It must be longer than a message can be
    /// on its way, retries, redriving and publishing again included.
    ///
    /// # Errors
    ///
    /// Those of the database.
    pub async fn clean_inbox(&self, age: Duration) -> Result<u64> {
        let before = [Value::Integer((Timestamp::now() - age).as_micros())];
        let sql = match self.database() {
            #[cfg(feature = "sqlx-postgres")]
            Database::Postgres(_) => {
                "DELETE FROM estafette_inbox WHERE ctid = ANY(ARRAY(SELECT ctid FROM estafette_inbox \
                 WHERE created_at <= ? ORDER BY created_at LIMIT 1000))"
            }
            #[cfg(feature = "sqlx-mysql")]
            Database::MySql(_) => {
                "DELETE FROM estafette_inbox WHERE created_at <= ? ORDER BY created_at LIMIT 1000"
            }
            #[cfg(feature = "sqlx-sqlite")]
            Database::Sqlite(_) => {
                "DELETE FROM estafette_inbox WHERE (consumer, message_id) IN (SELECT consumer, message_id \
                 FROM estafette_inbox WHERE created_at <= ? ORDER BY created_at LIMIT 1000)"
            }
        };
        let mut deleted = 0;
        loop {
            match self.database().execute(sql, &before).await? {
                0 => return Ok(deleted),
                count => deleted += count,
            }
        }
    }
}
