//! A real API server for the tests, where one is at hand: `KUBEBUILDER_ASSETS` names the folder with `etcd` and
//! `kube-apiserver`, as for Kubernetes' own test environments.
//!
//! One server serves the whole test process. Both programs run under a shell that ends them when its standard
//! input closes, which the kernel does for us however the tests end. etcd listens on a socket in a temporary
//! folder, the API server on a port that was free a moment ago; a port that was taken meanwhile is a new attempt.
//!
//! Who comes with the token of an account is that account, with its rights; what it asks is kept in a log. With the other token
//! one may do everything.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::http::Request;
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tower::util::MapRequestLayer;

use crate::api::API_VERSION;
use crate::api::crd::{self, Kind};

const ATTEMPTS: u32 = 5;
/// A busy machine needs long for what takes seconds.
const START_MAX: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(50);
/// With it one may do everything.
pub(crate) const TOKEN: &str = "the-tests-own-server-on-loopback";
const ACCOUNT_TOKEN: &str = "an-account-that-has-only-its-rights";
/// The account that the other token stands for: the operator's in `config/`.
const ACCOUNT: &str = "system:serviceaccount:mqlink-system:mqlink-operator";

/// A `kube-apiserver` with the two definitions, and its `etcd`. The children end when this process does.
pub(crate) struct Server {
    port: u16,
    assets: PathBuf,
    folder: PathBuf,
    api_arguments: Vec<String>,
    children: [Child; 2],
    /// Of the shells of programs that were ended: each removes the folder when this closes.
    held: Vec<ChildStdin>,
}

impl Server {
    /// The server of this test process, started on first use; `None` where none is at hand.
    pub(crate) fn shared() -> Option<&'static Server> {
        static SERVER: OnceLock<Option<Server>> = OnceLock::new();
        SERVER.get_or_init(Server::own).as_ref()
    }

    /// A server for one test, which looks at more than a namespace.
    ///
    /// # Panics
    /// In CI, where none is at hand: there, a test that abstains would count as one that passed.
    pub(crate) fn own() -> Option<Server> {
        let assets = std::env::var_os("KUBEBUILDER_ASSETS");
        assert!(
            assets.is_some() || std::env::var_os("CI").is_none(),
            "set KUBEBUILDER_ASSETS, for example to $(e2e/cluster/tools.sh api): in CI no test abstains"
        );
        Some(Server::start(Path::new(&assets?)))
    }

    /// A client that may do everything; it lives on the runtime that it is made on.
    pub(crate) fn client(&self) -> Client {
        self.client_below("")
    }

    /// A client with the rights of the operator's account.
    pub(crate) fn client_of_account(&self) -> Client {
        self.client_as(ACCOUNT_TOKEN, "")
    }

    /// All that came from the operator's account: the server's audit events.
    pub(crate) fn requests_of_account(&self) -> Vec<Value> {
        let log = std::fs::read_to_string(self.folder.join("audit.log")).expect("the server writes a log");
        log.lines().map(|line| serde_json::from_str(line).expect("an event is JSON")).collect()
    }

    /// A client for whom all addresses begin with a path: below one that the server does not know, it knows no kind.
    pub(crate) fn client_below(&self, path: &str) -> Client {
        self.client_as(TOKEN, path)
    }

    fn client_as(&self, token: &str, path: &str) -> Client {
        Client::try_from(config(self.port, token, path)).expect("a client")
    }

    /// A client that reaches the server through a relay's port.
    pub(crate) fn client_at(&self, port: u16) -> Client {
        Client::try_from(config(port, TOKEN, "")).expect("a client")
    }

    /// A client whose requests something looks at, and may change, before they leave.
    pub(crate) fn client_through<F>(&self, look: F) -> Client
    where
        F: FnMut(Request<Body>) -> Request<Body> + Clone + Send + Sync + 'static,
    {
        let builder = ClientBuilder::try_from(config(self.port, TOKEN, "")).expect("a client");
        builder.with_layer(&MapRequestLayer::new(look)).build()
    }

    /// Where the server listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends `kube-apiserver` without a word.
    pub(crate) fn kill_api(&mut self) {
        let pid = std::fs::read_to_string(self.folder.join("kube-apiserver.pid")).expect("it runs");
        let pid = Pid::from_raw(pid.trim().parse().expect("a number"));
        kill(pid, Signal::SIGKILL).expect("it is ours");
        // Waiting would close it.
        self.held.extend(self.children[1].stdin.take());
        self.children[1].wait().expect("its shell ends with it");
    }

    /// Starts it again on the same port and data.
    pub(crate) fn start_api(&mut self) {
        self.children[1] = spawn(self.assets.join("kube-apiserver"), &self.folder, &self.api_arguments);
        assert!(self.becomes_ready(), "kube-apiserver starts again");
    }

    /// A namespace that no other test has.
    pub(crate) async fn namespace(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("case-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let new = json!({"metadata": {"name": name}});
        send(&self.client(), "POST", "/api/v1/namespaces", &new).await.expect("the namespace is new");
        name
    }

    fn start(assets: &Path) -> Server {
        let server = (0..ATTEMPTS)
            .find_map(|_| Server::try_start(assets))
            .unwrap_or_else(|| panic!("kube-apiserver did not start in {ATTEMPTS} attempts"));
        server.block_on(async |client| {
            for kind in Kind::ALL {
                let url = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
                let stored = send(&client, "POST", url, &crd::crd(kind)).await;
                let stored = stored.unwrap_or_else(|error| panic!("{}: {error}", kind.as_str()));
                assert_eq!(
                    stored["spec"],
                    crd::crd(kind)["spec"],
                    "the server stores another {}",
                    kind.as_str()
                );
                await_served(&client, kind).await;
            }
        });
        server
    }

    fn try_start(assets: &Path) -> Option<Server> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made").keep(); // the shells remove it
        let path = |name: &str| folder.join(name).display().to_string();
        let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
        let tokens = format!("{TOKEN},admin,admin,system:masters\n{ACCOUNT_TOKEN},{ACCOUNT},account\n");
        std::fs::write(path("tokens"), tokens).expect("writable");
        let policy = json!({
            "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
            "rules": [{"level": "Metadata", "users": [ACCOUNT]}, {"level": "None"}],
        });
        std::fs::write(path("audit.json"), policy.to_string()).expect("writable");
        let key = rcgen::KeyPair::generate().expect("a key can be made");
        std::fs::write(path("sa.key"), key.serialize_pem()).expect("writable");
        std::fs::write(path("sa.pub"), key.public_key_pem()).expect("writable");
        let socket = "unix://etcd:1".to_owned(); // a file `etcd:1` in the folder that both run in
        let etcd = spawn(
            assets.join("etcd"),
            &folder,
            &[
                format!("--data-dir={}", path("etcd")),
                format!("--listen-client-urls={socket}"),
                format!("--advertise-client-urls={socket}"),
                "--listen-peer-urls=unix://peer:1".to_owned(),
                "--unsafe-no-fsync".to_owned(),
            ],
        );
        let api_arguments = vec![
            format!("--etcd-servers={socket}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--cert-dir={}", path("certs")),
            format!("--token-auth-file={}", path("tokens")),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://localhost".to_owned(),
            format!("--service-account-signing-key-file={}", path("sa.key")),
            format!("--service-account-key-file={}", path("sa.pub")),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            format!("--audit-policy-file={}", path("audit.json")),
            format!("--audit-log-path={}", path("audit.log")),
        ];
        let api = spawn(assets.join("kube-apiserver"), &folder, &api_arguments);
        let assets = assets.to_owned();
        let mut server =
            Server { port, assets, folder, api_arguments, children: [etcd, api], held: Vec::new() };
        server.becomes_ready().then_some(server)
    }

    /// Asks until the server says so; false when a program ended first.
    fn becomes_ready(&mut self) -> bool {
        let deadline = Instant::now() + START_MAX;
        while Instant::now() < deadline {
            let ended = self.children.iter_mut().any(|child| child.try_wait().is_ok_and(|it| it.is_some()));
            if ended {
                return false;
            }
            let readiness = Request::get("/readyz").body(Vec::new()).expect("a valid request");
            if self.block_on(async |client| client.request_text(readiness).await.is_ok()) {
                return true;
            }
            std::thread::park_timeout(POLL);
        }
        false
    }

    /// Each call has a runtime and a connection of its own: tests run on many threads.
    pub(crate) fn block_on<T>(&self, work: impl AsyncFnOnce(Client) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { work(self.client()).await })
    }
}

