//! The command line: one file a subcommand.

mod arguments;
mod bridge;
pub(crate) mod clients;
mod credential_helpers;
mod doctor;
mod explain;
mod help;
mod inspect;
mod judging;
mod lint;
mod manifests;
mod openshift;
mod output;
mod progress;
mod review;
mod scan;
mod serve;
mod trust;
mod verify;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};

/// Exit codes, which scripts rely on.
pub(crate) mod exit {
    /// Allowed, verified, without fault.
    pub(crate) const OK: u8 = 0;
    /// Denied, not verified, or faults were found.
    pub(crate) const DENIED: u8 = 1;
    /// Wrong usage or configuration.
    pub(crate) const USAGE: u8 = 2;
    /// It could not be decided: a server was unreachable.
    pub(crate) const UNDECIDED: u8 = 3;
}

/// The gate that lets only trusted container images run in a Kubernetes cluster.
#[derive(Debug, Parser)]
#[command(
    name = "countersign",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// Print nothing but problems: the exit code says the rest
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,

    /// Say on standard error what is judged by which entry, who is asked, and how long it takes
    #[arg(short, long, global = true)]
    verbose: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Args>),
    Review(review::Args),
    Scan(scan::Args),
    Verify(verify::Args),
    Inspect(inspect::Args),
    Explain(explain::Args),
    Lint(lint::Args),
    Manifests(manifests::Args),
    Openshift(openshift::Args),
    Trust(trust::Args),
    Doctor(doctor::Args),
    Bridge(bridge::Args),
    Help(help::Args),
    /// Print the version
    #[command(after_help = "Example:\n  countersign version")]
    Version,
    /// Print what a shell completes the command line with
    #[command(after_help = "Example:\n  countersign completions bash > /etc/bash_completion.d/countersign")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual, or write one page for each command into a folder
    #[command(after_help = "Examples:\n  countersign man | man -l -\n  countersign man /usr/local/share/man/man1")]
    Man {
        /// The folder
        folder: Option<std::path::PathBuf>,
    },
}

/// Runs the command that was typed, and says on standard error what kept it from its work.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; everything else is wrong usage.
            let code = if error.use_stderr() { exit::USAGE } else { exit::OK };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    if cli.quiet
        && let Err(problem) = output::silence()
    {
        eprintln!("error: --quiet: {problem}");
        return ExitCode::from(exit::USAGE);
    }
    // The server has settings of its own for its log.
    if cli.verbose && !matches!(cli.command, Command::Serve(_)) {
        crate::telemetry::start_telling();
    }
    let done = match cli.command {
        Command::Serve(args) => serve::run(*args, cli.quiet, cli.verbose),
        Command::Review(args) => review::run(&args),
        Command::Scan(args) => scan::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Lint(args) => lint::run(&args),
        Command::Manifests(args) => manifests::run(&args),
        Command::Openshift(args) => openshift::run(&args),
        Command::Trust(args) => trust::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Bridge(args) => bridge::run(&args),
        Command::Help(args) => help::run(&args),
        Command::Version => {
            output::print(&format!("countersign {}\n", env!("CARGO_PKG_VERSION")));
            Ok(exit::OK)
        }
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "countersign", &mut text);
            output::print(&String::from_utf8_lossy(&text));
            Ok(exit::OK)
        }
        Command::Man { folder } => manual(folder.as_deref()),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(problem) => {
            eprintln!("error: {problem:#}");
            let undecided = problem.downcast_ref::<judging::Unreachable>().is_some();
            ExitCode::from(if undecided { exit::UNDECIDED } else { exit::USAGE })
        }
    }
}

/// The manual, on standard output; or a page for each command, in a folder that is there.
fn manual(folder: Option<&std::path::Path>) -> anyhow::Result<u8> {
    if let Some(folder) = folder {
        clap_mangen::generate_to(Cli::command(), folder)
            .with_context(|| format!("the manual cannot be written into {}", folder.display()))?;
    } else {
        let mut text = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut text)?;
        output::print(&String::from_utf8_lossy(&text));
    }
    Ok(exit::OK)
}
