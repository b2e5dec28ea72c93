-- SPDX-License-Identifier: Apache-2.0
-- The spool's schema, version 1 (PRAGMA user_version). A later release may add columns and tables, never change or remove these: an older
-- release has to open the file after a roll-back.

-- Whole numbers that the process keeps: epoch, and the spool clock in milliseconds.
CREATE TABLE IF NOT EXISTS numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

-- One row per event that the next hop does not have yet. A row leaves by `settle`, `bury` or a counted drop.
CREATE TABLE IF NOT EXISTS events (
  position  INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of arrival; never used twice
  event_id  TEXT NOT NULL UNIQUE,               -- the key that makes a repeat harmless
  stream    TEXT NOT NULL,
  topic     TEXT NOT NULL,
  alarm     INTEGER NOT NULL,                   -- 1: never shed, and overtakes routine events
  stored_at REAL NOT NULL,                      -- seconds on the spool clock, which no wall-clock jump can move
  payload   BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_class ON events (alarm DESC, position);
CREATE INDEX IF NOT EXISTS events_by_stream ON events (stream, alarm, position);

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
  reason   TEXT NOT NULL,
  payload  BLOB NOT NULL
);

-- Fill of each stream, kept in step with `events` inside every transaction.
CREATE TABLE IF NOT EXISTS streams (
  stream TEXT PRIMARY KEY,
  events INTEGER NOT NULL,
  bytes  INTEGER NOT NULL
) WITHOUT ROWID;

-- What a producer's source has had recorded, such as the files of a watched folder; forgotten by the source itself.
CREATE TABLE IF NOT EXISTS marks (
  source TEXT NOT NULL,
  mark   TEXT NOT NULL,
  PRIMARY KEY (source, mark)
) WITHOUT ROWID;

-- What happened, counted in the same transaction as the fact itself, so that counts survive any kill.
CREATE TABLE IF NOT EXISTS counts (
  stream TEXT NOT NULL,
  name   TEXT NOT NULL,
  value  INTEGER NOT NULL,
  PRIMARY KEY (stream, name)
) WITHOUT ROWID;
