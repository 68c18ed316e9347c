//! The manifests without Kubernetes: `mqlink up`.

pub mod manifest;
pub mod home;
pub mod ports;
pub mod child;
