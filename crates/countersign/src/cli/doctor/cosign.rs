//! The way to signatures of cosign: the keys, the image's digest, and what the registry has for it.

use anyhow::bail;
use countersign_cosign::{Budget, Demand};
use countersign_image::{ImageReference, NotSha256, Wanted};
use countersign_policy::{CosignAsk, DenyReason, Refusal};
use countersign_remote::{Login, Repository, SignaturesAsk};

use super::{Found, Trouble, Walk};
use crate::cli::{clients, exit};
use crate::prove::cosign::{digest_of, read_demand, refusal};
use crate::source::Moment;

/// What is to be found out at a registry.
pub(super) struct Patient {
    image: ImageReference,
    place: Repository,
    demand: Demand,
}

/// Reads what an entry demands.
pub(super) async fn examine(
    moment: &dyn Moment,
    ask: &CosignAsk,
    entry: &str,
) -> anyhow::Result<Result<(Found, String), Trouble>> {
    let demand = match read_demand(moment, ask).await {
        Ok(demand) => demand,
        Err(Refusal::Undecided { cause, .. }) => bail!(cause),
        Err(refusal) => {
            let here = match &refusal {
                Refusal::SignerSecret { secret, .. } | Refusal::CosignKey { secret, .. } => Some(format!(
                    "cosign generate-key-pair k8s://{0}/{1} makes such a secret, and kubectl create secret generic {1} -n {0} --from-file=cosign.pub one for a key that is there.",
                    secret.namespace, secret.name
                )),
                _ => None,
            };
            return Ok(Err(Trouble::of(&refusal, here)));
        }
    };
    let place = Repository::of(&ask.place);
    let said = format!("{entry}: {} of {} keys must have signed, in {place}", demand.threshold(), demand.keys().len());
    Ok(Ok((Found::Cosign(Patient { image: ask.image.clone(), place, demand }), said)))
}

/// The way to the registry; gives the exit code.
pub(super) async fn treat(clients: &clients::Clients, patient: &Patient, walk: &mut Walk) -> u8 {
    let steps = async {
        let login = Login::none();
        let wanted = Wanted::of(&patient.image).map_err(|NotSha256 { algorithm }| {
            ("digest", super::of_the_policy(&DenyReason::DigestAlgorithm { algorithm }))
        })?;
        let digest = if let Some(digest) = wanted.digest() {
            digest
        } else {
            let asked = clients.cosign.digest(&patient.image, &login, "").await;
            digest_of(&patient.image, asked).map_err(|refusal| ("registry", trouble(&refusal)))?
        };
        walk.step("registry", &format!("the image is {digest}"));
        let asked = SignaturesAsk {
            repository: &patient.image.repository(),
            place: &patient.place,
            digest,
            demand: &patient.demand,
            login: &login,
            namespace: "",
            budget: &Budget::new(),
            denial_age: std::time::Duration::ZERO,
        };
        let proof = clients.cosign.prove(&asked).await;
        let proof = proof.map_err(|failure| ("signatures", trouble(&refusal(&patient.place.host_port(), failure))))?;
        let signers: Vec<_> = proof.by().iter().map(|by| by.signer.as_str()).collect();
        walk.step("signatures", &format!("{digest} by {}", signers.join(", ")));
        Ok::<_, (&str, Trouble)>(())
    };
    match steps.await {
        Ok(()) => exit::OK,
        Err((name, trouble)) => walk.end(name, &trouble),
    }
}

fn trouble(refusal: &Refusal) -> Trouble {
    let here = "countersign inspect IMAGE --cosign shows which signatures there are.";
    Trouble::of(refusal, (!refusal.is_undecided()).then(|| here.to_owned()))
}
