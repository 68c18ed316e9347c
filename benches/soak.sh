#!/usr/bin/env bash
# Sets hostile crowds on a broker of this machine's and prints what a bystander feels meanwhile. Not a test: it takes all of
# the machine, and more open files than a user has: run it as root, or raise `ulimit -Hn`. In a network namespace of its own it
# stays out of a firewall's tables: unshare -n sh -c 'ip link set lo up; benches/soak.sh'.
# Options go to `mqlink bench`, for example: benches/soak.sh --connections 20000 --seconds 10
set -euo pipefail
cd "$(dirname "$0")/.."

mqlink=${CARGO_TARGET_DIR:-target}/release/mqlink
work=$(mktemp -d)
broker=
finish() {
    [ -z "$broker" ] || kill "$broker" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
ulimit -n 500000 2>/dev/null || ulimit -n "$(ulimit -Hn)" # root may have more than the limit says

cat >"$work/settings.json" <<'JSON'
{ "cluster": "soak", "listeners": [ { "name": "mqtt", "protocol": "MQTT", "port": 27884 } ],
  "authentication": { "anonymous": true }, "limits": { "connectionsMax": 1000000, "sessionsMax": 1000000 } }
JSON
"$mqlink" broker --node soak-0 --config "$work/settings.json" 2>"$work/log" &
broker=$!
for _ in $(seq 300); do
    (: <>/dev/tcp/127.0.0.1/27884) 2>/dev/null && break
    sleep 0.1
done
resident() { awk '/^VmRSS/ { print $2 * 1024 }' "/proc/$broker/status"; }
before=$(resident)
case " $* " in *' --seconds '*) ;; *) set -- --seconds 20 "$@" ;; esac
"$mqlink" bench --soak "127.0.0.1:27884@$broker" "$@"
echo "resident: $before bytes before, $(resident) after, $(awk '/^VmHWM/ { print $2 * 1024 }' "/proc/$broker/status") at most"
grep -c 'load shedding' "$work/log" | sed 's/$/ changes of memory pressure/' || true
