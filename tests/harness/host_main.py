"""Runs in a process of its own under /usr/bin/python3: opens databases and runs SQL as told by lines on stdin.

A thread for each connection, so that one may wait while others go on.
"""
import contextlib
import json
import os
import queue
import sqlite3
import sys
import threading
import time

connections = {}
opened = {}  # what a forked child inherits
output = threading.Lock()
# A SQLite without mutexes is used by one thread at a time.
turn = threading.Lock() if sqlite3.threadsafety == 0 else contextlib.nullcontext()


def dump(value):
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def load(value):
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value


def reply(ticket, **fields):
    with output:
        print(json.dumps({"ticket": ticket, **fields}), flush=True)


def loaded(connection, library):
    connection.enable_load_extension(True)
    connection.load_extension(library)
    connection.enable_load_extension(False)


def open_database(target, uri, library=None):
    connection = sqlite3.connect(target, uri=uri, isolation_level=None, check_same_thread=False)
    connection.text_factory = lambda b: b.decode("utf-8", "surrogateescape")
    if library:
        loaded(connection, library)
    return connection


def answer(request, connection):
    """Does what is asked; the connection, None when it is closed."""
    ticket = request["ticket"]
    if request["op"] == "open":
        connection = open_database(request["target"], request["uri"], request.get("library"))
        opened[request["name"]] = connection
        reply(ticket)
    elif request["op"] == "sql":
        cursor = connection.execute(request["sql"], [load(a) for a in request["args"]])
        rows = [[dump(v) for v in row] for row in cursor.fetchall()]
        reply(ticket, rows=rows, columns=[c[0] for c in cursor.description or ()])
    elif request["op"] == "script":
        connection.executescript(request["sql"])
        reply(ticket)
    elif request["op"] == "progress":  # a handler that ends whatever runs once the time is over
        ends = time.monotonic() + request["seconds"]
        connection.set_progress_handler(lambda: time.monotonic() > ends, request["steps"])
        reply(ticket)
    elif request["op"] == "close":
        connection.close()
        opened.pop(request["name"], None)
        connections.pop(request["name"], None)
        reply(ticket)
        return None
    return connection


def serve(inbox):
    connection = None
    while True:
        request = inbox.get()
        ticket = request["ticket"]
        try:
            with turn:
                connection = answer(request, connection)
            if connection is None:
                return
        except sqlite3.Error as error:
            reply(ticket, error=str(error), code=getattr(error, "sqlite_errorcode", None), kind=type(error).__name__)
        except Exception as error:
            reply(ticket, error=f"{type(error).__name__}: {error}", code=None, kind=type(error).__name__)


def fork_and_run(code):
    """Runs code in a forked child and returns its exit status."""
    child = os.fork()
    if child == 0:
        try:
            exec(code, {"open_database": open_database, "inherited": opened})
            os._exit(0)
        except BaseException as error:
            print(f"in the fork: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


for line in sys.stdin:
    request = json.loads(line)
    op, ticket = request["op"], request["ticket"]
    if op == "exit":
        break
    elif op == "interrupt":
        opened[request["name"]].interrupt()
        reply(ticket)
    elif op == "fork":
        reply(ticket, rows=[[fork_and_run(request["code"])]])
    else:
        if op == "open":
            inbox = connections[request["name"]] = queue.Queue()
            threading.Thread(target=serve, args=(inbox,), daemon=True).start()
        connections[request["name"]].put(request)
