#!/usr/bin/env bash
# run.sh BINARY [ARGUMENT…]: the end-to-end tests, on pods that run BINARY; the arguments are for the test program, for
# example a part of a test's name. `make e2e` calls it.
#
# The cluster is the one of KUBECONFIG if that is set; then MQLINK_IMAGE (NAME:TAG) names the image, which its nodes can
# get, and BINARY is not used. Else it is the cluster `e2e` of this machine, or the one that MQLINK_E2E_CLUSTER names,
# started and ended here unless it is up already.
# NODES=3: that cluster is `e2e-nodes`, with so many nodes, and the tests are those of nodes, which are left out otherwise.
# mqlink is installed from config/, and removed again unless it was there before.
set -euo pipefail
cd "$(dirname "$0")/.."

binary=$1
shift
if [ "${NODES:-1}" = 1 ]; then
    cluster=e2e
    set -- "$@" --skip nodes::
else
    cluster=e2e-nodes
    [ $# -gt 0 ] || set -- nodes::
fi
cluster=${MQLINK_E2E_CLUSTER:-$cluster}
target=${CARGO_TARGET_DIR:-target}
stage=.ci/stage
work=$(mktemp -d)
undo=("rm -r $work")
trap 'code=$?; for ((i = ${#undo[@]} - 1; i >= 0; i--)); do ${undo[i]} || true; done; exit $code' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

in_cluster() { e2e/cluster/enter.sh "$cluster" "$@"; }

# The cluster's network has no way out, so what is to be built is built before.
$stage build-e2e cargo test --locked --quiet --no-run --test e2e
tests=$(cargo test --locked --quiet --test e2e -- --list "$@")
grep -q ': test$' <<<"$tests" || { echo "no test's name contains: $*" >&2 && exit 1; }

owned=''
if [ -n "${KUBECONFIG-}" ]; then
    image=${MQLINK_IMAGE:-localhost/mqlink:dev}
    export MQLINK_E2E_CLUSTER='' # Nobody cuts the network of somebody else's.
else
    image=localhost/mqlink:$(sha256sum <"$binary" | cut -c1-12) # nodes never look twice at the same name
    $stage image image/build.sh "$binary" "$target/mqlink-e2e.tar" "$image"
    if ! in_cluster true 2>/dev/null; then
        owned=yes
        undo+=("e2e/cluster/down.sh $cluster")
        OWNER=$$ $stage cluster e2e/cluster/up.sh "$cluster"
    fi
    e2e/cluster/load.sh "$cluster" "$target/mqlink-e2e.tar"
    # For the tests that cut its network, and let nodes die.
    export MQLINK_E2E_CLUSTER=$cluster MQLINK_E2E_IMAGE_TAR=$(realpath "$target/mqlink-e2e.tar")
fi

cat >"$work/kustomization.yaml" <<Y
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [$(realpath --relative-to="$work" config/default)]
images: [{name: localhost/mqlink, newName: ${image%:*}, newTag: "${image##*:}"}]
Y
if [ -z "$owned" ] && ! in_cluster kubectl get namespace mqlink-system >/dev/null 2>&1; then
    undo+=("in_cluster kubectl delete -k $work --timeout=120s")
fi
in_cluster kubectl apply --server-side --force-conflicts -k "$work"
if ! in_cluster kubectl -n mqlink-system rollout status deployment/mqlink-operator --timeout=120s; then
    in_cluster kubectl -n mqlink-system describe pods
    in_cluster kubectl -n mqlink-system logs deployment/mqlink-operator
    exit 1
fi

RUST_TEST_THREADS=${RUST_TEST_THREADS:-4} $stage e2e e2e/cluster/enter.sh "$cluster" cargo test --locked --offline --quiet --test e2e -- "$@"
