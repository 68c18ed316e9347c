#!/usr/bin/env bash
# Measures mqlink beside Debian's mosquitto and its bridge, and rumqttd, in the same run, then against itself with more to do
# (variants.sh), and writes docs/performance.md.
# Brokers run on one core, the generator on another. Needs Linux, two cores, taskset; `tests/setup.sh broker`.
# Options go to `mqlink bench`, for the first table instead of `--rounds 3 --seconds 2`: benches/run.sh --rounds 5 --only link
set -euo pipefail
cd "$(dirname "$0")/.."

tests/setup.sh broker
# All that is built is built before anything is measured.
cargo build --release --locked
mqlink=${CARGO_TARGET_DIR:-target}/release/mqlink
counts=${CARGO_TARGET_DIR:-target}/counts
CARGO_TARGET_DIR=$counts cargo build --release --locked --manifest-path benches/counts/Cargo.toml
RUMQTTD=0.20.0
root=${XDG_CACHE_HOME:-$HOME/.cache}/mqlink/tools
if ! grep -q "^\"rumqttd $RUMQTTD " "$root/.crates.toml" 2>/dev/null; then
    echo "building rumqttd $RUMQTTD into $root"
    # Its own lockfile names a version of `metrics` that Rust 1.95 refuses: the newest that fit, then.
    env -u CARGO_TARGET_DIR cargo install --quiet --root "$root" --version "$RUMQTTD" rumqttd ||
        echo "rumqttd $RUMQTTD cannot be built here: its column stays out" >&2
fi

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

# Generous limits, so that no broker is measured dropping; no Nagle, as in every modern broker.
common='allow_anonymous true
max_inflight_messages 1000
max_queued_messages 0
set_tcp_nodelay true
log_dest none'
printf 'listener 27983 127.0.0.1\n%s\n' "$common" >"$work/a.conf"
printf 'listener 28983 127.0.0.1\n%s\nconnection a\naddress 127.0.0.1:27983\nbridge_protocol_version mqttv50\ntopic link/# in 1\n' \
    "$common" >"$work/b.conf"
$BROKERS /usr/sbin/mosquitto -c "$work/a.conf" &
a=$!
started+=("$a")
wait_for 27983
$BROKERS /usr/sbin/mosquitto -c "$work/b.conf" &
b=$!
started+=("$b")
wait_for 28983

# It wants all of this said. Its links are between threads, not brokers: it has no row there.
cat >"$work/rumqttd.toml" <<'END'
id = 0
[router]
id = 0
max_connections = 10010
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[v5.1]
name = "v5-1"
listen = "127.0.0.1:25883"
next_connection_delay_ms = 1
[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = 2000000
max_inflight_count = 1000
dynamic_filters = true
END
rumqttd=()
if [ -x "$root/bin/rumqttd" ]; then
    $BROKERS "$root/bin/rumqttd" --config "$work/rumqttd.toml" --quiet &
    started+=($!)
    rumqttd=(--target "rumqttd=127.0.0.1:25883@$!")
    wait_for 25883
fi

$BROKERS "$mqlink" bench --serve-floor 26883 &
floor=$!
started+=("$floor")
wait_for 26883

# `up` knows where its nodes are and which processes they are. Who fails in a scenario has no figure there.
options=${*:---rounds 3 --seconds 2}
$BROKERS "$mqlink" up -f benches/clusters.yaml --wait 60s --run "$GENERATOR $mqlink bench \
    --json $work/main.json --markdown $work/table.md \
    --target mqlink=\$MQLINK_US_EAST_MQTT@\$MQLINK_US_EAST_PID,\$MQLINK_EU_WEST_MQTT@\$MQLINK_EU_WEST_PID \
    --target mosquitto=127.0.0.1:27983@$a,127.0.0.1:28983@$b \
    ${rumqttd[*]} \
    --target floor=127.0.0.1:26883@$floor $options" || [ -s "$work/table.md" ]

others=$({ /usr/sbin/mosquitto -h || true; } | head -n 1) # it calls that an error
[ ${#rumqttd[@]} = 0 ] || others+=", rumqttd $RUMQTTD"
model=$(awk -F ': *' '/^model name/ { print $2; exit }' /proc/cpuinfo)
{
    echo '# Performance'
    echo
    echo "Written by \`make bench\` on $(date -u +%Y-%m-%d): $model, $(nproc) cores, Linux $(uname -r);"
    echo "mqlink $(git rev-parse --short HEAD), $(rustc --version | cut -d ' ' -f 1-2), $others."
    echo
    cat "$work/table.md"
    echo
    echo '## Variants'
    echo
    benches/variants.sh "$mqlink" "$work" --rounds 3 --seconds 2
    echo
    echo '## The core alone'
    echo
    echo 'No socket, no task, one thread; CPU time, both acknowledgements included:'
    echo
    $BROKERS "$counts/release/core" >"$work/core.txt"
    sed 's/^/    /' "$work/core.txt"
    echo
    echo '## Goals'
    echo
    benches/goals.py "$work"
    echo
    cat benches/method.md
} >"$work/performance.md"
mv "$work/performance.md" docs/performance.md
cp "$work/main.json" "${CARGO_TARGET_DIR:-target}/bench.json"
echo "docs/performance.md is written; every run is in ${CARGO_TARGET_DIR:-target}/bench.json"
