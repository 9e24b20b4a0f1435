//! PostgreSQL: its tables, and its form of what is frequent.

use std::sync::{Arc, LazyLock};

use estafette_core::Result;
use sqlx::{
    AssertSqlSafe, Row as _,
    postgres::{PgConnection, PgRow},
};

use super::{
    claim::{self, Content, Found, Window},
    error::from_server,
    integer,
    publish::New,
    settle::{Held, Move},
};
use crate::routes::QueueId;

/// The time of the statement, in microseconds since 1970.
pub(crate) const NOW: &str = "(extract(epoch FROM statement_timestamp()) * 1000000)::bigint";

/// Where new messages are told of, as an expression: one for each schema, since all schemas of a database share the
/// channels. The payload is the queue's row id.
pub(crate) const CHANNEL: &str = "('estafette_' || md5(current_schema()::text))";

pub(crate) const STEPS: [&str; 1] = [VERSION_1];

const VERSION_1: &str = "
CREATE TABLE estafette_schema (
    version bigint NOT NULL,
    -- Counts changes of queues and subscriptions: who remembers them compares.
    generation bigint NOT NULL
);
INSERT INTO estafette_schema (version, generation) VALUES (0, 0);

CREATE TABLE estafette_queue (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    -- Who consumes it, when it is temporary.
    owner text
);
CREATE INDEX estafette_queue_owner ON estafette_queue (owner) WHERE owner IS NOT NULL;

CREATE TABLE estafette_subscription (
    queue bigint NOT NULL,
    pattern text NOT NULL,
    PRIMARY KEY (queue, pattern)
);

CREATE TABLE estafette_message (
    queue bigint NOT NULL,
    -- When it may be claimed (again), in microseconds since 1970. While it is leased this is the end of the lease, and the fence
    -- too: no two hand-overs of a message end at the same time.
    due bigint NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    -- 0 fresh, 1 handed over before, 2 leased.
    state bigint NOT NULL DEFAULT 0,
    attempt bigint NOT NULL DEFAULT 0,
    -- What `due` was before it was claimed: where it goes when it is put back.
    place bigint,
    -- Of the partition key a number: two keys that share one only wait for each other more than they must.
    partition_key bigint,
    first_failed_at bigint,
    last_error text,
    envelope bytea NOT NULL,
    -- The one index there is for messages without a key: in the order of claiming, and where a lease is found.
    PRIMARY KEY (queue, due, id)
) WITH (
    -- A message lives for three versions and leaves nothing worth keeping. What is dead is swept up after so many rows,
    -- however long the queue is, and without resting in between.
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 200000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 200000,
    toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 20000,
    toast.autovacuum_vacuum_cost_delay = 0
);
-- Large bodies are kept beside the row, as they are: claiming moves the row and not the body.
ALTER TABLE estafette_message ALTER COLUMN envelope SET STORAGE EXTERNAL;
CREATE INDEX estafette_message_key ON estafette_message (queue, partition_key, id) WHERE partition_key IS NOT NULL;

CREATE TABLE estafette_dead (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue bigint NOT NULL,
    -- A CloudEvent in JSON.
    envelope text NOT NULL,
    reason text NOT NULL,
    error text NOT NULL,
    attempts bigint NOT NULL,
    first_failed_at bigint NOT NULL,
    last_failed_at bigint NOT NULL
);
CREATE INDEX estafette_dead_queue ON estafette_dead (queue, id);

-- Processes that own temporary queues, and until when they are known to live.
CREATE TABLE estafette_owner (
    name text PRIMARY KEY,
    alive_until bigint NOT NULL
);
";

/// A statement, with [`NOW`] and [`CHANNEL`] where it says `{now}` and `{channel}`.
fn statement(sql: &str) -> Arc<str> {
    sql.replace("{now}", NOW).replace("{channel}", CHANNEL).into()
}

static INSERT: LazyLock<Arc<str>> = LazyLock::new(|| {
    statement(
        "WITH known AS (SELECT generation FROM estafette_schema WHERE generation = $1),
        stored AS (
            INSERT INTO estafette_message (queue, due, partition_key, envelope)
            SELECT m.queue, {now} + m.delay, m.partition_key, m.envelope
            FROM known, unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[])
                AS m (queue, delay, partition_key, envelope)
        ),
        told AS (SELECT pg_notify({channel}, t.queue::text) FROM known, unnest($6::bigint[]) AS t (queue))
        SELECT (SELECT count(*) FROM known), (SELECT count(*) FROM told)",
    )
});

/// Stores messages, all or none, and says whether `generation` was the current one; else nothing is stored.
///
/// One statement, so that one message is one journey and one flush.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    generation: i64,
    messages: &[New<'_>],
    told: &[QueueId],
) -> Result<bool> {
    let query = sqlx::query(AssertSqlSafe(Arc::clone(&INSERT)))
        .bind(generation)
        .bind(messages.iter().map(|message| message.queue).collect::<Vec<i64>>())
        .bind(messages.iter().map(|message| message.delay).collect::<Vec<i64>>())
        .bind(messages.iter().map(|message| message.key).collect::<Vec<Option<i64>>>())
        .bind(messages.iter().map(|message| message.envelope).collect::<Vec<&[u8]>>())
        .bind(told);
    let row = query.fetch_one(connection).await.map_err(from_server)?;
    let known: i64 = row.try_get(0).map_err(from_server)?;
    Ok(known > 0)
}

static TELL: LazyLock<Arc<str>> = LazyLock::new(|| {
    statement("SELECT pg_notify({channel}, t.queue::text) FROM unnest($1::bigint[]) AS t (queue)")
});

