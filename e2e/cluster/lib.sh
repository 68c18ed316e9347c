# shellcheck shell=bash disable=SC2034 # its names are for others
#
# What the scripts of this folder agree on: where a cluster keeps its things and how its addresses are chosen.
#
# A cluster called NAME lives in $base/NAME, from its start until down.sh:
#   lock         held by every process of the cluster: free means that nothing of it runs
#   pid          the one process whose end ends all others
#   network      the namespace of its network
#   shape        the level and the number of nodes
#   block        the first two numbers of its addresses
#   ready        is there once the cluster can be used
#   kubeconfig   the administrator's
#   log/         one file for each program
#   run/, data/  sockets and state
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin

cluster_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Not in /run, /var/lib or /var/log, of which nodes have their own.
base=${MQLINK_E2E:-/var/tmp/mqlink-e2e}

fail() {
    echo "$*" >&2
    exit 1
}

# Sets what a script knows of the cluster it is called for. The name becomes part of interfaces' names.
choose_cluster() {
    name=${1:-e2e}
    [[ $name =~ ^[a-z][a-z0-9-]{0,11}$ ]] || fail "$name: a cluster's name is 1 to 12 of a-z, 0-9, -"
    dir=$base/$name
    cgroup=mqlink-$name
}

# Is any process of the cluster alive?
is_up() {
    [ -e "$dir/lock" ] && ! flock -n "$dir/lock" true
}

# as_root "$@": a script calls itself again as root, which namespaces and mounts need; what root lacks (Go, a home) stays.
as_root() {
    [ "$(id -u)" != 0 ] || return 0
    command -v sudo >/dev/null || fail "a cluster on this machine needs root: install sudo, or set KUBECONFIG (docs/e2e.md)"
    exec sudo -E env "PATH=$PATH" "HOME=$HOME" "$0" "$@"
}

need_up() {
    { is_up && [ -e "$dir/ready" ]; } || fail "cluster $name is not up: e2e/cluster/up.sh $name"
}

# The addresses of a cluster are one block of 65,536, so that two clusters can be joined by routes.
# Block 10.200: the control plane 10.200.0.1, node N 10.200.0.1N, its pods 10.200.N.0/24, services 10.200.128.0/20.
choose_addresses() {
    block=$(cat "$dir/block")
    control_ip=$block.0.1
    services=$block.128.0/20
    kubernetes_ip=$block.128.1
    dns_ip=$block.128.10
    api=https://$control_ip:6443
}

node_ip() { echo "$block.0.1$1"; }

# Runs a command in the cluster's network, as it sees processes and mounts too: for the scripts, not for tests.
in_cluster() {
    local pid
    pid=$(cat "$dir/pid")
    nsenter --target "$pid" --net --mount --pid="/proc/$pid/ns/pid_for_children" "$@"
}

# A machine's proxy is out of reach from a cluster's network.
no_proxy_here() { unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY; }

# start NAME COMMAND…: a program in the background, with its own log.
start() {
    local program=$1
    shift
    "$@" >>"$dir/log/$program.log" 2>&1 </dev/null &
}

# await SECONDS WHAT COMMAND…: asks ten times a second until the command succeeds.
await() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || fail "$what: not within its time"
        sleep 0.1
    done
    echo "$(since_begin) s  $what"
}

# Seconds since the cluster began to start.
since_begin() {
    awk -v begin="$(stat -c %Y "$dir/block")" -v now="$(date +%s.%N)" 'BEGIN { printf "%5.1f", now - begin }'
}

# The cgroup folders of every controller, in both versions of cgroups.
cgroup_roots() {
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then echo /sys/fs/cgroup; else echo /sys/fs/cgroup/*; fi
}

# make_cgroup PATH: a folder in which a kubelet can keep its pods'.
make_cgroup() {
    local root folder file
    for root in $(cgroup_roots); do
        folder=$root
        for part in ${1//\// }; do
            [ ! -e "$folder/cgroup.subtree_control" ] ||
                sed 's/[a-z_]*/+&/g' "$folder/cgroup.controllers" >"$folder/cgroup.subtree_control" || true
            mkdir -p "$folder/$part"
            # Version 1 makes a cpuset empty, and an empty one takes no process.
            for file in cpuset.cpus cpuset.mems; do
                [ ! -e "$folder/$part/$file" ] || [ -e "$folder/cgroup.controllers" ] ||
                    cat "$folder/$file" >"$folder/$part/$file"
            done
            folder=$folder/$part
        done
    done
}

# remove_cgroup PATH: empty folders only; processes that were killed leave theirs a moment later.
remove_cgroup() {
    local root deadline=$((SECONDS + 10))
    for root in $(cgroup_roots); do
        while [ -d "$root/$1" ] && ! find "$root/$1" -depth -type d -exec rmdir {} + 2>/dev/null; do
            [ $SECONDS -lt $deadline ] || fail "$root/$1: a process is still in it"
            sleep 0.1
        done
    done
}
