// knex on better-sqlite3. Load once, with the driver itself; replica_open() makes every later open of a path, in
// workers too, this replica. knex turns foreign keys off while it makes a table anew.
const Database = require('better-sqlite3');
const knex = require('knex');
const { step, untilItChanges, eightWorkers, run } = require('./node_steps.cjs');

const { LIBREPLICA, PRIMARY } = process.env;

const open = (filename) => knex({ client: 'better-sqlite3', connection: { filename }, useNullAsDefault: true });
const count = async (db, table = 'notes') => (await db(table).count({ rows: '*' }))[0].rows;
const write = (db, text) => db.transaction((transaction) => transaction('notes').insert({ text }));

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

  await app.raw('SELECT replica_sync()');
  step('sync', await count(app));

  await write(app, 'written here');
  step('write', await count(app));

  const secret = connect('secret.db', { encryption_key: 'env:KEY' });
  await write(secret, 'sealed here');
  step('encrypted', await count(secret));

  const live = connect('live.db', { live: 1 });
  const before = await count(live);
  step('live', before);
  await untilItChanges(() => count(live), before);
  step('seen', await count(live));

  const second = open('app.db');
  await write(second, 'a second connection');
  step('second', await count(app));

  await eightWorkers();
  step('threads', await count(app));

  loader.loadExtension(LIBREPLICA); // once more is harmless
  step('again', await count(second));

  await app.schema.alterTable('albums', (albums) => albums.text('title').notNullable().alter());
  step('migrate', await count(app, 'tracks'));
  for (const db of [app, secret, live, second]) await db.destroy();
}

async function work(number) {
  const db = open('app.db');
  for (let row = 0; row < 5; row++) await write(db, `thread ${number} row ${row}`);
  await db.destroy();
}

run(main, work);
