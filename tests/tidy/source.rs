//! Rust files as text with comments and literals blanked, and the few questions `tidy` asks of them.

use std::path::{Path, PathBuf};

use crate::root;

/// One Rust file. `path` is relative to the repository.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) raw: String,
    /// `raw` with comments and literals as spaces: offsets and lines agree.
    code: String,
    /// Where test code begins; 0 for a file that is all test.
    tests_at: usize,
}

impl Source {
    pub(crate) fn read(path: &Path) -> Option<Source> {
        let raw = std::fs::read_to_string(root().join(path)).ok()?;
        let code = blank(&raw);
        let all_test = !path.starts_with("src") || path.ancestors().any(is_test_module);
        let path = path.display().to_string();
        let tests_at = if all_test { 0 } else { inline_tests_at(&code) };
        Some(Source { path, raw, code, tests_at })
    }

    /// The top-level module that a file below `src` belongs to; none for `lib.rs` and `main.rs`.
    pub(crate) fn module(&self) -> Option<String> {
        let below = self.path.strip_prefix("src/")?;
        let name = below.split('/').next()?.trim_end_matches(".rs");
        (!matches!(name, "lib" | "main")).then(|| name.to_owned())
    }

    /// Every path written `crate::…` outside tests, groups taken apart, with its line.
    pub(crate) fn crate_paths(&self) -> Vec<(usize, String)> {
        let code = &self.code[..self.tests_at];
        let mut paths = Vec::new();
        for (at, _) in code.match_indices("crate::") {
            let own_word = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
            if own_word {
                let found = expand(&code[at + "crate::".len()..]);
                paths.extend(found.into_iter().map(|path| (self.line(at), path)));
            }
        }
        paths
    }

    /// The lines outside tests that name `name` as whole words.
    pub(crate) fn lines_naming(&self, name: &str) -> Vec<usize> {
        words(&self.code[..self.tests_at], name).map(|at| self.line(at)).collect()
    }

    /// The lines of test code that name `name` as whole words.
    pub(crate) fn test_lines_naming(&self, name: &str) -> Vec<usize> {
        words(&self.code[self.tests_at..], name).map(|at| self.line(self.tests_at + at)).collect()
    }

    /// True for a line of test code; lines count from 1.
    pub(crate) fn is_test_line(&self, line: usize) -> bool {
        line >= self.line(self.tests_at)
    }

    /// The name of the function, or else of the item, that a line belongs to: where a comment before an item stands for it.
    pub(crate) fn function_at(&self, line: usize) -> String {
        let lines: Vec<&str> = self.code.lines().collect();
        let is_comment = |at: &usize| lines[*at].trim().is_empty() || lines[*at].trim().starts_with("#[");
        let stands_before = self.raw.lines().nth(line - 1).is_some_and(|raw| raw.trim().starts_with("//"));
        let below = (line - 1..lines.len()).find(|at| !is_comment(at)).and_then(|at| item_name(lines[at]));
        if let Some(name) = below.filter(|_| stands_before) {
            return name;
        }
        let above = lines[..line.min(lines.len())].iter().rev().find_map(|text| item_name(text));
        above.unwrap_or_else(|| "the file".to_owned())
    }

    /// The files that this file's `mod name;` items stand for.
    pub(crate) fn child_files(&self) -> Vec<PathBuf> {
        let path = Path::new(&self.path);
        let folder = path.parent().expect("a file lies in a folder");
        let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("file names are text");
        let is_root = matches!(stem, "mod" | "lib" | "main") || folder.components().count() == 1;
        let below = if is_root { folder.to_owned() } else { folder.join(stem) };
        let mut files = Vec::new();
        for (line, code) in self.code.lines().enumerate() {
            let item = code.trim_start_matches(|c: char| c == '}' || c.is_whitespace());
            let Some(name) = mod_name(item) else { continue };
            let above = line.checked_sub(1).and_then(|above| self.raw.lines().nth(above)).unwrap_or_default();
            match above.trim().strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
                Some(given) => files.push(folder.join(given)),
                None => files.extend([below.join(format!("{name}.rs")), below.join(name).join("mod.rs")]),
            }
        }
        files
    }

    fn line(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }
}

/// Whether the module that this file or folder is stands in its parent below `#[cfg(test)]`.
fn is_test_module(path: &Path) -> bool {
    let (Some(stem), Some(folder)) = (path.file_stem().and_then(|stem| stem.to_str()), path.parent()) else {
        return false;
    };
    let parents = [folder.join("mod.rs"), folder.join("lib.rs"), folder.with_extension("rs")];
    let Some(parent) = parents.iter().find_map(|file| std::fs::read_to_string(root().join(file)).ok()) else {
        return false;
    };
    let lines: Vec<&str> = parent.lines().collect();
    lines.windows(2).any(|pair| pair[0] == "#[cfg(test)]" && mod_name(pair[1]) == Some(stem))
}

/// All Rust files below `folder`, read.
pub(crate) fn sources(folder: &str) -> Vec<Source> {
    rust_files(folder).iter().filter_map(|path| Source::read(path)).collect()
}

/// All Rust files below `folder`, relative to the repository.
pub(crate) fn rust_files(folder: &str) -> Vec<PathBuf> {
    let is_ours = |path: &PathBuf| !path.ancestors().skip(1).any(is_package);
    files(folder, "rs").into_iter().filter(is_ours).collect()
}

/// Whether a folder is a package of its own, below the root.
fn is_package(folder: &Path) -> bool {
    folder != Path::new("") && root().join(folder).join("Cargo.toml").exists()
}

