// What the programs of Node share: no word of it is needed to use the library.
const { readSync, writeSync } = require('node:fs');
const { setTimeout: sleep } = require('node:timers/promises');
const { Worker, isMainThread, workerData } = require('node:worker_threads');

const line = Buffer.alloc(1);

// Tells the test how far the program is, and waits for it.
function step(name, value) {
  writeSync(1, `${name} ${value}\n`);
  readSync(0, line);
}

// Looks again until there is something else, at most ten seconds.
async function untilItChanges(look, before) {
  for (let i = 0; i < 1000 && (await look()) === before; i++) await sleep(10);
}

// The whole program in eight workers at once: there it is run(main, work) that does work(number).
function eightWorkers() {
  return Promise.all([...Array(8).keys()].map((number) => new Promise((resolve, reject) => {
    const worker = new Worker(process.argv[1], { workerData: number, argv: process.argv.slice(2) });
    worker.on('error', reject).on('exit', resolve);
  })));
}

function run(main, work) {
  return isMainThread ? main() : work(workerData);
}

module.exports = { step, untilItChanges, eightWorkers, run };
