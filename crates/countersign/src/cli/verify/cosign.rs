//! `countersign verify --cosign-key`: one image, by signatures of cosign.

use countersign_cosign::Budget;
use countersign_image::ImageReference;
use countersign_policy::Refusal;
use countersign_remote::{Login, SignaturesAsk};
use serde_json::json;

use super::{Args, Format, refuse};
use crate::cli::output::print;
use crate::cli::{arguments, clients, exit};
use crate::prove::cosign::{digest_of, refusal};

/// Verifies, prints, and gives the exit code.
pub(super) fn run(args: &Args, image: &ImageReference) -> anyhow::Result<u8> {
    let demand = arguments::cosign_demand(&args.cosign_key)?;
    let place = arguments::signatures_of(args.cosign_repository.as_deref(), image)?;
    let wanted = arguments::wanted(image)?;
    let clients = args.reach.clients(&args.settings.read()?)?;
    let proven = clients::runtime()?.block_on(async {
        let login = Login::none();
        let digest = match wanted.digest() {
            Some(digest) => digest,
            None => digest_of(image, clients.cosign.digest(image, &login, "").await)?,
        };
        let asked = SignaturesAsk {
            repository: &image.repository(),
            place: &place,
            digest,
            demand: &demand,
            login: &login,
            namespace: "",
            budget: &Budget::new(),
            denial_age: std::time::Duration::ZERO,
        };
        clients.cosign.prove(&asked).await.map_err(|failure| refusal(&place.host_port(), failure))
    });
    let proof = match proven {
        Ok(proof) => proof,
        Err::<_, Refusal>(refusal) => return Ok(refuse(args, refusal)),
    };
    let digest = proof.digest().to_string();
    let signers: Vec<_> = proof.by().iter().map(|by| &by.signer).collect();
    print(&match args.output {
        Format::Text => format!("{digest}\n"),
        Format::Json => format!("{}\n", json!({"image": args.image, "digest": digest, "signers": signers})),
    });
    Ok(exit::OK)
}
