#!/usr/bin/env bash
# `make demo`: two linked clusters on this machine. A message each way over the link, then a link that carries one
# way only. Needs Rust and a C compiler, no root. Ends with 0 only if everything shown here was so.
set -euo pipefail
cd "$(dirname "$0")/.."
export MQLINK=${MQLINK:-${CARGO_TARGET_DIR:-target}/debug/mqlink}

# What `up` runs below writes into a pipe: whether this is a terminal is found out once.
if [ -z "${COLOURS-}" ]; then [ -t 1 ] && export COLOURS=yes || export COLOURS=no; fi
bold='' dim='' green='' red='' plain=''
[ $COLOURS = no ] || bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
ran() { printf '%s$ mqlink %s%s\n' "$dim" "$*" "$plain"; }
held() { printf '%s  ✓ %s%s\n' "$green" "$*" "$plain"; }
fail() { printf '%s  ✗ %s%s\n' "$red" "$*" "$plain" >&2; exit 1; }

# within_30_s COMMAND…: until it succeeds.
within_30_s() {
    local begin=$SECONDS
    until "$@"; do
        [ $((SECONDS - begin)) -lt 30 ] || fail "waited 30 s: $*"
        sleep 0.02
    done
}

# port us-east: where its clients connect; `up --run` says.
port() {
    local variable=MQLINK_${1^^}_MQTT
    variable=${variable//-/_}
    echo "${!variable##*:}"
}

# listen CLUSTER FILTER COUNT: subscribes in the background, and returns when the broker has granted it. What it
# hears is in $work/CLUSTER; its process in $listener.
listen() {
    ran sub -p "$(port "$1")" -t "'$2'" "   # $1"
    : >"$work/$1.ready"
    "$MQLINK" sub -p "$(port "$1")" -t "$2" -q 1 -C "$3" -W 60s --ready >"$work/$1" 2>"$work/$1.ready" &
    listener=$!
    within_30_s grep -q ready "$work/$1.ready"
}

# publish CLUSTER TOPIC TEXT [OPTION…]
publish() {
    ran pub -p "$(port "$1")" -t "$2" -m "'$3'" "${@:4}" "   # $1"
    "$MQLINK" pub -p "$(port "$1")" -t "$2" -m "$3" -q 1 "${@:4}" -W 30s
}

# known THERE HERE: waits until THERE serves the subscriptions that HERE has by now. They travel in order, so it is
# enough that the next one is served.
known() {
    : >"$work/known"
    "$MQLINK" sub -p "$(port "$2")" -t demo/known -C 1 -W 60s --ready >/dev/null 2>"$work/known" &
    local probe=$!
    within_30_s grep -q ready "$work/known"
    while kill -0 "$probe" 2>/dev/null; do
        "$MQLINK" pub -p "$(port "$1")" -t demo/known -m '?' -q 1
    done
    wait "$probe" || fail "$1 does not know what $2 wants"
}

# heard CLUSTER PROCESS: waits for the subscriber to have all it wanted, and shows it.
heard() {
    wait "$2" || fail "$1 heard only: $(tr '\n' ';' <"$work/$1")"
    sed "s/^/  $1 heard  /" "$work/$1"
}

both_ways() {
    say "Whoever subscribes in one cluster hears what is published in the other."
    listen us-east 'linked/#' 2
    us=$listener
    listen eu-west 'linked/#' 2
    eu=$listener
    known us-east eu-west
    known eu-west us-east
    publish us-east linked/42 'hello from us-east'
    publish eu-west linked/1 'hello from eu-west'
    heard us-east "$us"
    heard eu-west "$eu"
    for cluster in us-east eu-west; do
        [ "$(sort "$work/$cluster")" = $'linked/1 hello from eu-west\nlinked/42 hello from us-east' ] ||
            fail "$cluster heard something else"
    done
    held "both messages crossed the link, once"
}

one_way() {
    listen us-east 'linked/#' 101
    us=$listener
    listen eu-west 'linked/#' 1
    eu=$listener
    known eu-west us-east
    publish us-east linked/42 'stays at home' -C 100
    publish eu-west linked/1 'the marker, published after it'
    wait "$us" || fail "us-east did not hear everything"
    [ "$(tail -n 1 "$work/us-east")" = 'linked/1 the marker, published after it' ] || fail "the marker did not cross"
    heard eu-west "$eu"
    [ "$(cat "$work/eu-west")" = 'linked/1 the marker, published after it' ] || fail "eu-west heard more"
    # A report that counts the marker's arrival counts everything that us-east did before it.
    within_30_s marker_is_counted
    ran status -o wide
    "$MQLINK" status -o wide | sed -n '/^LINK/,$p'
    [ "$(crossed us-east 3)" = 0 ] || fail "something crossed from us-east to eu-west"
    held "100 messages published in us-east, 0 crossed; the marker came the other way"
}

# At least two messages have crossed from eu-west, one of `known` and the marker, and both sides count the same.
marker_is_counted() {
    local arrived
    arrived=$(crossed us-east 7)
    [ "$arrived" -ge 2 ] && [ "$arrived" = "$(crossed eu-west 4)" ]
}

# crossed CLUSTER COLUMN: a number of `status -o wide`: 3 matched, 4 acknowledged, 7 received.
crossed() {
    "$MQLINK" status -o wide | awk -v half="/$1\$" -v column="$2" '$2 ~ half && $1 == "us-eu" { print $column }'
}

if [ $# = 1 ]; then # run by `up`, when everything is Ready
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    "$1"
    exit
fi

say "Build"
[ -x "$MQLINK" ] || echo "The first build compiles every dependency: some minutes on two cores. Later ones take seconds."
begin=$SECONDS
cargo build --locked --quiet
echo "took $((SECONDS - begin)) s"

# clusters FILE PART: brings the manifest up, runs a part of this file on it, and takes everything down again.
clusters() {
    ran up -f "$1" --ports free
    log=$(mktemp)
    "$MQLINK" up -f "$1" --ports free --wait 60s --run "config/demo.sh $2" | tee "$log" | grep -v Ready= ||
        { cat "$log"; fail "$1 did not come up, or did not do what it should"; }
    rm -f "$log"
}

say "Two clusters, linked both ways: config/samples/two-regions.yaml"
clusters config/samples/two-regions.yaml both_ways

say "The same clusters, but eu-west wants nothing (topics: []): config/samples/one-way.yaml"
clusters config/samples/one-way.yaml one_way

say "All of this held. By hand: $MQLINK up -f config/samples/two-regions.yaml"
