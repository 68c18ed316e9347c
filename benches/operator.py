#!/usr/bin/env python3
"""Measures `mqlink operator` against a real API server (etcd and kube-apiserver, no pods) and prints a Markdown table.

    benches/operator.py [--links 1000] [--clusters 50] [--idle 30] BINARY

KUBEBUILDER_ASSETS names the folder with etcd, kube-apiserver and kubectl: `e2e/cluster/tools.sh api` prints one.

Cold: all objects are there before the operator starts, and nothing of it. The time runs from its start until every
ClusterLink has a status and every Secret of a link is written. Then it is left alone: CPU, writes and memory at rest. At
last it is ended by SIGTERM, which it has to survive with exit code 0, and started over what it left.
"""

import argparse, base64, http.client, json, os, shutil, signal, socket, ssl, subprocess, sys, tempfile, time
import urllib.request

TOKEN = "a-server-of-our-own-on-loopback"
parser = argparse.ArgumentParser()
parser.add_argument("binary")
parser.add_argument("--links", type=int, default=1000)
parser.add_argument("--clusters", type=int, default=50)
parser.add_argument("--idle", type=float, default=30)
options = parser.parse_args()
assets = os.environ["KUBEBUILDER_ASSETS"]
folder = tempfile.mkdtemp(prefix="mqlink-operator-")
started = []


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(name, *arguments, **more):
    log = open(f"{folder}/{os.path.basename(name)}.log", "ab")
    child = subprocess.Popen([name, *arguments], cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **more)
    started.append(child)
    return child


class Api:
    """One connection to the API server."""

    def __init__(self, port):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=60)

    def send(self, method, path, body=None):
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        self.connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:300]}")
        return content

    def items(self, path):
        return json.loads(self.send("GET", path))["items"]


def until(what, holds, seconds, pause=0.05):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if holds():
                return
        except (OSError, RuntimeError, http.client.HTTPException):
            pass
        time.sleep(pause)
    raise SystemExit(f"{what}: not in {seconds} s; see {folder}")


def status(pid):
    """Seconds of CPU, and MiB resident: now, and at most."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    with open(f"/proc/{pid}/status") as file:
        sizes = {line.split()[0]: int(line.split()[1]) / 1024 for line in file if line.startswith(("VmRSS", "VmHWM"))}
    return cpu, sizes["VmRSS:"], sizes["VmHWM:"]


def metrics(port):
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line[0] != "#"}


def writes(counts):
    return sum(value for name, value in counts.items() if name.startswith("mqlink_operator_writes_total"))


def server():
    port = free_port()
    with open(f"{folder}/tokens", "w") as file:
        file.write(f"{TOKEN},admin,admin,system:masters\n")
    subprocess.run(["openssl", "genrsa", "-out", f"{folder}/sa.key", "2048"], check=True, capture_output=True)
    etcd = "unix://etcd:1"
    start(
        f"{assets}/etcd", f"--data-dir={folder}/etcd", f"--listen-client-urls={etcd}",
        f"--advertise-client-urls={etcd}", "--listen-peer-urls=unix://peer:1", "--unsafe-no-fsync",
    )  # fmt: skip
    start(
        f"{assets}/kube-apiserver", f"--etcd-servers={etcd}", "--bind-address=127.0.0.1", f"--secure-port={port}",
        f"--cert-dir={folder}/certs", f"--token-auth-file={folder}/tokens", "--authorization-mode=RBAC",
        "--service-account-issuer=https://localhost", f"--service-account-signing-key-file={folder}/sa.key",
        f"--service-account-key-file={folder}/sa.key", "--disable-admission-plugins=ServiceAccount",
        "--service-cluster-ip-range=10.0.0.0/16",
    )  # fmt: skip
    until("the API server", lambda: Api(port).send("GET", "/readyz"), 120)
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "own",
        "clusters": [{"name": "own", "cluster": {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}}],
        "users": [{"name": "own", "user": {"token": TOKEN}}],
        "contexts": [{"name": "own", "context": {"cluster": "own", "user": "own", "namespace": "default"}}],
    }  # fmt: skip
    with open(f"{folder}/kubeconfig", "w") as file:
        json.dump(config, file)
    return port


def fill(api):
    """The definitions; clusters in a ring of links, each with its next neighbours; Secrets that are nobody's business."""
    definitions = subprocess.run([options.binary, "crds"], check=True, capture_output=True).stdout
    kubectl = [f"{assets}/kubectl", f"--kubeconfig={folder}/kubeconfig", "apply", "--server-side", "-f", "-"]
    subprocess.run(kubectl, input=definitions, check=True, capture_output=True)
    group = "/apis/mqlink.dev/v1alpha1/namespaces/default"
    until("the definitions", lambda: api.items(f"{group}/clusterlinks") == [], 60)
    make = lambda kind, name, spec: {
        "apiVersion": "mqlink.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec
    }  # fmt: skip
    for number in range(options.clusters):
        api.send("POST", f"{group}/mqttclusters", make("MqttCluster", f"c{number}", {}))
    made = 0
    for step in range(1, options.clusters):
        for number in range(options.clusters):
            near, far = number, (number + step) % options.clusters
            if made < options.links and (step < options.clusters / 2 or near < far):
                remote = {"clusterRef": {"name": f"c{far}"}, "topics": ["fleet/#"]}
                spec = {"clusterRef": {"name": f"c{near}"}, "topics": ["sensors/#"], "remote": remote}
                api.send("POST", f"{group}/clusterlinks", make("ClusterLink", f"l{near}-{far}", spec))
                made += 1
    if made < options.links:
        raise SystemExit(f"{options.clusters} clusters have no {options.links} pairs; take more")
    others = {"data": {"blob": base64.b64encode(os.urandom(100_000)).decode()}}
    for number in range(200):
        api.send("POST", "/api/v1/namespaces/default/secrets", {"metadata": {"name": f"other{number}"}, **others})


