//! Countersign in a real control plane, with a real registry and a real Notary server: what users of a cluster see.

mod client_certificates;
mod definitions;
mod injector;
mod lifecycle;
mod memory;
mod modes;
mod registration;
mod scan;
mod story;
mod today;
mod trouble;
mod world;

use countersign_tests::{Problem, Release};

use world::World;

/// Something that is tried in a cluster.
struct Scenario {
    name: &'static str,
    run: fn(&mut World) -> Result<(), Problem>,
    /// The only release that can do it, and why no other can.
    only: Option<(Release, &'static str)>,
}

/// A scenario for every release.
const fn scenario(name: &'static str, run: fn(&mut World) -> Result<(), Problem>) -> Scenario {
    Scenario { name, run, only: None }
}

impl Scenario {
    /// For one release alone.
    const fn only(mut self, release: Release, why: &'static str) -> Self {
        self.only = Some((release, why));
        self
    }
}

/// One after another in one cluster: each begins with what the one before left.
fn run_all(platform: &'static str, release: Release, scenarios: &[Scenario]) -> Result<(), Problem> {
    let world = &mut World::start(platform, release)?;
    let cluster = format!("{platform} on {}", release.name());
    for Scenario { name, run, only } in scenarios {
        if let Some((only, why)) = only
            && *only != release
        {
            eprintln!("-- {cluster}: {name}: only on {}: {why}", only.name());
            continue;
        }
        eprintln!("-- {cluster}: {name}");
        run(world).map_err(|problem| format!("{cluster}: {name}: {problem}\n{}", world.logs()))?;
    }
    Ok(())
}

const KUBERNETES: &[Scenario] = &[
    scenario("before anything is installed", today::nothing_installed),
    scenario("what runs before the install", scan::before_the_install),
    scenario("an install whose image cannot be pulled", registration::nobody_serves),
    scenario("the manifests apply, and the first replica serves", today::install),
    scenario("rights", today::rights),
    scenario("a scan of what ran before", scan::what_ran_before),
    scenario("the words of the documentation", story::messages),
    scenario("the schema", today::schema),
    scenario("misspelt policies are refused", definitions::refused),
    scenario("misspelt policies deny", definitions::stored),
    scenario("status", today::status),
    scenario("signed workloads run pinned", today::workloads),
    scenario("an object of ephemeral containers", today::ephemeral_containers_object)
        .only(Release::V1_20, "since 1.22 the subresource is the pod itself, and the kind EphemeralContainers is gone"),
    scenario("kubectl debug", today::ephemeral_containers_debug)
        .only(Release::V1_37, "before 1.22 the subresource was a kind of its own, EphemeralContainers"),
    scenario("the command line with the cluster's policies", today::command_line),
    scenario("revisions", today::revisions),
    scenario("forged owners", today::forged_owners),
    scenario("a tenant's secret", today::tenants_secret),
    scenario("pull secrets", today::pull_secrets),
    scenario("a webhook of somebody else", injector::install),
    scenario("what it brings into a pod", injector::into_a_pod),
    scenario("what it brings into an update", injector::into_an_update),
    scenario("what it brings into a child", injector::into_a_child),
    scenario("what it brings in under a foreign owner", injector::under_a_foreign_owner),
    scenario("doctor", today::doctor),
    scenario("doctor of the installation", lifecycle::doctor),
    scenario("all nodes new", lifecycle::all_nodes_new),
    scenario("from audit to enforce", modes::from_audit_to_enforce),
    scenario("break glass", modes::break_glass),
    scenario("replicas of two releases", memory::two_releases),
    scenario("another key of a signer", memory::another_key_of_a_signer),
    scenario("before the trust server is down", trouble::before_it_is_down),
    scenario("children while the trust server is down", trouble::trust_server_down),
    scenario("a repository that was made anew", trouble::made_anew),
    scenario("replicas of two releases after a swap", memory::two_releases_after_a_swap),
    scenario("policies change at once", trouble::policies_change),
    scenario("definitions come and go", trouble::definitions_gone),
    scenario("an API server that hangs", trouble::api_server_hangs),
    scenario("restarts and rotation under load", trouble::under_load),
    scenario("what is taken away from the registration", registration::put_back),
    scenario("no drift", registration::no_drift),
    scenario("updates that leave the spec alone", registration::conditions),
    scenario("further kinds", registration::further_kinds),
    scenario("upgrade and rollback", registration::upgrade_and_rollback),
    scenario("upgrades of the chart", registration::chart_upgrades),
    scenario("default policies", story::default_policies),
    scenario("a cron job's job", today::cron_job),
    scenario("only the API server may ask", client_certificates::only_the_api_server),
    scenario("webhook configurations that are deleted", registration::deleted),
    scenario("a certificate of somebody else", registration::certificate_of_somebody_else),
    scenario("uninstall", lifecycle::uninstall),
    scenario("purge", lifecycle::purge),
    scenario("helm", lifecycle::helm),
];

const OPENSHIFT: &[Scenario] = &[
    scenario("the definitions of the documentation", story::definitions),
    scenario("an install whose image cannot be pulled", registration::nobody_serves),
    scenario("the manifests apply, and the first replica serves", today::install),
    scenario("the words of the documentation", story::messages),
    scenario("misspelt policies are refused", definitions::refused),
    scenario("misspelt policies deny", definitions::stored),
    scenario("default policies", story::default_policies),
    scenario("a webhook of somebody else", injector::install),
    scenario("what it brings into a pod", injector::into_a_pod),
    scenario("what loses its pin", injector::without_reinvocation),
    scenario("what is taken away from the registration", registration::put_back),
    scenario("no drift", registration::no_drift),
    scenario("upgrade and rollback", registration::upgrade_and_rollback),
    scenario("only the API server may ask", client_certificates::only_the_api_server),
    scenario("webhook configurations that are deleted", registration::deleted),
    scenario("a certificate of somebody else", registration::certificate_of_somebody_else),
    scenario("uninstall", lifecycle::uninstall),
    scenario("purge", lifecycle::purge),
];

#[test]
fn kubernetes_1_20() -> Result<(), Problem> {
    run_all("kubernetes", Release::V1_20, KUBERNETES)
}

#[test]
fn kubernetes_1_37() -> Result<(), Problem> {
    run_all("kubernetes", Release::V1_37, KUBERNETES)
}

/// What is printed for `OpenShift` 3.11 is of `v1beta1` of apiextensions and admissionregistration, as are the definitions of the
/// documentation. API servers serve that until 1.21, so none of this can be on 1.37; what else this does, the others do too.
#[test]
fn openshift_1_20() -> Result<(), Problem> {
    run_all("openshift-3.11", Release::V1_20, OPENSHIFT)
}
