//! `countersign openshift`: the API server's configuration of OpenShift 3.11.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Subcommand, ValueEnum};
use countersign_image::shown;
use serde_json::json;

use super::exit;
use super::output::print;
use crate::install::{Install, to_yaml};
use crate::master_config::{self, Listed, OwnImages, PluginState, RESTART, Report};

/// Read and change the master-config.yaml of OpenShift 3.11
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example, on a master:\n  countersign openshift check /etc/origin/master/master-config.yaml\n  countersign openshift enable --write /etc/origin/master/master-config.yaml\n  countersign openshift check -o policy /etc/origin/master/master-config.yaml | oc apply -f -"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say whether the API server calls webhooks, and which default policies the file holds; exit 1 if it does not
    #[command(
        after_help = "Examples, on a master:\n  countersign openshift check /etc/origin/master/master-config.yaml\n  countersign openshift check -o policy /etc/origin/master/master-config.yaml | oc apply -f -"
    )]
    Check {
        /// The file, usually /etc/origin/master/master-config.yaml
        master_config: PathBuf,
        /// What to print: a report, the report as JSON, or the default policies as a
        /// ClusterImagePolicy, with an entry for the cluster's own images
        #[arg(short, long, value_enum, default_value_t = Format::Text)]
        output: Format,
    },
    /// Print the file with both admission plugins on, and everything else as it is
    #[command(
        after_help = "Examples, on a master:\n  countersign openshift enable /etc/origin/master/master-config.yaml | diff /etc/origin/master/master-config.yaml -\n  countersign openshift enable --write /etc/origin/master/master-config.yaml"
    )]
    Enable {
        /// The file, usually /etc/origin/master/master-config.yaml
        master_config: PathBuf,
        /// Change the file itself, and keep the old one beside it
        #[arg(long)]
        write: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    Policy,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    match &args.command {
        Command::Check { master_config, output } => check(master_config, *output),
        Command::Enable { master_config, write } => enable(master_config, *write),
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn check(path: &Path, format: Format) -> anyhow::Result<u8> {
    let report = master_config::check(&read(path)?).with_context(|| path.display().to_string())?;
    let on = report.plugins.iter().all(|(_, state)| *state == PluginState::Enabled);
    match format {
        Format::Text => print(&text(path, &report, on)),
        Format::Json => {
            let plugins: serde_json::Map<_, _> = report
                .plugins
                .iter()
                .map(|(name, state)| {
                    ((*name).to_owned(), json!({"enabled": *state == PluginState::Enabled, "state": state.to_string()}))
                })
                .collect();
            let own_images = report.own_images.as_ref().map(|own| {
                let (entry, listed_by) = match &own.listed {
                    Listed::Missing(entry) => (Some(entry), None),
                    Listed::By(entry) => (None, Some(entry)),
                    Listed::Unclear => (None, None),
                };
                json!({"format": own.format, "entry": entry, "listedBy": listed_by})
            });
            let report = json!({
                "enabled": on, "plugins": plugins, "clusterImagePolicy": report.repositories, "imageConfig": own_images,
            });
            print(&(serde_json::to_string_pretty(&report)? + "\n"));
        }
        Format::Policy => {
            let repositories = report.policy().ok_or_else(|| {
                anyhow!(
                    "{} has no image-security-enforcement block, and no imageConfig.format that says where the cluster's own images are, so no policies",
                    path.display()
                )
            })?;
            let mut comment = String::new();
            if let Some(own) = &report.own_images {
                // For whoever keeps the text, and for whoever pipes it on.
                comment = format!("# {}\n", said(own));
                eprintln!("{}", said(own));
            }
            let install = Install { default_policy: repositories, ..Install::default() };
            print(&(comment + &to_yaml(install.default_cluster_policy().as_slice())?));
            return Ok(exit::OK);
        }
    }
    Ok(if on { exit::OK } else { exit::DENIED })
}

fn text(path: &Path, report: &Report, on: bool) -> String {
    let mut out = String::new();
    for (plugin, state) in &report.plugins {
        out.push_str(&format!("{plugin}: {state}\n"));
    }
    match report.repositories.as_ref().and_then(serde_json::Value::as_array) {
        None => out.push_str("image-security-enforcement: none\n"),
        Some(repositories) => {
            let names: Vec<_> = repositories.iter().filter_map(|repository| repository["name"].as_str()).collect();
            out.push_str(&format!("image-security-enforcement: {}\n", names.join(", ")));
            out.push_str(&format!(
                "  as a ClusterImagePolicy: countersign openshift check -o policy {}\n",
                path.display()
            ));
        }
    }
    if let Some(own) = &report.own_images {
        out.push_str(&format!("{}\n", said(own)));
    }
    if !on {
        out.push_str(&format!("\nTo enable both: countersign openshift enable --write {}\n", path.display()));
    }
    out
}

/// What becomes of the cluster's own images.
fn said(own: &OwnImages) -> String {
    let format = shown(&own.format);
    match &own.listed {
        Listed::Missing(entry) => {
            format!(
                "imageConfig.format is {format}: -o policy has the entry {entry} for the cluster's own pods, with no check"
            )
        }
        Listed::By(entry) => {
            format!("imageConfig.format is {format}: the entry {} decides about the cluster's own pods", shown(entry))
        }
        Listed::Unclear => format!(
            "imageConfig.format is {format}: that is no folder of a registry; list the images of the cluster's own pods in a policy"
        ),
    }
}

fn enable(path: &Path, write: bool) -> anyhow::Result<u8> {
    let before = read(path)?;
    let after = master_config::enable(&before).with_context(|| path.display().to_string())?;
    if !write {
        print(&after);
        if before == after {
            eprintln!("Both plugins are on already; nothing is changed.");
        } else {
            eprintln!("Nothing was written: use this text, or --write.");
        }
        return Ok(exit::OK);
    }
    if before == after {
        print("Both plugins are on already; the file stays as it is.\n");
        return Ok(exit::OK);
    }
    let backup = replace(path, &before, &after)?;
    print(&format!(
        "Changed {}; the old one is {}.\nThe API server reads it when it is restarted:\n  {}\n  {}\n",
        path.display(),
        backup.display(),
        RESTART[0],
        RESTART[1]
    ));
    Ok(exit::OK)
}

/// Puts the new text in the file's place at once, with the same owner and permissions, and keeps the old one.
fn replace(path: &Path, before: &str, after: &str) -> anyhow::Result<PathBuf> {
    let beside = |ending: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let metadata = fs::metadata(path)?;
    let write = |target: &Path, text: &str| -> std::io::Result<()> {
        use std::io::Write as _;
        let mut file = fs::File::create_new(target)?;
        file.set_permissions(fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
        std::os::unix::fs::chown(target, Some(metadata.uid()), Some(metadata.gid()))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    let backup = (0..1000)
        .map(|count| if count == 0 { beside(".bak") } else { beside(&format!(".bak{count}")) })
        .find(|candidate| !candidate.exists())
        .ok_or_else(|| anyhow!("there are a thousand backups beside {} already", path.display()))?;
    write(&backup, before).with_context(|| format!("cannot write the backup {}", backup.display()))?;
    let new = beside(".new");
    let done = write(&new, after).and_then(|()| fs::rename(&new, path));
    if let Err(error) = done {
        let _ = fs::remove_file(&new);
        return Err(error).with_context(|| format!("cannot write {}; it is as it was", path.display()));
    }
    Ok(backup)
}
