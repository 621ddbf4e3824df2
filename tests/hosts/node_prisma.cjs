// Prisma with its better-sqlite3 adapter (`prisma migrate` has an engine of its own that loads nothing). Load once,
// with the driver itself; replica_open() makes every later open of a path, in workers too, this replica.
const path = require('node:path');
const Database = require('better-sqlite3');
const { PrismaBetterSqlite3 } = require('@prisma/adapter-better-sqlite3');
const { step, untilItChanges, eightWorkers, run } = require('./node_steps.cjs');
const { PrismaClient } = require('@prisma/client'); // made of prisma.prisma by `prisma generate`

const { LIBREPLICA, PRIMARY } = process.env;

const open = (name) => new PrismaClient({ adapter: new PrismaBetterSqlite3({ url: `file:${path.resolve(name)}` }) });
const count = (db) => db.note.count();
const write = (db, text) => db.note.create({ data: { text } });

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

  await app.$queryRaw`SELECT replica_sync()`;
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
  for (const db of [app, secret, live, second]) await db.$disconnect();
}

async function work(number) {
  const db = open('app.db');
  for (let row = 0; row < 5; row++) await write(db, `thread ${number} row ${row}`);
  await db.$disconnect();
}

run(main, work);