def operator():
    port = free_port()
    environment = dict(os.environ, KUBECONFIG=f"{folder}/kubeconfig")
    child = start(
        os.path.abspath(options.binary), "--log-json", "operator", "--image=example.org/mqlink:1",
        f"--probe-listen=127.0.0.1:{port}", env=environment,
    )  # fmt: skip
    return child, port


def finished(api, port):
    """Cheap looks first: what is asked for must not slow down what is measured."""
    counts = metrics(port)
    if writes(counts) < 2 * options.links:
        return False
    links = api.items("/apis/mqlink.dev/v1alpha1/namespaces/default/clusterlinks")
    resolved = lambda link: any(
        condition["type"] == "ResolvedRefs" and condition["status"] == "True"
        for condition in link.get("status", {}).get("conditions", [])
    )
    return len(links) == options.links and all(resolved(link) for link in links)


def ended(child):
    begun = time.monotonic()
    child.send_signal(signal.SIGTERM)
    code = child.wait(20)
    if code != 0:
        raise SystemExit(f"it ended with {code}; see {folder}")
    return time.monotonic() - begun


def main():
    port = server()
    api = Api(port)
    fill(api)
    begun = time.monotonic()
    child, probes = operator()
    until("the operator", lambda: finished(api, probes), 300, 0.25)
    cold = time.monotonic() - begun
    for path in ("livez", "readyz"):
        urllib.request.urlopen(f"http://127.0.0.1:{probes}/{path}", timeout=5).read()
    cpu, rss, peak = status(child.pid)
    counts = metrics(probes)
    until("rest", lambda: (before := writes(metrics(probes)), time.sleep(3), writes(metrics(probes)) == before)[2], 60)
    rest_cpu, rest_rss, _ = status(child.pid)
    rest_writes, rest_begun = writes(metrics(probes)), time.monotonic()
    time.sleep(options.idle)
    idle_cpu = (status(child.pid)[0] - rest_cpu) / (time.monotonic() - rest_begun)
    idle_writes = writes(metrics(probes)) - rest_writes
    stop = ended(child)
    begun = time.monotonic()
    child, probes = operator()
    phase = lambda: b"lists" not in urllib.request.urlopen(f"http://127.0.0.1:{probes}/readyz", timeout=5).read()
    until("the second operator", lambda: metrics(probes).get("mqlink_operator_decisions_total", 0) > 0 and phase(), 60)
    again = time.monotonic() - begun
    time.sleep(5)
    second_writes, (second_cpu, second_rss, second_peak) = writes(metrics(probes)), status(child.pid)
    ended(child)
    decisions = counts["mqlink_operator_decisions_total"]
    each = counts["mqlink_operator_deciding_microseconds_total"] / decisions / 1000
    rows = [
        (f"from start until {options.links} links of {options.clusters} clusters are reconciled", f"{cold:.1f} s"),
        ("CPU of the operator for that", f"{cpu:.1f} s"),
        ("writes", f"{writes(counts):.0f}"),
        ("decisions, and time for each", f"{decisions:.0f}, {each:.0f} ms"),
        ("resident memory then, and at most", f"{rss:.0f} MiB, {peak:.0f} MiB"),
        ("resident memory at rest", f"{rest_rss:.0f} MiB"),
        (f"CPU at rest, over {options.idle:.0f} s", f"{idle_cpu * 100:.2f} % of a core"),
        ("writes at rest, the Lease apart", f"{idle_writes:.0f}"),
        ("from SIGTERM to the end", f"{stop:.2f} s"),
        ("started over what it left: until it decided", f"{again:.1f} s"),
        ("its writes then", f"{second_writes:.0f}"),
        ("its CPU and memory, at most", f"{second_cpu:.1f} s, {second_peak:.0f} MiB"),
    ]
    print("| | |\n|---|---|")
    for what, figure in rows:
        print(f"| {what} | {figure} |")


try:
    main()
finally:
    for child in reversed(started):
        if child.poll() is None:
            child.kill()
            child.wait()
    if sys.exc_info()[0] is None:
        shutil.rmtree(folder)
