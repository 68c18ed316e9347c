#!/usr/bin/env python3
"""Connects clients that then do nothing, and prints how many bytes of resident memory each costs the broker.

    benches/idle.py PORT PID COUNT"""

import socket
import struct
import sys
import time

port, pid, count = map(int, sys.argv[1:])
AT_ONCE = 1_000  # no more than the listener's queue holds


def resident():
    with open(f"/proc/{pid}/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def connect(numbers):
    clients = []
    for number in numbers:
        name = f"idle-{number}".encode()
        body = b"\0\4MQTT\5\2" + struct.pack(">HBH", 600, 0, len(name)) + name
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(bytes([0x10, len(body)]) + body)
        clients.append(client)
    for client in clients:
        assert client.recv(100)[0] == 0x20, "it is let in"
    return clients


clients = connect(range(200))  # what every broker needs for its first ones
before = resident()
for first in range(0, count, AT_ONCE):
    clients += connect(range(200 + first, 200 + min(first + AT_ONCE, count)))
time.sleep(1)  # memory is given back a moment later
print((resident() - before) // count)
