#!/usr/bin/env bash
# build.sh BINARY OUT.tar [NAME:TAG]: the image of broker and operator, without a container engine. Who runs what
# in it is read from the Dockerfile beside this file, so that both make the same image.
set -euo pipefail

binary=$1 out=$2 name=${3:-localhost/mqlink:dev}
here=$(cd "$(dirname "$0")" && pwd)

directive() { sed -n "s/^$1 //p" "$here/Dockerfile" | tail -1; }

root=$(mktemp -d)
trap 'rm -r "$root"' EXIT
chmod 755 "$root"
"$here/rootfs.sh" "$binary" "$root"
"$here/oci.sh" "$out" "$name" "{\"User\": \"$(directive USER)\", \"Entrypoint\": $(directive ENTRYPOINT)}" "$root"
echo "$out holds $name, $(du -h "$out" | cut -f1)"
