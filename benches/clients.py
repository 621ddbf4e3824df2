"""The clients compared, each in a process of its own."""
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
OURS, PYTHON, NODE, HRANA = "libreplica", "libsql-experimental (PyPI)", "libsql (npm)", "bare Hrana"


class Client:
    def __init__(self, name, deps, library=None):
        script = os.path.join(HERE, "client.py")
        command = {
            OURS: [sys.executable, script, "libreplica", library],
            PYTHON: [sys.executable, script, "libsql-experimental"],
            NODE: ["node", os.path.join(HERE, "client.js")],
            HRANA: [sys.executable, script, "hrana"],
        }[name]
        env = {**os.environ, "PYTHONPATH": os.path.join(deps, "py"), "NODE_PATH": os.path.join(deps, "node_modules"),
               "PYTHONDONTWRITEBYTECODE": "1", "RUST_LOG": "off"}
        self.name = name
        self.process = subprocess.Popen(command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self, command, *args):
        self.process.stdin.write(json.dumps([command, *args]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        reply = json.loads(line) if line else {"error": f"ended with status {self.process.wait()}"}
        if "error" in reply:
            raise RuntimeError(f"{self.name}: {command} {args}: {reply['error']}")
        return reply["ok"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
