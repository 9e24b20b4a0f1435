-- Estafette: events on their way to a transport, handled message ids, and dead letters kept to be examined.
-- Times are microseconds since 1970-01-01T00:00:00Z.
CREATE TABLE IF NOT EXISTS estafette_outbox (
  seq           BIGINT AUTO_INCREMENT PRIMARY KEY,
  id            VARCHAR(255) NOT NULL,
  subject_type  VARCHAR(255),
  subject_id    VARCHAR(255),
  lane          VARCHAR(512),
  topic         VARCHAR(255) NOT NULL,
  queue         VARCHAR(255),
  exchange      VARCHAR(255),
  payload       LONGBLOB NOT NULL,
  attributes    LONGTEXT NOT NULL,
  status        VARCHAR(16) NOT NULL DEFAULT 'waiting',
  attempts      BIGINT NOT NULL DEFAULT 0,
  last_error    TEXT,
  created_at    BIGINT NOT NULL,
  updated_at    BIGINT NOT NULL,
  due_at        BIGINT NOT NULL DEFAULT 0,
  sent_at       BIGINT,
  claim         BIGINT NOT NULL DEFAULT 0,
  claimed_until BIGINT NOT NULL DEFAULT 0,
  INDEX estafette_outbox_waiting (status, seq),
  INDEX estafette_outbox_lane (lane, seq)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS estafette_inbox (
  consumer   VARCHAR(255) NOT NULL,
  message_id VARCHAR(255) NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (consumer, message_id),
  INDEX estafette_inbox_created (created_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS estafette_dead_letters (
  seq             BIGINT AUTO_INCREMENT PRIMARY KEY,
  queue           VARCHAR(255) NOT NULL,
  id              VARCHAR(255) NOT NULL,
  topic           VARCHAR(255) NOT NULL,
  reason          VARCHAR(32) NOT NULL,
  error           TEXT NOT NULL,
  attempts        BIGINT NOT NULL,
  first_failed_at BIGINT NOT NULL,
  last_failed_at  BIGINT NOT NULL,
  stored_at       BIGINT NOT NULL,
  redriven_at     BIGINT,
  attributes      LONGTEXT NOT NULL,
  payload         LONGBLOB NOT NULL,
  UNIQUE KEY estafette_dead_letters_once (queue, id, last_failed_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
