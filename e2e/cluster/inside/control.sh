#!/usr/bin/env bash
# control.sh NAME BIN LEVEL NODES: the first process of a cluster, in namespaces of its own: it starts the control
# plane and the nodes, and ends, and with it everything, when one of the control plane's programs does.
#
# Its network is the cluster's switch: each node is a wire on it. There is no way out of it: an address that is
# not the cluster's is unreachable.
. "$(dirname "$0")/../lib.sh"

choose_cluster "$1"
choose_addresses
bin=$2 level=$3 nodes=$4
export PATH=$bin:$PATH
parts=$(dirname "$0")
pki=$dir/run/pki
mkdir -p "$dir/run/etc" "$dir/data"
readlink /proc/self/ns/net >"$dir/network"

mount -t tmpfs run /run # the nodes' namespaces are named here
ip link set lo up
ip link add switch type bridge
ip address add "$control_ip/24" dev switch
ip link set switch up
echo 1 >/proc/sys/net/ipv4/ip_forward

. "$parts/certificates.sh"
make_authority
make_certificate apiserver /CN=kube-apiserver "IP:127.0.0.1,IP:$control_ip,IP:$kubernetes_ip,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
make_certificate apiserver-to-kubelet /O=system:masters/CN=apiserver
make_kubeconfig admin /O=system:masters/CN=admin
make_kubeconfig controller-manager /CN=system:kube-controller-manager
make_kubeconfig scheduler /CN=system:kube-scheduler
make_kubeconfig kube-proxy /CN=system:kube-proxy
cp "$dir/run/etc/admin.kubeconfig" "$dir/kubeconfig"
export KUBECONFIG=$dir/kubeconfig KUBECACHEDIR=$dir/run/cache
no_proxy_here

# Every write, but those that come by the clock: what the tests hold against the operator that says it is idle.
cat >"$dir/run/etc/audit.yaml" <<'Y'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, resources: [{group: coordination.k8s.io, resources: [leases]}]}
- {level: None, userGroups: ["system:nodes"]}
- {level: Metadata, verbs: [create, update, patch, delete, deletecollection]}
- {level: None}
Y
touch "$dir/log/audit.log" # who reads it need not be root

start etcd etcd --data-dir="$dir/data/etcd" --unsafe-no-fsync \
    --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
    --listen-peer-urls=http://127.0.0.1:2380
start kube-apiserver kube-apiserver \
    --etcd-servers=http://127.0.0.1:2379 \
    --bind-address="$control_ip" --advertise-address="$control_ip" --secure-port=6443 \
    --cert-dir="$dir/run/apiserver" --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
    --client-ca-file="$pki/ca.crt" \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
    --service-cluster-ip-range="$services" \
    --audit-policy-file="$dir/run/etc/audit.yaml" --audit-log-path="$dir/log/audit.log" \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file="$pki/accounts.key" --service-account-signing-key-file="$pki/accounts.key" \
    --kubelet-certificate-authority="$pki/ca.crt" --kubelet-preferred-address-types=InternalIP \
    --kubelet-client-certificate="$pki/apiserver-to-kubelet.crt" --kubelet-client-key="$pki/apiserver-to-kubelet.key"
await 120 "the API server answers" kubectl get --raw=/readyz

if [ "$level" = full ]; then
    start kube-controller-manager kube-controller-manager \
        --kubeconfig="$dir/run/etc/controller-manager.kubeconfig" \
        --authentication-kubeconfig="$dir/run/etc/controller-manager.kubeconfig" \
        --authorization-kubeconfig="$dir/run/etc/controller-manager.kubeconfig" \
        --bind-address=127.0.0.1 --cert-dir="$dir/run/controller-manager" --leader-elect=false \
        --use-service-account-credentials=true --service-account-private-key-file="$pki/accounts.key" \
        --root-ca-file="$pki/ca.crt" --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" \
        --node-monitor-grace-period=20s \
        --flex-volume-plugin-dir="$dir/run/volume-plugins"
    start kube-scheduler kube-scheduler \
        --kubeconfig="$dir/run/etc/scheduler.kubeconfig" \
        --authentication-kubeconfig="$dir/run/etc/scheduler.kubeconfig" \
        --authorization-kubeconfig="$dir/run/etc/scheduler.kubeconfig" \
        --bind-address=127.0.0.1 --cert-dir="$dir/run/scheduler" --leader-elect=false
fi
control_plane=$(jobs -p)

starting=()
for ((number = 1; number <= nodes; number++)); do
    "$parts/node.sh" start "$name" "$number" "$bin" &
    starting+=($!)
done
for node in "${starting[@]}"; do
    wait "$node" || fail "a node did not come up"
done
if [ "$level" = full ]; then
    sed "s/DNS_IP/$dns_ip/" "$parts/dns.yaml" | kubectl apply -f - >"$dir/log/dns.log"
    available=--for=condition=Available
    await 120 "names resolve in pods" kubectl -n kube-system wait $available deployment/coredns --timeout=1s
fi

touch "$dir/ready"
# shellcheck disable=SC2086 # one word for each process
wait -n $control_plane
echo "a program of the control plane ended"
