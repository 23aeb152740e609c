//! Logs, and the wall clock: the two things that a whole process shares.

use std::io::IsTerminal as _;
use std::str::FromStr;
use std::sync::Arc;

use countersign_remote::Clock;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

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

/// Sends log lines to standard error. A second call changes nothing.
///
/// # Errors
/// A level that is none.
pub(crate) fn start_logging(format: LogFormat, level: &str) -> Result<(), String> {
    let filter = EnvFilter::from_str(level).map_err(|error| format!("--log-level {level:?}: {error}"))?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let layers = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Text => {
            layers.with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours)).try_init()
        }
        LogFormat::Json => layers
            .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).json().flatten_event(true))
            .try_init(),
    };
    drop(started);
    Ok(())
}

/// The clock of the machine. Tests pass one of their own instead.
#[must_use]
pub(crate) fn wall_clock() -> Clock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    Arc::new(jiff::Timestamp::now)
}
