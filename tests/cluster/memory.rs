//! What is remembered of repositories, by replicas of two releases, and what a change of signers makes of it.

use countersign_tests::{Countersign, Problem, wait_for};
use serde_json::{Value, json};

use crate::world::{World, pod};

const UPGRADED: &str = "team/upgraded";

/// The record of a repository.
fn record(world: &World, repository: &str) -> Result<Value, Problem> {
    let gun = format!("{}/{repository}", world.registry.host);
    let records = world.plane.get(&["trustrecords", "-n", "countersign"])?;
    let found = records["items"].as_array().into_iter().flatten().find(|record| record["spec"]["gun"] == gun.as_str());
    Ok(found.ok_or_else(|| format!("no record of {gun} in {records}"))?["spec"].clone())
}

/// Has one replica alone review a pod until it allows it.
fn allowed_by(world: &World, replica: &Countersign, name: &str, image: &str) -> Result<(), Problem> {
    world.front.only(replica.port);
    let mut last = Ok(());
    let allowed = wait_for("the pod to be allowed", || {
        last = world.create(&pod("memory", name, image)).unwrap_or_else(|problem| Err(problem.to_string()));
        last.is_ok()
    });
    allowed.map_err(|problem| format!("{name}: {problem}: {last:?}").into())
}

/// Has one replica alone refuse a pod, in these words.
fn refused_by(world: &World, replica: &Countersign, name: &str, image: &str, words: &str) -> Result<(), Problem> {
    world.front.only(replica.port);
    let mut last = Ok(());
    let refused = wait_for("the pod to be refused", || {
        last = world.create(&pod("memory", name, image)).unwrap_or_else(|problem| Err(problem.to_string()));
        last.as_ref().is_err_and(|message| message.contains(words))
    });
    refused.map_err(|problem| format!("{name}: {problem}: {last:?}").into())
}

/// The program of the last release, or why there is none.
fn last_release(world: &mut World) -> Result<Option<Countersign>, Problem> {
    let Some(program) = Countersign::last_release()? else {
        eprintln!("-- NOT TRIED: the history of this repository is not here, so there is no last release to run");
        return Ok(None);
    };
    let replica = world.start_replica_of_program(&program)?;
    replica.ready()?;
    Ok(Some(replica))
}

/// Replicas of this release and of the last one, side by side: each goes on with what the other wrote.
pub(crate) fn two_releases(world: &mut World) -> Result<(), Problem> {
    world.namespace("memory")?;
    let host = world.registry.host.clone();
    world.signer_secret("memory", "alice", "alice")?;
    let policy = json!({"repositories": [{"name": format!("{host}/{UPGRADED}*"), "policy": world.trust(&["alice"])}]});
    world.policy(Some("memory"), "upgraded", &policy)?;
    let Some(old) = last_release(world)? else {
        return Ok(());
    };
    let new = world.start_replica()?;
    new.ready()?;
    let image = |world: &World, tag: &str| world.image(UPGRADED, tag);
    world.sign(UPGRADED, "v1", "alice")?;
    allowed_by(world, &old, "old-1", &image(world, "v1"))?;
    let first = record(world, UPGRADED)?;
    assert!(first["more"].is_null() && first["data"].is_string(), "{first}");
    // What the last release wrote is enough, as long as nothing is new.
    allowed_by(world, &new, "new-1", &image(world, "v1"))?;
    assert_eq!(record(world, UPGRADED)?, first);
    world.sign(UPGRADED, "v2", "alice")?;
    allowed_by(world, &new, "new-2", &image(world, "v2"))?;
    let second = record(world, UPGRADED)?;
    assert!(second["more"].as_str().is_some_and(|more| more.contains("targets/alice")), "{second}");
    assert!(second["timestampVersion"].as_i64() > first["timestampVersion"].as_i64(), "{first} {second}");
    // The last release goes on with it, and writes it in its own form.
    world.sign(UPGRADED, "v3", "alice")?;
    allowed_by(world, &old, "old-3", &image(world, "v3"))?;
    let third = record(world, UPGRADED)?;
    assert!(third["more"].is_null(), "{third}");
    assert!(third["timestampVersion"].as_i64() > second["timestampVersion"].as_i64(), "{second} {third}");
    allowed_by(world, &new, "new-3", &image(world, "v3"))?;
    world.set_backends();
    Ok(())
}

