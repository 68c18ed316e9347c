//! The manifests without Kubernetes: `mqlink up`.

pub mod manifest;
