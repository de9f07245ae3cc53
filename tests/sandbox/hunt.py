"""Look for planted secrets wherever code can look, and print the names of those that it finds.

It runs as a script with one argument, JSON with `places`, files to read, `processes`, whose /proc to
read, `sockets`, `ports` and `abstract`. Secrets look like `CANARY-name-` and 16 hexadecimal digits.
"""

import glob
import json
import os
import re
import socket
import sys
from contextlib import suppress

found = set()


def look(data):
    found.update(name.decode() for name in re.findall(rb"CANARY-([a-z]+)-[0-9a-f]{16}", data))


def read(path):
    with suppress(OSError), open(path, "rb") as file:
        look(file.read(1 << 24))


def look_at_memory(process):
    with suppress(OSError, ValueError), open(f"/proc/{process}/maps") as maps:
        for line in maps:
            area, rights, *_ = line.split()
            first, end = (int(number, 16) for number in area.split("-"))
            if rights.startswith("rw") and end - first < 1 << 27:
                with suppress(OSError), open(f"/proc/{process}/mem", "rb", 0) as memory:
                    memory.seek(first)
                    look(memory.read(end - first))


def ask(family, address, request):
    connection = socket.socket(family)
    with connection, suppress(OSError):
        connection.settimeout(2)
        connection.connect(address)
        connection.sendall(request)
        while data := connection.recv(1 << 16):
            look(data)


plan = json.loads(sys.argv[1])
look(repr(dict(os.environ)).encode())
for path in plan["places"]:
    read(path)
inside = []
with suppress(PermissionError):  # where no part of it is shown
    inside = [name for name in os.listdir("/proc") if name.isdecimal() and int(name) != os.getpid()]
for process in plan["processes"] or inside:
    for name in ("environ", "cmdline"):
        with suppress(OSError), open(f"/proc/{process}/{name}", "rb") as file:
            if b"CANARY-" in file.read():
                found.add(f"proc{name}")
    for path in glob.glob(f"/proc/{process}/fd/*"):
        if os.path.isfile(path):
            read(path)
    look_at_memory(process)
for number in range(3, 64):
    with suppress(OSError):
        look(os.pread(number, 1 << 16, 0))
if not plan["processes"]:  # in the sandbox, where few files are
    plan["sockets"] += glob.glob("/tmp/**/*.sock", recursive=True)
    plan["sockets"] += glob.glob("/run/**/*.sock", recursive=True)
REQUEST = b"GET /v1/sources HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
for path in plan["sockets"]:
    ask(socket.AF_UNIX, path, REQUEST)
for port in plan["ports"]:
    ask(socket.AF_INET, ("127.0.0.1", port), b"\n")
ask(socket.AF_INET, ("169.254.169.254", 80), b"GET /latest/meta-data/ HTTP/1.0\r\n\r\n")
for name in plan["abstract"]:
    ask(socket.AF_UNIX, "\0" + name, b"\n")
print(json.dumps(sorted(found)))
