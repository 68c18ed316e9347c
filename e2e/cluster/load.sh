#!/usr/bin/env bash
# load.sh NAME IMAGE.tar…: gives images to every node of a cluster, as a registry would.
. "$(dirname "$0")/lib.sh"

choose_cluster "${1:?the name of a cluster}"
if [ -n "${KUBECONFIG-}" ]; then
    echo "the cluster of KUBECONFIG=$KUBECONFIG has to get ${*:2} in its own way; for kind: kind load image-archive"
    exit
fi
need_up
as_root "$@"
shift
for socket in "$dir"/run/node*/containerd.sock; do
    for image in "$@"; do
        "$(cat "$dir/bin")/ctr" --address "$socket" --namespace k8s.io images import "$image"
    done
done
