# R with RSQLite. It takes `file:` URIs as dbname. Load once, by SQL; the library stays in the process.
# A forked child (parallel) opens the database itself, as with every SQLite.
library(DBI)

stdin <- file("stdin", "r")
step <- function(name, value) {
  cat(name, " ", value, "\n", sep = "")
  invisible(readLines(stdin, 1))
}

load_into <- function(db) {
  invisible(dbGetQuery(db, "SELECT load_extension(?)", params = list(Sys.getenv("LIBREPLICA"))))
}
connect <- function(name, options = "") {
  dbConnect(RSQLite::SQLite(), paste0("file:", name, "?vfs=replica&sync_url=", Sys.getenv("PRIMARY"), options))
}
count <- function(db) dbGetQuery(db, "SELECT count(*) AS rows FROM notes")$rows
write <- function(db, text) {
  invisible(dbExecute(db, "INSERT INTO notes(text) VALUES(?)", params = list(text)))
}

loader <- dbConnect(RSQLite::SQLite(), ":memory:")
load_into(loader)
dbDisconnect(loader)
app <- connect("app.db")
step("open", count(app))

invisible(dbGetQuery(app, "SELECT replica_sync()"))
step("sync", count(app))

write(app, "written here")
step("write", count(app))

secret <- connect("secret.db", "&encryption_key=env:KEY")
write(secret, "sealed here")
step("encrypted", count(secret))
dbDisconnect(secret)

live <- connect("live.db", "&live=1")
before <- count(live)
step("live", before)
for (i in 1:1000) if (count(live) == before) Sys.sleep(0.01)
step("seen", count(live))

second <- connect("app.db")
write(second, "a second connection")
step("second", count(app))

work <- function(number) {
  db <- connect("app.db")
  for (row in 0:4) write(db, sprintf("thread %d row %d", number, row))
  dbDisconnect(db)
}
done <- parallel::mclapply(0:7, work, mc.cores = 8)
step("threads", count(app))

load_into(second) # once more is harmless
step("again", count(second))
for (db in list(app, live, second)) dbDisconnect(db)
