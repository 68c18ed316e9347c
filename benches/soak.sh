#!/usr/bin/env bash
# Sets hostile crowds on brokers of this machine's and prints what bystanders feel meanwhile. Not a test: it takes all of the
# machine. 100,000 connections to one broker where a process may have that many open files; where it may not, and that cannot be
# raised, as many brokers as it takes. Brokers run on all cores but the last, crowds and bystanders on that one.
# As root it runs in a network namespace of its own, out of a firewall's tables.
# Options go to `mqlink bench`, for example: benches/soak.sh --connections 20000 --seconds 10
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${SOAK_ALONE-}" ] && unshare -n true 2>/dev/null; then
    export SOAK_ALONE=1
    # shellcheck disable=SC2016 # it is for the other shell
    exec unshare -n sh -c 'ip link set lo up && exec "$0" "$@"' "benches/soak.sh" "$@"
fi

mqlink=${CARGO_TARGET_DIR:-target}/release/mqlink
work=$(mktemp -d)
brokers=()
finish() {
    [ ${#brokers[@]} = 0 ] || kill "${brokers[@]}" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

found=$(ulimit -Hn)
ulimit -n 500000 2>/dev/null || ulimit -n "$found" # root may have more than the limit says
limit=$(ulimit -n)
connections=100000
seconds=
words=("$@")
for at in "${!words[@]}"; do
    case ${words[at]} in
        --connections) connections=${words[at + 1]} ;;
        --seconds) seconds=yes ;;
    esac
done
# A twentieth more come for a while, and a process opens other files too.
count=$(((connections * 21 / 20 + limit - 501) / (limit - 500)))
[ -n "$seconds" ] || set -- --seconds $((count > 6 ? 5 : 30 / count)) "$@"
echo "open files: $found allowed, $limit now; $connections connections to $count broker(s)" >&2

cores=$(nproc)
on_brokers() { exec "$@"; } # in the background: what is started is the broker itself
on_others() { "$@"; }
if [ "$cores" -gt 1 ]; then
    on_brokers() { exec taskset -c "0-$((cores - 2))" "$@"; }
    on_others() { taskset -c $((cores - 1)) "$@"; }
fi

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1 \
    -addext 'subjectAltName=IP:127.0.0.1' -addext basicConstraints=critical,CA:FALSE \
    -keyout "$work/key.pem" -out "$work/certificate.pem" 2>"$work/openssl" || { cat "$work/openssl"; exit 1; }
pem() { awk '{printf "%s\\n", $0}' "$work/$1.pem"; }
soak=()
for n in $(seq "$count"); do
    port=$((27880 + 2 * n))
    cat >"$work/$n.json" <<JSON
{ "cluster": "soak", "listeners": [
    { "name": "mqtt", "protocol": "MQTT", "port": $port },
    { "name": "mqtts", "protocol": "MQTTS", "port": $((port + 1)), "tls":
      { "certificatePem": "$(pem certificate)", "keyPem": "$(pem key)" } } ],
  "authentication": { "anonymous": true }, "limits": { "connectionsMax": 1000000, "sessionsMax": 1000000 } }
JSON
    on_brokers "$mqlink" broker --node "soak-$n" --config "$work/$n.json" 2>"$work/$n.log" &
    brokers+=($!)
    soak+=(--soak "127.0.0.1:$port@$!")
    for _ in $(seq 300); do
        (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
        sleep 0.1
    done
done
of() { for pid in "${brokers[@]}"; do cat "/proc/$pid/status"; done | awk -v name="$1:" '$1 == name { sum += $2 } END { print sum }'; }
before=$(of VmRSS)
on_others "$mqlink" bench "${soak[@]}" --cafile "$work/certificate.pem" "$@"
echo "resident: $before KiB before, $(of VmRSS) after, $(of VmHWM) at most"
{ grep -ch 'load shedding' "$work"/*.log || true; } | awk '{ sum += $1 } END { print sum " changes of memory pressure" }'
