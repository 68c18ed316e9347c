#!/usr/bin/env bash
# up.sh [NAME]: a Kubernetes cluster on this machine, ready to use when this returns. Default name: e2e.
#
#   LEVEL=full   pods run (the default);   LEVEL=api   only etcd and kube-apiserver, in seconds
#   NODES=3      nodes, 1 to 3 (default 1)
#   OWNER=PID    the cluster ends when that process does, however it ends
#
# One that is up already is used again. With KUBECONFIG set, that cluster is meant and nothing is started here.
# Nothing of the cluster is outside network, mount and process namespaces of its own, its folder and its cgroups;
# docs/e2e.md tells the rest. End it with down.sh, or by killing the process that $base/NAME/pid names.
. "$(dirname "$0")/lib.sh"

if [ -n "${KUBECONFIG-}" ]; then
    echo "using the cluster of KUBECONFIG=$KUBECONFIG"
    exit
fi
choose_cluster "${1-}"
level=${LEVEL:-full} nodes=${NODES:-1}
case $level in api) nodes=0 ;; full) ;; *) fail "LEVEL=$level: api or full" ;; esac
[[ $nodes = [0-3] ]] || fail "NODES=$nodes: 1 to 3"
if is_up; then
    need_up
    [ "$(cat "$dir/shape")" = "$level $nodes" ] ||
        fail "cluster $name is up with level and nodes $(cat "$dir/shape"), not $level $nodes: e2e/cluster/down.sh $name"
    echo "cluster $name is up already"
    exit
fi

bin=$("$cluster_folder/tools.sh" "$level") # not as root, who may have no Go
as_root "$@"
"$cluster_folder/down.sh" "$name" # what a machine that lost its power left
mkdir -p "$dir/log"
echo "$level $nodes" >"$dir/shape"

setsid "$cluster_folder/inside/keep.sh" "$name" "$bin" "$level" "$nodes" >"$dir/log/up.log" 2>&1 </dev/null &
keeper=$!
trap 'kill $keeper 2>/dev/null || true' EXIT # an up.sh that is interrupted leaves no cluster
until [ -e "$dir/ready" ]; do
    if ! kill -0 $keeper 2>/dev/null; then
        cat "$dir/log/up.log" >&2
        fail "cluster $name did not come up; every program's log is in $dir/log"
    fi
    sleep 0.1
done
trap - EXIT
cat "$dir/log/up.log"
echo "cluster $name is up: e2e/cluster/enter.sh $name kubectl get pods -A"
