#!/usr/bin/env bash
# Measures mqlink against itself and the floor: with users, rules and storage; over TLS; with two shards; for subscribers that
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
    local scheme=
    [ "$1" != tls ] || scheme=mqtts://
    targets+=(--target "$1=${scheme}127.0.0.1:$2@$!")
    wait_for "$2"
}

# bench NAME OPTIONS: the tables of all targets that were started since the last time.
bench() {
    MQLINK_PASSWORD=bench $GENERATOR "$mqlink" bench --user bench --cafile "$work/ca.pem" "${targets[@]}" \
        --json "$runs/$1.json" --markdown "$work/table.md" "${@:2}"
    cat "$work/table.md"
    targets=()
}

# scrape PORT: reads the metrics there each second, as a Prometheus that is in a hurry.
scrape() {
    while exec 3<>"/dev/tcp/127.0.0.1/$1"; do
        printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
        cat <&3 >/dev/null
        sleep 1
    done 2>/dev/null
}

# Client ids of which publisher and subscriber are at home on different ones of two shards (`Partition::of`, `Place::home`).
across=$(
    python3 - <<'PY'
def home(text):
    hash = 0xCBF29CE484222325
    for byte in text.encode():
        hash = (hash ^ byte) * 0x100000001B3 % 2**64
    for bits in 32, 16, 8:
        hash ^= hash >> bits
    return hash % 256 // 128
print(next(name for name in map("across{}".format, range(99)) if home(f"{name}-pub-0") != home(f"{name}-sub-0")))
PY
)

echo 'On one core: with users, ten rules, storage and metrics that are read each second (`guarded`), without (`plain`), over TLS 1.3 (`tls`), with two shards. In rows'
echo "with \`clients=$across\` publisher and subscriber are on different shards, in the other 1:1 rows on the same."
echo
start guarded 26901 1 --data "$work/guarded" --probe-listen 127.0.0.1:26911
scrape 26911 &
started+=($!)
start plain 26902 1
start tls 26905 1
start two-shards 26903 2
$BROKERS "$mqlink" bench --serve-floor 26904 &
started+=($!)
targets+=(--target "floor=127.0.0.1:26904@$!")
wait_for 26904
scenarios=()
for words in pairs=1,qos={0,1},window=1000{,",clients=$across"} pairs=50,qos=1,window=100 fan-in=50,qos=1,window=20 \
    fan-out=100,qos=0,window=100 pairs=1,qos=1,rate=5000; do
    scenarios+=(--scenario "$words")
done
bench guarded "${scenarios[@]}" "$@"

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
