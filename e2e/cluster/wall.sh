#!/usr/bin/env bash
# wall.sh up|down NAME A B: between two addresses of pods packets vanish without an answer, in both directions and on
# connections that are open. Nobody else notices: probes of the kubelet and the operator get through.
. "$(dirname "$0")/lib.sh"

verb=${1:?up or down} a=${3:?an address} b=${4:?another address}
choose_cluster "${2:?the name of a cluster}"
need_up
as_root "$@"
case $verb in
up) change=-I ;;
down) change=-D ;;
*) fail "$verb: up or down" ;;
esac
for node in "$dir"/run/node*; do
    rule() { in_cluster nsenter --net="/run/netns/$(basename "$node")" iptables "$change" FORWARD -s "$1" -d "$2" -j DROP; }
    rule "$a" "$b"
    rule "$b" "$a"
done
