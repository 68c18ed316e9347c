//! A pod, as far as it matters: whose it is, where it is reached, and how it is.
//!
//! What Kubernetes says of a pod counts in its messages: what is taken of it does not tick.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{self as core, ContainerStatus, PodCondition, PodStatus};
use kube::ResourceExt;

use crate::plan::Trouble;

/// The name of the port on which nodes serve the admin protocol.
const ADMIN: &str = "admin";
/// What of Kubernetes' words is passed on.
const WORDS_CHARS_MAX: usize = 1_024;

/// One pod that may run a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::operator) struct Pod {
    pub(in crate::operator) uid: String,
    /// The uid of the StatefulSet that made it.
    pub(in crate::operator) owner: Option<String>,
    /// Where its node serves the admin protocol; `None` before it has an address.
    pub(in crate::operator) admin: Option<SocketAddr>,
    /// By the kubelet's word.
    is_ready: bool,
    /// The Kubernetes node that it is on, where Kubernetes hears nothing of that.
    lost_with: Option<String>,
    /// Why it does not run.
    pub(in crate::operator) trouble: Option<Trouble>,
}

impl Pod {
    /// What matters of a pod.
    pub(in crate::operator) fn of(pod: &core::Pod) -> Pod {
        let status = pod.status.clone().unwrap_or_default();
        let is_set = |owner: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference| {
            owner.controller == Some(true) && owner.kind == "StatefulSet"
        };
        let ip: Option<IpAddr> = status.pod_ip.as_ref().and_then(|ip| ip.parse().ok());
        Pod {
            uid: pod.uid().unwrap_or_default(),
            owner: pod.owner_references().iter().find(is_set).map(|owner| owner.uid.clone()),
            admin: ip.zip(admin_port(pod)).map(SocketAddr::from),
            is_ready: has_condition(&status, "Ready"),
            lost_with: pod.spec.as_ref().and_then(|it| it.node_name.clone()).filter(|_| is_lost(&status)),
            trouble: trouble(&status),
        }
    }

    /// Why it is not ready.
    pub(in crate::operator) fn pending(&self) -> Option<String> {
        if let Some(machine) = &self.lost_with {
            return Some(lost_words(machine));
        }
        let why = if self.admin.is_none() { "its pod has no address yet" } else { "its pod is not ready" };
        (!self.is_ready).then(|| why.to_owned())
    }

    /// Whether Kubernetes hears nothing of its Kubernetes node: then it may run all the same, nobody ends it, and nothing takes
    /// its place.
    pub(in crate::operator) fn is_lost(&self) -> bool {
        self.lost_with.is_some()
    }
}

fn admin_port(pod: &core::Pod) -> Option<u16> {
    let containers = &pod.spec.as_ref()?.containers;
    let mut ports = containers.iter().flat_map(|container| container.ports.iter().flatten());
    u16::try_from(ports.find(|port| port.name.as_deref() == Some(ADMIN))?.container_port).ok()
}

/// Two kubelets may run one pod of a StatefulSet if Kubernetes replaced it too early: so somebody has to say that it is gone.
fn lost_words(machine: &str) -> String {
    format!(
        "Kubernetes hears nothing of its node {machine}, and makes no other pod before that is back or given up; once it is \
         surely off: kubectl taint node {machine} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
    )
}

/// A kubelet says why a pod is not ready, for example that a readiness gate is not met. Kubernetes, which takes `Ready` back in its
/// place, changes nothing else.
fn is_lost(status: &PodStatus) -> bool {
    let is_taken_back = |condition: &PodCondition| {
        let has_reason = condition.reason.as_ref().is_some_and(|reason| !reason.is_empty());
        condition.type_ == "Ready" && condition.status != "True" && !has_reason
    };
    status.conditions.iter().flatten().any(is_taken_back) && has_condition(status, "ContainersReady")
}

fn has_condition(status: &PodStatus, type_: &str) -> bool {
    status.conditions.iter().flatten().any(|condition| condition.type_ == type_ && condition.status == "True")
}

fn trouble(status: &PodStatus) -> Option<Trouble> {
    let statuses = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let of_container = statuses.filter_map(|it| Some((container_trouble(it)?, is_mistake(it)))).next();
    let (words, is_refused) = of_container.or_else(|| Some((unschedulable(status)?, false)))?;
    Some(Trouble { message: words.chars().take(WORDS_CHARS_MAX).collect(), is_refused })
}

/// Whether its spec cannot be run: an image with a name that is none, a ConfigMap or Secret in `env` that does not exist.
fn is_mistake(container: &ContainerStatus) -> bool {
    let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
    let reason = waiting.and_then(|waiting| waiting.reason.as_deref());
    matches!(reason, Some("InvalidImageName" | "CreateContainerConfigError"))
}

fn container_trouble(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    let message = waiting.message.clone().unwrap_or_default();
    match reason {
        "ContainerCreating" | "PodInitializing" => None,
        // Kubernetes takes turns between these two, with other words each time.
        "ErrImagePull" | "ImagePullBackOff" => {
            Some(format!("its image {} cannot be pulled (ImagePullBackOff)", container.image))
        }
        // Its message counts the seconds to the next attempt.
        "CrashLoopBackOff" => {
            Some(format!("it ends again and again (CrashLoopBackOff){}", last_words(container)))
        }
        reason => Some(format!("{reason}: {message}")),
    }
}

fn last_words(container: &ContainerStatus) -> String {
    let Some(ended) = container.last_state.as_ref().and_then(|state| state.terminated.as_ref()) else {
        return String::new();
    };
    let reason = ended.reason.as_deref().unwrap_or("Error");
    let words = ended.message.as_deref().unwrap_or_default().trim();
    let words = words.lines().last().map(|line| format!(": {line}")).unwrap_or_default();
    format!("; the last time {reason}, exit code {}{words}", ended.exit_code)
}

fn unschedulable(status: &PodStatus) -> Option<String> {
    let conditions = status.conditions.iter().flatten();
    let mut scheduled = conditions.filter(|it| it.type_ == "PodScheduled" && it.status == "False");
    let why = scheduled.next()?;
    let message = why.message.clone().unwrap_or_default();
    Some(format!("it cannot be scheduled ({}): {message}", why.reason.as_deref().unwrap_or_default()))
}
