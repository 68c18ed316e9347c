#!/usr/bin/env python3
"""Goal by goal, from the runs that benches/run.sh and benches/variants.sh left in a folder: prints Markdown.

    benches/goals.py FOLDER

Reads main.json, guarded.json, tls.json, kept.json (runs of `mqlink bench --json`), idle.txt (bytes for each idle connection)
and core.txt (what `cargo bench --bench core` says). A goal without its figure is not judged."""

import json
import re
import statistics
import sys
from pathlib import Path

folder = Path(sys.argv[1])


def text(name):
    path = folder / name
    return path.read_text() if path.exists() else ""


class Runs:
    def __init__(self, name):
        self.runs = json.loads(text(name) or "[]")

    def of(self, scenario, target, figure="cpuUsPerUnit"):
        """The median over the rounds; nothing if there was no run."""
        found = [run[figure] for run in self.runs if (run["scenario"], run["target"]) == (scenario, target)]
        found = [value for value in found if value is not None]
        return statistics.median(found) if found else None

    def ratio(self, scenario, target, other, figure="cpuUsPerUnit"):
        one, two = self.of(scenario, target, figure), self.of(scenario, other, figure)
        return one / two if one is not None and two else None


def shown(value, digits=2):
    return "–" if value is None else f"{value:,.{digits}f}"


def verdict(*judged):
    """Of pairs of a figure and the most that it may be."""
    known = [(value, goal) for value, goal in judged if value is not None]
    if len(known) < len(judged):
        return "not judged"
    return "met" if all(value <= goal for value, goal in known) else "**missed**"


main, guarded, tls, kept = (Runs(f"{name}.json") for name in ("main", "guarded", "tls", "kept"))
LOADS = [
    ("1:1 QoS 0", "pairs=1,qos=0,window=1000", 2.5),
    ("1:1 QoS 1", "pairs=1,qos=1,window=1000", 1.4),
    ("50 pairs QoS 1", "pairs=50,qos=1,window=100", 1.3),
    ("fan-in 50:1 QoS 1", "fan-in=50,qos=1,window=20", 1.5),
    ("fan-out 1:100 QoS 0", "fan-out=100,qos=0,window=100", 1.5),
]

print("""One core, messages of 64 bytes; CPU per message (per delivery in the fan-out) as multiples of the floor in the same run.
*Main* is the table on top. *Guarded* has users, ten rules of which the last lets through, and storage.
""")
print("| multiples of the floor | goal | main | guarded | |\n|---|---|---|---|---|")
for name, variant, goal in LOADS:
    plain, full = main.ratio(name, "mqlink", "floor"), guarded.ratio(variant, "guarded", "floor")
    print(f"| {name} | {goal} | {shown(plain)} | {shown(full)} | {verdict((plain, goal), (full, goal))} |")
paced = "1:1 QoS 1, 5,000 a second"
p50, p99 = (main.ratio(paced, "mqlink", "floor", f"latency{name}Us") for name in ("P50", "P99"))
print(f"| 5,000 a second: p50 and p99 | 1.1 | {shown(p50)} and {shown(p99)} | | {verdict((p50, 1.1), (p99, 1.1))} |")
print()


def row(what, goal, figures, judged):
    print(f"| {what} | {goal} | {figures} | {verdict(*judged) if judged else ''} |")


print("| | goal | | |\n|---|---|---|---|")
crypt = [(name, tls.of(v, "tls"), guarded.of(v, "plain")) for name, v, _ in (LOADS[0], LOADS[1], LOADS[2])]
crypt = [(name, one / two if one and two else None) for name, one, two in crypt]
row("TLS 1.3 beside plain", 2, ", ".join(f"{shown(x)} ({name})" for name, x in crypt), [(x, 2) for _, x in crypt])
two = [(name, guarded.ratio(v, "two-shards", "plain")) for name, v, _ in LOADS]
row("two shards beside one, both on one core", 1.2, ", ".join(f"{shown(x)} ({name})" for name, x in two), [(x, 1.2) for _, x in two])
away = [kept.of(f"offline={n},qos=1,window={w}", "kept") for n, w in ((1, 1000), (50, 100))]
row("a QoS 1 message for a session on disk whose client is away", "3 µs", " and ".join(map(shown, away)), [(x, 3) for x in away])
ruled = [guarded.ratio(v, "guarded", "plain") for _, v, _ in LOADS]
span = f"{shown(min(ruled))} to {shown(max(ruled))}" if all(ruled) else "–"
row("users, rules and storage beside none", "", span, [])
idle = re.search(r"\d+", text("idle.txt"))
idle = int(idle[0]) if idle else None
row("RSS of an idle connection, 18,000 of them", "2,000 B", shown(idle, 0), [(idle, 2000)])
core = text("core.txt")
found = re.search(r"mixed subscriptions: (\d+) a second, (\d+) bytes each", core)
rate, size = map(int, found.groups()) if found else (None, None)
among = re.search(r"among 200,000 other filters +([\d.]+) ns", core)
among = float(among[1]) if among else None
row("200,000 mixed subscriptions", "500,000 a second", shown(rate, 0), [(rate and -rate, -500_000)])
row("one of them", "200 B", shown(size, 0), [(size, 200)])
row("a publish among them, the core alone", "1,000 ns", shown(among, 0), [(among, 1000)])
