#!/usr/bin/env python3
"""Another client of the primary, over plain HTTP (Hrana): primary.py URL SQL, or primary.py URL < FILE.

One statement a line. Prints the rows.
"""
import json
import sys
import urllib.request

url, *sql = sys.argv[1:]
for line in sql or sys.stdin:
    if not line.strip() or line.startswith("--"):
        continue
    body = {"requests": [{"type": "execute", "stmt": {"sql": line}}, {"type": "close"}]}
    request = urllib.request.Request(f"{url}/v2/pipeline", json.dumps(body).encode())
    answer = json.load(urllib.request.urlopen(request, timeout=30))["results"][0]
    if answer["type"] != "ok":
        sys.exit(f"{answer['error']['message']}: {line}")
    for row in answer["response"]["result"]["rows"]:
        print("|".join(str(value.get("value")) for value in row))
