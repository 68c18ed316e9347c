#!/usr/bin/env bash
# node.sh start|stop NAME N [BIN]: one node, in namespaces of its own within its cluster's: ending its first
# process is a power cut. Called by control.sh and ../node.sh, in the cluster's namespaces.
#
# `node.sh first …` is that first process. containerd, the CNI plugins and the kubelet write to a few fixed places;
# the node has its own /run, and what it writes to /var/lib and /var/log goes to a layer that ends with it. It also
# reads the kernel settings that the kubelet wants from files of its own: those of the machine are never changed.
. "$(dirname "$0")/../lib.sh"

verb=$1
choose_cluster "$2"
choose_addresses
number=$3
node=node$number ip=$(node_ip "$number")
run=$dir/run/$node data=$dir/data/$node pki=$dir/run/pki
export KUBECONFIG=$dir/kubeconfig KUBECACHEDIR=$dir/run/cache
no_proxy_here

is_ready() {
    kubectl get node "$node" -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}' | grep -q True
}

start_node() {
    local bin=$1
    export PATH=$bin:$PATH
    mkdir -p "$run/cni" "$data"
    ip netns add "$node"
    ip link add "$node" master switch type veth peer name eth0 netns "$node"
    ip link set "$node" up
    ip route add "$block.$number.0/24" via "$ip"
    make_cgroup "$cgroup/$node"
    nsenter --net="/run/netns/$node" unshare --mount --pid --fork --mount-proc --kill-child \
        "$0" first "$name" "$number" "$bin" >>"$dir/log/$node.log" 2>&1 </dev/null &
    echo $! >"$run/pid"
    await 60 "$node is ready" is_ready
}

stop_node() {
    kill -9 "$(cat "$run/pid")"
    remove_cgroup "$cgroup/$node"
    ip route delete "$block.$number.0/24"
    ip link delete "$node"
    ip netns delete "$node"
    rm -rf "$run" "$data"
}

# layered FOLDER: what is written there from now on goes to the node's own data, and nowhere else.
layered() {
    local layer=$data/layers/${1//\//-}
    mkdir -p "$layer/upper" "$layer/work"
    mount -t overlay -o "lowerdir=$1,upperdir=$layer/upper,workdir=$layer/work" overlay "$1"
}

# setting PATH VALUE: what the kubelet finds in /proc/sys, without telling the kernel.
setting() {
    mkdir -p "$run/sys"
    echo "$2" >"$run/sys/${1//\//.}"
    mount --bind "$run/sys/${1//\//.}" "/proc/sys/$1"
}

isolate() {
    mount -t tmpfs run /run
    layered /var/lib
    layered /var/log
    setting vm/overcommit_memory 1
    setting vm/panic_on_oom 0
    setting kernel/panic 10
    setting kernel/panic_on_oops 1
    setting kernel/keys/root_maxkeys 1000000
    setting kernel/keys/root_maxbytes 25000000
    ip link set lo up
    ip address add "$ip/24" dev eth0
    ip link set eth0 up
    ip route add default via "$control_ip"
    echo 1 >/proc/sys/net/ipv4/ip_forward
}

write_containerd() {
    cat >"$run/containerd.toml" <<Y
version = 2
root = "$data/containerd"
state = "$run/containerd"
[grpc]
  address = "$run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  # Without CAP_SYS_RESOURCE a score below one's own cannot be set, and no pod would start.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$bin/cni"
    conf_dir = "$run/cni"
Y
    cat >"$run/cni/pods.conflist" <<Y
{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [
    {
      "type": "bridge", "bridge": "pods", "isGateway": true, "hairpinMode": true,
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "$block.$number.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
Y
}

write_kubelet() {
    : >"$run/resolv.conf" # pods that want the node's own resolver get none
    cat >"$run/kubelet.yaml" <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $ip
containerRuntimeEndpoint: unix://$run/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup/$node
failCgroupV1: false
failSwapOn: false
clusterDNS: [$dns_ip]
clusterDomain: cluster.local
resolvConf: $run/resolv.conf
tlsCertFile: $pki/$node-server.crt
tlsPrivateKeyFile: $pki/$node-server.key
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $pki/ca.crt}}
authorization: {mode: Webhook}
nodeStatusUpdateFrequency: 5s
podLogsDir: $data/logs
volumePluginDir: $run/volume-plugins
# A machine that is nearly full is no reason to end the tests' pods.
evictionHard: {nodefs.available: 100Mi, imagefs.available: 100Mi, memory.available: 100Mi}
imageGCHighThresholdPercent: 100
Y
    cat >"$run/kube-proxy.yaml" <<Y
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clusterCIDR: $block.0.0/16
hostnameOverride: $node
bindAddress: $ip
clientConnection: {kubeconfig: $dir/run/etc/kube-proxy.kubeconfig}
# The limit on tracked connections belongs to the machine.
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
Y
}

first() {
    bin=$1
    isolate
    . "$(dirname "$0")/certificates.sh"
    make_certificate "$node-server" "/CN=$node" "DNS:$node,IP:$ip"
    make_kubeconfig "$node" "/O=system:nodes/CN=system:node:$node"
    write_containerd
    write_kubelet

    start "$node-containerd" containerd --config "$run/containerd.toml"
    await 20 "$node runs containers" ctr --address "$run/containerd.sock" version
    for image in "$bin"/../images/*.tar; do
        ctr --address "$run/containerd.sock" --namespace k8s.io images import "$image"
    done
    start "$node-kubelet" kubelet --config="$run/kubelet.yaml" --kubeconfig="$dir/run/etc/$node.kubeconfig" \
        --hostname-override="$node" --node-ip="$ip" --root-dir="$data/kubelet" --cert-dir="$run/kubelet"
    start "$node-kube-proxy" kube-proxy --config="$run/kube-proxy.yaml"
    wait -n
    echo "a program of $node ended"
}

case $verb in
start) start_node "$4" ;;
stop) stop_node ;;
first) first "$4" ;;
esac
