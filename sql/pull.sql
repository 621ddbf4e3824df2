-- at the primary: CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT NOT NULL);
-- at the primary: CREATE INDEX notes_by_text ON notes(text);
-- at the primary: INSERT INTO notes(text) VALUES('first'), ('second');
.load @LIB@
.open "file:@DB@?vfs=replica&sync_url=@URL@"
SELECT * FROM notes;
-- A change at the primary is not here yet ...
-- at the primary: INSERT INTO notes(text) VALUES('third');
SELECT count(*) FROM notes;
-- ... until a sync.
SELECT replica_sync() ->> 'frames_synced' > 0;
SELECT count(*) FROM notes;
SELECT replica_sync() ->> 'frames_synced';
-- Where it is.
SELECT replica_frame_no() = replica_status() ->> 'primary_frame_no';
SELECT replica_status() ->> 'state', replica_status() ->> 'last_error' IS NULL;
SELECT path, state FROM replica_databases;
-- Waiting for a frame that is here, and for one that is not.
SELECT replica_wait(replica_frame_no(), 1), replica_wait(replica_frame_no() + 1, 0.1);
-- What a connection to a replica starts with.
PRAGMA journal_mode;
PRAGMA journal_mode = delete;
PRAGMA foreign_keys;
PRAGMA busy_timeout;
PRAGMA locking_mode = exclusive;
.vfsname
