// node-sqlite3 (npm sqlite3). A URI counts only with OPEN_URI among the flags. Load once; the library stays.
// Its own busy_timeout is 1 s, which is short where many write.
const { promisify } = require('node:util');
const sqlite3 = require('sqlite3');
const { step, untilItChanges } = require('./node_steps.cjs');

const { LIBREPLICA, PRIMARY } = process.env;
const FLAGS = sqlite3.OPEN_READWRITE | sqlite3.OPEN_CREATE | sqlite3.OPEN_URI;

const open = (target) => new Promise((resolve, reject) => {
  const db = new sqlite3.Database(target, FLAGS, (error) => (error ? reject(error) : resolve(db)));
  db.configure('busyTimeout', 5000);
});
const connect = (name, options = '') => open(`file:${name}?vfs=replica&sync_url=${PRIMARY}${options}`);
const load = (db) => promisify(db.loadExtension.bind(db))(LIBREPLICA);
const close = (db) => promisify(db.close.bind(db))();
const count = async (db) => (await promisify(db.get.bind(db))('SELECT count(*) AS rows FROM notes')).rows;
const write = (db, text) => promisify(db.run.bind(db))('INSERT INTO notes(text) VALUES(?)', text);

async function work(number) {
  const db = await connect('app.db');
  for (let row = 0; row < 5; row++) await write(db, `thread ${number} row ${row}`);
  await close(db);
}

async function main() {
  const loader = await open(':memory:');
  await load(loader);
  await close(loader);
  const app = await connect('app.db');
  step('open', await count(app));

  await promisify(app.get.bind(app))('SELECT replica_sync()');
  step('sync', await count(app));

  await write(app, 'written here');
  step('write', await count(app));

  const secret = await connect('secret.db', '&encryption_key=env:KEY');
  await write(secret, 'sealed here');
  step('encrypted', await count(secret));
  await close(secret);

  const live = await connect('live.db', '&live=1');
  const before = await count(live);
  step('live', before);
  await untilItChanges(() => count(live), before);
  step('seen', await count(live));

  const second = await connect('app.db');
  await write(second, 'a second connection');
  step('second', await count(app));

  await Promise.all([...Array(8).keys()].map(work)); // each statement runs on a thread of libuv's
  step('threads', await count(app));

  await load(second); // once more is harmless
  step('again', await count(second));
}

main();
