// bun:sqlite. A URI counts only with SQLITE_OPEN_URI among the flags. Load once; the library stays in the process.
import { Database, constants } from 'bun:sqlite';
import { readSync, writeSync } from 'node:fs';

const { LIBREPLICA, PRIMARY } = process.env;
const FLAGS = constants.SQLITE_OPEN_READWRITE | constants.SQLITE_OPEN_CREATE | constants.SQLITE_OPEN_URI;
const line = Buffer.alloc(1);

function step(name, value) {
  writeSync(1, `${name} ${value}\n`);
  readSync(0, line);
}

const connect = (name, options = '') =>
  new Database(`file:${name}?vfs=replica&sync_url=${PRIMARY}${options}`, FLAGS);
const count = (db) => db.query('SELECT count(*) AS rows FROM notes').get().rows;
const write = (db, text) => db.query('INSERT INTO notes(text) VALUES(?)').run(text);

async function main() {
  const loader = new Database(':memory:');
  loader.loadExtension(LIBREPLICA);
  loader.close();
  const app = connect('app.db');
  step('open', count(app));

  app.query('SELECT replica_sync()').get();
  step('sync', count(app));

  write(app, 'written here');
  step('write', count(app));

  const secret = connect('secret.db', '&encryption_key=env:KEY');
  write(secret, 'sealed here');
  step('encrypted', count(secret));
  secret.close();

  const live = connect('live.db', '&live=1');
  const before = count(live);
  step('live', before);
  for (let i = 0; i < 1000 && count(live) === before; i++) await Bun.sleep(10);
  step('seen', count(live));

  const second = connect('app.db');
  write(second, 'a second connection');
  step('second', count(app));

  await Promise.all([...Array(8).keys()].map((number) => new Promise((resolve, reject) => {
    const worker = new Worker(import.meta.url);
    worker.onmessage = () => worker.terminate();
    worker.onerror = (event) => reject(event.message);
    worker.addEventListener('close', resolve);
    worker.postMessage(number);
  })));
  step('threads', count(app));

  second.loadExtension(LIBREPLICA); // once more is harmless
  step('again', count(second));
}

function work({ data: number }) {
  const db = connect('app.db');
  for (let row = 0; row < 5; row++) write(db, `thread ${number} row ${row}`);
  db.close();
  postMessage('done');
}

if (Bun.isMainThread) await main();
else self.onmessage = work;
