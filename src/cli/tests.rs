use std::time::Duration;

use clap::{CommandFactory, Parser};

use super::*;

#[test]
fn the_commands_are_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn durations_are_read_with_and_without_units() {
    assert_eq!(parse_duration("2"), Ok(Duration::from_secs(2)));
    assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1_500)));
    assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
    assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3_600)));
    for bad in ["", "s", "1d", "-1", "1..2", "87601h", "5000000000000000h", "1e999h"] {
        assert!(parse_duration(bad).is_err(), "{bad}");
    }
}

#[track_caller]
fn check(line: &str, accepted: bool) {
    let parsed = Cli::try_parse_from(line.split(' '));
    assert_eq!(parsed.is_ok(), accepted, "{parsed:?}");
}

#[test]
fn wrong_usage_is_refused() {
    check("mqlink pub -t a -m b", true);
    check("mqlink pub -t a", false); // no payload
    check("mqlink pub -t a -m b -n", false); // two payloads
    check("mqlink pub -t a -m b -q 3", false);
    check("mqlink pub -L mqtt://eu -p 1 -t a -m b", false);
    check("mqlink pub -h eu -p 1 -t a -m b --user-property k=v --user-property l=w", true);
    check("mqlink pub -t a -m b --user-property kv", false);
    check("mqlink sub -t a -t b -C 2 -W 10s --ready", true);
    check("mqlink sub", false); // no topic
    check("mqlink sub -t a -c", false); // a persistent session needs a client id
    check("mqlink sub -t a --cert c.pem", false); // and its key
    check("mqlink broker --config a.json --config dir", true);
    check("mqlink broker --node us-0", false); // no settings
    check("mqlink broker --config a --admin-listen [::]:8443 --admin-tls tls --probe-listen [::]:8080", true);
    check("mqlink broker --config a --admin-listen [::]:8443", false); // never in the clear
    check("mqlink broker --config a --admin-tls tls", false);
    check("mqlink broker --config a --probe-listen 8080", false);
}
