-- Estafette: events on their way to a transport, handled message ids, and dead letters kept to be examined.
-- Times are microseconds since 1970-01-01T00:00:00Z.
CREATE TABLE IF NOT EXISTS estafette_outbox (
  seq           INTEGER PRIMARY KEY AUTOINCREMENT,
  id            TEXT NOT NULL,
  subject_type  TEXT,
  subject_id    TEXT,
  lane          TEXT,
  topic         TEXT NOT NULL,
  queue         TEXT,
  exchange      TEXT,
  payload       BLOB NOT NULL,
  attributes    TEXT NOT NULL,
  status        TEXT NOT NULL DEFAULT 'waiting',
  attempts      INTEGER NOT NULL DEFAULT 0,
  last_error    TEXT,
  created_at    INTEGER NOT NULL,
  updated_at    INTEGER NOT NULL,
  due_at        INTEGER NOT NULL DEFAULT 0,
  sent_at       INTEGER,
  claim         INTEGER NOT NULL DEFAULT 0,
  claimed_until INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS estafette_outbox_waiting ON estafette_outbox (seq) WHERE status = 'waiting';
CREATE INDEX IF NOT EXISTS estafette_outbox_lane ON estafette_outbox (lane, seq) WHERE lane IS NOT NULL;

CREATE TABLE IF NOT EXISTS estafette_inbox (
  consumer   TEXT NOT NULL,
  message_id TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (consumer, message_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS estafette_inbox_created ON estafette_inbox (created_at);

CREATE TABLE IF NOT EXISTS estafette_dead_letters (
  seq             INTEGER PRIMARY KEY AUTOINCREMENT,
  queue           TEXT NOT NULL,
  id              TEXT NOT NULL,
  topic           TEXT NOT NULL,
  reason          TEXT NOT NULL,
  error           TEXT NOT NULL,
  attempts        INTEGER NOT NULL,
  first_failed_at INTEGER NOT NULL,
  last_failed_at  INTEGER NOT NULL,
  stored_at       INTEGER NOT NULL,
  redriven_at     INTEGER,
  attributes      TEXT NOT NULL,
  payload         BLOB NOT NULL,
  UNIQUE (queue, id, last_failed_at)
);
