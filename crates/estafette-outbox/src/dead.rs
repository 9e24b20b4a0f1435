//! Dead letters in a table: from the queues of a transport, to be examined with SQL and put back one by one.

use estafette_core::{
    DeadLetter, DeadQuery, Error, ErrorKind, MessageId, Outgoing, QueueName, Reason, Result, Timestamp,
    Transport,
};

use crate::{
    Store, Value,
    database::Row,
    row::{attributes, envelope},
};

/// Dead letters moved together at most.
const PAGE: usize = 200;

/// A dead letter in the table.
#[derive(Clone, Debug)]
pub struct StoredDeadLetter {
    /// Its number in the table.
    pub number: i64,
    /// The dead letter.
    pub letter: DeadLetter,
    /// When it was put back, if it was.
    pub redriven_at: Option<Timestamp>,
}

/// Moves the dead letters of `queue` that `query` means into the table, and returns how many. Each is deleted from the
/// transport only after it was stored; one that was stored and not deleted, because of a crash in between, is stored
/// once all the same.
///
/// # Errors
///
/// Those of the transport and of the database.
pub async fn export(
    transport: &dyn Transport,
    queue: &QueueName,
    query: &DeadQuery,
    store: &Store,
) -> Result<u64> {
    let mut moved = 0;
    let limit = query.limit.unwrap_or(usize::MAX);
    while moved < limit {
        let page = DeadQuery { limit: Some(PAGE.min(limit - moved)), ..query.clone() };
        let letters = transport.admin().dead(queue, &page).await?;
        if letters.is_empty() {
            break;
        }
        for letter in &letters {
            store.store_dead(letter).await?;
        }
        let ids = letters.iter().map(|letter| letter.envelope.id.clone()).collect();
        let gone = transport.admin().purge_dead(queue, &DeadQuery { ids, ..DeadQuery::all() }).await?;
        moved += letters.len();
        if gone == 0 {
            let sentence =
                "the transport did not delete the dead letters it listed; they are stored and still there";
            return Err(Error::new(ErrorKind::Engine, sentence));
        }
    }
    Ok(moved as u64)
}

impl Store {
    /// Stores a dead letter; storing it again changes nothing. For a consumer of one's own of dead letters.
    ///
    /// # Errors
    ///
    /// Those of the database; so for all functions here.
    pub async fn store_dead(&self, letter: &DeadLetter) -> Result<()> {
        let (id, attributes) = (letter.envelope.id.to_string(), attributes(&letter.envelope));
        let sql = match self.dialect() {
            crate::Dialect::MySql => concat!(
                "INSERT IGNORE INTO estafette_dead_letters ",
                "(queue, id, topic, reason, error, attempts, first_failed_at, last_failed_at, stored_at, attributes, payload) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            ),
            _ => {
                "INSERT INTO estafette_dead_letters (queue, id, topic, reason, error, attempts, first_failed_at, \
                  last_failed_at, stored_at, attributes, payload) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
                  ON CONFLICT DO NOTHING"
            }
        };
        let values = [
            Value::Text(Some(letter.queue.as_str())),
            Value::Text(Some(&id)),
            Value::Text(Some(letter.envelope.topic.as_str())),
            Value::Text(Some(letter.reason.as_str())),
            Value::Text(Some(&letter.error)),
            Value::Integer(letter.attempts.into()),
            Value::Integer(letter.first_failed_at.as_micros()),
            Value::Integer(letter.last_failed_at.as_micros()),
            Value::Integer(Timestamp::now().as_micros()),
            Value::Text(Some(&attributes)),
            Value::Bytes(&letter.envelope.body),
        ];
        self.database().execute(sql, &values).await.map(drop)
    }

    /// Up to `max` dead letters with numbers above `after`, by number; those of one queue, if one is given.
    ///
    /// # Errors
    ///
    /// As [`store_dead`](Self::store_dead).
    pub async fn dead_letters(
        &self,
        queue: Option<&QueueName>,
        after: i64,
        max: u32,
    ) -> Result<Vec<StoredDeadLetter>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM estafette_dead_letters WHERE seq > ? AND (queue = ? OR ? = 0) ORDER BY seq LIMIT ?"
        );
        let values = [
            Value::Integer(after),
            Value::Text(Some(queue.map_or("", QueueName::as_str))),
            Value::Integer(queue.is_some().into()),
            Value::Integer(max.into()),
        ];
        self.database().rows(&sql, &values).await?.iter().map(stored).collect()
    }

    /// Puts the dead letter `number` back into its queue, with all its attempts before it and the header `redriven` counting
    /// how often that was done. It stays in the table, marked.
    ///
    /// # Errors
    ///
    /// As [`store_dead`](Self::store_dead), those of the transport, and [`ErrorKind::NotFound`] when there is no such number.
    pub async fn redrive_dead(&self, number: i64, transport: &dyn Transport) -> Result<MessageId> {
        let sql = format!("SELECT {COLUMNS} FROM estafette_dead_letters WHERE seq = ?");
        let rows = self.database().rows(&sql, &[Value::Integer(number)]).await?;
        let Some(row) = rows.first() else {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no dead letter number {number}")));
        };
        let DeadLetter { mut envelope, queue, .. } = stored(row)?.letter;
        let times = envelope.headers.get("redriven").and_then(|times| times.parse::<u32>().ok()).unwrap_or(0);
        envelope.headers.insert("redriven", &times.saturating_add(1).to_string())?;
        let id = envelope.id.clone();
        let results = transport.publish(&[Outgoing::send(queue, envelope)]).await;
        results.into_iter().next().unwrap_or_else(|| Err(ErrorKind::Engine.into()))?;
        let mark = "UPDATE estafette_dead_letters SET redriven_at = {now} WHERE seq = ?";
        self.database().execute(mark, &[Value::Integer(number)]).await?;
        Ok(id)
    }
}

const COLUMNS: &str =
    "seq, queue, reason, error, attempts, first_failed_at, last_failed_at, redriven_at, attributes, payload";

fn stored(row: &Row) -> Result<StoredDeadLetter> {
    let letter = DeadLetter {
        queue: row.text(1)?.try_into()?,
        reason: row.text(2)?.parse::<Reason>()?,
        error: row.text(3)?,
        attempts: u32::try_from(row.integer(4)?).unwrap_or(u32::MAX),
        first_failed_at: Timestamp::from_micros(row.integer(5)?),
        last_failed_at: Timestamp::from_micros(row.integer(6)?),
        envelope: envelope(&row.text(8)?, row.bytes(9)?.into())?,
    };
    let redriven_at = row.optional_integer(7)?.map(Timestamp::from_micros);
    Ok(StoredDeadLetter { number: row.integer(0)?, letter, redriven_at })
}
