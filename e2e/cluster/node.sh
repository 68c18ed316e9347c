#!/usr/bin/env bash
# node.sh stop|start NAME N: a node's sudden death (its kubelet, its runtime and all its pods end at once, as if
# its power were cut), and its return with an empty disk.
. "$(dirname "$0")/lib.sh"

verb=${1:?stop or start}
choose_cluster "${2:?the name of a cluster}"
number=${3:?the number of a node}
need_up
as_root "$@"
case $verb in
stop)
    [ -e "$dir/run/node$number" ] || fail "node$number is not up"
    in_cluster "$cluster_folder/inside/node.sh" stop "$name" "$number"
    ;;
start)
    [ ! -e "$dir/run/node$number" ] || fail "node$number is up already"
    in_cluster "$cluster_folder/inside/node.sh" start "$name" "$number" "$(cat "$dir/bin")"
    ;;
*) fail "$verb: stop or start" ;;
esac
