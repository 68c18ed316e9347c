//! The image that is made without Docker holds what the Dockerfile lays out, and names the same user and program.
//!
//! Docker itself is not run: its part is to copy one folder. The program in the image is any that is small.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

const PROGRAM: &str = "/bin/true";
const DOCKERFILE: &str = include_str!("../../image/Dockerfile");

/// Runs a shell command in the checkout; what it prints.
#[track_caller]
fn sh(command: &str) -> Vec<u8> {
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", command]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = shell.output().expect("there is a shell");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command}: {out}{err}");
    output.stdout
}

/// What follows a word of the Dockerfile, in its last stage.
fn directive(word: &str) -> &str {
    let line = DOCKERFILE.lines().rev().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("the Dockerfile has no {word}"))
}

/// A file of an image, by the reference to it.
fn blob(image: &Path, reference: &Value) -> String {
    let digest = reference["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:"));
    image.join("blobs/sha256").join(digest.expect("a digest")).display().to_string()
}

fn read(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("it is there")).expect("it is JSON")
}

#[test]
fn the_image_is_what_the_dockerfile_makes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path().display();
    for name in ["one", "two"] {
        sh(&format!("image/build.sh {PROGRAM} {at}/{name}.tar example/mqlink:1"));
    }
    sh(&format!("cmp {at}/one.tar {at}/two.tar; mkdir {at}/image; tar -xf {at}/one.tar -C {at}/image"));
    let image = folder.path().join("image");
    let manifest = read(blob(&image, &read(image.join("index.json"))["manifests"][0]));
    let config = &read(blob(&image, &manifest["config"]))["config"];
    assert_eq!(config["User"], directive("USER"));
    assert_eq!(config["Entrypoint"].to_string(), directive("ENTRYPOINT"));

    let lay_out = format!("image/rootfs.sh {PROGRAM} {at}/rootfs");
    assert!(DOCKERFILE.contains("&& image/rootfs.sh target/release/mqlink /rootfs\n"), "{DOCKERFILE}");
    let layer = blob(&image, &manifest["layers"][0]);
    sh(&format!(
        "{lay_out}; mkdir {at}/layer; tar -xf {layer} -C {at}/layer; diff -r {at}/rootfs {at}/layer"
    ));
    assert_eq!(manifest["layers"].as_array().map(Vec::len), Some(1));
    assert_eq!(directive("COPY"), "--from=build /rootfs /");
}

#[test]
fn the_dockerfile_builds_with_our_rust() {
    let release = format!("FROM rust:{}-", env!("CARGO_PKG_RUST_VERSION"));
    assert!(DOCKERFILE.contains(&release), "the Dockerfile has another Rust than Cargo.toml");
}
