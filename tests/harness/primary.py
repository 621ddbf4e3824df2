"""A real primary (sqld) on a free loopback port."""
import base64
import http.client
import json
import shutil
import socket
import subprocess
import time
from pathlib import Path

from .paths import SQLD
from .wire import Puller


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def eventually(condition, seconds=10.0, pause=0.02, what="condition"):
    """Waits until condition() is true and returns its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(pause)


class SqlFailed(Exception):
    pass


class Primary:
    """`options`: sqld's, with underscores: max_log_duration=1, auth_jwt_key_file=…, enable_namespaces=True."""

    def __init__(self, directory, port=None, **options):
        self.directory, self.options = Path(directory), options
        self.port = port or free_port()
        self.admin_port = free_port() if options.get("enable_namespaces") else None
        self.token = None
        self.process = None
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def data_file(self, namespace="default"):
        return self.directory / "dbs" / namespace / "data"

    # --- life ---

    def start(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        command = [SQLD, "--db-path", self.directory, "--no-welcome", "--http-listen-addr", f"127.0.0.1:{self.port}"]
        if self.admin_port:
            command += ["--admin-listen-addr", f"127.0.0.1:{self.admin_port}"]
        for name, value in self.options.items():
            command += ["--" + name.replace("_", "-")] + ([] if value is True else [str(value)])
        with open(self.directory.with_suffix(".log"), "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        eventually(self._healthy, what=f"primary at {self.url}")

    def _healthy(self):
        assert self.process.poll() is None, self.directory.with_suffix(".log").read_text()[-2000:]
        http_ = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            http_.request("GET", "/health")
            return http_.getresponse().status == 200
        except OSError:
            return False
        finally:
            http_.close()

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def restart(self):
        self.stop()
        self.start()

    def wipe(self):
        """Stops and comes back on the same port with nothing."""
        self.stop()
        shutil.rmtree(self.directory)
        self.start()

    # --- SQL ---

    def post(self, port, path, body, headers=()):
        http_ = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            http_.request("POST", path, json.dumps(body), {"content-type": "application/json", **dict(headers)})
            answer = http_.getresponse()
            text = answer.read().decode()
        finally:
            http_.close()
        if answer.status != 200:
            raise SqlFailed(f"HTTP {answer.status}: {text}")
        return json.loads(text or "null")

    def pipeline(self, requests, namespace="default"):
        headers = {"x-namespace-bin": base64.b64encode(namespace.encode()).decode().rstrip("=")}
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        results = self.post(self.port, "/v2/pipeline", {"requests": [*requests, {"type": "close"}]}, headers)["results"]
        for result in results:
            if result["type"] == "error":
                raise SqlFailed(result["error"]["message"])
        return [result["response"] for result in results[:-1]]

    def sql(self, text, *args, namespace="default"):
        """One statement; its rows as lists of Python values."""
        statement = {"sql": text, "args": [_to_hrana(a) for a in args]}
        (answer,) = self.pipeline([{"type": "execute", "stmt": statement}], namespace)
        return [[_from_hrana(v) for v in row] for row in answer["result"]["rows"]]

    def script(self, text, namespace="default"):
        """Several statements, each a transaction of its own unless the text says otherwise."""
        self.pipeline([{"type": "sequence", "sql": text}], namespace)

    def transaction(self, *statements):
        """Statements, or (sql, args), as one transaction."""
        pairs = [(s, ()) if isinstance(s, str) else s for s in ("BEGIN IMMEDIATE", *statements, "COMMIT")]
        steps = [{"stmt": {"sql": sql, "args": [_to_hrana(a) for a in args]}} for sql, args in pairs]
        for i, step in enumerate(steps[1:]):
            step["condition"] = {"type": "ok", "step": i}
        (answer,) = self.pipeline([{"type": "batch", "batch": {"steps": steps}}])
        for error in answer["result"]["step_errors"]:
            if error:
                raise SqlFailed(error["message"])

    def stream(self):
        """A client's stream of its own: `with primary.stream() as run: run("BEGIN IMMEDIATE")`."""
        return SqlStream(self)

    def create_namespace(self, name):
        self.post(self.admin_port, f"/v1/namespaces/{name}/create", {})

    # --- the oracle ---

    def puller(self, namespace="default"):
        return Puller(self.url, namespace, self.token)

    def image(self, namespace="default", verify=False):
        puller = self.puller(namespace)
        try:
            return puller.image(verify)
        finally:
            puller.close()

    def hello(self):
        """(log_id, newest frame) now."""
        puller = self.puller()
        try:
            return puller.hello()
        finally:
            puller.close()

    def snapshot_needed(self, offset=0):
        """Is the log compacted past this frame?"""
        puller = self.puller()
        try:
            puller.hello()
            puller.batch(offset)
            return False
        except Exception as error:
            if "NEED_SNAPSHOT" in str(error):
                return True
            raise
        finally:
            puller.close()


class SqlStream:
    def __init__(self, primary):
        self.primary, self.baton = primary, None

    def _ask(self, request):
        body = {"baton": self.baton, "requests": [request]}
        answer = self.primary.post(self.primary.port, "/v2/pipeline", body)
        self.baton = answer["baton"]
        (result,) = answer["results"]
        if result["type"] == "error":
            raise SqlFailed(result["error"]["message"])
        return result["response"]

    def __call__(self, sql, *args):
        stmt = {"sql": sql, "args": [_to_hrana(a) for a in args]}
        rows = self._ask({"type": "execute", "stmt": stmt})["result"]["rows"]
        return [[_from_hrana(v) for v in row] for row in rows]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.baton:
            try:
                self._ask({"type": "close"})
            except (SqlFailed, OSError):
                pass  # it is gone already


def _to_hrana(value):
    if value is None:
        return {"type": "null"}
    if isinstance(value, int):
        return {"type": "integer", "value": str(value)}
    if isinstance(value, float):
        return {"type": "float", "value": value}
    if isinstance(value, bytes):
        return {"type": "blob", "base64": base64.b64encode(value).decode()}
    return {"type": "text", "value": value}


def _from_hrana(value):
    kind = value["type"]
    if kind == "integer":
        return int(value["value"])
    if kind == "blob":
        text = value["base64"]
        return base64.b64decode(text + "=" * (-len(text) % 4))
    return value.get("value")
