# Ruby's sqlite3. URIs count with URI among the flags. Load once; the library stays in the process.
# busy_timeout waits with the interpreter's lock held, so threads starve each other: use a busy_handler that sleeps.
require "sqlite3"

def step(name, value)
  puts "#{name} #{value}"
  $stdout.flush
  $stdin.gets
end

def load_into(db)
  db.enable_load_extension(true)
  db.load_extension(ENV["LIBREPLICA"])
  db.enable_load_extension(false)
end

def connect(name, options = "")
  open = SQLite3::Constants::Open
  db = SQLite3::Database.new("file:#{name}?vfs=replica&sync_url=#{ENV["PRIMARY"]}#{options}",
                             flags: open::READWRITE | open::CREATE | open::URI)
  db.busy_handler { |tries| sleep 0.003; tries < 1600 }
  db
end

def count(db) = db.get_first_value("SELECT count(*) FROM notes")
def write(db, text) = db.execute("INSERT INTO notes(text) VALUES(?)", [text])

loader = SQLite3::Database.new(":memory:")
load_into(loader)
loader.close
app = connect("app.db")
step("open", count(app))

app.execute("SELECT replica_sync()")
step("sync", count(app))

write(app, "written here")
step("write", count(app))

secret = connect("secret.db", "&encryption_key=env:KEY")
write(secret, "sealed here")
step("encrypted", count(secret))
secret.close

live = connect("live.db", "&live=1")
before = count(live)
step("live", before)
1000.times { count(live) == before ? sleep(0.01) : break }
step("seen", count(live))

second = connect("app.db")
write(second, "a second connection")
step("second", count(app))

threads = 8.times.map do |number|
  Thread.new do
    db = connect("app.db")
    5.times { |row| write(db, "thread #{number} row #{row}") }
    db.close
  end
end
threads.each(&:join)
step("threads", count(app))

load_into(second) # once more is harmless
step("again", count(second))
