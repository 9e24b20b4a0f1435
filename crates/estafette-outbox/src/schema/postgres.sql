-- Estafette: events on their way to a transport, handled message ids, and dead letters kept to be examined.
-- Times are microseconds since 1970-01-01T00:00:00Z.
SELECT pg_advisory_xact_lock(7310036447286190195);

CREATE TABLE IF NOT EXISTS estafette_outbox (
  seq           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id            varchar(255) NOT NULL,
  subject_type  varchar(255),
  subject_id    varchar(255),
  lane          varchar(512),
  topic         varchar(255) NOT NULL,
  queue         varchar(255),
  exchange      varchar(255),
  payload       bytea NOT NULL,
  attributes    text NOT NULL,
  status        varchar(16) NOT NULL DEFAULT 'waiting',
  attempts      bigint NOT NULL DEFAULT 0,
  last_error    text,
  created_at    bigint NOT NULL,
  updated_at    bigint NOT NULL,
  due_at        bigint NOT NULL DEFAULT 0,
  sent_at       bigint,
  claim         bigint NOT NULL DEFAULT 0,
  claimed_until bigint NOT NULL DEFAULT 0
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX IF NOT EXISTS estafette_outbox_waiting ON estafette_outbox (seq) WHERE status = 'waiting';
CREATE INDEX IF NOT EXISTS estafette_outbox_lane ON estafette_outbox (lane, seq) WHERE lane IS NOT NULL;

CREATE OR REPLACE FUNCTION estafette_outbox_notify() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_notify('estafette_outbox', ''); RETURN NULL; END $$;
CREATE OR REPLACE TRIGGER estafette_outbox_notify AFTER INSERT ON estafette_outbox
  FOR EACH STATEMENT EXECUTE FUNCTION estafette_outbox_notify();

CREATE TABLE IF NOT EXISTS estafette_inbox (
  consumer   varchar(255) NOT NULL,
  message_id varchar(255) NOT NULL,
  created_at bigint NOT NULL,
  PRIMARY KEY (consumer, message_id)
);
CREATE INDEX IF NOT EXISTS estafette_inbox_created ON estafette_inbox (created_at);

CREATE TABLE IF NOT EXISTS estafette_dead_letters (
  seq             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  queue           varchar(255) NOT NULL,
  id              varchar(255) NOT NULL,
  topic           varchar(255) NOT NULL,
  reason          varchar(32) NOT NULL,
  error           text NOT NULL,
  attempts        bigint NOT NULL,
  first_failed_at bigint NOT NULL,
  last_failed_at  bigint NOT NULL,
  stored_at       bigint NOT NULL,
  redriven_at     bigint,
  attributes      text NOT NULL,
  payload         bytea NOT NULL,
  UNIQUE (queue, id, last_failed_at)
);
