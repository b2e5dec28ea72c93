-- SPDX-License-Identifier: Apache-2.0
-- The ledger beside Stream Manager, version 1 (PRAGMA user_version). A later release may add columns and tables, never change or remove
-- these: an older release has to open the file after a roll-back.

-- Whole numbers that the process keeps: epoch, and the ledger's clock in milliseconds; each a second time as `…_again`.
CREATE TABLE IF NOT EXISTS numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

-- Every message stream of Stream Manager that is ours. Up to `accounted` each sequence number is either in `waiting` or done with.
CREATE TABLE IF NOT EXISTS message_streams (
  name      TEXT PRIMARY KEY,
  accounted INTEGER NOT NULL,  -- highest sequence number that the ledger knows what became of; -1: none
  bytes     INTEGER NOT NULL   -- counted bytes of all messages ever appended
) WITHOUT ROWID;

-- One row per event that the cloud does not have yet. A row leaves by `settle`, `bury` or a counted drop.
CREATE TABLE IF NOT EXISTS waiting (
  position  INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of arrival; never used twice
  event_id  TEXT NOT NULL UNIQUE,
  stream    TEXT NOT NULL,
  alarm     INTEGER NOT NULL,
  stored_at REAL NOT NULL,                      -- seconds on the ledger's clock, which no wall-clock jump can move
  size      INTEGER NOT NULL,                   -- counted bytes
  message_stream TEXT,                          -- where Stream Manager holds it; NULL: held here, in topic and payload
  sequence  INTEGER,
  begins    INTEGER,                            -- counted bytes of its message stream before it
  topic     TEXT,
  payload   BLOB
);
CREATE INDEX IF NOT EXISTS waiting_by_class ON waiting (alarm DESC, position);
CREATE UNIQUE INDEX IF NOT EXISTS waiting_by_sequence ON waiting (message_stream, sequence);
CREATE INDEX IF NOT EXISTS waiting_by_age ON waiting (stream, stored_at);
CREATE INDEX IF NOT EXISTS waiting_by_place ON waiting (message_stream, begins);

-- Ids that have left, so that a late repeat is known and not stored again. Bounded by SETTLED_KEPT.
CREATE TABLE IF NOT EXISTS settled (
  number   INTEGER PRIMARY KEY AUTOINCREMENT,
  event_id TEXT NOT NULL UNIQUE
);

-- What can never be delivered, with the reason, for a person. Bounded by BURIED_KEPT.
CREATE TABLE IF NOT EXISTS buried (
  number   INTEGER PRIMARY KEY AUTOINCREMENT,
  event_id TEXT NOT NULL,
  stream   TEXT NOT NULL,
  topic    TEXT NOT NULL,
  alarm    INTEGER NOT NULL,
  reason   TEXT NOT NULL,
  payload  BLOB NOT NULL
);

-- What waits of each stream, kept in step with `waiting` inside every transaction.
CREATE TABLE IF NOT EXISTS streams (
  stream TEXT PRIMARY KEY,
  events INTEGER NOT NULL,
  bytes  INTEGER NOT NULL
) WITHOUT ROWID;

-- What happened, counted in the same transaction as the fact itself.
CREATE TABLE IF NOT EXISTS counts (
  stream TEXT NOT NULL,
  name   TEXT NOT NULL,
  value  INTEGER NOT NULL,
  PRIMARY KEY (stream, name)
) WITHOUT ROWID;
