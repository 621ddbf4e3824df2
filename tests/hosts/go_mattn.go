// Go with mattn/go-sqlite3 behind database/sql. A driver of its own loads the library, once; `file:` URIs count.
// "_txlock=immediate" for transactions that read before they write: otherwise they may end in SQLITE_BUSY.
package main

import (
	"bufio"
	"database/sql"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"github.com/mattn/go-sqlite3"
)

var stdin = bufio.NewReader(os.Stdin)

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func step(name string, value int) {
	fmt.Println(name, value)
	stdin.ReadString('\n')
}

func open(driver, target string) *sql.DB {
	db, err := sql.Open(driver, target)
	must(err)
	must(db.Ping())
	return db
}

func connect(driver, name, options string) *sql.DB {
	return open(driver, "file:"+name+"?vfs=replica&sync_url="+os.Getenv("PRIMARY")+options)
}

func count(db *sql.DB) (rows int) {
	must(db.QueryRow("SELECT count(*) FROM notes").Scan(&rows))
	return rows
}

func write(db *sql.DB, text string) {
	_, err := db.Exec("INSERT INTO notes(text) VALUES(?)", text)
	must(err)
}

func main() {
	sql.Register("loads-replica", &sqlite3.SQLiteDriver{Extensions: []string{os.Getenv("LIBREPLICA")}})
	open("loads-replica", ":memory:").Close()
	app := connect("sqlite3", "app.db", "")
	step("open", count(app))

	_, err := app.Exec("SELECT replica_sync()")
	must(err)
	step("sync", count(app))

	write(app, "written here")
	step("write", count(app))

	secret := connect("sqlite3", "secret.db", "&encryption_key=env:KEY")
	write(secret, "sealed here")
	step("encrypted", count(secret))
	secret.Close()

	live := connect("sqlite3", "live.db", "&live=1")
	before := count(live)
	step("live", before)
	for i := 0; i < 1000 && count(live) == before; i++ {
		time.Sleep(10 * time.Millisecond)
	}
	step("seen", count(live))

	second := connect("sqlite3", "app.db", "")
	write(second, "a second connection")
	step("second", count(app))

	var threads sync.WaitGroup
	for number := 0; number < 8; number++ {
		threads.Add(1)
		go func(number int) { // each takes a connection of the pool's
			defer threads.Done()
			for row := 0; row < 5; row++ {
				write(app, fmt.Sprintf("thread %d row %d", number, row))
			}
		}(number)
	}
	threads.Wait()
	step("threads", count(app))

	again := connect("loads-replica", "app.db", "") // loads once more, which is harmless
	step("again", count(again))
}