/// All files below `folder` with this extension, hidden and built ones left out.
pub(crate) fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from(folder)];
    while let Some(folder) = open.pop() {
        let Ok(entries) = std::fs::read_dir(root().join(&folder)) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().into_string().expect("file names are text");
            let path = folder.join(&name);
            if entry.path().is_dir() {
                let skipped = name.starts_with('.') || name == "target" || name == "corpus";
                open.extend((!skipped).then_some(path));
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The crate roots that Cargo finds in a folder of targets: `folder/x.rs` and `folder/x/main.rs`.
pub(crate) fn target_roots(folder: &str) -> Vec<PathBuf> {
    let is_root = |path: &PathBuf| match path.components().count() {
        2 => true,
        3 => path.ends_with("main.rs"),
        _ => false,
    };
    rust_files(folder).into_iter().filter(is_root).collect()
}

/// The targets of `[text](target)`.
pub(crate) fn markdown_links(text: &str) -> Vec<&str> {
    let after = text.split("](").skip(1);
    after.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
}

/// The name of the function, type or constant whose definition begins on this line.
fn item_name(line: &str) -> Option<String> {
    let words =
        line.trim().split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty());
    let mut words = words.skip_while(|word| matches!(*word, "pub" | "super" | "crate" | "in" | "async"));
    let first = words.next()?;
    let name = match first {
        "const" => words.find(|word| *word != "fn"),
        "fn" | "struct" | "enum" => words.next(),
        _ => None,
    };
    name.map(str::to_owned)
}

/// `name` of `pub(crate) mod name;`.
fn mod_name(item: &str) -> Option<&str> {
    let (head, _) = item.split_once(';')?;
    let (visibility, name) = head.rsplit_once("mod ")?;
    let visible = visibility.is_empty() || visibility.starts_with("pub");
    let is_name = name.chars().all(|c| c.is_alphanumeric() || c == '_');
    (visible && is_name).then_some(name)
}

/// The paths that a path or group of paths stands for: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(text: &str) -> Vec<String> {
    if let Some(group) = text.strip_prefix('{') {
        return members(group).iter().flat_map(|member| expand(member.trim())).collect();
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    let (path, rest) = text.split_at(end);
    match (path.strip_suffix("::"), rest.starts_with('{')) {
        (Some(prefix), true) => expand(rest).iter().map(|path| format!("{prefix}::{path}")).collect(),
        _ => vec![path.trim_end_matches(':').to_owned()],
    }
}

/// The members of a group whose opening brace is already read.
fn members(group: &str) -> Vec<&str> {
    let (mut depth, mut from, mut members) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' | ',' if depth == 0 => {
                members.push(&group[from..at]);
                from = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    members.retain(|member| !member.trim().is_empty());
    members
}

/// Where `name` stands as whole words.
fn words<'a>(code: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name)
        .map(|(at, _)| at)
        .filter(move |at| !code[..*at].ends_with(inside) && !code[at + name.len()..].starts_with(inside))
}

/// Where a file's inline test module begins, or its length. By custom it comes last.
fn inline_tests_at(code: &str) -> usize {
    let mut starts = code.match_indices("#[cfg(test)]").map(|(at, _)| at);
    let module = |at: &usize| {
        let item = code[at + "#[cfg(test)]".len()..].trim_start();
        item.starts_with("mod ") && item.find('{') < item.find(';').or(Some(usize::MAX)) && item.contains('{')
    };
    starts.find(module).unwrap_or(code.len())
}

/// Replaces comments and the inside of literals by spaces; line ends stay.
fn blank(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(c) = rest.chars().next() {
        let length = skipped(rest, out.chars().next_back());
        if length == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            let spaces = |c: char| std::iter::repeat_n(if c == '\n' { '\n' } else { ' ' }, c.len_utf8());
            out.extend(rest[..length].chars().flat_map(spaces));
            rest = &rest[length..];
        }
    }
    out
}

/// How many bytes at the front of `rest` are one comment or literal; 0 for code.
fn skipped(rest: &str, before: Option<char>) -> usize {
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        rest.find('\n').unwrap_or(rest.len())
    } else if rest.starts_with("/*") {
        rest.find("*/").map_or(rest.len(), |end| end + 2)
    } else if rest.starts_with('"') {
        string_length(rest)
    } else if rest.starts_with('r') && !in_word {
        raw_string_length(rest)
    } else if rest.starts_with('\'') {
        char_length(rest)
    } else {
        0
    }
}

fn string_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn raw_string_length(rest: &str) -> usize {
    let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
    if !rest[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = 2 + hashes;
    rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len())
}

/// A character literal; 0 for a lifetime.
fn char_length(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some(_)) => rest[3..].find('\'').map_or(0, |at| 3 + at + 1),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

#[test]
fn a_group_stands_for_its_members() {
    assert_eq!(expand("a::{b, c::{d, e}, self}; x"), ["a::b", "a::c::d", "a::c::e", "a::self"]);
    assert_eq!(expand("{a, b::c};"), ["a", "b::c"]);
    assert_eq!(expand("a::b::C::new()"), ["a::b::C::new"]);
}

#[test]
fn comments_and_literals_are_blank() {
    assert_eq!(blank("a // b\nc"), "a     \nc");
    assert_eq!(
        blank("x(\"a\\\"b\", 'c', '\\'', r#\"d\"e\"#) as &'a T"),
        "x(      ,    ,     ,         ) as &'a T"
    );
}

#[test]
fn a_mod_item_names_a_file() {
    assert_eq!(mod_name("pub(crate) mod a_b;"), Some("a_b"));
    assert_eq!(mod_name("mod tests { x; }"), None);
    assert_eq!(mod_name("use a::mod_b;"), None);
}
