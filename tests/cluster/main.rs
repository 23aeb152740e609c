//! Countersign in a real control plane, with a real registry and a real Notary server: what users of a cluster see.

mod story;
mod today;
mod trouble;
mod world;

use countersign_tests::Problem;

use world::World;

type Scenario = fn(&mut World) -> Result<(), Problem>;

/// One after another in one cluster: each begins with what the one before left.
fn run_all(world: &mut World, scenarios: &[(&str, Scenario)]) -> Result<(), Problem> {
    for (name, scenario) in scenarios {
        eprintln!("-- {name}");
        scenario(world).map_err(|problem| format!("{name}: {problem}\n{}", world.logs()))?;
    }
    Ok(())
}

#[test]
fn kubernetes() -> Result<(), Problem> {
    let mut world = World::start("kubernetes")?;
    run_all(
        &mut world,
        &[
            ("before anything is installed", today::nothing_installed),
            ("the manifests apply", today::install),
            ("rights", today::rights),
            ("the words of the documentation", story::messages),
            ("the schema", today::schema),
            ("status", today::status),
            ("signed workloads run pinned", today::workloads),
            ("ephemeral containers", today::ephemeral_containers),
            ("revisions", today::revisions),
            ("forged owners", today::forged_owners),
            ("a tenant's secret", today::tenants_secret),
            ("pull secrets", today::pull_secrets),
            ("doctor", today::doctor),
            ("children while the trust server is down", trouble::trust_server_down),
            ("a repository that was made anew", trouble::made_anew),
            ("policies change at once", trouble::policies_change),
            ("definitions come and go", trouble::definitions_gone),
            ("an API server that hangs", trouble::api_server_hangs),
            ("restarts and rotation under load", trouble::under_load),
            ("a cron job's job", today::cron_job),
        ],
    )
}

#[test]
fn openshift() -> Result<(), Problem> {
    let mut world = World::start("openshift-3.11")?;
    run_all(
        &mut world,
        &[
            ("the definitions of the documentation", story::definitions),
            ("the manifests apply", today::install),
            ("the words of the documentation", story::messages),
            ("default policies", story::default_policies),
        ],
    )
}
