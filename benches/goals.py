#!/usr/bin/env python3
"""Goal by goal, from the runs that benches/run.sh and benches/variants.sh left in a folder: prints Markdown.

    benches/goals.py FOLDER

Reads main.json, guarded.json, kept.json (runs of `mqlink bench --json`), idle.txt (bytes for each idle connection) and core.txt
(what `benches/core.rs` says). A goal without its figure is not judged, and a floor above us is said to be none."""

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


main, guarded, kept = (Runs(f"{name}.json") for name in ("main", "guarded", "kept"))
LOADS = [
    ("1:1 QoS 0", "pairs=1,qos=0,window=1000", 2.5),
    ("1:1 QoS 1", "pairs=1,qos=1,window=1000", 1.4),
    ("50 pairs QoS 1", "pairs=50,qos=1,window=100", 1.3),
    ("fan-in 50:1 QoS 1", "fan-in=50,qos=1,window=20", 1.5),
    ("fan-out 1:100 QoS 0", "fan-out=100,qos=0,window=100", 1.5),
]
# A cost that is this much below the floor's is more than noise: then the floor is not the least that a broker can cost.
FLOOR_NOISE = 0.95

print("""One core, messages of 64 bytes; CPU per message (per delivery in the fan-out) as multiples of the floor in the same run.
*Main* is the table on top. *Guarded* has users, ten rules of which the last lets through, storage, and metrics that are read each second.
""")
print("| multiples of the floor | goal | main | guarded | |\n|---|---|---|---|---|")
below = []
for name, variant, goal in LOADS:
    plain, full = main.ratio(name, "mqlink", "floor"), guarded.ratio(variant, "guarded", "floor")
    below += [name] if any(ratio is not None and ratio < FLOOR_NOISE for ratio in (plain, full)) else []
    print(f"| {name} | {goal} | {shown(plain)} | {shown(full)} | {verdict((plain, goal), (full, goal))} |")


def latencies(runs, scenario, target):
    return [runs.ratio(scenario, target, "floor", f"latency{name}Us") for name in ("P50", "P99")]


paced = latencies(main, "1:1 QoS 1, 5,000 a second", "mqlink"), latencies(guarded, "pairs=1,qos=1,rate=5000", "guarded")
judged = verdict(*((ratio, 1.1) for both in paced for ratio in both))
print(f"| 5,000 a second: p50 and p99 | 1.1 | {' | '.join(' and '.join(map(shown, both)) for both in paced)} | {judged} |")
print()
if below:
    print(f"Below the floor: {', '.join(below)}. There the floor is none: a broker can do with less, and the ratio says little.\n")
gone = [run for runs in (main, guarded, kept) for run in runs.runs if run["lost"] or run["stalls"]]
if gone:
    told = (f"{run['scenario']}, {run['target']}: {run['lost']} lost, {run['stalls']} stalls" for run in gone)
    print(f"Not all went well: {'; '.join(told)}.\n")


def row(what, goal, figures, judged):
    print(f"| {what} | {goal} | {figures} | {verdict(*judged) if judged else ''} |")


def busy(target, variant):
    """Of its core the share that a target, or the generator, was busy."""
    rate = guarded.of(variant, target, "unitsPerSecond")
    costs = [guarded.of(variant, target, name) for name in ("cpuUsPerUnit", "generatorCpuUsPerUnit")]
    return " and ".join("–" if None in (rate, cost) else f"{rate * cost / 10_000:.0f} %" for cost in costs)


def named(pairs):
    return ", ".join(f"{shown(ratio)} ({name})" for name, ratio in pairs)


print("| | goal | | |\n|---|---|---|---|")
crypt = [(name, guarded.ratio(v, "tls", "plain")) for name, v, _ in LOADS]
row("TLS 1.3 beside plain, in the same rounds", 2, named(crypt), [(x, 2) for _, x in crypt])
row("of their cores the broker with TLS and the generator were busy", "", busy("tls", LOADS[1][1]) + " (1:1 QoS 1)", [])
crossing = sorted({run["scenario"] for run in guarded.runs if "clients=" in run["scenario"]}) or ["none", "none"]
two = [(f"{name}, across", guarded.ratio(v, "two-shards", "plain")) for (name, *_), v in zip(LOADS, crossing)]
two += [(name, guarded.ratio(v, "two-shards", "plain")) for name, v, _ in LOADS[2:]]
row("two shards beside one, both on one core", 1.2, named(two), [(x, 1.2) for _, x in two])
away = [kept.of(f"offline={n},qos=1,window={w}", "kept") for n, w in ((1, 1000), (50, 100))]
row("a QoS 1 message for a session on disk whose client is away", "3 µs", " and ".join(map(shown, away)), [(x, 3) for x in away])
ruled = [(name, guarded.ratio(v, "guarded", "plain")) for name, v, _ in LOADS]
row("users, rules, storage and metrics beside none", "", named(ruled), [])
idle = re.search(r"\d+", text("idle.txt"))
idle = int(idle[0]) if idle else None
row("RSS of an idle connection, 18,000 of them", "2,000 B", shown(idle, 0), [(idle, 2000)])
core = text("core.txt")
found = re.search(r"mixed subscriptions: (\d+) a second, (\d+) bytes each", core)
rate, size = map(int, found.groups()) if found else (None, None)
among = re.search(r"to one of 200,000 +([\d.]+) ns", core)
among = float(among[1]) if among else None
row("200,000 mixed subscriptions", "500,000 a second", shown(rate, 0), [(rate and -rate, -500_000)])
row("one of them", "200 B", shown(size, 0), [(size, 200)])
row("a publish to one of them in turn, the core alone", "1,000 ns", shown(among, 0), [(among, 1000)])
