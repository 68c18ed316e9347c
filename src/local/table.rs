//! The tables that `kubectl get mqttclusters,clusterlinks` would print, and the conditions behind them.

use std::fmt::Write;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::picture::Picture;
use crate::api::conditions::{CONNECTED, READY, ROUTES_SYNCED, find};
use crate::plan::Key;

/// What stands for a value that is not known.
const NOTHING: &str = "";

/// One row per object: kind, key, and whether it is Ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// As `clusterlink/us-eu`, with the namespace where that is not the default.
    pub(super) object: String,
    /// `True`, `False` or `Unknown`.
    pub(super) ready: String,
    pub(super) reason: String,
    pub(super) message: String,
}

/// The state of every object.
pub(super) fn states(picture: &Picture) -> Vec<State> {
    let clusters = picture
        .clusters
        .iter()
        .map(|(key, status)| state(name("mqttcluster", key), status.conditions.as_deref()));
    let links = picture
        .links
        .iter()
        .map(|(key, status)| state(name("clusterlink", key), status.conditions.as_deref()));
    clusters.chain(links).collect()
}

fn state(object: String, conditions: Option<&[Condition]>) -> State {
    match find(conditions, READY) {
        Some(ready) => State {
            object,
            ready: ready.status.clone(),
            reason: ready.reason.clone(),
            message: ready.message.clone(),
        },
        None => State { object, ready: "Unknown".into(), reason: "Pending".into(), message: String::new() },
    }
}

fn name(kind: &str, key: &Key) -> String {
    match key.namespace.as_str() {
        Key::DEFAULT_NAMESPACE => format!("{kind}/{}", key.name),
        namespace => format!("{kind}/{namespace}/{}", key.name),
    }
}

/// Whether everything is Ready, and there is anything. A link that is disabled is as it should be.
pub(super) fn all_ready(picture: &Picture) -> bool {
    let states = states(picture);
    !states.is_empty() && states.iter().all(State::is_as_wanted)
}

impl State {
    fn is_as_wanted(&self) -> bool {
        self.ready == "True" || (self.ready == "False" && self.reason == "Disabled")
    }
}

/// The text without control characters, but for line ends, and without those that turn the direction of writing: what peers and
/// clients say must not steer a terminal.
pub(crate) fn plain(text: &str) -> String {
    let turns =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let is_harmless = |c: char| c == '\n' || !c.is_control() && !turns(c);
    text.chars().map(|c| if is_harmless(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// Both tables, and below them why what is not Ready is not.
pub(super) fn render(picture: &Picture, now: Timestamp) -> String {
    let mut text = clusters(picture, now);
    if !picture.links.is_empty() {
        text.push('\n');
        text.push_str(&links(picture, now));
    }
    let troubled: Vec<State> = states(picture).into_iter().filter(|state| state.ready != "True").collect();
    if !troubled.is_empty() {
        text.push('\n');
        troubled
            .iter()
            .for_each(|state| writeln!(text, "{}", describe(state)).expect("a String takes everything"));
    }
    plain(&text)
}

/// A state in one line.
pub(super) fn describe(state: &State) -> String {
    let State { object, ready, reason, message } = state;
    match ready.as_str() {
        "True" => format!("{object} Ready=True"),
        _ => format!("{object} Ready={ready} {reason}: {message}"),
    }
}

fn clusters(picture: &Picture, now: Timestamp) -> String {
    let mut rows = vec![row(["NAME", "READY", "NODES", "LINKS", "ADDRESS", "AGE"])];
    for (key, status) in &picture.clusters {
        let count = |count: Option<i32>| count.unwrap_or_default();
        let addresses = status.listeners.iter().flatten().filter_map(|listener| listener.address.clone());
        let links = status.links.as_ref().map(|links| format!("{}/{}", links.ready, links.total));
        rows.push(vec![
            name("mqttcluster", key),
            status_of(status.conditions.as_deref(), READY),
            format!("{}/{}", count(status.ready_replicas), count(status.replicas)),
            links.unwrap_or_default(),
            addresses.collect::<Vec<_>>().join(","),
            age(picture.born("cluster", key), now),
        ]);
    }
    align(&rows)
}

fn links(picture: &Picture, now: Timestamp) -> String {
    let mut rows = vec![row(["NAME", "LOCAL", "REMOTE", "CONNECTED", "SYNCED", "READY", "RTT", "AGE"])];
    for (key, status) in &picture.links {
        let conditions = status.conditions.as_deref();
        let local = status.local.clone().unwrap_or_default();
        let remote = status.remote.clone().unwrap_or_default();
        rows.push(vec![
            name("clusterlink", key),
            local.cluster_name.unwrap_or_default(),
            remote.cluster_name.unwrap_or_default(),
            status_of(conditions, CONNECTED),
            status_of(conditions, ROUTES_SYNCED),
            status_of(conditions, READY),
            local.rtt.unwrap_or_default(),
            age(picture.born("link", key), now),
        ]);
    }
    align(&rows)
}

pub(super) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn status_of(conditions: Option<&[Condition]>, type_: &str) -> String {
    find(conditions, type_).map_or(NOTHING.to_owned(), |condition| condition.status.clone())
}

/// An age as kubectl prints it.
fn age(born: Option<Timestamp>, now: Timestamp) -> String {
    let Some(born) = born else { return NOTHING.to_owned() };
    let seconds = now.as_second().saturating_sub(born.as_second()).max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Columns three spaces apart, each as wide as its widest cell.
pub(crate) fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            write!(line, "{cell:<width$}   ").expect("a String takes everything");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_those_of_kubectl() {
        let born = Timestamp::from_second(1_000).unwrap();
        let age_after = |seconds: i64| age(Some(born), Timestamp::from_second(1_000 + seconds).unwrap());
        assert_eq!(
            [0, 119, 120, 7_199, 7_200, 172_800].map(age_after),
            ["0s", "119s", "2m", "119m", "2h", "2d"]
        );
        assert_eq!(age_after(-5), "0s");
        assert_eq!(age(None, born), "");
    }

    #[test]
    fn a_disabled_link_is_not_waited_for() {
        let state = |ready: &str, reason: &str| State {
            object: String::new(),
            ready: ready.to_owned(),
            reason: reason.to_owned(),
            message: String::new(),
        };
        assert!(state("True", "Ready").is_as_wanted() && state("False", "Disabled").is_as_wanted());
        assert!(!state("Unknown", "Disabled").is_as_wanted() && !state("False", "DialFailed").is_as_wanted());
    }

    #[test]
    fn nothing_that_is_shown_steers_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\u{9b}c\n\r"), "a\u{fffd}[2Jb\u{fffd}c\n\u{fffd}");
        assert_eq!(plain("a\u{202e}cba\u{2066}ä"), "a\u{fffd}cba\u{fffd}ä");
    }

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let rows = [row(["NAME", "READY"]), row(["a-long-name", "True"]), row(["b", ""])];
        assert_eq!(align(&rows), "NAME          READY\na-long-name   True\nb\n");
    }
}
