//! A bystander among hostile crowds, in small: how fast it is served is for `make soak`, that it is served is for here.

use std::process::Command;

use mqlink::settings::Settings;

use crate::harness::{MQLINK, Node, settings};

#[test]
fn a_bystander_is_served_whatever_crowds_do() {
    for shards in [1, 2] {
        let node = Node::start(Settings { shards: Some(shards), ..settings() });
        let address = format!("127.0.0.1:{}", node.who().port);
        let output = Command::new(MQLINK)
            .args(["bench", "--soak", &address, "--connections", "300", "--seconds", "1"])
            .output()
            .expect("the binary is built");
        let table = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{shards} shards: {table}{errors}");
        let rows: Vec<Vec<&str>> =
            table.lines().skip(2).map(|line| line.split('|').map(str::trim).collect()).collect();
        assert_eq!(rows.len(), 6, "{shards} shards: {table}{errors}");
        for row in rows {
            assert_eq!((row[2], row[3]), ("200", "0"), "{shards} shards, {}: {table}", row[1]);
        }
    }
}
