//! Entries with `anyOf`, and two real Notary servers: the one that teams move to, and the one that they leave.

use std::fs;
use std::path::Path;

use countersign_tests::{Ca, Countersign, NotaryServer, Problem, wait_for};
use serde_json::Value;

use super::{message, pod, sign};

/// A policy for all images, with this below `policy`.
fn write(policies: &Path, policy: &str) -> Result<(), Problem> {
    let text = format!(
        "apiVersion: securityenforcement.admission.cloud.ibm.com/v1beta1\nkind: ClusterImagePolicy\nmetadata: {{name: p}}\nspec:\n  repositories:\n  - name: \"*\"\n    policy: {policy}\n"
    );
    Ok(fs::write(policies.join("p.yaml"), text)?)
}

fn trust(server: &str) -> String {
    format!("trust: {{enabled: true, trustServer: \"{server}\"}}")
}

fn digest(name: &str) -> String {
    format!("sha256:{}", forge::hex(&forge::digest_of(name)))
}

struct Review {
    code: i32,
    pinned: Option<String>,
    reason: String,
}

fn review(policies: &Path, ca: &Ca, image: &str) -> Result<Review, Problem> {
    let manifest = policies.with_extension("pod.json");
    fs::write(&manifest, pod(image).to_string())?;
    let (manifest, policies, ca) =
        (manifest.display().to_string(), policies.display().to_string(), ca.ca.display().to_string());
    let finished =
        Countersign::run(&["review", "-f", &manifest, "--policies", &policies, "--trust-ca", &ca, "-o", "json"])?;
    let report: Value = serde_json::from_str(&finished.stdout).map_err(|error| format!("{error}: {finished:?}"))?;
    let image = &report["objects"][0]["images"][0];
    Ok(Review {
        code: finished.code,
        pinned: image["pinned"].as_str().map(str::to_owned),
        reason: image["reason"].as_str().unwrap_or_default().to_owned(),
    })
}

