use std::path::PathBuf;

use super::document::Document;
use crate::settings::{Pieces, Settings, User};

#[track_caller]
fn check(json: &str, expected: &str) {
    let error = Document::parse(json.as_bytes()).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains(expected) && error.is_empty() == expected.is_empty(), "{error}");
}

#[test]
fn a_node_takes_checked_documents_only() {
    let link = |topics: &str| {
        format!(
            r#"{{"cluster": "us", "links": [{{"id": "a/b", "peer": "eu", "dial": "In", "topics": {topics}}}]}}"#
        )
    };
    check(&link(r##"["a/+", "#"]"##), "");
    check(
        &link(r##"["a", "b/#/c"]"##),
        "the settings are invalid: links[0].topics[1]: `b/#/c` is no topic filter: ",
    );
    check(r#"{"cluster": "us", "schema": 2}"#, "the settings are invalid: schema: is 2");
    check("[]", "failed to parse the settings document");
}

#[test]
fn unknown_fields_do_not_hinder() {
    let document = Document::parse(br#"{"cluster": "us", "colour": 1}"#).unwrap();
    assert_eq!(document.unknown_fields, ["colour"]);
}

#[test]
fn a_file_without_end_is_no_document() {
    let error = Document::read(&["/dev/zero".into()]).unwrap_err().to_string();
    assert!(error.contains("failed to read /dev/zero: it is larger than"), "{error}");

    let dir = tempfile::tempdir().unwrap();
    let large = format!("{{{}}}", " ".repeat(5 * 1_024 * 1_024));
    let files = ["a", "b"].map(|name| dir.path().join(name));
    files.iter().for_each(|file| std::fs::write(file, &large).unwrap());
    let error = Document::read(&files).unwrap_err().to_string();
    assert!(error.ends_with("bytes, together with the files before it"), "{error}");
}

#[test]
fn a_document_may_lie_in_several_files() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let read = |paths: &[&str]| {
        Document::read(&paths.iter().map(|path| dir.path().join(path)).collect::<Vec<PathBuf>>())
    };
    let none = read(&[""]).unwrap_err().to_string();
    assert!(none.contains("there is no *.json in it"), "{none}");

    // As a mounted Secret looks: the names lead through a hidden directory.
    std::fs::create_dir(dir.path().join("..data.json")).unwrap();
    write(
        "..data.json/users.json",
        r#"{"authentication": {"users": [{"name": "ann", "secret": "plain:a"}]}}"#,
    );
    std::os::unix::fs::symlink("..data.json/users.json", dir.path().join("users.json")).unwrap();
    write("base.json", r#"{"cluster": "us", "colour": 1}"#);
    write("links.json", r#"{"links": [{"id": "a/b", "peer": "eu", "dial": "In", "topics": ["a"]}]}"#);
    write(".hidden.json", "no JSON");
    write("README", "no JSON");
    let whole = read(&[""]).unwrap();
    assert_eq!(whole.settings.authentication.users[0].name, "ann");
    assert_eq!(
        (whole.settings.links[0].peer.as_str(), &whole.unknown_fields[..]),
        ("eu", &["colour".to_owned()][..])
    );
    assert_eq!(read(&["base.json", "links.json", "users.json"]).unwrap(), whole);

    let twice = read(&["", "links.json"]).unwrap_err().to_string();
    assert!(twice.contains("links[1].id: `a/b` is used twice"), "{twice}");
    let gone = read(&["base.json", "gone.json"]).unwrap_err().to_string();
    assert!(gone.contains("failed to read") && gone.contains("gone.json"), "{gone}");
}

#[test]
fn pieces_of_two_renderings_are_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let write = |settings: &Settings, files: &[&str]| {
        for (name, json) in Pieces::of(settings).named() {
            if files.contains(&name) {
                std::fs::write(dir.path().join(name), json).unwrap();
            }
        }
    };
    let mut settings = Settings::new("us");
    write(&settings, &["base.json", "users.json", "links.json"]);
    assert_eq!(Document::read(&[dir.path().into()]).unwrap().settings, settings);
    settings.authentication.users = vec![User { name: "ann".into(), secret: "plain:a".into() }];
    write(&settings, &["users.json"]);
    let mixed = Document::read(&[dir.path().into()]).unwrap_err();
    assert!(mixed.is_passing() && mixed.to_string().contains("base.json and users.json"), "{mixed}");
    write(&settings, &["base.json"]);
    assert_eq!(Document::read(&[dir.path().into()]).unwrap().settings, settings);
    std::fs::remove_file(dir.path().join("links.json")).unwrap();
    assert!(Document::read(&[dir.path().into()]).unwrap_err().is_passing(), "one is missing");
}
