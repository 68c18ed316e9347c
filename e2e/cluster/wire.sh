#!/usr/bin/env bash
# wire.sh join|cut|mend A B: a wire between two clusters. Joined, pods of one reach pods and node ports of the
# other by address, as between two sites with routed networks; services' own addresses stay inside. While it is
# cut, packets vanish without an answer in both directions.
. "$(dirname "$0")/lib.sh"

verb=${1:?join, cut or mend} a=${2:?a cluster} b=${3:?another cluster}
[ "$a" != "$b" ] || fail "a wire has two ends"
for end in "$a" "$b"; do
    choose_cluster "$end"
    need_up
done

as_root "$@"

# at CLUSTER COMMAND…: runs it in the network of the cluster's switch.
at() { choose_cluster "$1" && shift && nsenter --target "$(cat "$dir/pid")" --net "$@"; }

# route FROM TO: what is for the other's block goes through the wire.
route() {
    choose_cluster "$2" && choose_addresses
    at "$1" ip link set "to-$2" up
    at "$1" ip route replace "$block.0.0/16" via "$control_ip" dev "to-$2" onlink
}

case $verb in
join)
    choose_cluster "$b"
    at "$a" ip link add "to-$b" type veth peer name "to-$a" netns "$(cat "$base/$b/pid")"
    route "$a" "$b"
    route "$b" "$a"
    ;;
cut) for way in -i -o; do at "$a" iptables -I FORWARD "$way" "to-$b" -j DROP; done ;;
mend) for way in -i -o; do at "$a" iptables -D FORWARD "$way" "to-$b" -j DROP; done ;;
*) fail "$verb: join, cut or mend" ;;
esac
