#!/usr/bin/env bash
# Installs what the programs of e2e/clients need, by name and pinned, into ~/.cache/mqlink/clients: from PyPI, npm, the Go
# module proxy, Maven Central and crates.io. What comes from Debian it installs as root, else names it.
# A stamp per client holds a checksum of its sources: what did not change is not built again.
set -euo pipefail
cd "$(dirname "$0")"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mqlink/clients
mkdir -p "$cache"

missing=()
command -v mosquitto_pub >/dev/null || missing+=(mosquitto-clients)
command -v openssl >/dev/null || missing+=(openssl)
command -v node >/dev/null || missing+=(nodejs npm)
command -v go >/dev/null || missing+=(golang-go)
command -v javac >/dev/null || missing+=(openjdk-17-jdk-headless)
command -v mvn >/dev/null || missing+=(maven)
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "missing: ${missing[*]}  (sudo apt-get install ${missing[*]})" >&2
        exit 1
    fi
    echo "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# install NAME COMMAND…: unless it was done for these very sources.
install() {
    local name=$1 sum
    shift
    sum=$(find "$name" -type f | sort | xargs sha256sum | sha256sum)
    [ "$(cat "$cache/$name.stamp" 2>/dev/null)" != "$sum" ] || return 0
    echo "installing the $name client into $cache/$name"
    mkdir -p "$cache/$name"
    "$@"
    echo "$sum" >"$cache/$name.stamp"
}

python() {
    python3 -m venv --clear "$cache/$1"
    "$cache/$1/bin/pip" install --quiet --disable-pip-version-check -r "$1/requirements.txt"
}

npm_packages() {
    cp mqttjs/* "$cache/mqttjs/"
    npm --prefix "$cache/mqttjs" ci --silent --no-audit --no-fund --ignore-scripts
}

go_programs() {
    local program
    for program in paho autopaho; do
        (cd go && go build -o "$cache/go/$program" "./$program")
    done
}

java_program() {
    mvn --batch-mode --quiet -f hivemq/pom.xml dependency:copy-dependencies -DoutputDirectory="$cache/hivemq/lib"
    javac -d "$cache/hivemq/classes" -cp "$cache/hivemq/lib/*" hivemq/*.java
}

rust_program() {
    CARGO_TARGET_DIR=$cache/rumqttc cargo build --quiet --release --locked --manifest-path rumqttc/Cargo.toml
}

install paho python paho
install aiomqtt python aiomqtt
install mqttjs npm_packages
install go go_programs
install hivemq java_program
install rumqttc rust_program
echo "the clients are there"
