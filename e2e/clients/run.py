#!/usr/bin/env python3
"""Runs the scenarios of scenarios.json against one broker, with the MQTT clients that people have, and writes docs/clients.md.

    run.py [--broker PATH] [--only NAME,...] [--scenario ID,...]     only a whole run writes docs/clients.md

A client is a program of its own, in the folder of its name. It is called with jobs, `qos1/5` for scenario and version (4 is MQTT
3.1.1), does them one after the other, and says of each on a line of standard output:

    qos1/5 ok
    alias/5 ok partly the library shows ...     what of the scenario cannot be seen with this client
    shared/4 cannot the library has no ...      what the client cannot do, and why
    will/5 failed ...                           anything else; details go to standard error

It finds in its environment MQ_HOST, MQ_PORT, MQ_TLS_PORT, MQ_WS_PORT, MQ_WSS_PORT, MQ_CA (a file), MQ_USER and MQ_PASSWORD. WebSocket
is served at /mqtt. Topics below its own name are its own; below forbidden/ nobody may publish or subscribe.
"""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mqlink" / "clients"
SCENARIOS = json.loads((HERE / "scenarios.json").read_text())
PROTOCOL = {4: "3.1.1", 5: "5.0"}
# The longest that all jobs of one client may take, and how many clients run at a time.
CLIENT_S, AT_ONCE = 180, 2


def pinned(file, pattern):
    return lambda: re.search(pattern, (HERE / file).read_text()).group(1)


def debian():
    shown = subprocess.run(["dpkg-query", "-Wf", "${Version}", "mosquitto-clients"], capture_output=True, text=True)
    return shown.stdout


