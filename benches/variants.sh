#!/usr/bin/env bash
# Measures mqlink against itself and the floor: with users, rules and storage; with two shards; over TLS; for subscribers that
# are away; with idle connections. Prints Markdown. The brokers run on one core, the generator on another.
#   benches/variants.sh MQLINK FOLDER [OPTIONS OF mqlink bench]    leaves every run in the folder, as JSON
set -euo pipefail
cd "$(dirname "$0")/.."
mqlink=$1
runs=$2
shift 2

work=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap finish EXIT
BROKERS='taskset -c 0'
GENERATOR='taskset -c 1'

# wait_for PORT: until something listens there.
wait_for() {
    for _ in $(seq 300); do
        (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
        sleep 0.1
    done
    echo "nothing listens on port $1" >&2
    exit 1
}

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=bench \
    -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=broker \
    -keyout "$work/key.pem" -out "$work/request.pem" 2>/dev/null
printf 'subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' >"$work/extensions"
openssl x509 -req -in "$work/request.pem" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 2 \
    -extfile "$work/extensions" -out "$work/cert.pem" 2>/dev/null

# settings NAME PORT SHARDS: a document with a user; `guarded` has ten rules of which the last counts, `tls` its certificate.
settings() {
    python3 - "$@" "$work" <<'PY'
import json, sys
name, port, shards, work = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
read = lambda file: open(f"{work}/{file}.pem").read()
listener = {"name": "mqtt", "protocol": "MQTT", "port": port}
if name == "tls":
    listener |= {"protocol": "MQTTS", "tls": {"certificatePem": read("cert"), "keyPem": read("key")}}
document = {"cluster": "bench", "shards": shards, "listeners": [listener],
            "authentication": {"anonymous": True, "users": [{"name": "bench", "secret": "plain:bench"}]},
            # What waits for who is away must find room as long as a run takes.
            "limits": {"queuedMessagesMax": 100_000_000, "queuedBytesMax": 1 << 36}}
if name == "guarded":
    rule = lambda filter: {"action": "All", "filters": [filter], "effect": "Allow"}
    rules = [rule(f"plant/{n}/${{username}}/#") for n in range(9)] + [rule("bench/#")]
    document["authorization"] = {"default": "Deny", "rules": rules}
json.dump(document, open(f"{work}/{name}.json", "w"))
PY
}

targets=()
# start NAME PORT SHARDS [OPTIONS]: a broker on a core, as a target.
start() {
    settings "$1" "$2" "$3"
    $BROKERS "$mqlink" broker --node "$1" --config "$work/$1.json" "${@:4}" 2>"$work/$1.log" &
    started+=($!)
    targets+=(--target "$1=127.0.0.1:$2@$!")
    wait_for "$2"
}

# bench NAME OPTIONS: the table of costs of all targets that were started since the last time.
bench() {
    MQLINK_PASSWORD=bench $GENERATOR "$mqlink" bench --user bench "${targets[@]}" --json "$runs/$1.json" \
        --markdown "$work/table.md" "${@:2}"
    awk 'NF == 0 { exit } 1' "$work/table.md"
    echo
    targets=()
}
one_to_one=(--scenario pairs=1,qos=0,window=1000 --scenario pairs=1,qos=1,window=1000)
others=(--scenario pairs=50,qos=1,window=100 --scenario fan-in=50,qos=1,window=20 --scenario fan-out=100,qos=0,window=100)

echo 'Users, ten rules and storage (`guarded`) beside neither (`plain`), and two shards on the same core:'
echo
start guarded 26901 1 --data "$work/guarded"
start plain 26902 1
start two-shards 26903 2
$BROKERS "$mqlink" bench --serve-floor 26904 &
started+=($!)
targets+=(--target "floor=127.0.0.1:26904@$!")
wait_for 26904
bench guarded "${one_to_one[@]}" "${others[@]}" "$@"

echo 'Over TLS 1.3:'
echo
start tls 26905 1
bench tls --cafile "$work/ca.pem" "${one_to_one[@]}" --scenario pairs=50,qos=1,window=100 "$@"

echo 'A message for a session on disk whose client is away, 64 bytes, durability `Interval`:'
echo
start kept 26906 1 --data "$work/kept"
bench kept --scenario offline=1,qos=1,window=1000 --scenario offline=50,qos=1,window=100 "$@"

ulimit -n "$(ulimit -Hn)"
if [ "$(ulimit -n)" != unlimited ] && [ "$(ulimit -n)" -lt 19000 ]; then
    echo "no 18,000 connections with $(ulimit -n) files: nothing is said of idle ones" >&2
    exit
fi
echo 'Clients that are connected and do nothing:'
echo
settings idle 26907 1
$BROKERS "$mqlink" broker --node idle --config "$work/idle.json" 2>"$work/idle.log" &
idle=$!
started+=("$idle")
wait_for 26907
$GENERATOR benches/idle.py 26907 "$idle" 18000 >"$runs/idle.txt"
echo "$(cat "$runs/idle.txt") bytes of RSS for each of 18,000."