/// Tells other processes of queues.
pub(crate) async fn tell(connection: &mut PgConnection, queues: &[QueueId]) -> Result<()> {
    let tell = sqlx::query(AssertSqlSafe(Arc::clone(&TELL))).bind(queues);
    tell.execute(connection).await.map(drop).map_err(from_server)
}

// The rows are found by where they are: no second search, and no plan to go wrong.
const CLAIM: &str = "UPDATE estafette_message AS m SET due = {now} + $4, attempt = m.attempt + 1, state = 2,
        place = CASE WHEN m.state = 2 THEN coalesce(m.place, m.due) ELSE m.due END
    WHERE m.ctid = ANY (ARRAY(
        SELECT e.ctid FROM estafette_message e WHERE e.queue = $1 AND e.due >= $2 AND e.due <= {now} {which}
        ORDER BY e.due, e.id LIMIT $3 FOR UPDATE OF e SKIP LOCKED))
    RETURNING m.id, m.due, m.attempt, m.place, m.first_failed_at, m.envelope, {now}";

static CLAIM_ANY: LazyLock<Arc<str>> = LazyLock::new(|| statement(&CLAIM.replace("{which}", "")));
static CLAIM_ORDERED: LazyLock<Arc<str>> =
    LazyLock::new(|| statement(&CLAIM.replace("{which}", claim::NOT_WAITING_FOR_ITS_KEY)));

/// Claims the first messages that are due.
pub(crate) async fn claim(connection: &mut PgConnection, window: &Window) -> Result<Vec<Found>> {
    let sql = if window.ordered_by_key { &CLAIM_ORDERED } else { &CLAIM_ANY };
    let query = sqlx::query(AssertSqlSafe(Arc::clone(sql)));
    let query = query.bind(window.queue).bind(window.from).bind(window.max).bind(window.lease);
    let rows = query.fetch_all(connection).await.map_err(from_server)?;
    let read = |row: &PgRow| -> sqlx::Result<Found> {
        Ok(Found {
            id: row.try_get(0)?,
            end: row.try_get(1)?,
            attempt: row.try_get(2)?,
            place: row.try_get(3)?,
            first_failed_at: row.try_get(4)?,
            content: Content::read(row.try_get(5)?),
            now: row.try_get(6)?,
        })
    };
    rows.iter().map(read).collect::<sqlx::Result<_>>().map_err(from_server)
}

const ACKNOWLEDGE: &str = "DELETE FROM estafette_message AS m
    USING unnest($2::bigint[], $3::bigint[], $4::bigint[]) AS t (item, until, id)
    WHERE m.queue = $1 AND m.due = t.until AND m.id = t.id AND m.state = 2 RETURNING t.item";

/// Deletes messages whose leases stand, and returns which those were.
pub(crate) async fn acknowledge(
    connection: &mut PgConnection,
    queue: QueueId,
    held: &[Held],
) -> Result<Vec<usize>> {
    let query = sqlx::query(ACKNOWLEDGE)
        .bind(queue)
        .bind(held.iter().map(|held| integer(held.item)).collect::<Vec<i64>>())
        .bind(held.iter().map(|held| held.end).collect::<Vec<i64>>())
        .bind(held.iter().map(|held| held.id).collect::<Vec<i64>>());
    let rows = query.fetch_all(connection).await.map_err(from_server)?;
    rows.iter().map(item).collect::<Result<_>>()
}

static RELOCATE: LazyLock<Arc<str>> = LazyLock::new(|| {
    statement(
        "UPDATE estafette_message AS m SET
            due = coalesce({now} + t.after, m.place, m.due),
            state = coalesce(t.state, CASE WHEN m.attempt > 1 THEN 1 ELSE 0 END),
            attempt = greatest(m.attempt - t.uncount, 0),
            place = CASE WHEN t.state = 2 THEN m.place END,
            first_failed_at = CASE WHEN t.failed = 1 THEN coalesce(m.first_failed_at, {now})
                ELSE m.first_failed_at END,
            last_error = coalesce(t.error, m.last_error)
        FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
            $9::text[]) AS t (item, until, id, after, uncount, state, failed, error)
        WHERE m.queue = $1 AND m.due = t.until AND m.id = t.id AND m.state = 2
        RETURNING t.item, m.due",
    )
});

/// Moves messages whose leases stand, and returns which those were and when they are due now.
pub(crate) async fn relocate(
    connection: &mut PgConnection,
    queue: QueueId,
    moves: &[Move<'_>],
) -> Result<Vec<(usize, i64)>> {
    let query = sqlx::query(AssertSqlSafe(Arc::clone(&RELOCATE)))
        .bind(queue)
        .bind(moves.iter().map(|one| integer(one.held.item)).collect::<Vec<i64>>())
        .bind(moves.iter().map(|one| one.held.end).collect::<Vec<i64>>())
        .bind(moves.iter().map(|one| one.held.id).collect::<Vec<i64>>())
        .bind(moves.iter().map(|one| one.after).collect::<Vec<Option<i64>>>())
        .bind(moves.iter().map(|one| i64::from(one.uncount)).collect::<Vec<i64>>())
        .bind(moves.iter().map(|one| one.state).collect::<Vec<Option<i64>>>())
        .bind(moves.iter().map(|one| i64::from(one.failed)).collect::<Vec<i64>>())
        .bind(moves.iter().map(|one| one.error).collect::<Vec<Option<&str>>>());
    let rows = query.fetch_all(connection).await.map_err(from_server)?;
    rows.iter().map(|row| Ok((item(row)?, row.try_get(1).map_err(from_server)?))).collect()
}

fn item(row: &PgRow) -> Result<usize> {
    let item: i64 = row.try_get(0).map_err(from_server)?;
    Ok(usize::try_from(item).unwrap_or(usize::MAX))
}
