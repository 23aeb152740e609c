//! `countersign review`: manifests, exactly as the webhook would review them.

mod junit;

use std::path::PathBuf;

use countersign_image::shown;
use countersign_policy::{EntryRef, ImageVerdict, Mode, Outcome, Verdict, patch};
use serde::Serialize;

use super::judging::{self, From, Origin, SettingsFile};
use super::output::{print, table, verdict_word};
use super::progress::Progress;
use super::{clients, exit};
use crate::admission_review::{GroupVersionKind, Request};
use crate::break_glass::BreakGlass;
use crate::config::{MESSAGES, Settings};
use crate::decision::Webhook;
use crate::documents::{self, Document, Names, Text};
use crate::enforce::Engine;
use crate::gate::{Gate, help};

/// Review manifests as the webhook would: files, folders or standard input
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  countersign review -f deployment.yaml --policies ./policies\n  kustomize build . | countersign review -f - --policies ./policies -o yaml\n  countersign review -f ./manifests --kubeconfig ~/.kube/config -o junit > review.xml\n\nExit codes: 0 allowed, 1 denied, 2 wrong usage or configuration, or nothing to review, 3 could not be decided"
)]
pub(crate) struct Args {
    /// Manifests: a file, a folder, or - for standard input (repeatable)
    #[arg(short, long = "file", value_name = "FILE", default_value = "-")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    settings: SettingsFile,

    #[command(flatten)]
    origin: Origin,

    /// Allow input in which no object holds an image
    #[arg(long)]
    allow_empty: bool,

    /// Namespace of objects that name none
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,

    #[command(flatten)]
    reach: clients::Reach,

    /// What to print; yaml is the input with pinned images and no other change, and nothing if one is denied; junit is for pipelines
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Json,
    Yaml,
    Junit,
}