#[test]
fn one_of_two_trust_servers_is_enough() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let ca = Ca::make(folder.path())?;
    let (new_folder, old_folder) = (folder.path().join("new"), folder.path().join("old"));
    fs::create_dir(&new_folder)?;
    fs::create_dir(&old_folder)?;
    let (new, old) = (NotaryServer::start(&ca, &new_folder)?, NotaryServer::start(&ca, &old_folder)?);
    // Signed on both, with the same content; only on the old one; on both, with different content.
    sign(&new, &ca, &new_folder, "h.io/both", "v1")?;
    sign(&old, &ca, &old_folder, "h.io/both", "v1")?;
    sign(&old, &ca, &old_folder, "h.io/late", "v1")?;
    sign(&new, &ca, &new_folder, "h.io/differ", "v1")?;
    let other = forge::hex(&forge::digest_of("other"));
    let owner = countersign_tests::Client::new(&old.url, &ca, &old_folder);
    owner.run(&["init", "h.io/differ", "--publish"])?;
    owner.run(&["addhash", "h.io/differ", "v1", "523", "--sha256", &other, "--publish"])?;
    let policies = folder.path().join("policies");
    fs::create_dir(&policies)?;
    let alternatives = format!("{{anyOf: [{{{}}}, {{{}}}]}}", trust(&new.url), trust(&old.url));
    write(&policies, &alternatives)?;

    for image in ["h.io/both:v1", "h.io/late:v1"] {
        let reviewed = review(&policies, &ca, image)?;
        assert_eq!((reviewed.code, reviewed.pinned), (0, Some(format!("{image}@{}", digest("v1")))), "{image}");
    }
    // A reason for each, the nearest to a proof first.
    let neither = review(&policies, &ca, "h.io/both:v2")?;
    let lines: Vec<_> = neither.reason.lines().collect();
    let not_signed =
        "Deny \"h.io/both:v2\", failed to get content trust information: no signed target v2 in h.io/both (alternative";
    assert_eq!((neither.code, lines.len()), (1, 2), "{}", neither.reason);
    assert!(lines.iter().all(|line| line.starts_with(not_signed)), "{}", neither.reason);
    let late = review(&policies, &ca, "h.io/late:v2")?;
    assert!(
        late.reason
            .lines()
            .next()
            .is_some_and(|line| line.contains("no signed target v2 in h.io/late (alternative 2 of 2"))
    );

    let policies_text = policies.display().to_string();
    let explained = Countersign::run(&["explain", "h.io/both:v1", "--policies", &policies_text])?.stdout;
    for expected in [
        "One of 2 alternatives is enough",
        "Alternative 1: It asks for content trust",
        new.url.as_str(),
        old.url.as_str(),
    ] {
        assert!(explained.contains(expected), "{expected} in {explained}");
    }

    let served = Countersign::serve(&ca, folder.path(), &policies, &[])?;
    // Which one counts is for the policy to say; that they differ is told.
    // (as soon as both are known; what is listed later is not waited for).
    let differ = || served.admit(&pod("h.io/differ:v1"), "developer");
    assert_eq!(differ()?["allowed"], true);
    wait_for("a warning that names both", || {
        differ().is_ok_and(|answer| {
            let warning = answer["warnings"][0].as_str().unwrap_or_default();
            assert_eq!(answer["allowed"], true);
            warning.contains(&digest("v1")) && warning.contains(&other)
        })
    })?;
    // The new one goes away: what the old one has is enough, and that it could not be decided is told.
    drop(new);
    let without = served.admit(&pod("h.io/late:v1"), "developer")?;
    let warning = without["warnings"][0].as_str().unwrap_or_default();
    assert!(without["allowed"] == true && warning.contains("alternative 1 could not be decided"), "{without}");
    let (_, metrics) = served.get("/metrics")?;
    for kind in ["differ", "undecided"] {
        assert!(metrics.contains(&format!("countersign_alternatives_total{{reason=\"{kind}\"}} ")), "{metrics}");
    }
    // What neither has signed is undecided as long as one of them cannot be asked.
    let undecided = served.admit(&pod("h.io/late:v2"), "developer")?;
    assert!(undecided["allowed"] == false && undecided["auditAnnotations"]["verdict"] == "undecided", "{undecided}");
    assert_eq!(message(&undecided).lines().count(), 2, "{undecided}");
    assert_eq!(review(&policies, &ca, "h.io/late:v2")?.code, 3);
    Ok(())
}

/// Beside alternatives stands what is needed in any case, for the same digest.
#[test]
fn all_that_stands_side_by_side_must_hold() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let ca = Ca::make(folder.path())?;
    let (one_folder, other_folder) = (folder.path().join("one"), folder.path().join("other"));
    fs::create_dir(&one_folder)?;
    fs::create_dir(&other_folder)?;
    let (one, other) = (NotaryServer::start(&ca, &one_folder)?, NotaryServer::start(&ca, &other_folder)?);
    sign(&one, &ca, &one_folder, "h.io/both", "v1")?;
    sign(&other, &ca, &other_folder, "h.io/both", "v1")?;
    sign(&one, &ca, &one_folder, "h.io/half", "v1")?;
    let policies = folder.path().join("policies");
    fs::create_dir(&policies)?;
    write(&policies, &format!("{{{}, anyOf: [{{{}}}]}}", trust(&one.url), trust(&other.url)))?;
    let both = review(&policies, &ca, "h.io/both:v1")?;
    assert_eq!((both.code, both.pinned), (0, Some(format!("h.io/both:v1@{}", digest("v1")))));
    let half = review(&policies, &ca, "h.io/half:v1")?;
    assert!(half.code == 1 && half.reason.contains("does not have trust data for h.io/half"), "{}", half.reason);
    drop(other);
    assert_eq!(review(&policies, &ca, "h.io/both:v1")?.code, 3);
    // That one of them is not signed is decided, whatever the other would say.
    assert_eq!(review(&policies, &ca, "h.io/both:v2")?.code, 1);
    Ok(())
}