# Name, where it comes from, its version, the program.
CLIENTS = [
    ("mosquitto", "mosquitto-clients, Debian", debian, ["python3", HERE / "mosquitto/client.py"]),
    ("paho", "paho-mqtt, PyPI", pinned("paho/requirements.txt", r"^paho-mqtt==(\S+)"),
     [CACHE / "paho/bin/python3", HERE / "paho/client.py"]),
    ("aiomqtt", "aiomqtt, PyPI", pinned("aiomqtt/requirements.txt", r"aiomqtt==(\S+)"),
     [CACHE / "aiomqtt/bin/python3", HERE / "aiomqtt/client.py"]),
    ("mqttjs", "mqtt, npm", pinned("mqttjs/package.json", r'"mqtt": "(\S+)"'), ["node", CACHE / "mqttjs/client.mjs"]),
    ("paho-go", "github.com/eclipse/paho.mqtt.golang", pinned("go/go.mod", r"paho.mqtt.golang v(\S+)"), [CACHE / "go/paho"]),
    ("autopaho", "github.com/eclipse/paho.golang", pinned("go/go.mod", r"paho.golang v(\S+)"), [CACHE / "go/autopaho"]),
    ("hivemq", "com.hivemq:hivemq-mqtt-client, Maven Central",
     pinned("hivemq/pom.xml", r"hivemq-mqtt-client</artifactId>\s*<version>([^<]+)"),
     ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{CACHE}/hivemq/classes:{CACHE}/hivemq/lib/*", "Client"]),
    ("rumqttc", "rumqttc, crates.io", pinned("rumqttc/Cargo.toml", r'rumqttc = .*"=([0-9.]+)"'),
     [CACHE / "rumqttc/release/mqlink-client-rumqttc"]),
]


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def certificates(folder):
    """A CA, and a leaf for localhost."""
    def openssl(*args):
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=mqlink clients")
    openssl("req", *key, "-keyout", "tls.key", "-out", "tls.csr", "-subj", "/CN=localhost")
    (folder / "leaf.ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
    openssl("x509", "-req", "-in", "tls.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", "leaf.ext", "-out", "tls.crt")
    return {"certificatePem": (folder / "tls.crt").read_text(), "keyPem": (folder / "tls.key").read_text()}


class Broker:
    """A broker of the binary, on free ports of 127.0.0.1, while the `with` block runs."""

    def __init__(self, binary):
        self.binary, self.folder = binary, tempfile.TemporaryDirectory()

    def __enter__(self):
        folder = Path(self.folder.name)
        tls = certificates(folder)
        names = ["MQTT", "MQTTS", "WS", "WSS"]
        ports = dict(zip(names, free_ports(len(names))))
        listeners = [{"name": name.lower(), "protocol": name, "port": port} | ({"tls": tls} if name.endswith("S") and name != "WS" else {})
                     for name, port in ports.items()]
        settings = {
            "cluster": "clients",
            "listeners": listeners,
            "authentication": {"users": [{"name": "user", "secret": "plain:right"}]},
            "authorization": {
                "default": "Allow",
                "rules": [{"action": "All", "filters": ["forbidden/#"], "effect": "Deny"}],
            },
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        self.log = open(folder / "log", "w+")
        self.process = subprocess.Popen([self.binary, "--log", "warn", "broker", "--config", folder / "settings.json"],
                                        stderr=self.log)
        for port in ports.values():
            self.await_port(port)
        self.env = os.environ | {
            "MQ_HOST": "localhost", "MQ_PORT": str(ports["MQTT"]), "MQ_TLS_PORT": str(ports["MQTTS"]),
            "MQ_WS_PORT": str(ports["WS"]), "MQ_WSS_PORT": str(ports["WSS"]), "MQ_CA": str(folder / "ca.crt"),
            "MQ_USER": "user", "MQ_PASSWORD": "right",
        }
        return self

    def await_port(self, port):
        deadline = time.monotonic() + 10
        while True:
            try:
                return socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.log.seek(0)
                    sys.exit(f"the broker does not listen on port {port}:\n{self.log.read()}")
                time.sleep(0.05)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=15)
        self.log.seek(0)
        sys.stderr.write(self.log.read())
        self.folder.cleanup()


def run_client(client, jobs, env, verbose):
    """What each job came to: (`ok` | `cannot` | `failed`, why); `ok` has a reason if it is a part only."""
    name, _, _, command = client
    results = {}
    process = subprocess.Popen([*command, *jobs], env=env, stdout=subprocess.PIPE,
                               stderr=None if verbose else subprocess.DEVNULL, text=True)
    too_long = threading.Timer(CLIENT_S, process.kill)
    too_long.start()
    for line in process.stdout:
        job, result, why = (line.strip() + "  ").split(" ", 2)
        results[job] = (result, why.strip().removeprefix("partly "))
        print(f"{name:10} {line.strip()}", flush=True)
    process.wait()
    too_long.cancel()
    for job in jobs:
        if job not in results:
            results[job] = ("failed", f"no word about it (exit {process.returncode})")
            print(f"{name:10} {job} failed: no word about it", flush=True)
    return results


def document(binary, results):
    """docs/clients.md."""
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    # Cargo's folders are called by the profile.
    build = "release" if binary.resolve().parent.name == "release" else "debug"
    shown = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    commit = f"of {shown.stdout.strip()}, " if shown.returncode == 0 else ""
    reasons = []

    def cell(name, scenario, protocol):
        if protocol not in scenario["versions"]:
            return ""
        result, why = results[name][f"{scenario['id']}/{protocol}"]
        if (result, why) == ("ok", ""):
            return "✓"
        if why not in reasons:
            reasons.append(why)
        mark = {"ok": "◐", "cannot": "–"}.get(result, "**✗**")
        return f"{mark} [{reasons.index(why) + 1}]"

    table = []
    for scenario in SCENARIOS:
        for protocol in sorted(scenario["versions"], reverse=True):
            cells = [cell(name, scenario, protocol) for name, *_ in CLIENTS]
            table.append(f"| {scenario['title']} | {PROTOCOL[protocol]} | {' | '.join(cells)} |")
    names = [name for name, *_ in CLIENTS]
    counts = ["partly" if result == "ok" and why else result for found in results.values() for result, why in found.values()]
    lines = [
        "# Clients of others",
        "",
        "<!-- Written by `make clients`; scenarios are in e2e/clients/scenarios.json. -->",
        "",
        f"What MQTT clients that people have do with {version} ({commit}{build} build): {counts.count('ok')} of {len(counts)} scenarios work, "
        f"{counts.count('partly')} as far as the client shows it, "
        f"{counts.count('cannot')} a client cannot do by itself, {counts.count('failed')} fail.",
        "",
        "| | from | version |", "|---|---|---|",
        *(f"| {name} | {source} | {version_of()} |" for name, source, version_of, _ in CLIENTS),
        "",
        f"| | MQTT | {' | '.join(names)} |", "|---|---|" + ":-:|" * len(names),
        *table,
        "",
        "✓ works; ◐ works, and a part cannot be seen with this client; – the client cannot do it; **✗** fails.",
        "",
        *(f"{number}. {reason}" for number, reason in enumerate(reasons, 1)),
        "",
        "## What is done",
        "",
        *(f"- **{scenario['title']}**: {scenario['says']}." for scenario in SCENARIOS),
        "",
    ]
    (ROOT / "docs/clients.md").write_text("\n".join(lines))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker", default=ROOT / "target/release/mqlink", type=Path)
    parser.add_argument("--only", help="names of clients")
    parser.add_argument("--scenario", help="ids of scenarios")
    parser.add_argument("--verbose", action="store_true", help="with what the programs say of failures")
    args = parser.parse_args()
    clients = [client for client in CLIENTS if not args.only or client[0] in args.only.split(",")]
    scenarios = [scenario for scenario in SCENARIOS if not args.scenario or scenario["id"] in args.scenario.split(",")]
    jobs = [f"{scenario['id']}/{version}" for scenario in scenarios for version in scenario["versions"]]
    with Broker(args.broker) as broker, ThreadPoolExecutor(AT_ONCE) as pool:
        runs = {client[0]: pool.submit(run_client, client, jobs, broker.env, args.verbose) for client in clients}
        results = {name: run.result() for name, run in runs.items()}
    if not args.only and not args.scenario:
        document(args.broker, results)
    failed = sum(result == "failed" for found in results.values() for result, _ in found.values())
    counts = sum(len(found) for found in results.values())
    print(f"{counts - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
