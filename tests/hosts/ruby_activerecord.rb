# ActiveRecord. Load once before the first connection; then replica_open(), and `database` is the plain path.
# busy_timeout waits with the interpreter's lock held, so threads starve each other: use a busy_handler that sleeps.
# ActiveRecord 6 turns foreign keys on, and off only inside a migration's transaction, where that does nothing: what
# changes a column of a table with ON DELETE CASCADE children goes into disable_referential_integrity, as on any SQLite.
require "active_record"
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

LOADER = SQLite3::Database.new(":memory:")
load_into(LOADER)

class Base < ActiveRecord::Base
  self.abstract_class = true
end

ActiveSupport.on_load(:active_record_sqlite3adapter) do
  set_callback(:checkout, :after) { raw_connection.busy_handler { |tries| sleep 0.003; tries < 1600 } }
end

# A class of notes with connections of its own.
def notes(name, options = {})
  path = File.expand_path(name)
  LOADER.execute("SELECT replica_open(?, ?)", [path, { sync_url: ENV["PRIMARY"], **options }.to_json])
  Class.new(Base) do
    define_singleton_method(:name) { "Note#{object_id}" }
    self.table_name = "notes"
    establish_connection(adapter: "sqlite3", database: path, pool: 10)
  end
end

app = notes("app.db")
step("open", app.count)

app.connection.select_value("SELECT replica_sync()")
step("sync", app.count)

app.create!(text: "written here")
step("write", app.count)

secret = notes("secret.db", encryption_key: "env:KEY")
secret.create!(text: "sealed here")
step("encrypted", secret.count)
secret.remove_connection

live = notes("live.db", live: 1)
before = live.count
step("live", before)
1000.times { live.count == before ? sleep(0.01) : break }
step("seen", live.count)

second = notes("app.db")
second.create!(text: "a second connection")
step("second", app.count)

threads = 8.times.map do |number|
  Thread.new do
    app.connection_pool.with_connection do
      5.times { |row| app.create!(text: "thread #{number} row #{row}") }
    end
  end
end
threads.each(&:join)
step("threads", app.count)

load_into(second.connection.raw_connection) # once more is harmless
step("again", second.count)

db = app.connection
db.disable_referential_integrity { db.change_column_null(:albums, :title, false) } # makes the table anew
step("migrate", app.connection.select_value("SELECT count(*) FROM tracks"))