/// What either release wrote is held against a repository that was made anew, by both, and what an administrator accepts counts for both.
pub(crate) fn two_releases_after_a_swap(world: &mut World) -> Result<(), Problem> {
    let Some(old) = last_release(world)? else {
        return Ok(());
    };
    let new = world.start_replica()?;
    new.ready()?;
    // The server has lost it since.
    for role in ["owner", "signer-alice"] {
        std::fs::remove_dir_all(world.folder.path().join(format!("{role}-{}", UPGRADED.replace('/', "_"))))?;
    }
    world.sign(UPGRADED, "v1", "alice")?;
    let (image, server) = (world.image(UPGRADED, "v1"), world.trust_server());
    for (name, replica) in [("swap-old", &old), ("swap-new", &new)] {
        refused_by(world, replica, name, &image, "without a signature by the former root key")?;
    }
    let kubeconfig = world.plane.kubeconfig("admin").display().to_string();
    let ca = world.ca.ca.display().to_string();
    let accept = ["trust", "accept", &image, "--trust-server", &server, "--trust-ca", &ca, "--kubeconfig", &kubeconfig];
    let accepted = Countersign::run(&accept)?;
    assert_eq!(accepted.code, 0, "{accepted:?}");
    let accepted = record(world, UPGRADED)?;
    assert!(accepted["accepted"].is_string() && accepted["more"].is_string(), "{accepted}");
    for (name, replica) in [("accepted-old", &old), ("accepted-new", &new)] {
        allowed_by(world, replica, name, &image)?;
    }
    world.set_backends();
    Ok(())
}

/// A signer who is removed, and added again with another key, is believed again without an administrator; the old key's word is not.
pub(crate) fn another_key_of_a_signer(world: &mut World) -> Result<(), Problem> {
    const REPOSITORY: &str = "team/other-key";
    let gun = format!("{}/{REPOSITORY}", world.registry.host);
    world.make_key("renate")?;
    world.signer_secret("memory", "renate", "renate")?;
    let policy = json!({"repositories": [{"name": format!("{gun}*"), "policy": world.trust(&["renate"])}]});
    world.policy(Some("memory"), "other-key", &policy)?;
    for tag in ["v1", "v2", "v3"] {
        world.sign(REPOSITORY, tag, "renate")?;
    }
    let replica = world.start_replica()?;
    replica.ready()?;
    allowed_by(world, &replica, "renate-3", &world.image(REPOSITORY, "v3"))?;
    let before = record(world, REPOSITORY)?;

    let owner = world.owner(REPOSITORY);
    for role in ["targets/renate", "targets/releases"] {
        owner.run(&["delegation", "remove", &gun, role, "--yes"])?;
    }
    owner.run(&["publish", &gun])?;
    for ending in ["key", "pub"] {
        std::fs::remove_file(world.folder.path().join(format!("renate.{ending}")))?;
    }
    std::fs::remove_dir_all(world.folder.path().join("signer-renate-team_other-key"))?;
    world.make_key("renate")?;
    let public = world.public_key("renate");
    for role in ["targets/releases", "targets/renate"] {
        owner.run(&["delegation", "add", &gun, role, &public, "--all-paths"])?;
    }
    owner.run(&["publish", &gun])?;
    world.plane.kubectl("admin", &["delete", "secret", "renate", "-n", "memory"])?;
    world.signer_secret("memory", "renate", "renate")?;
    // The server keeps the file that the former key signed. Whoever has the new one takes it over.
    let signer = world.signer(REPOSITORY, "renate")?;
    signer.run(&["witness", &gun, "targets/renate", "targets/releases", "--publish"])?;
    world.sign(REPOSITORY, "v4", "renate")?;
    allowed_by(world, &replica, "renate-4", &world.image(REPOSITORY, "v4"))?;
    let after = record(world, REPOSITORY)?;
    let floors = |record: &Value| -> Result<Value, Problem> {
        Ok(serde_json::from_str::<Value>(record["more"].as_str().ok_or("no keys")?)?["keys"]["targets/renate"].clone())
    };
    let (before, after) = (floors(&before)?, floors(&after)?);
    assert_eq!(before.as_array().map(Vec::len), Some(1), "{before}");
    assert_eq!(after.as_array().map(Vec::len), Some(2), "{after}");
    // One that has read nothing but the record.
    let fresh = world.start_replica()?;
    fresh.ready()?;
    allowed_by(world, &fresh, "renate-fresh", &world.image(REPOSITORY, "v4"))?;
    world.set_backends();
    Ok(())
}
