-- What goes wrong says why, and what to do.
-- at the primary: CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT NOT NULL);
.load @LIB@
-- Bad options fail the open.
.open "file:@DB@?vfs=replica&sync_url=ftp://127.0.0.1"
SELECT replica_last_error();
.open "file:@DB@?vfs=replica&sync_url=@URL@&timeout=soon"
SELECT replica_last_error();
.open "file:@DB@?vfs=replica&sync_url=@URL@&auth_token=env:NO_SUCH_VARIABLE"
SELECT replica_last_error();
.open "file:@DB@?vfs=replica&sync_uri=@URL@"
SELECT replica_last_error();
-- So does an unreachable primary, while there is nothing local: never an empty database.
.open "file:@DB@?vfs=replica&sync_url=http://127.0.0.1:9"
SELECT replica_last_error() LIKE '%has no local content yet and the primary cannot be reached%';
-- A file with content of its own stays as it is.
.open @DB@
CREATE TABLE precious(x);
.open "file:@DB@?vfs=replica&sync_url=@URL@"
SELECT replica_last_error();
.open @DB@
.tables
-- Not a replica.
SELECT replica_sync();
SELECT replica_sync('nowhere');
-- A trigger or view that came with the data cannot call the functions.
CREATE VIEW sly AS SELECT replica_sync();
SELECT * FROM sly;
