#!/usr/bin/env bash
# The rules of deny.toml. cargo-deny takes some minutes to build, so it is built once, outside the checkout.
set -euo pipefail

VERSION=0.20.2
root=${XDG_CACHE_HOME:-$HOME/.cache}/mqlink/tools

if [ "$("$root/bin/cargo-deny" --version 2>/dev/null)" != "cargo-deny $VERSION" ]; then
    echo "building cargo-deny $VERSION into $root"
    env -u CARGO_TARGET_DIR cargo install --quiet --locked --root "$root" --version "$VERSION" cargo-deny
fi
"$root/bin/cargo-deny" --log-level error check --hide-inclusion-graph licenses bans sources
