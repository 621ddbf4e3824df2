# Tcl. `-uri 1` makes the URI's options count; `-translatefilename 0`, or "http://" becomes "http:/".
# Load once, by SQL; the library stays in the process. Without -uri: SELECT replica_open(path, options).
package require sqlite3
package require Thread

proc step {name value} {
    puts "$name $value"
    flush stdout
    gets stdin
}

proc load_into {db} {
    $db enable_load_extension 1
    $db eval {SELECT load_extension($::env(LIBREPLICA))}
    $db enable_load_extension 0
}

set client {
    proc connect {db name {options ""}} {
        sqlite3 $db "file:$name?vfs=replica&sync_url=$::env(PRIMARY)$options" -uri 1 -translatefilename 0
    }
    proc count {db} { $db onecolumn {SELECT count(*) FROM notes} }
    proc write {db text} { $db eval {INSERT INTO notes(text) VALUES($text)} }
}
eval $client

sqlite3 loader :memory:
load_into loader
loader close
connect app app.db
step open [count app]

app eval {SELECT replica_sync()}
step sync [count app]

write app "written here"
step write [count app]

connect secret secret.db "&encryption_key=env:KEY"
write secret "sealed here"
step encrypted [count secret]
secret close

connect live live.db "&live=1"
set before [count live]
step live $before
for {set i 0} {$i < 1000 && [count live] == $before} {incr i} { after 10 }
step seen [count live]

connect second app.db
write second "a second connection"
step second [count app]

for {set number 0} {$number < 8} {incr number} {
    set work "package require sqlite3; $client; connect db app.db
        for {set row 0} {\$row < 5} {incr row} { write db \"thread $number row \$row\" }
        db close"
    lappend threads [thread::create -joinable $work]
}
foreach thread $threads { thread::join $thread }
step threads [count app]

load_into second ;# once more is harmless
step again [count second]
foreach db {app live second} { $db close }
