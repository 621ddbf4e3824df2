// TypeORM on better-sqlite3. Load once, with the driver itself; replica_open() makes every later open of a path, in
// workers too, this replica. Use runMigrations(): it turns foreign keys off while it makes a table anew.
const Database = require('better-sqlite3');
const { DataSource, EntitySchema, TableColumn } = require('typeorm');
const { step, untilItChanges, eightWorkers, run } = require('./node_steps.cjs');

const { LIBREPLICA, PRIMARY } = process.env;
const Note = new EntitySchema({
  name: 'Note',
  tableName: 'notes',
  columns: { id: { type: 'integer', primary: true, generated: true }, text: { type: 'text' } },
});

class TitleIsNeeded1700000000000 {
  async up(runner) {
    await runner.changeColumn('albums', 'title', new TableColumn({ name: 'title', type: 'text', isNullable: false }));
  }
}

const open = (database) => new DataSource({
  type: 'better-sqlite3', database, entities: [Note], migrations: [TitleIsNeeded1700000000000],
}).initialize();
const count = (db) => db.getRepository(Note).count();
const write = (db, text) => db.transaction((manager) => manager.save(Note, { text }));

async function main() {
  const loader = new Database(':memory:');
  loader.loadExtension(LIBREPLICA);
  const connect = (name, options) => {
    const all = JSON.stringify({ sync_url: PRIMARY, ...options });
    loader.prepare('SELECT replica_open(?, ?)').get(name, all);
    return open(name);
  };
  const app = await connect('app.db');
  step('open', await count(app));

  await app.query('SELECT replica_sync()');
  step('sync', await count(app));

  await write(app, 'written here');
  step('write', await count(app));

  const secret = await connect('secret.db', { encryption_key: 'env:KEY' });
  await write(secret, 'sealed here');
  step('encrypted', await count(secret));

  const live = await connect('live.db', { live: 1 });
  const before = await count(live);
  step('live', before);
  await untilItChanges(() => count(live), before);
  step('seen', await count(live));

  const second = await open('app.db');
  await write(second, 'a second connection');
  step('second', await count(app));

  await eightWorkers();
  step('threads', await count(app));

  loader.loadExtension(LIBREPLICA); // once more is harmless
  step('again', await count(second));

  await app.runMigrations();
  step('migrate', (await app.query('SELECT count(*) AS rows FROM tracks'))[0].rows);
  for (const db of [app, secret, live, second]) await db.destroy();
}

async function work(number) {
  const db = await open('app.db');
  for (let row = 0; row < 5; row++) await write(db, `thread ${number} row ${row}`);
  await db.destroy();
}

run(main, work);
