#!/usr/bin/env bash
# oci.sh OUT.tar NAME:TAG CONFIG FOLDER: packs a folder as an image of one layer, without a container engine.
#
# CONFIG is the JSON object that the OCI image format calls `config` (Entrypoint, User, Env, …). The result is an
# OCI image layout in a tar, which `ctr images import`, `kind load image-archive` and `docker load` take. The same
# folder gives the same bytes: owners and times are left out.
set -euo pipefail

out=$1 name=$2 config=$3 folder=$4
case $(uname -m) in
x86_64) architecture=amd64 ;;
aarch64) architecture=arm64 ;;
*) architecture=$(uname -m) ;;
esac

work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
mkdir -p "$work/image/blobs/sha256"

pack() { # FOLDER OUT
    tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$1" -cf "$2" .
}

# Moves a file into the image under its digest; prints what a reference to it says.
blob() { # FILE MEDIA-TYPE
    local digest size
    digest=$(sha256sum <"$1" | cut -d' ' -f1)
    size=$(stat -c %s "$1")
    mv "$1" "$work/image/blobs/sha256/$digest"
    echo "\"mediaType\": \"application/vnd.oci.image.$2\", \"digest\": \"sha256:$digest\", \"size\": $size"
}

pack "$folder" "$work/layer"
layer=$(blob "$work/layer" layer.v1.tar)
diff_id=$(grep -o 'sha256:[0-9a-f]*' <<<"$layer")
platform="\"architecture\": \"$architecture\", \"os\": \"linux\""

cat >"$work/config" <<JSON
{$platform, "config": $config, "rootfs": {"type": "layers", "diff_ids": ["$diff_id"]}}
JSON
configuration=$(blob "$work/config" config.v1+json)

cat >"$work/manifest" <<JSON
{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": {$configuration}, "layers": [{$layer}]}
JSON
manifest=$(blob "$work/manifest" manifest.v1+json)

cat >"$work/image/index.json" <<JSON
{"schemaVersion": 2, "manifests": [{$manifest, "platform": {$platform}, "annotations": {"io.containerd.image.name": "$name", "org.opencontainers.image.ref.name": "${name##*:}"}}]}
JSON
echo '{"imageLayoutVersion": "1.0.0"}' >"$work/image/oci-layout"

mkdir -p "$(dirname "$out")"
pack "$work/image" "$work/tar"
mv "$work/tar" "$out"
