//! Rules of the house that no compiler checks, read off the source text.
//!
//! - Imports run one way: `EDGES` says what each module may name. When a rule hurts, change it there.
//! - Pure parts name no socket, file, clock, runtime or Kubernetes client.
//! - Every file is in some `mod` list, begins with `//!`, and is short enough to read.
//! - Tests wait for what they expect; they never sleep.
//! - Every statement of the specification is enforced and shown; `docs/conformance.md` says where.
//! - Relative links in Markdown lead somewhere, README's map of the code is complete, and the page of figures ends with what
//!   explains them.
//!
//! It reads text, not syntax: comments and literals are blanked first, which is enough for these rules.

mod conformance;
mod limits;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use source::{Source, sources};

/// What each top-level module may name of the others, as path prefixes below `crate::`.
/// A module that is not listed here is not allowed to exist.
const EDGES: &[(&str, &[&str])] = &[
    ("mqtt", &[]),
    ("store", &[]),
    ("settings", &[]),
    ("pki", &[]),
    ("broker", &["mqtt", "store", "settings"]),
    ("link", &["mqtt", "settings", "broker::port", "broker::Broker"]),
    ("api", &["mqtt"]),
    ("plan", &["api", "settings", "pki", "mqtt"]),
    ("admin", &["settings", "pki"]),
    ("node", &["settings", "broker", "link", "admin", "mqtt", "store"]),
    ("local", &["api", "plan", "settings", "admin"]),
    ("operator", &["api", "plan", "settings", "admin", "pki"]),
    ("bench", &["mqtt"]),
    ("cli", &["mqtt", "settings", "pki", "api", "plan", "admin", "node", "local", "operator", "bench"]),
    ("testing", &["api"]),
];

/// Files and folders whose code takes everything it needs as arguments, time included …
const PURE: &[&str] = &[
    "src/mqtt",
    "src/settings",
    "src/pki",
    "src/api",
    "src/plan",
    "src/broker/core",
    "src/broker/port",
    "src/link",
    "src/operator/build",
];

/// … but for these folders within them, which stand between them and the world.
const SHELLS: &[&str] = &["src/link/transport"];

/// What a pure part may not name.
const IMPURE: &[&str] = &[
    "tokio",
    "kube::Client",
    "kube::client",
    "kube::Api",
    "kube::runtime",
    "std::net",
    "std::fs",
    "std::env",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
];

/// Longer than this, two names are clearer than one.
const FILE_LINES_MAX: usize = 700;

#[track_caller]
fn check(rule: &str, violations: Vec<String>) {
    assert!(violations.is_empty(), "{rule}:\n  {}\n", violations.join("\n  "));
}

#[test]
fn imports_run_one_way() {
    let edges: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    let mut violations = Vec::new();
    for source in sources("src") {
        let Some(module) = source.module() else { continue };
        let Some(allowed) = edges.get(module.as_str()) else {
            violations.push(format!("{}: module `{module}` is not in EDGES", source.path));
            continue;
        };
        for (line, path) in source.crate_paths() {
            let own = within(&path, &module);
            if !own && !allowed.iter().any(|prefix| within(&path, prefix)) {
                violations.push(format!("{}:{line}: `{module}` may not name crate::{path}", source.path));
            }
        }
    }
    check("imports run against the table in tests/tidy/main.rs", violations);
}

#[test]
fn pure_parts_stay_pure() {
    let mut violations = Vec::new();
    for source in sources("src") {
        let stem = source.path.trim_end_matches(".rs");
        let lies_in = |part: &&str| stem == *part || stem.starts_with(&format!("{part}/"));
        if !PURE.iter().any(&lies_in) || SHELLS.iter().any(lies_in) {
            continue;
        }
        for name in IMPURE {
            for line in source.lines_naming(name) {
                violations.push(format!("{}:{line}: pure code names `{name}`", source.path));
            }
        }
    }
    check("what belongs outside is named inside", violations);
}

#[test]
fn pure_parts_exist() {
    let there = |part: &str| root().join(part).exists() || root().join(format!("{part}.rs")).exists();
    let gone = PURE.iter().chain(SHELLS).filter(|part| !there(part));
    check("PURE or SHELLS name what is not there", gone.map(|pure| (*pure).to_owned()).collect());
}

#[test]
fn every_file_is_in_a_mod_list() {
    let mut reached = BTreeSet::new();
    // The last one is a program of its own, with dependencies of its own.
    let roots = ["src/lib.rs", "src/main.rs", "e2e/clients/rumqttc/src/main.rs"];
    let mut open: Vec<PathBuf> = roots.map(PathBuf::from).to_vec();
    for folder in ["tests", "e2e", "benches", "examples"] {
        open.extend(source::target_roots(folder));
    }
    while let Some(path) = open.pop() {
        if let Some(source) = Source::read(&path).filter(|_| reached.insert(path.clone())) {
            open.extend(source.child_files());
        }
    }
    let dead = ["src", "tests", "e2e", "benches", "examples"]
        .iter()
        .flat_map(|folder| source::rust_files(folder))
        .filter(|path| !reached.contains(path))
        .map(|path| path.display().to_string());
    check("no `mod` names these files", dead.collect());
}

#[test]
fn every_file_says_what_it_is_and_is_short() {
    let mut violations = Vec::new();
    for source in ["src", "tests", "e2e", "benches"].iter().flat_map(|folder| sources(folder)) {
        let header = source.raw.lines().take_while(|line| line.starts_with("//!")).count();
        let least = match source.path.rsplit('/').next() {
            Some("tests.rs") => 0, // its name says it all
            Some("mod.rs") if source.path.starts_with("src/") && !source.path.contains("/tests/") => 3,
            _ => 1,
        };
        if header < least {
            violations.push(format!("{}: begins with {header} lines of `//!`, wants {least}", source.path));
        }
        let lines = source.raw.lines().count();
        if lines > FILE_LINES_MAX {
            violations.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", source.path));
        }
    }
    check("files that do not introduce themselves, or go on too long", violations);
}

#[test]
fn tests_never_sleep() {
    let mut violations = Vec::new();
    for source in ["src", "tests", "e2e"].iter().flat_map(|folder| sources(folder)) {
        for name in ["thread::sleep", "time::sleep"] {
            for line in source.test_lines_naming(name) {
                violations.push(format!("{}:{line}: a test names `{name}`", source.path));
            }
        }
    }
    check("tests wait for what they expect", violations);
}

#[test]
fn markdown_links_lead_somewhere() {
    let mut violations = Vec::new();
    for path in source::files("", "md") {
        let text = std::fs::read_to_string(root().join(&path)).expect("a listed file can be read");
        let folder = path.parent().expect("a file lies in a folder").to_owned();
        for target in source::markdown_links(&text) {
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") && !root().join(&folder).join(file).exists() {
                violations.push(format!("{}: nothing at {file}", path.display()));
            }
        }
    }
    check("links to nowhere", violations);
}

#[test]
fn readme_maps_every_module() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md can be read");
    let missing = EDGES.iter().filter(|(module, _)| !readme.contains(&format!("`src/{module}`")));
    check("README.md's map lacks", missing.map(|(module, _)| format!("`src/{module}`")).collect());
}

#[test]
fn the_figures_end_with_how_they_are_made() {
    let read = |path| std::fs::read_to_string(root().join(path)).expect("a page can be read");
    let is_its_end = read("docs/performance.md").ends_with(&read("benches/method.md"));
    assert!(is_its_end, "docs/performance.md ends with a copy of benches/method.md: edit that, and copy it");
}

/// Whether `path` is `prefix` or lies below it.
fn within(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
