#!/usr/bin/env bash
# tools.sh api|full: makes the programs of a test cluster available and prints the folder they are in.
#
#   api    etcd, kube-apiserver, kubectl: what KUBEBUILDER_ASSETS means. Needs Go and Debian's apt, not root.
#   full   everything that runs pods, and the images of a cluster's own pods in the folder `images` beside.
#
# Kubernetes and CoreDNS are built from e2e/tools (about 8 minutes on two cores, once). etcd, containerd, runc and
# the CNI plugins are Debian's packages, unpacked and not installed: none of them starts as a service, and a
# containerd that the machine has is left alone. All of it is kept outside the checkout under a key of go.sum and our own programs.
# A KUBEBUILDER_ASSETS that is set already is taken as it is for `api`.
set -euo pipefail
umask 022

level=${1:?api or full}
here=$(cd "$(dirname "$0")" && pwd)
source=$here/../tools

if [ "$level" = api ] && [ -n "${KUBEBUILDER_ASSETS-}" ]; then
    echo "$KUBEBUILDER_ASSETS"
    exit
fi

key=$(cat "$source"/go.sum "$source"/*/main.go | sha256sum | cut -c1-12)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mqlink/kubernetes-$key
bin=$cache/bin images=$cache/images packages=$cache/packages
mkdir -p "$bin" "$images" "$packages"

# Two callers at once: the second waits, and finds everything made.
exec 9>"$cache/lock"
flock 9
exec 3>&1 1>&2 # standard output is for the folder alone
# apt would fetch as a user that cannot write here, and says so each time.
apt="apt-get -o APT::Sandbox::User=$(id -un)"

# need PROGRAM WHAT-ELSE: fails early, and says what would do instead.
need() {
    command -v "$1" >/dev/null && return
    echo "$1 is missing. Install it, or $2"
    exit 1
}

# built NAME PACKAGE [LDFLAGS]: builds a Go program, unless it is there.
built() {
    [ -x "$bin/$1" ] && return
    need go "set KUBEBUILDER_ASSETS (level api) or KUBECONFIG (level full): docs/e2e.md"
    echo "building $1"
    (cd "$source" && CGO_ENABLED=0 nice go build -trimpath -ldflags "-s -w ${3-}" -o "$bin/$1.new" "$2")
    mv "$bin/$1.new" "$bin/$1"
}

kubernetes() {
    local version minor package stamp=
    version=$(sed -n 's/^\tk8s.io\/kubernetes \(v[^ ]*\).*/\1/p' "$source/go.mod")
    minor=$(cut -d. -f2 <<<"$version")
    # Programs that do not know their release refuse to talk about compatibility with others.
    for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        stamp+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$minor"
        stamp+=" -X $package.gitTreeState=clean"
    done
    for name in "$@"; do
        built "$name" "k8s.io/kubernetes/cmd/$name" "$stamp"
    done
}

# unpacked PACKAGE PATH…: puts files of a Debian package into the folder of programs.
unpacked() {
    local package=$1 path
    shift
    for path in "$@"; do
        [ -e "$bin/$(basename "$path")" ] && continue
        if [ ! -d "$packages/$package" ]; then
            need apt-get "use Debian, or set KUBEBUILDER_ASSETS (level api) or KUBECONFIG (level full): docs/e2e.md"
            echo "unpacking $package"
            (cd "$packages" && { $apt download -qq "$package" || { $apt update -qq && $apt download -qq "$package"; }; })
            dpkg-deb -x "$packages/$package"_*.deb "$packages/$package.new"
            mv "$packages/$package.new" "$packages/$package"
            rm "$packages/$package"_*.deb
        fi
        ln -sfn "$packages/$package$path" "$bin/$(basename "$path")"
    done
}

# installed PROGRAM=PACKAGE…: programs that are no services come from the machine, as packages.
installed() {
    local pair missing=()
    for pair in "$@"; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} = 0 ] && return
    if [ "$(id -u)" != 0 ]; then
        echo "missing: ${missing[*]}  (sudo apt-get install ${missing[*]})"
        exit 1
    fi
    echo "installing ${missing[*]}"
    DEBIAN_FRONTEND=noninteractive apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# imaged NAME ENTRYPOINT PROGRAM: an image that is one program.
imaged() {
    [ -e "$images/$1.tar" ] && return
    local root
    root=$(mktemp -d)
    install -D "$3" "$root/$2"
    "$here/../../image/oci.sh" "$images/$1.tar" "localhost/$1:1" "{\"Entrypoint\": [\"$2\"]}" "$root"
    rm -r "$root"
}

# A shell with the usual network tools, for pods that look at the cluster from inside.
toolbox() {
    [ -e "$images/toolbox.tar" ] && return
    unpacked busybox-static /bin/busybox
    local root name
    root=$(mktemp -d)
    install -D "$bin/busybox" "$root/bin/busybox"
    for name in $("$bin/busybox" --list); do
        [ "$name" = busybox ] || ln -s busybox "$root/bin/$name"
    done
    install -d -m 1777 "$root/tmp"
    "$here/../../image/oci.sh" "$images/toolbox.tar" localhost/toolbox:1 '{"Cmd": ["/bin/sh"]}' "$root"
    rm -r "$root"
}

unpacked etcd-server /usr/bin/etcd
kubernetes kube-apiserver kubectl
if [ "$level" = full ]; then
    installed iptables=iptables ip=iproute2 openssl=openssl
    kubernetes kube-controller-manager kube-scheduler kubelet kube-proxy
    unpacked containerd /usr/bin/containerd /usr/bin/containerd-shim-runc-v2 /usr/bin/ctr
    unpacked runc /usr/sbin/runc
    unpacked containernetworking-plugins /usr/lib/cni
    built coredns ./coredns
    built pause ./pause
    imaged coredns /coredns "$bin/coredns"
    imaged pause /pause "$bin/pause"
    toolbox
fi

echo "$bin" >&3
