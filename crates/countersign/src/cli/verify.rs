//! `countersign verify`: one image, without policies.

mod cosign;

use countersign_image::shown;
use countersign_policy::{DenyReason, Refusal};
use countersign_remote::{Login, NamedBy};
use serde_json::json;

use super::judging::SettingsFile;
use super::output::print;
use super::{arguments, clients, exit};
use crate::prove::notary::{Demands, Question};

/// Verify one image without policies, and print its signed digest
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  countersign verify registry.example.com/team/app:v1 \\\n    --trust-server https://notary.example.com:4443 --signer alice=alice.pub\n  countersign verify registry.example.com/team/app:v1 --cosign-key alice=cosign.pub\n\nExit codes: 0 verified, 1 not trusted, 2 wrong usage, 3 could not be decided"
)]
pub(crate) struct Args {
    /// The image, as a container would name it
    image: String,

    /// The trust server [default: the registry's host, port 4443]
    #[arg(long, value_name = "URL")]
    trust_server: Option<String>,

    /// A signer who must have signed, and the file with their public key (repeatable)
    #[arg(long, value_name = "NAME=KEYFILE")]
    signer: Vec<String>,

    /// A root key that the repository must stand under: its id, or a PEM file (repeatable)
    #[arg(long, value_name = "ID|FILE")]
    root_key: Vec<String>,

    /// A key by which cosign must have signed, in place of a trust server, and its file (repeatable: all of them)
    #[arg(long, value_name = "NAME=KEYFILE", conflicts_with_all = ["trust_server", "signer", "root_key", "registry"])]
    cosign_key: Vec<String>,

    /// The repository that holds the signatures of cosign [default: the image's own]
    #[arg(long, value_name = "REPOSITORY", requires = "cosign_key")]
    cosign_repository: Option<String>,

    /// Ask the registry too, and say whether the tag has moved since it was signed
    #[arg(long)]
    registry: bool,

    #[command(flatten)]
    settings: SettingsFile,

    #[command(flatten)]
    reach: clients::Reach,

    /// What to print
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let image = arguments::image(&args.image)?;
    if !args.cosign_key.is_empty() {
        return cosign::run(args, &image);
    }
    let settings = args.settings.read()?;
    let server = arguments::server(args.trust_server.as_deref(), &image, &settings)?;
    let demands = Demands { pins: arguments::root_pins(&args.root_key)?, ..arguments::demands(&args.signer)? };
    let wanted = arguments::wanted(&image)?;
    let clients = args.reach.clients(&settings)?;
    let gun = image.repository();
    let question = Question { server: &server, gun: &gun, demands: &demands, pinned_in: None };
    let now = (crate::telemetry::wall_clock())();
    let runtime = clients::runtime()?;
    let resolved = runtime.block_on(async {
        let repository = question
            .repository(&clients.notary, NamedBy::Operator)
            .await
            .map_err(|failure| question.refusal(failure))?;
        question.resolve(&repository, &wanted, now)
    });
    let there = args.registry.then(|| runtime.block_on(clients.registry.digest(&image, &Login::none()))).transpose();
    let there = match there {
        Ok(there) => there.map(|digest| digest.map(|digest| digest.to_string())),
        Err(problem) => {
            eprintln!("error: {problem}");
            return Ok(exit::UNDECIDED);
        }
    };
    match (resolved, args.output) {
        (Ok(resolved), Format::Text) => {
            let digest = resolved.digest().to_string();
            print(&format!("{digest}\n"));
            match there {
                Some(None) => eprintln!("warning: the registry does not have {}", shown(&args.image)),
                Some(Some(there)) if there != digest => {
                    eprintln!("warning: the registry has {there} under this name now: it moved since it was signed");
                }
                _ => {}
            }
            Ok(exit::OK)
        }
        (Ok(resolved), Format::Json) => {
            let digest = resolved.digest().to_string();
            let signers: Vec<_> = resolved.by().iter().map(|by| &by.signer).collect();
            let mut answer = json!({"image": args.image, "digest": digest, "signers": signers});
            if let Some(there) = there {
                answer["registry"] =
                    json!({"digest": there, "moved": there.as_ref().is_some_and(|there| *there != digest)});
            }
            print(&format!("{answer}\n"));
            Ok(exit::OK)
        }
        (Err(refusal), _) => Ok(refuse(args, refusal)),
    }
}

/// Says why it is not verified, and gives the exit code.
fn refuse(args: &Args, refusal: Refusal) -> u8 {
    let reason = DenyReason::from(refusal);
    let line = countersign_policy::denial(&args.image, &reason);
    if args.output == Format::Json {
        let none: [&str; 0] = [];
        print(&format!("{}\n", json!({"image": args.image, "digest": null, "signers": none, "reason": line})));
    }
    eprintln!("{line}");
    if reason.is_undecided() { exit::UNDECIDED } else { exit::DENIED }
}