#[derive(Serialize)]
struct Report {
    allowed: bool,
    /// Not allowed, and only because nothing could be decided. Stands there only where it is so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    undecided: bool,
    objects: Vec<ObjectReport>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectReport {
    api_version: String,
    kind: String,
    namespace: String,
    name: String,
    allowed: bool,
    /// Not allowed, and only because nothing could be decided. Stands there only where it is so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    undecided: bool,
    images: Vec<ImageReport>,
}

#[derive(Serialize)]
struct ImageReport {
    path: String,
    image: String,
    allowed: bool,
    /// Not allowed, and only because nothing could be decided. Stands there only where it is so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    undecided: bool,
    pinned: Option<String>,
    /// What the entry says is done with a denied image, where that is not to deny it; then the reason may stand beside `allowed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'static str>,
    reason: Option<String>,
    policy: Option<EntryRef>,
}

/// An object, and what its review came to; nothing for one that holds no images.
struct Reviewed {
    document: Document,
    outcome: Option<Result<Verdict, String>>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let settings = args.settings.read()?;
    let from = args.origin.required(&settings)?;
    let mut texts = Vec::new();
    for path in &args.files {
        texts.extend(documents::read_texts(path, Names::All)?);
    }
    for document in texts.iter().flat_map(|text| &text.documents) {
        for member in ["apiVersion", "kind"] {
            if document.text_of(&format!("/{member}")).is_empty() {
                anyhow::bail!(
                    "{}: an object without {member} cannot be reviewed; add it, or take the object out",
                    document.place
                );
            }
        }
    }
    let reviewed = clients::runtime()?.block_on(async {
        let gate = gate(&args.origin, &args.reach, &settings, &from).await?;
        let documents = texts.iter().flat_map(|text| text.documents.iter().cloned()).collect();
        anyhow::Ok(review_all(&gate, documents, &args.namespace).await)
    })?;
    if !args.allow_empty && reviewed.iter().all(|reviewed| reviewed.outcome.is_none()) {
        // A pipe whose first part failed looks like this.
        anyhow::bail!(
            "no object of the input holds an image, so nothing was reviewed; give --allow-empty if that is as it should be"
        );
    }
    let messages = messages(&settings);
    let report = report(&reviewed, &args.namespace, messages);
    match args.output {
        Format::Table => print(&as_table(&report)),
        Format::Json => print(&(serde_json::to_string_pretty(&report)? + "\n")),
        Format::Junit => print(&junit::report(&report)?),
        Format::Yaml if report.allowed => print(&as_yaml(&texts, &reviewed)?),
        Format::Yaml => eprint!("{}", denials(&reviewed, messages)),
    }
    Ok(match word(report.allowed, report.undecided) {
        ALLOWED => exit::OK,
        UNDECIDED => exit::UNDECIDED,
        _ => exit::DENIED,
    })
}

/// Where the page with the messages is.
fn messages(settings: &Settings) -> &str {
    settings.messages.as_deref().unwrap_or(MESSAGES)
}

/// The gate of the server, without a cluster's owners and in the mode that denies: what is asked is what would be denied.
pub(super) async fn gate(
    origin: &Origin,
    reach: &clients::Reach,
    settings: &Settings,
    from: &From,
) -> anyhow::Result<Gate> {
    let defaults = origin.secrets.defaults(from, settings)?;
    let source = from.source(&origin.secrets.namespace(from, settings)).await?;
    let clients = reach.clients(settings)?;
    let engine = Engine {
        source,
        notary: clients.notary,
        registry: clients.registry,
        cosign: clients.cosign,
        defaults,
        clock: crate::telemetry::wall_clock(),
        deadline: reach.timeout.0,
    };
    Ok(Gate {
        engine,
        kinds: judging::kinds(&settings.kinds)?,
        children: None,
        trusted_controllers: Vec::new(),
        verify_children: false,
        mode: Mode::Enforce,
        namespaces: None,
        break_glass: BreakGlass::default(),
        messages: messages(settings).to_owned(),
    })
}

async fn review_all(gate: &Gate, documents: Vec<Document>, namespace: &str) -> Vec<Reviewed> {
    let (mut reviewed, progress, all) = (Vec::new(), Progress::new(), documents.len());
    for document in documents {
        progress.say(&format!("{} of {all} objects reviewed", reviewed.len()));
        let outcome = judge(gate, &document, namespace).await;
        reviewed.push(Reviewed { document, outcome });
    }
    reviewed
}

/// Asks the gate as if somebody created the object; nothing for one that holds no images.
async fn judge(gate: &Gate, document: &Document, namespace: &str) -> Option<Result<Verdict, String>> {
    let object = document.value.to_string();
    let (group, version) = group_version(document);
    let request = Request {
        kind: GroupVersionKind { group, version, kind: document.text_of("/kind").to_owned() },
        name: Some(document.text_of("/metadata/name").to_owned()),
        namespace: Some(namespace_of(document, namespace)),
        operation: "CREATE".to_owned(),
        object: Some(&object),
        dry_run: Some(true),
        ..Request::default()
    };
    let decision = gate.decide(Webhook::Mutate.into(), &request, gate.read(&request)).await;
    match decision.whole {
        // Its images cannot be told.
        Some(whole) => Some(Err(whole.message)),
        None => decision.has_images.then_some(Ok(decision.verdict)),
    }
}

fn group_version(document: &Document) -> (String, String) {
    let api_version = document.text_of("/apiVersion");
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    (group.to_owned(), version.to_owned())
}

fn namespace_of(document: &Document, default: &str) -> String {
    let named = document.text_of("/metadata/namespace");
    if named.is_empty() { default.to_owned() } else { named.to_owned() }
}

fn denials(reviewed: &[Reviewed], messages: &str) -> String {
    let mut text = String::new();
    for reviewed in reviewed {
        let message = match &reviewed.outcome {
            Some(Ok(verdict)) if !verdict.admitted() => {
                verdict.message(ImageVerdict::blocks, |cause| help(messages, cause))
            }
            Some(Err(message)) => message.clone(),
            _ => continue,
        };
        text.push_str(&format!(
            "{}: {} {}\n",
            reviewed.document.place,
            shown(reviewed.document.text_of("/kind")),
            shown(reviewed.document.text_of("/metadata/name"))
        ));
        for line in message.lines() {
            text.push_str(&format!("  {line}\n"));
        }
    }
    text
}

fn report(reviewed: &[Reviewed], namespace: &str, messages: &str) -> Report {
    let object = |reviewed: &Reviewed| {
        let document = &reviewed.document;
        let images: Vec<_> = match reviewed.outcome.as_ref()? {
            Ok(verdict) => verdict.images.iter().map(|image| image_report(image, messages)).collect(),
            Err(message) => {
                let unreadable = ImageReport {
                    path: String::new(),
                    image: String::new(),
                    allowed: false,
                    undecided: false,
                    pinned: None,
                    mode: None,
                    reason: Some(message.clone()),
                    policy: None,
                };
                vec![unreadable]
            }
        };
        let (allowed, undecided) = together(images.iter().map(|image| (image.allowed, image.undecided)));
        Some(ObjectReport {
            api_version: document.text_of("/apiVersion").to_owned(),
            kind: document.text_of("/kind").to_owned(),
            namespace: namespace_of(document, namespace),
            name: document.text_of("/metadata/name").to_owned(),
            allowed,
            undecided,
            images,
        })
    };
    let objects: Vec<_> = reviewed.iter().filter_map(object).collect();
    let (allowed, undecided) = together(objects.iter().map(|object| (object.allowed, object.undecided)));
    Report { allowed, undecided, objects }
}

/// Whether several are allowed, and undecided, together. What was decided weighs more than what was not: one denial makes the whole
/// denied.
fn together(several: impl Iterator<Item = (bool, bool)>) -> (bool, bool) {
    let denied: Vec<bool> = several.filter(|(allowed, _)| !allowed).map(|(_, undecided)| undecided).collect();
    (denied.is_empty(), !denied.is_empty() && denied.into_iter().all(|undecided| undecided))
}

const ALLOWED: &str = "allowed";
const UNDECIDED: &str = "undecided";

fn word(allowed: bool, undecided: bool) -> &'static str {
    match (allowed, undecided) {
        (true, _) => ALLOWED,
        (false, true) => UNDECIDED,
        (false, false) => "denied",
    }
}