fn config(port: u16, token: &str, path: &str) -> Config {
    let url = format!("https://127.0.0.1:{port}{path}");
    let mut config = Config::new(url.parse().expect("a URL"));
    config.accept_invalid_certs = true;
    config.auth_info.token = Some(token.to_owned().into());
    config
}

/// Where the objects of a kind are in a namespace.
pub(crate) fn url(kind: Kind, namespace: &str) -> String {
    let plural = crd::crd(kind)["spec"]["names"]["plural"].as_str().expect("a definition has it").to_owned();
    format!("/apis/{API_VERSION}/namespaces/{namespace}/{plural}")
}

/// Sends the manifest as it stands: a typed client would already have mended what the server is to judge.
pub(crate) async fn send(
    client: &Client,
    method: &str,
    url: &str,
    manifest: &Value,
) -> Result<Value, String> {
    let body = if method == "GET" { Vec::new() } else { manifest.to_string().into_bytes() };
    let request = Request::builder().method(method).uri(url).header("content-type", "application/json");
    let request = request.body(body).expect("method and URL are valid");
    client.request::<Value>(request).await.map_err(|error| error.to_string())
}

/// A new definition is served some time after it was stored; the server says nothing when.
async fn await_served(client: &Client, kind: Kind) {
    let deadline = Instant::now() + START_MAX;
    while send(client, "GET", &url(kind, "default"), &Value::Null).await.is_err() {
        assert!(Instant::now() < deadline, "{} is not served", kind.as_str());
        std::thread::park_timeout(POLL);
    }
}

/// Runs a program in a folder, its output beside it, under a shell that ends it when this process is gone.
fn spawn(program: PathBuf, folder: &Path, arguments: &[String]) -> Child {
    const SHELL: &str = "exec 3<&0; \"$@\" </dev/null & child=$!; echo $child >\"${1##*/}.pid\"; (cat <&3 >/dev/null; kill -9 $child; rm -rf \"$PWD\") & wait $child";
    let log = std::fs::File::create(
        program.file_name().map(|name| folder.join(name).with_extension("log")).expect("a program"),
    );
    let log = log.expect("the folder can be written");
    Command::new("sh")
        .args(["-c", SHELL, "sh"])
        .arg(&program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(log.try_clone().expect("the log can be shared"))
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}
