// The npm client of libSQL behind the commands that client.py describes (no "write").
const fs = require("fs");
const path = require("path");
const Database = require("libsql");
const lines = require("readline").createInterface({ input: process.stdin });

let db;
const commands = {
  version: () => JSON.parse(fs.readFileSync(path.join(path.dirname(require.resolve("libsql")), "package.json"))).version,
  open: (file, url) =>
    timed(() => {
      db = new Database(file, { syncUrl: url, authToken: "" });
      db.sync();
    }),
  sync: () => timed(() => db.sync()),
  query: (sql) => db.prepare(sql).raw().all(),
  memory: () => process.resourceUsage().maxRSS / 1e3,
};

function timed(work) {
  const start = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - start) / 1e9;
}

lines.on("line", (line) => {
  const [command, ...args] = JSON.parse(line);
  let reply;
  try {
    reply = { ok: commands[command](...args) };
  } catch (e) {
    reply = { error: String(e) };
  }
  process.stdout.write(JSON.stringify(reply) + "\n");
});