fn image_report(verdict: &ImageVerdict, messages: &str) -> ImageReport {
    let denials = verdict.denials().into_iter().map(|(cause, line)| line + &help(messages, cause));
    let reason = denials.collect::<Vec<_>>().join("\n");
    let pinned = match &verdict.outcome {
        // Of what is not enforced nothing is changed.
        _ if !verdict.is_enforced() => None,
        Outcome::Proven(proof) => proof.pinned().map(str::to_owned),
        Outcome::PutBack(before) => Some(before.clone()),
        Outcome::Unchecked | Outcome::Denied(_) => None,
    };
    ImageReport {
        path: verdict.image.path.clone(),
        image: verdict.image.image.clone(),
        allowed: !verdict.blocks(),
        undecided: verdict.blocks() && verdict.reason().is_some_and(countersign_policy::DenyReason::is_undecided),
        mode: Some(verdict.mode).filter(|mode| *mode != Mode::Enforce).map(Mode::label),
        pinned,
        reason: Some(reason).filter(|reason| !reason.is_empty()),
        policy: verdict.entry.clone(),
    }
}

fn as_table(report: &Report) -> String {
    if report.objects.is_empty() {
        return "No object holds an image.\n".to_owned();
    }
    let mut rows = Vec::new();
    for object in &report.objects {
        for image in &object.images {
            let verdict = verdict_word(word(image.allowed, image.undecided), image.allowed);
            let details = match (&image.reason, &image.pinned) {
                (Some(reason), _) => match image.mode {
                    Some(mode) => format!("would be denied, and the mode is {mode}: {reason}"),
                    None => reason.clone(),
                },
                (None, Some(pinned)) => {
                    format!("pinned to {}", pinned.rsplit_once('@').map_or("", |(_, digest)| digest))
                }
                (None, None) => "no check asked for, or no pin".to_owned(),
            };
            let title = shown(&format!("{} {}/{}", object.kind, object.namespace, object.name));
            let image_shown = shown(&image.image);
            rows.push(vec![verdict, title, shown(&image.path), image_shown, details]);
        }
    }
    table(&["VERDICT", "OBJECT", "CONTAINER", "IMAGE", "DETAILS"], &rows)
}

/// The input with its proven images pinned, and not one other byte changed.
fn as_yaml(texts: &[Text], reviewed: &[Reviewed]) -> anyhow::Result<String> {
    let mut reviewed = reviewed.iter();
    let mut written = Vec::new();
    for text in texts {
        let changes = reviewed.by_ref().take(text.documents.len()).map(|reviewed| match &reviewed.outcome {
            Some(Ok(verdict)) => patch::pins(verdict).map(|(at, pin)| (at.to_owned(), pin.to_owned())).collect(),
            _ => Vec::new(),
        });
        written.push(text.replaced(&changes.collect::<Vec<_>>())?);
    }
    Ok(documents::joined(written))
}
