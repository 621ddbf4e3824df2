# The sqlite3 shell. `.load`, then `.open` with the URI: a URI as the shell's own argument is opened before anything is
# loaded. The library stays in the process, so one .load is enough for every later .open.
exec 3<&0

# The shell has no threads: as many shells.
if [ "${1:-}" = threads ]; then
    for number in 0 1 2 3 4 5 6 7; do
        {
            echo ".load $LIBREPLICA"
            echo ".open 'file:app.db?vfs=replica&sync_url=$PRIMARY'"
            for row in 0 1 2 3 4; do echo "INSERT INTO notes(text) VALUES('thread $number row $row');"; done
        } | sqlite3 -bail ":memory:" &
    done
    wait
    exit
fi

exec stdbuf -oL sqlite3 -bail ":memory:" <<END
.load $LIBREPLICA
.open "file:app.db?vfs=replica&sync_url=$PRIMARY"
SELECT 'open ' || count(*) FROM notes;
.shell read go <&3

.output /dev/null
SELECT replica_sync();
.output stdout
SELECT 'sync ' || count(*) FROM notes;
.shell read go <&3

INSERT INTO notes(text) VALUES('written here');
SELECT 'write ' || count(*) FROM notes;
.shell read go <&3

.open "file:secret.db?vfs=replica&sync_url=$PRIMARY&encryption_key=env:KEY"
INSERT INTO notes(text) VALUES('sealed here');
SELECT 'encrypted ' || count(*) FROM notes;
.shell read go <&3

.open "file:live.db?vfs=replica&sync_url=$PRIMARY&live=1"
SELECT 'live ' || count(*) FROM notes;
.shell read go <&3
.shell sleep 1
SELECT 'seen ' || count(*) FROM notes;
.shell read go <&3

.open "file:app.db?vfs=replica&sync_url=$PRIMARY"
.connection 1
.open "file:app.db?vfs=replica&sync_url=$PRIMARY"
INSERT INTO notes(text) VALUES('a second connection');
.connection 0
SELECT 'second ' || count(*) FROM notes;
.shell read go <&3

.shell sh $0 threads
SELECT 'threads ' || count(*) FROM notes;
.shell read go <&3

.load $LIBREPLICA
SELECT 'again ' || count(*) FROM notes;
.shell read go <&3
END
