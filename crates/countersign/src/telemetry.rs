//! Logs, and the wall clock: the two things that a whole process shares.

mod lines;

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Arc, OnceLock};

use countersign_remote::Clock;
use serde::Serialize;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::lines::Lines;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// The least severe log lines that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogLevel {
    /// None but those of what does not work.
    Error,
    /// Also those of what should be looked at.
    Warn,
    /// Also one for each decision.
    #[default]
    Info,
    /// Also what helps to find faults of Countersign.
    Debug,
    /// All of them.
    Trace,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// The log of the process, once it is started.
static LOG: OnceLock<Lines> = OnceLock::new();

/// The log, until it is dropped: what was logged before is written then.
#[must_use]
pub(crate) struct Log(Option<Lines>);

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(lines) = &self.0 {
            lines.flush();
        }
    }
}

/// Sends log lines to standard error. A second call changes nothing.
///
/// # Errors
/// The system has no thread for it.
pub(crate) fn start_logging(format: LogFormat, level: LogLevel) -> std::io::Result<Log> {
    let lines = Lines::to(std::io::stderr())?;
    let filter = LevelFilter::from(level);
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let layers = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(lines.clone());
    let started = match format {
        LogFormat::Text => layers.with(layer.with_ansi(colours)).try_init(),
        LogFormat::Json => layers.with(layer.json().flatten_event(true)).try_init(),
    };
    if started.is_err() || LOG.set(lines.clone()).is_err() {
        return Ok(Log(None));
    }
    Ok(Log(Some(lines)))
}

/// Sends what a command does to standard error, for people: our own lines alone, and not those of libraries.
pub(crate) fn start_telling() {
    let ours = Targets::new().with_target(env!("CARGO_CRATE_NAME"), LevelFilter::DEBUG);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(false);
    drop(tracing_subscriber::registry().with(ours).with(lines).try_init());
}

/// A line of the log as one JSON object, with the members that the other lines have.
#[derive(Serialize)]
struct JsonLine<'a, T> {
    timestamp: String,
    level: &'static str,
    message: &'static str,
    #[serde(flatten)]
    fields: &'a T,
}

/// Writes a decision to standard error, as one line of JSON: what `tracing` writes has no values within values.
pub(crate) fn write_line(fields: &impl Serialize) {
    let line = JsonLine { timestamp: format!("{:.6}", wall_clock()()), level: "INFO", message: "review", fields };
    let Ok(mut bytes) = serde_json::to_vec(&line) else { return };
    bytes.push(b'\n');
    match LOG.get() {
        Some(lines) => lines.add(&bytes),
        None => {
            let _ = std::io::stderr().lock().write_all(&bytes);
        }
    }
}

/// The clock of the machine. Tests pass one of their own instead.
#[must_use]
pub(crate) fn wall_clock() -> Clock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    Arc::new(jiff::Timestamp::now)
}
