// node:sqlite, as Node (22.13 or newer) and deno have it. A `file:` URI counts. Load once; the library stays.
// `timeout`: its default is 0, with which a plain INSERT is "database is locked" whenever others have written.
import { readSync, writeSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker, isMainThread, workerData } from 'node:worker_threads';

const { LIBREPLICA, PRIMARY } = process.env;
const line = Buffer.alloc(1);

function step(name, value) {
  writeSync(1, Buffer.from(`${name} ${value}\n`));
  readSync(0, line);
}

const connect = (name, options = '') =>
  new DatabaseSync(`file:${name}?vfs=replica&sync_url=${PRIMARY}${options}`, { allowExtension: true, timeout: 5000 });
const count = (db) => db.prepare('SELECT count(*) AS rows FROM notes').get().rows;
const write = (db, text) => db.prepare('INSERT INTO notes(text) VALUES(?)').run(text);

async function main() {
  const loader = new DatabaseSync(':memory:', { allowExtension: true });
  loader.loadExtension(LIBREPLICA);
  loader.close();
  const app = connect('app.db');
  step('open', count(app));

  app.prepare('SELECT replica_sync()').get();
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
  for (let i = 0; i < 1000 && count(live) === before; i++) await sleep(10);
  step('seen', count(live));

  const second = connect('app.db');
  write(second, 'a second connection');
  step('second', count(app));

  await Promise.all([...Array(8).keys()].map((number) => new Promise((resolve, reject) => {
    new Worker(new URL(import.meta.url), { workerData: number }).on('error', reject).on('exit', resolve);
  })));
  step('threads', count(app));

  second.loadExtension(LIBREPLICA); // once more is harmless
  step('again', count(second));
}

function work(number) {
  const db = connect('app.db');
  for (let row = 0; row < 5; row++) write(db, `thread ${number} row ${row}`);
  db.close();
}

if (isMainThread) await main();
else work(workerData);
