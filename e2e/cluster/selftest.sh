#!/usr/bin/env bash
# selftest.sh IMAGE.tar: proves what docs/e2e.md promises of the clusters and of the image, in about two minutes:
# an API server alone; restricted pods run the image; they find a Service by name; a node can die and return; two clusters
# are joined, cut and mended; nothing has a way out; and afterwards the machine is as it was, also where a cluster was killed.
# The image is the one of `make image`, localhost/mqlink:dev.
unset KUBECONFIG
. "$(dirname "$0")/lib.sh"
as_root "$@"

image=$(realpath -e "${1:?the image, an OCI tar}")
one=selftest-1 two=selftest-2
cd "$cluster_folder"

step() { echo "-- $*"; }
kubectl_in() { ./enter.sh "$@"; }

# What a cluster could leave behind.
machine() {
    sort /proc/mounts
    ip -o link | sed 's/^[0-9]*: //' | cut -d: -f1
    ip netns list
    iptables-save -t filter | grep '^-A' || true
    sysctl vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys net.ipv4.ip_forward
    find /sys/fs/cgroup -maxdepth 2 \( -name 'mqlink-selftest*' -o -name 'kubepods*' -o -name 'k8s.io' \)
    ls -d /var/lib/{kubelet,cni,containerd} /var/log/{containers,pods} /run/containerd "$base"/selftest-* 2>/dev/null || true
}

# client CLUSTER NAME ARGUMENTS…: runs the image's `mqlink` in a pod and prints what it says; fails as it does.
client() {
    local cluster=$1 pod=$2 arguments container
    shift 2
    arguments=$(printf '"%s",' "$@")
    container='"securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}}'
    kubectl_in "$cluster" kubectl apply -f - >/dev/null <<Y
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "$pod", "namespace": "selftest"}, "spec": {
  "restartPolicy": "Never",
  "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
  "containers": [{"name": "mqlink", "image": "localhost/mqlink:dev", "args": [${arguments%,}], $container}]}}
Y
    local code
    code=$(kubectl_in "$cluster" kubectl -n selftest wait pod "$pod" --timeout=60s \
        --for='jsonpath={.status.containerStatuses[0].state.terminated}' -o 'jsonpath={.status.containerStatuses[0].state.terminated.exitCode}')
    kubectl_in "$cluster" kubectl -n selftest logs "$pod"
    kubectl_in "$cluster" kubectl -n selftest delete pod "$pod" --now >/dev/null
    [ "$code" = 0 ]
}

# says WANTED COMMAND…
says() {
    local wanted=$1 got
    shift
    got=$("$@") || fail "failed: $*: $got"
    [ "$got" = "$wanted" ] || fail "$*: $got, not $wanted"
}

# says_soon WANTED CLIENT…: as `says`, within a minute: a node hears of names and of Services' pods a moment after they are there.
says_soon() {
    local wanted=$1 got end=$((SECONDS + 60))
    shift
    until got=$("$@") && [ "$got" = "$wanted" ]; do
        [ $SECONDS -lt $end ] || fail "$*: $got, not $wanted"
    done
}

node_becomes() { # CLUSTER NODE STATUS
    kubectl_in "$1" kubectl wait node "$2" --timeout=90s "--for=condition=Ready=$3"
}

before=$(machine)
trap './down.sh $one; ./down.sh $two' EXIT

step "an API server alone"
LEVEL=api ./up.sh $one
says ok kubectl_in $one kubectl get --raw /readyz
says "" kubectl_in $one kubectl get nodes --no-headers
! ./up.sh $one 2>/dev/null || fail "another level of the same cluster is not refused"
./down.sh $one

step "a start that fails harms nobody"
# Who may not make namespaces may not look at others' either; in a process namespace, so that this harms nobody in any case.
MQLINK_E2E=$base/selftest unshare --pid --fork --mount-proc bash -c '
    sleep 60 &
    ! setpriv --bounding-set=-sys_admin,-sys_ptrace ./up.sh selftest-3 2>/dev/null || exit 1
    [ -n "$(jobs -pr)" ] && ./down.sh selftest-3' || fail "a cluster that did not come up ended another process"

step "three nodes"
NODES=3 ./up.sh $one
says 3 kubectl_in $one sh -c 'kubectl get nodes --no-headers | grep -c " Ready "'
says "cluster $one is up already" env NODES=3 ./up.sh $one
! NODES=1 ./up.sh $one 2>/dev/null || fail "another shape of the same cluster is not refused"
says "" ./enter.sh $one ip route show default

step "the image, as restricted pods, over names"
./load.sh $one "$image"
kubectl_in $one kubectl apply -f "$cluster_folder/selftest.yaml"
kubectl_in $one kubectl -n selftest rollout status deployment/broker --timeout=60s
greet=(pub -h broker.selftest.svc.cluster.local -t greeting -m hello --retain)
says_soon "" client $one by-name "${greet[@]}"
says_soon "greeting hello" client $one by-short-name sub -h broker -t greeting -C 1 -W 10s
! client $one no-such-name pub -h broker.elsewhere.svc.cluster.local -t greeting -m hello ||
    fail "a name that does not exist was found"

step "a node dies and returns"
./node.sh stop $one 3
node_becomes $one node3 Unknown
./node.sh start $one 3
node_becomes $one node3 True
./load.sh $one "$image" # Its disk is empty, and the broker may have been there, with what it kept in memory.
kubectl_in $one kubectl -n selftest rollout status deployment/broker --timeout=120s
says_soon "" client $one again "${greet[@]}"

step "two clusters, joined"
./up.sh $two
./load.sh $two "$image"
kubectl_in $two kubectl create namespace selftest
choose_cluster $one && choose_addresses
far=$(node_ip 1)
listen=(sub -h "$far" -p 31883 -t greeting -C 1 -W 5s --connect-timeout 2)
! client $two apart "${listen[@]}" || fail "the clusters are joined before they were"
./wire.sh join $one $two
says_soon "greeting hello" client $two joined "${listen[@]}"
./wire.sh cut $one $two
! client $two cut "${listen[@]}" || fail "a cut wire still carries"
./wire.sh mend $one $two
says_soon "greeting hello" client $two mended "${listen[@]}"

step "nothing is left"
kill -9 "$(cat "$base/$two/pid")" # its keeper cleans up
flock -w 30 "$base/$two/lock" true
says log ls -1 --ignore=lock --ignore=shape --ignore=block --ignore=bin --ignore=kubeconfig "$base/$two"
./down.sh $one
./down.sh $two
diff <(echo "$before") <(machine) || fail "the machine is not as it was"
echo "1 passed, 0 failed"
