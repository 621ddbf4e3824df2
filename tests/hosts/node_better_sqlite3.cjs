// better-sqlite3. It takes no URIs: replica_open() makes every later open of a path, in workers too, this replica.
// Load once; the library stays in the process. Version 13 wants Node 22 or newer.
const Database = require('better-sqlite3');
const { step, untilItChanges, eightWorkers, run } = require('./node_steps.cjs');

const { LIBREPLICA, PRIMARY } = process.env;

const count = (db) => db.prepare('SELECT count(*) FROM notes').pluck().get();
const write = (db, text) => db.prepare('INSERT INTO notes(text) VALUES(?)').run(text);

async function main() {
  const loader = new Database(':memory:');
  loader.loadExtension(LIBREPLICA);
  const connect = (name, options) => {
    const all = JSON.stringify({ sync_url: PRIMARY, ...options });
    loader.prepare('SELECT replica_open(?, ?)').get(name, all);
    return new Database(name);
  };
  const app = connect('app.db');
  step('open', count(app));

  app.prepare('SELECT replica_sync()').get();
  step('sync', count(app));

  write(app, 'written here');
  step('write', count(app));

  const secret = connect('secret.db', { encryption_key: 'env:KEY' });
  write(secret, 'sealed here');
  step('encrypted', count(secret));
  secret.close();

  const live = connect('live.db', { live: 1 });
  const before = count(live);
  step('live', before);
  await untilItChanges(() => count(live), before);
  step('seen', count(live));

  const second = new Database('app.db');
  write(second, 'a second connection');
  step('second', count(app));

  await eightWorkers();
  step('threads', count(app));

  second.loadExtension(LIBREPLICA); // once more is harmless
  step('again', count(second));
}

function work(number) {
  const db = new Database('app.db');
  for (let row = 0; row < 5; row++) write(db, `thread ${number} row ${row}`);
  db.close();
}

run(main, work);
