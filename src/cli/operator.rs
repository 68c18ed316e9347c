//! `mqlink operator`.

use std::net::SocketAddr;

use clap::Args;
use kube::Client;

use super::{Failure, interrupted};
use crate::admin::bind_tcp;
use crate::operator::{self, Lease, Options, SILENCE_MAX, Scope, Vitals};

/// Run the clusters and links of this Kubernetes.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct OperatorArgs {
    /// The image that clusters run unless their spec names one: this version's [default: that of the own pod, which the
    /// variable POD_NAME names].
    #[arg(long, value_name = "IMAGE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    image: Option<String>,
    /// Work in this namespace only; may be given several times [default: all namespaces].
    #[arg(long = "namespace", value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    namespaces: Vec<String>,
    /// Where the Lease is that one operator holds at a time [default: the own namespace].
    #[arg(long, value_name = "NAMESPACE")]
    lease_namespace: Option<String>,
    /// Hold no Lease: for an operator that is started by hand.
    #[arg(long, conflicts_with = "lease_namespace")]
    no_lease: bool,
    /// Answer /livez, /readyz and /metrics in plain HTTP on this address, as [::]:8080 [default: nowhere].
    #[arg(long, value_name = "ADDRESS")]
    probe_listen: Option<SocketAddr>,
}

const HELP: &str = "\
It works with the rights of its pod's account, or of the current kubectl context.

Exit codes: 0 ended by SIGTERM or SIGINT, 1 failed, 2 wrong usage.

Example: mqlink operator --image localhost/mqlink:dev --no-lease";

impl OperatorArgs {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let mut config = kube::Config::infer()
            .await
            .map_err(|error| Failure::new(format!("failed to find Kubernetes: {error}; set KUBECONFIG")))?;
        let namespace = config.default_namespace.clone();
        let lease_namespace = self.lease_namespace.unwrap_or_else(|| namespace.clone());
        config.read_timeout = Some(SILENCE_MAX);
        let vitals = Vitals::default();
        if let Some(address) = self.probe_listen {
            let listener = bind_tcp(address)
                .map_err(|error| Failure::new(format!("{error}; choose another --probe-listen")))?;
            tokio::spawn(vitals.clone().serve(listener));
        }
        let client = Client::try_from(config)
            .map_err(|error| Failure::new(format!("failed to connect to Kubernetes: {error}")))?;
        let mut end = Box::pin(interrupted());
        let image = match self.image {
            Some(image) => image,
            None => tokio::select! {
                () = &mut end => return Ok(()),
                image = image_of_own_pod(&client, &namespace) => image?,
            },
        };
        let options = Options {
            scope: match self.namespaces.is_empty() {
                true => Scope::All,
                false => Scope::Namespaces(self.namespaces),
            },
            image,
            lease: (!self.no_lease).then(|| Lease::new(lease_namespace, &host_name())),
            vitals,
        };
        let done = operator::run(client, options, end).await;
        done.map_err(|error| Failure::new(error.to_string()))
    }
}

async fn image_of_own_pod(client: &Client, namespace: &str) -> Result<String, Failure> {
    let pod = std::env::var("POD_NAME").map_err(|_| {
        Failure::usage("the image for clusters is not known: give --image, or in a pod its name as POD_NAME")
    })?;
    operator::own_image(client, namespace, &pod).await.map_err(|error| Failure::new(error.to_string()))
}

/// The pod's name, in a pod.
fn host_name() -> String {
    std::env::var("HOSTNAME").unwrap_or_else(|_| "operator".to_owned())
}
