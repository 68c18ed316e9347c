#!/usr/bin/env bash
# What the tests need beyond Rust and a C compiler: the mosquitto clients and valgrind (Debian) and paho-mqtt (PyPI), the
# latter in a virtual environment outside the checkout. `setup.sh broker` adds the mosquitto broker, which only
# the benchmark needs. As root it installs by package name what is missing; otherwise it names that and fails.
set -euo pipefail

PAHO=2.2.0
venv=${XDG_CACHE_HOME:-$HOME/.cache}/mqlink/venv

missing=()
command -v cc >/dev/null || missing+=(build-essential)
command -v mosquitto_pub >/dev/null || missing+=(mosquitto-clients)
command -v valgrind >/dev/null || missing+=(valgrind)
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
# The broker lies in /usr/sbin, which is not in everybody's PATH.
[ "${1-}" != broker ] || [ -x /usr/sbin/mosquitto ] || missing+=(mosquitto)

if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "missing: ${missing[*]}  (sudo apt-get install ${missing[*]})" >&2
        exit 1
    fi
    echo "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # The program is wanted, not a service that takes port 1883 as soon as it is installed.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        trap 'rm -f $policy' EXIT
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
    fi
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

version='import importlib.metadata as m; print(m.version("paho-mqtt"))'
if [ "$("$venv/bin/python3" -c "$version" 2>/dev/null)" != $PAHO ]; then
    echo "installing paho-mqtt $PAHO into $venv"
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "paho-mqtt==$PAHO"
fi
echo "the mosquitto clients and paho-mqtt $PAHO are there"
