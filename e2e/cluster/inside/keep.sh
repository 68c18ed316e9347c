#!/usr/bin/env bash
# keep.sh NAME BIN LEVEL NODES: owns one cluster for as long as it lives. Called by up.sh alone.
#
# Its only child, `unshare`, is the process that ../lib.sh calls pid: the kernel ends the cluster's first process
# with it, and with that one every other process, mount, interface, route and firewall rule. The lock is inherited
# by all of them, so whoever gets it knows that they are gone. Afterwards the cgroups and the state are removed;
# only the logs stay, until down.sh or the next up.sh.
. "$(dirname "$0")/../lib.sh"

choose_cluster "$1"
shift
exec 9>"$dir/lock"
flock -n 9 || fail "another $name is being started"

# The first block of addresses that no other cluster on this machine has. It is given back by its lock too.
for ((number = 200; number < 250; number++)); do
    exec 8>"$base/.block-$number"
    flock -n 8 && break
done
[ $number -lt 250 ] || fail "no block of addresses is free"
echo "10.$number" >"$dir/block"
echo "$1" >"$dir/bin"

setpriv --pdeathsig KILL \
    unshare --net --mount --pid --fork --mount-proc --kill-child "$(dirname "$0")/control.sh" "$name" "$@" &
root=$!
echo $root >"$dir/pid"
trap 'kill -9 $root 2>/dev/null' TERM INT
if [ -n "${OWNER-}" ]; then
    (
        exec 8>&- 9>&- # locks are the cluster's
        while kill -0 "$OWNER"; do sleep 1; done
        kill $$
    ) 2>/dev/null &
    watch=$!
fi
wait $root || true
wait $root || true # again, should a signal have interrupted it
[ -z "${watch-}" ] || kill $watch 2>/dev/null || true
# What enter.sh runs shares the cluster's network alone; it has lost what it was for. A cluster that did not come up may have
# no network, as a process may have none that we are allowed to look at.
network=$(cat "$dir/network" 2>/dev/null) || network=none
for process in /proc/[0-9]*; do
    [ "$(readlink "$process/ns/net" 2>/dev/null)" != "$network" ] || kill "${process#/proc/}" || true
done

remove_cgroup "$cgroup"
rm -rf "$dir/run" "$dir/data" "$dir/ready" "$dir/pid" "$dir/network" "$base/.block-$number"
