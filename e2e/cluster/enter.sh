#!/usr/bin/env bash
# enter.sh [NAME] -- COMMAND…, or enter.sh NAME COMMAND…: runs a command in a cluster's network, with its
# KUBECONFIG and kubectl. The command sees the machine's own files and processes, as the user who calls.
# With KUBECONFIG set it runs as it is.
. "$(dirname "$0")/lib.sh"

name=e2e
[ "${1-}" = -- ] || { name=${1:?the name of a cluster, or --} && shift; }
[ "${1-}" != -- ] || shift
[ $# -gt 0 ] || set -- "${SHELL:-/bin/bash}"

[ -z "${KUBECONFIG-}" ] || exec "$@"
choose_cluster "$name"
need_up
no_proxy_here
export PATH=$(cat "$dir/bin"):$PATH KUBECONFIG=$dir/kubeconfig KUBECACHEDIR=$dir/run/cache
join=(nsenter --target "$(cat "$dir/pid")" --net)
[ "$(id -u)" != 0 ] || exec "${join[@]}" "$@"
exec sudo -E "${join[@]}" setpriv --reuid="$(id -u)" --regid="$(id -g)" --init-groups env "PATH=$PATH" "HOME=$HOME" "$@"
