// drizzle on better-sqlite3. Load once, with the driver itself; replica_open() makes every later open of a path, in
// workers too, this replica. drizzle migrates in a transaction, in which its own `PRAGMA foreign_keys=OFF` is void, and
// better-sqlite3 enforces foreign keys by default: turn them off before migrate(), as on any SQLite.
const { mkdirSync, writeFileSync } = require('node:fs');
const Database = require('better-sqlite3');
const { drizzle } = require('drizzle-orm/better-sqlite3');
const { migrate } = require('drizzle-orm/better-sqlite3/migrator');
const { integer, sqliteTable, text } = require('drizzle-orm/sqlite-core');
const { step, untilItChanges, eightWorkers, run } = require('./node_steps.cjs');

const { LIBREPLICA, PRIMARY } = process.env;
const notes = sqliteTable('notes', { id: integer().primaryKey(), text: text().notNull() });
const tracks = sqliteTable('tracks', { id: integer().primaryKey() });

const open = (name) => drizzle({ client: new Database(name) });
const count = (db) => db.$count(notes);
const write = (db, words) => db.transaction((transaction) => transaction.insert(notes).values({ text: words }).run());

// What `drizzle-kit generate` writes for a column that became NOT NULL.
const MIGRATION = `PRAGMA foreign_keys=OFF;--> statement-breakpoint
CREATE TABLE __new_albums(id INTEGER PRIMARY KEY, title TEXT NOT NULL);--> statement-breakpoint
INSERT INTO __new_albums(id, title) SELECT id, title FROM albums;--> statement-breakpoint
DROP TABLE albums;--> statement-breakpoint
ALTER TABLE __new_albums RENAME TO albums;--> statement-breakpoint
PRAGMA foreign_keys=ON;`;

async function main() {
  const loader = new Database(':memory:');
  loader.loadExtension(LIBREPLICA);
  const connect = (name, options) => {
    const all = JSON.stringify({ sync_url: PRIMARY, ...options });
    loader.prepare('SELECT replica_open(?, ?)').get(name, all);
    return open(name);
  };
  const app = connect('app.db');
  step('open', await count(app));

  app.get('SELECT replica_sync()');
  step('sync', await count(app));

  write(app, 'written here');
  step('write', await count(app));

  const secret = connect('secret.db', { encryption_key: 'env:KEY' });
  write(secret, 'sealed here');
  step('encrypted', await count(secret));

  const live = connect('live.db', { live: 1 });
  const before = await count(live);
  step('live', before);
  await untilItChanges(() => count(live), before);
  step('seen', await count(live));

  const second = open('app.db');
  write(second, 'a second connection');
  step('second', await count(app));

  await eightWorkers();
  step('threads', await count(app));

  second.$client.loadExtension(LIBREPLICA); // once more is harmless
  step('again', await count(second));

  mkdirSync('drizzle/meta', { recursive: true });
  const entries = [{ idx: 0, version: '6', when: 1, tag: '0000_title', breakpoints: true }];
  writeFileSync('drizzle/meta/_journal.json', JSON.stringify({ version: '7', dialect: 'sqlite', entries }));
  writeFileSync('drizzle/0000_title.sql', MIGRATION);
  app.$client.pragma('foreign_keys = OFF');
  migrate(app, { migrationsFolder: 'drizzle' });
  step('migrate', await app.$count(tracks));
}

function work(number) {
  const db = open('app.db');
  for (let row = 0; row < 5; row++) write(db, `thread ${number} row ${row}`);
  db.$client.close();
}

run(main, work);
