//! The users of a cluster, from the lines of a Secret: `name:secret`.
//!
//! The format of mosquitto's password files, with PHC strings and `plain:` besides. Empty lines and lines that begin with `#`
//! are skipped. One mistake refuses the whole file, by line: a user who is silently missing costs more than one who waits.
//!
//! A `plain:` password stands in the settings as it is. They are kept as safe as the Secret that it comes from, so a hash
//! would hide it from nobody who could not read it there, and would cost time in every plan and at every login.

use std::collections::BTreeSet;

use crate::settings::{SecretKind, User};

/// What some editors begin a file with.
const BYTE_ORDER_MARK: char = '\u{feff}';
/// What CONNECT has room for.
const NAME_BYTES_MAX: usize = 65_535;

/// A mistake in a line of users.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} {problem}")]
pub struct UsersError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it; never the secret itself.
    pub problem: String,
}

/// Reads the users of a cluster.
///
/// # Errors
/// The first line that is no user.
pub fn parse_users(text: &str) -> Result<Vec<User>, UsersError> {
    let mut users = Vec::new();
    let mut names = BTreeSet::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let error = |problem: String| UsersError { line: index + 1, problem };
        let user = parse_user(line).map_err(error)?;
        if !names.insert(user.name.clone()) {
            return Err(error(format!("repeats the user `{}`; keep one line for each", user.name)));
        }
        users.push(user);
    }
    Ok(users)
}

fn parse_user(line: &str) -> Result<User, String> {
    let (name, secret) = line.split_once(':').ok_or("has no ':'; expected name:secret")?;
    if name.is_empty() || name != name.trim() {
        return Err("has an empty name, or one with spaces around it; expected name:secret".into());
    }
    if name.starts_with(BYTE_ORDER_MARK) || name.contains(char::is_control) || name.len() > NAME_BYTES_MAX {
        return Err("has a name that no client can give: with a byte order mark (save the file as UTF-8 without one), \
                    a control character, or more than 65,535 bytes"
            .into());
    }
    // Blanks at the end are a password's own, and of nothing else.
    let secret = if secret.starts_with("plain:") { secret } else { secret.trim_end() };
    match SecretKind::check(secret) {
        Ok(()) => Ok(User { name: name.to_owned(), secret: secret.to_owned() }),
        Err(problem) => Err(format!("has a secret for `{name}` that {problem}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_users() {
        const HASHED: &str = "$7$101$c2FsdA==$bGJdXfn6P9jmSY0ZCpIaCSkQ1XayfQBMBwplxxuT8e+N6cR6JaUl22kyOezT4vgFZzRNUODVbwJMCRIfFS1o8A==";
        let text = format!("# people\nann:{HASHED}\n\nbob:plain:a:b c \r\n  \ncyd:{HASHED} ");
        let users = parse_users(&text).unwrap();
        let users: Vec<_> = users.iter().map(|user| (user.name.as_str(), user.secret.as_str())).collect();
        assert_eq!(users[0], ("ann", HASHED));
        assert_eq!(users[1], ("bob", "plain:a:b c "));
        assert_eq!(users[2..], [("cyd", HASHED)]);
        assert_eq!(parse_users("").unwrap(), vec![]);
    }

    #[test]
    fn a_mistake_is_named_by_its_line_and_never_shows_a_secret() {
        for (text, line) in [
            ("ann", 1),
            ("# x\nann:hunter2", 2),
            ("ann:plain:a\nann:plain:b", 2),
            (":plain:a", 1),
            (" ann:plain:a", 1),
            ("ann:plain:", 1),
            ("ann:", 1),
            ("ann:plain:a\nbob:$2b$12$hunter2", 2),
            ("ann:$7$101$c2FsdA==$hunter2A", 1),
            ("\u{feff}ann:plain:a", 1),
            ("ann:plain:a\nbo\u{7}b:plain:a", 2),
            (&format!("{}:plain:a", "a".repeat(65_536)), 1),
        ] {
            let error = parse_users(text).unwrap_err();
            assert_eq!(error.line, line, "{text}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
