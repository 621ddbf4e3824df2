-- A commit here is a commit at the primary.
-- at the primary: CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE, key TEXT DEFAULT (hex(randomblob(4))));
-- at the primary: CREATE TABLE seen(note INTEGER REFERENCES notes(id));
.load @LIB@
.open "file:@DB@?vfs=replica&sync_url=@URL@&foreign_keys=1"
INSERT INTO notes(text) VALUES('first'), ('second') RETURNING id;
SELECT replica_exec('SELECT count(*) FROM notes') ->> 'rows[0][0]';
-- What was drawn at random here is what the primary holds.
SELECT replica_exec('SELECT key FROM notes WHERE id = 1') ->> 'rows[0][0]' = key FROM notes WHERE id = 1;
-- A transaction is one commit, whatever is in it.
BEGIN;
CREATE INDEX notes_by_key ON notes(key);
UPDATE notes SET text = upper(text);
INSERT INTO seen SELECT id FROM notes;
SAVEPOINT s;
DELETE FROM seen;
ROLLBACK TO s;
COMMIT;
SELECT replica_status() ->> 'commits_shipped';
SELECT replica_exec('SELECT count(*) FROM notes JOIN seen ON note = id') ->> 'rows[0][0]';
-- Constraints are SQLite's own, and foreign keys are on where asked for, as at the primary.
INSERT INTO notes(text) VALUES('FIRST');
INSERT INTO seen VALUES(99);
-- The primary changes meanwhile: a statement of its own works on what is there now.
-- at the primary: UPDATE notes SET text = 'THIRD' WHERE id = 2;
UPDATE notes SET text = text || '!' WHERE id = 2 RETURNING text;
SELECT replica_sync() ->> 'frames_synced';
-- Cut loose, it is a database like any other.
SELECT replica_freeze() = '@DB@';
INSERT INTO notes(text) VALUES('mine alone');
SELECT count(*) FROM notes;
