//! What the process logs, and how that changes while it runs.
//!
//! Logs go to standard error. Where a client is meant, its id and its address are fields of the event (`client`, `peer`),
//! never only part of a text; what clients publish, passwords and keys are in none, at no level.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{Handle, Layer};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt};

/// The filter in force and how to change it, once logging has begun.
static CURRENT: Mutex<Option<Current>> = Mutex::new(None);

struct Current {
    filter: String,
    handle: Handle<EnvFilter, Registry>,
}

/// Begins to log. Once in a process.
///
/// # Errors
/// When the text is no filter.
pub fn start(filter: &str, as_json: bool) -> Result<(), String> {
    let (layer, handle) = Layer::new(parse(filter)?);
    let lines = fmt::layer().with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(layer);
    match as_json {
        true => registry.with(lines.json()).init(),
        false => registry.with(lines).init(),
    }
    let filter = filter.to_owned();
    *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = Some(Current { filter, handle });
    Ok(())
}

/// Logs by another filter from now on, if one is given. Returns the one in force.
///
/// # Errors
/// When the text is no filter, or nothing is logged at all.
pub fn change(filter: Option<String>) -> Result<String, String> {
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    let current = current.as_mut().ok_or("this process logs nothing")?;
    if let Some(filter) = filter {
        current.handle.reload(parse(&filter)?).map_err(|error| error.to_string())?;
        tracing::info!(filter, "logs by another filter");
        current.filter = filter;
    }
    Ok(current.filter.clone())
}

/// A level is about this program; only `trace` is about libraries, too, whose levels mean something else.
fn parse(filter: &str) -> Result<EnvFilter, String> {
    let own = |word: &str| match word.trim().parse::<LevelFilter>() {
        Ok(level) if level < LevelFilter::TRACE => format!("mqlink={level}"),
        _ => word.to_owned(),
    };
    let of = |problem: &str| {
        format!(
            "`{filter}` is no log filter: {problem}; expected a level as info, or modules as warn,mqlink::broker=debug"
        )
    };
    if filter.trim().is_empty() {
        return Err(of("it is empty"));
    }
    let words: Vec<String> = filter.split(',').map(own).collect();
    EnvFilter::try_new(words.join(",")).map_err(|error| of(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_about_this_program() {
        let reads = |filter: &str| parse(filter).map(|filter| filter.to_string());
        assert_eq!(reads("info").unwrap(), "mqlink=info");
        assert_eq!(reads("trace").unwrap(), "trace");
        assert_eq!(reads("warn,mqlink::broker=debug").unwrap(), "mqlink::broker=debug,mqlink=warn");
        assert_eq!(reads("hyper=debug").unwrap(), "hyper=debug");
        assert!(reads(" ").unwrap_err().contains("it is empty"));
        assert!(reads("mqlink=loud").is_err());
    }
}
