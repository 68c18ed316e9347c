#!/usr/bin/env bash
# down.sh [NAME]: ends a cluster and removes all that it left, also after a failed run. Succeeds if there is none.
. "$(dirname "$0")/lib.sh"

choose_cluster "${1-}"
[ -d "$dir" ] || exit 0
as_root "$@"
if is_up; then
    kill -9 "$(cat "$dir/pid")" 2>/dev/null || true
    flock -w 30 "$dir/lock" true || fail "processes of cluster $name still run: see $dir/lock"
fi
remove_cgroup "$cgroup"
if [ -e "$dir/block" ]; then # the keeper gives it back, unless it was killed itself
    lock=$base/.block-$(cut -d. -f2 "$dir/block")
    flock -n "$lock" rm -f "$lock" || true # another cluster's by now
fi
rm -rf "$dir"
rmdir --ignore-fail-on-non-empty "$base"
