//! `countersign inspect --cosign`: what a registry has of signatures of one image, and beside it what a trust server has.

use countersign_cosign::{Fact, Form, Key};
use countersign_image::{ImageReference, Sha256, shown};
use countersign_remote::{Inspected, Login, Repository};
use serde_json::{Value, json};

use super::{Args, Format, inspect};
use crate::cli::output::{print, table};
use crate::cli::{arguments, clients, exit};
use crate::prove::cosign::digest_of;

/// Looks, prints, and gives the exit code.
pub(super) fn run(args: &Args, image: &ImageReference) -> anyhow::Result<u8> {
    let keys = arguments::cosign_keys(&args.cosign_key)?;
    let place = arguments::signatures_of(args.cosign_repository.as_deref(), image)?;
    let wanted = arguments::wanted(image)?;
    let clients = args.reach.clients(&args.settings.read()?)?;
    let runtime = clients::runtime()?;
    let login = Login::none();
    let digest = match wanted.digest() {
        Some(digest) => Ok(digest),
        None => digest_of(image, runtime.block_on(clients.cosign.digest(image, &login, ""))),
    };
    let digest = match digest {
        Ok(digest) => digest,
        Err(refusal) => {
            eprintln!("error: {}: {refusal}", shown(&args.image));
            return Ok(if refusal.is_undecided() { exit::UNDECIDED } else { exit::DENIED });
        }
    };
    let repository = image.repository();
    let looked = runtime.block_on(clients.cosign.inspect(&place, &repository, digest, &keys, &login));
    let found = match looked {
        Ok(found) => found,
        Err(problem) => {
            eprintln!("error: {problem}");
            return Ok(exit::UNDECIDED);
        }
    };
    match args.output {
        Format::Json => print(&format!("{:#}\n", as_json(&place, digest, &found, &keys))),
        Format::Table => print(&as_table(&place, digest, &found, &keys)),
    }
    for problem in &found.trouble {
        eprintln!("error: something may be missing: {problem}");
    }
    let code = if found.trouble.is_empty() { exit::OK } else { exit::UNDECIDED };
    // Where nobody names a trust server, an image may well be on none.
    if args.trust_server.is_none() || args.output == Format::Json {
        return Ok(code);
    }
    print("\n");
    Ok(code.max(inspect(args, image)?))
}

fn signer<'a>(fact: &Fact, keys: &'a [Key]) -> &'a str {
    keys.iter().find(|key| key.material() == fact.material()).map_or("", Key::name)
}

fn form(form: Form) -> &'static str {
    match form {
        Form::SigTag => ".sig tag",
        Form::SigReferrer => "referrer",
        Form::Bundle => "bundle",
    }
}

fn as_table(place: &Repository, digest: Sha256, found: &Inspected, keys: &[Key]) -> String {
    let claims = |fact: &Fact| {
        let claims: Vec<_> = fact.claims().iter().map(|(name, value)| format!("{name}={value}")).collect();
        shown(&claims.join(", "))
    };
    let rows = found.facts.iter().map(|fact| {
        let reference = fact.docker_reference().map_or_else(String::new, shown);
        let key = fact.material().fingerprint().base64();
        vec![form(fact.form()).to_owned(), shown(signer(fact, keys)), key, claims(fact), reference]
    });
    let rows: Vec<_> = rows.collect();
    let mut text = format!("{place}@{digest}\n\n");
    text += &if rows.is_empty() {
        "No signature of cosign by a key that was given.\n".to_owned()
    } else {
        table(&["FORM", "SIGNER", "KEY", "CLAIMS", "SIGNED AS"], &rows)
    };
    let lines = others(found);
    if !lines.is_empty() {
        text += &format!("\n{}\n", lines.join("\n"));
    }
    text
}

/// What else is there.
fn others(found: &Inspected) -> Vec<String> {
    let all = &found.found;
    let mut lines: Vec<String> = Vec::new();
    for (kind, count) in all.signatures() {
        let verified = found.facts.iter().filter(|fact| fact.form() == *kind).count();
        let others = count.saturating_sub(verified);
        if others > 0 {
            lines.push(format!("{others} by other keys: {}", form(*kind)));
        }
    }
    let hints: Vec<_> = all.hints().map(shown).collect();
    if !hints.is_empty() {
        lines.push(format!("keys that bundles say they are by: {}", hints.join(", ")));
    }
    let attestations: Vec<_> = all.attestations().map(shown).collect();
    if !attestations.is_empty() {
        lines.push(format!("attestations, which are no signatures: {}", attestations.join(", ")));
    }
    if all.notation() > 0 {
        lines.push(format!("signatures of Notation: {}", all.notation()));
    }
    let types: Vec<_> = all.other_types().map(shown).collect();
    if !types.is_empty() {
        lines.push(format!("of other types: {}", types.join(", ")));
    }
    lines.extend(all.refused().iter().map(|why| format!("not taken: {why}")));
    if all.perhaps_ed25519ph() {
        lines.push("perhaps signed with Ed25519ph, which is not supported".to_owned());
    }
    lines
        .extend(all.left_out().iter().map(|left| format!("only {} of {} {} were read", left.read, left.of, left.what)));
    lines
}

fn as_json(place: &Repository, digest: Sha256, found: &Inspected, keys: &[Key]) -> Value {
    let signatures: Vec<_> = found
        .facts
        .iter()
        .map(|fact| {
            json!({
                "form": form(fact.form()),
                "signer": signer(fact, keys),
                "key": fact.material().fingerprint().base64(),
                "claims": fact.claims(),
                "dockerReference": fact.docker_reference(),
            })
        })
        .collect();
    let all = &found.found;
    let counts: serde_json::Map<_, _> =
        all.signatures().iter().map(|(kind, count)| (form(*kind).to_owned(), json!(count))).collect();
    json!({
        "repository": place.to_string(),
        "digest": digest.to_string(),
        "signatures": signatures,
        "found": counts,
        "hints": all.hints().collect::<Vec<_>>(),
        "attestations": all.attestations().collect::<Vec<_>>(),
        "notation": all.notation(),
        "otherTypes": all.other_types().collect::<Vec<_>>(),
        "notTaken": all.refused(),
        "troubles": found.trouble.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}
