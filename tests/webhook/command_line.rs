//! The command line, as operators and pipelines use it: it judges as the server with the same settings does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use countersign_tests::{Ca, Countersign, Finished, NotaryServer, Problem, run};
use serde_json::{Value, json};

use super::{message, pod, policy, sign};

pub(crate) const GUN: &str = "registry.example.com/team/app";

/// A trust server with a signed tag, policies that ask for it, and a folder.
pub(crate) struct Bench {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) ca: Ca,
    pub(crate) server: NotaryServer,
    pub(crate) policies: String,
}

impl Bench {
    pub(crate) fn new() -> Result<Self, Problem> {
        let folder = tempfile::tempdir()?;
        let ca = Ca::make(folder.path())?;
        let policies = folder.path().join("policies");
        fs::create_dir(&policies)?;
        let server = NotaryServer::start(&ca, folder.path())?;
        sign(&server, &ca, &folder.path().join("owner"), GUN, "v1")?;
        fs::write(policies.join("p.yaml"), policy("p", "registry.example.com/*", Some(&server.url)))?;
        let policies = policies.display().to_string();
        Ok(Self { folder, ca, server, policies })
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> Result<String, Problem> {
        let path = self.folder.path().join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    }

    fn review(&self, more: &[&str]) -> Result<Finished, Problem> {
        let ca = self.ca.ca.display().to_string();
        let with_policies: &[&str] = if more.contains(&"--config") { &[] } else { &["--policies", &self.policies] };
        Countersign::run(&[&["review", "--trust-ca", &ca], with_policies, more].concat())
    }
}

pub(crate) fn pinned() -> String {
    format!("{GUN}:v1@sha256:{}", forge::hex(&forge::digest_of("v1")))
}

/// What people wrote stays as they wrote it, in every byte but those of the images.
#[test]
fn review_writes_pins_in_place() -> Result<(), Problem> {
    let bench = Bench::new()?;
    let deployment = format!(
        "\u{feff}# Kept: \u{fc}\r\napiVersion: apps/v1\r\nkind: Deployment\r\nmetadata:   {{name: web}}\r\nspec:\r\n  template:\r\n    spec:\r\n      volumes:\r\n      - name: s\r\n        secret: {{secretName: s, defaultMode: 0400}}\r\n      initContainers:\r\n      - {{name: first, image: '{GUN}:v1'}} # why\r\n      containers:\r\n      - image:   \"{GUN}:v1\"\r\n        name: web\r\n        args: [ --n=1e3 , 'it''s' ]\r\n      - name: other\r\n        image: {GUN}:v1   \r\n---\r\n# nothing\r\n--- {{apiVersion: v1, kind: ConfigMap, metadata: {{name: c}}, data: {{image: {GUN}:v1, m: 0o7}}}}\r\n...\r\n"
    );
    let expected = deployment
        .replace(&format!("'{GUN}:v1'"), &format!("'{}'", pinned()))
        .replace(&format!("\"{GUN}:v1\""), &format!("\"{}\"", pinned()))
        .replace(&format!("image: {GUN}:v1   "), &format!("image: {}   ", pinned()));
    let list = format!(
        "{{\"kind\":\"List\",\"apiVersion\":\"v1\",\"items\":[{{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{{\"name\":\"p\"}},\"spec\":{{\"containers\":[{{\"name\":\"a\",\"image\":\"{GUN}:v1\",\"cpu\":1.50}}]}}}}]}}"
    );
    let expected_list = list.replace(&format!("{GUN}:v1"), &pinned());
    let first = bench.file("first.yaml", &deployment)?;
    let second = bench.file("second.json", &list)?;
    for (file, expected) in [(&first, &expected), (&second, &expected_list)] {
        let finished = bench.review(&["-f", file, "-o", "yaml"])?;
        assert_eq!((finished.code, finished.stdout.as_str()), (0, expected.as_str()), "{}", finished.stderr);
    }
    let both = bench.review(&["-f", &second, "-f", &first, "-o", "yaml"])?;
    assert_eq!(both.stdout, format!("---\n{expected_list}\n---\n{expected}"));
    // What cannot be written whole is no success.
    let full = fs::OpenOptions::new().write(true).open("/dev/full")?;
    let ca = bench.ca.ca.display().to_string();
    let mut cut = Countersign::command();
    cut.args(["review", "--policies", &bench.policies, "--trust-ca", &ca, "-f", &second, "-o", "yaml"]);
    let cut = cut.stdout(full).output()?;
    assert_eq!(cut.status.code(), Some(2), "{cut:?}");
    assert!(String::from_utf8_lossy(&cut.stderr).contains("the output cannot be written"), "{cut:?}");
    // What is pinned already, and what nothing is asked of, is the very input.
    let again = bench.file("again.yaml", &expected)?;
    assert_eq!(bench.review(&["-f", &again, "-o", "yaml"])?.stdout, expected);

    // A value that stands in several places through an alias cannot be changed in one alone.
    let shared = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  containers:\n  - name: a\n    image: &i {GUN}:v1\n    env: [{{name: IMAGE, value: *i}}]\n"
    );
    let behind = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nx: &c\n- {{name: a, image: {GUN}:v1}}\nspec:\n  containers: *c\n"
    );
    for (name, text) in [("shared.yaml", shared), ("behind.yaml", behind)] {
        let file = bench.file(name, &text)?;
        let finished = bench.review(&["-f", &file, "-o", "yaml"])?;
        assert_eq!((finished.code, finished.stdout.as_str()), (2, ""), "{name}: {finished:?}");
        assert!(finished.stderr.contains("write it out") && finished.stderr.contains(name), "{finished:?}");
        assert_eq!(bench.review(&["-f", &file])?.code, 0, "it is reviewed all the same");
    }
    // Where each of them is an image, each is pinned.
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  containers:\n  - {{name: a, image: &i {GUN}:v1}}\n  - {{name: b, image: *i}}\n"
    );
    let file = bench.file("images.yaml", &text)?;
    let expected = text.replace(&format!("{GUN}:v1"), &pinned()).replace("*i", &pinned());
    assert_eq!(bench.review(&["-f", &file, "-o", "yaml"])?.stdout, expected);
    Ok(())
}

/// Each setting that decides is taken from the server's file, so that both come to the same.
#[test]
fn commands_judge_as_the_server_with_its_settings() -> Result<(), Problem> {
    let bench = Bench::new()?;
    let host = bench.server.url.trim_start_matches("https://").to_owned();
    let tenants = format!(
        "apiVersion: securityenforcement.admission.cloud.ibm.com/v1beta1\nkind: ImagePolicy\nmetadata: {{name: own, namespace: team}}\nspec:\n  repositories:\n  - name: \"registry.example.com/*\"\n    policy: {{trust: {{enabled: true, trustServer: \"{}\"}}}}\n",
        bench.server.url
    );
    // The entry names no trust server: the settings do.
    bench.file(
        "policies/p.yaml",
        &policy("p", "registry.example.com/*", None).replace("policy: ", "policy: {trust: {enabled: true}}"),
    )?;
    bench.file("policies/tenant.yaml", &tenants)?;
    let ca = bench.ca.ca.display().to_string();
    let config = |more: &str| {
        format!(
            "policies: {}\ntrust-ca: [{ca}]\npin: digest\ntrust-servers: {{registry.example.com: \"{}\"}}\nkinds:\n- {{group: argoproj.io, kind: Rollout, pod-template: /spec/template}}\n{more}",
            bench.policies, bench.server.url
        )
    };
    let restricted = bench.file("config.yaml", &config("namespace-trust-servers: [other.example.com]\n"))?;
    let open = bench.file("open.yaml", &config(&format!("namespace-trust-servers: [\"{host}\"]\n")))?;
    let rollout = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "r", "namespace": "n"},
        "spec": {"template": {"spec": {"containers": [{"name": "web", "image": format!("{GUN}:v1")}]}}},
    });
    let mut of_team = pod(&format!("{GUN}:v1"));
    of_team["metadata"]["namespace"] = json!("team");
    let objects = [pod(&format!("{GUN}:v1")), pod(&format!("{GUN}:v9")), rollout, of_team];
    for (config, may) in [(&restricted, false), (&open, true)] {
        let own: Vec<&str> = vec!["--config", config];
        let served = Countersign::serve(&bench.ca, bench.folder.path(), Path::new(&bench.policies), &own)?;
        for (index, object) in objects.iter().enumerate() {
            let manifest = bench.file(&format!("object-{index}.json"), &object.to_string())?;
            let finished = bench.review(&["--config", config, "-f", &manifest, "-o", "json"])?;
            let report: Value =
                serde_json::from_str(&finished.stdout).map_err(|error| format!("{error}: {finished:?}"))?;
            let image = &report["objects"][0]["images"][0];
            let answer = served.admit(object, "developer")?;
            assert_eq!(image["allowed"], answer["allowed"], "{object}: {image} {answer}");
            let expected = index == 0 || index == 2 || (index == 3 && may);
            assert_eq!(image["allowed"], json!(expected), "{index}: {image}");
            if expected {
                assert_eq!(image["pinned"], format!("{GUN}@sha256:{}", forge::hex(&forge::digest_of("v1"))));
            } else {
                assert_eq!(image["reason"].as_str(), Some(message(&answer)));
            }
        }
        // Those that look at one image find the same server.
        let image = format!("{GUN}:v1");
        for command in [&["verify"][..], &["inspect"], &["doctor", "-n", "team"], &["explain", "-n", "team"]] {
            let finished = Countersign::run(&[command, &[&image, "--config", config]].concat())?;
            let expected = match (command[0], may) {
                ("doctor", false) => 1,
                // The registry of this test does not exist: doctor ends there at the latest.
                ("doctor", true) => 3,
                _ => 0,
            };
            assert_eq!(finished.code, expected, "{command:?}: {finished:?}");
        }
    }
    let nowhere = bench.file("nowhere.yaml", "pin: digest\n")?;
    for command in [&["review", "-f", &nowhere][..], &["explain", "nginx"], &["lint"]] {
        let finished = Countersign::run(&[command, &["--config", &nowhere]].concat())?;
        assert!(finished.code == 2 && finished.stderr.contains("--policies DIR"), "{command:?}: {finished:?}");
    }
    let twice = Countersign::run(&["explain", "nginx", "--policies", &bench.policies, "--kubeconfig", &nowhere])?;
    assert!(twice.code == 2 && twice.stderr.contains("one place"), "{twice:?}");
    Ok(())
}

#[test]
fn machines_are_told_what_people_are() -> Result<(), Problem> {
    let bench = Bench::new()?;
    let text = format!("{}\n---\n{}\n", pod(&format!("{GUN}:v1")), pod(&format!("{GUN}:v9")));
    let manifest = bench.file("pods.yaml", &text)?;
    let junit = bench.review(&["-f", &manifest, "-o", "junit"])?;
    assert_eq!(junit.code, 1);
    for part in ["tests=\"2\" skipped=\"0\" failures=\"1\" errors=\"0\"", "no signed target v9", "containers/web"] {
        assert!(junit.stdout.contains(part), "{part}: {}", junit.stdout);
    }
    let checked = run(std::process::Command::new("python3").args([
        "-c",
        "import sys, xml.dom.minidom; xml.dom.minidom.parseString(sys.argv[1])",
        &junit.stdout,
    ]))?;
    assert_eq!(checked.code, 0, "{checked:?}");

    let explain = |image: &str, more: &[&str]| -> Result<(i32, Value), Problem> {
        let command = [&["explain", image, "--policies", &bench.policies, "-o", "json"], more].concat();
        let finished = Countersign::run(&command)?;
        Ok((finished.code, serde_json::from_str(&finished.stdout).map_err(|error| format!("{error}: {finished:?}"))?))
    };
    let (code, report) = explain(&format!("{GUN}:v1"), &[])?;
    assert_eq!((code, &report["denied"], &report["applies"]["position"]), (0, &Value::Null, &json!(1)));
    assert_eq!(report["applies"]["policy"]["entry"], "registry.example.com/*");
    let (code, report) = explain("registry.exampel.com/app:v1", &[])?;
    assert_eq!(code, 1);
    assert!(report["denied"].as_str().is_some_and(|denied| denied.contains("no entry of a ClusterImagePolicy")));
    assert_eq!(report["nearest"][0]["entry"], "registry.example.com/*", "{report}");
    let text = Countersign::run(&["explain", "registry.exampel.com/app:v1", "--policies", &bench.policies])?.stdout;
    assert!(text.contains("nearly for it") && text.contains("registry.example.com/*"), "{text}");
    let (_, report) = explain("quay.io/something/else:v1", &[])?;
    assert_eq!(report["nearest"], json!([]));

    let url = &bench.server.url;
    let ca = bench.ca.ca.display().to_string();
    let signed = ["inspect", &format!("{GUN}:v1"), "--trust-server", url, "--trust-ca", &ca].map(str::to_owned);
    assert_eq!(Countersign::run(&signed.each_ref().map(String::as_str))?.code, 0);
    let unsigned = ["inspect", &format!("{GUN}:v9"), "--trust-server", url, "--trust-ca", &ca].map(str::to_owned);
    let finished = Countersign::run(&unsigned.each_ref().map(String::as_str))?;
    assert!(finished.code == 1 && finished.stderr.contains("nobody has signed the tag v9"), "{finished:?}");
    let doctor =
        Countersign::run(&["doctor", &format!("{GUN}:v9"), "--trust-server", url, "--trust-ca", &ca, "-o", "json"])?;
    let report: Value = serde_json::from_str(&doctor.stdout).map_err(|error| format!("{error}: {doctor:?}"))?;
    let steps = report["steps"].as_array().ok_or("no steps")?;
    assert_eq!((doctor.code == 0, &report["sound"]), (false, &json!(false)));
    assert!(
        steps[0]["result"] == "ok"
            && steps.last().is_some_and(|step| step["result"] == "fail" && step["cure"].is_string()),
        "{report}"
    );
    Ok(())
}

#[test]
fn lint_knows_retired_servers_and_what_allows_all() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let lint = |text: &str| -> Result<Value, Problem> {
        let policies: PathBuf = folder.path().join("p.yaml");
        fs::write(&policies, text)?;
        let finished = Countersign::run(&["lint", &folder.path().display().to_string(), "-o", "json"])?;
        Ok(serde_json::from_str(&finished.stdout).map_err(|error| format!("{error}: {finished:?}"))?)
    };
    let says = |found: &Value, words: &str| {
        found
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one["problem"].as_str().is_some_and(|said| said.contains(words))))
    };
    let trusting = |host: &str| policy("p", host, None).replace("policy: ", "policy: {trust: {enabled: true}}");
    for host in ["*.azurecr.io/*", "team.azurecr.io/app"] {
        let found = lint(&trusting(host))?;
        assert!(says(&found, "azurecr.io is shut down from 2028-03-31"), "{host}: {found}");
    }
    assert!(!says(&lint(&trusting("registry.example.com/*"))?, "is shut down"));
    for name in ["*", "*/*"] {
        let found = lint(&policy("p", name, None))?;
        assert!(says(&found, "allows every image of every registry"), "{name}: {found}");
    }
    assert!(!says(&lint(&policy("p", "registry.example.com/*", None))?, "every image"));
    assert!(says(&lint("")?, "there is no policy in it"));
    Ok(())
}

#[test]
fn shells_and_manuals_know_the_command() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let version = Countersign::run(&["version"])?;
    assert_eq!(version.stdout, format!("countersign {}\n", env!("CARGO_PKG_VERSION")));
    for (shell, words) in
        [("bash", "_countersign()"), ("zsh", "#compdef countersign"), ("fish", "complete -c countersign")]
    {
        let finished = Countersign::run(&["completions", shell])?;
        assert!(finished.code == 0 && finished.stdout.contains(words) && finished.stdout.contains("review"), "{shell}");
    }
    let script = folder.path().join("countersign.bash");
    fs::write(&script, Countersign::run(&["completions", "bash"])?.stdout)?;
    let sourced = run(std::process::Command::new("bash")
        .arg("-c")
        .arg(format!("source {} && complete -p countersign", script.display())))?;
    assert_eq!(sourced.code, 0, "{sourced:?}");
    assert!(Countersign::run(&["man"])?.stdout.contains(".TH countersign 1"));
    let pages = folder.path().join("man");
    fs::create_dir(&pages)?;
    assert_eq!(Countersign::run(&["man", &pages.display().to_string()])?.code, 0);
    assert!(fs::read_to_string(pages.join("countersign-review.1"))?.contains("junit"));
    assert_eq!(Countersign::run(&["man", "/no/such/folder"])?.code, 2);
    assert_eq!(Countersign::run(&["completions", "tcsh"])?.code, 2);
    Ok(())
}

/// How much is said: nothing, the result, or each step; and how far it is, where somebody watches.
#[test]
fn as_much_is_said_as_is_wanted() -> Result<(), Problem> {
    let bench = Bench::new()?;
    let signed = bench.file("signed.yaml", &pod(&format!("{GUN}:v1")).to_string())?;
    let unsigned = bench.file("unsigned.yaml", &pod(&format!("{GUN}:v9")).to_string())?;
    for (file, code) in [(&signed, 0), (&unsigned, 1)] {
        let quiet = bench.review(&["-q", "-f", file])?;
        assert_eq!((quiet.code, quiet.stdout.as_str(), quiet.stderr.as_str()), (code, "", ""));
    }
    let told = bench.review(&["-v", "-f", &signed])?;
    assert!(told.stdout.contains("allowed"), "{told:?}");
    for words in ["asked a trust server", &bench.server.url.replace("https://", ""), "judged", GUN, "entry 1"] {
        assert!(told.stderr.contains(words), "{words}: {told:?}");
    }
    assert!(bench.review(&["-q", "-v", "-f", &signed])?.code == 2);

    // A terminal, as `script` makes one.
    let watched = |more: &str| -> Result<Finished, Problem> {
        let (program, ca) = (Countersign::program().display(), bench.ca.ca.display());
        let command = format!("{program} review {more} --trust-ca {ca} --policies {} -f {signed}", bench.policies);
        run(Command::new("script").args(["-qec", &command, "/dev/null"]).env("TERM", "xterm"))
    };
    let progress = "0 of 1 objects reviewed";
    let told = watched("")?;
    assert!(told.code == 0 && told.stdout.contains(progress) && told.stdout.contains("allowed"), "{told:?}");
    let quiet = watched("-q")?;
    assert!(quiet.code == 0 && quiet.stdout.is_empty(), "{quiet:?}");
    assert!(!bench.review(&["-f", &signed])?.stderr.contains(progress));
    Ok(())
}

/// Whoever reads a denial finds what helps without leaving the terminal.
#[test]
fn messages_are_explained() -> Result<(), Problem> {
    let section = Countersign::run(&["help", "messages", "not-signed"])?;
    assert!(section.code == 0 && section.stdout.contains("- **Operator:**"), "{section:?}");
    let all = Countersign::run(&["help", "messages"])?;
    assert!(all.stdout.contains(section.stdout.trim()), "{all:?}");
    let command = Countersign::run(&["help", "trust", "accept"])?;
    assert!(
        command.stdout.contains("Usage: countersign trust accept") && command.stdout.contains("Example:"),
        "{command:?}"
    );
    for topic in [&["help", "messages", "nonsense"][..], &["help", "nonsense"]] {
        let refused = Countersign::run(topic)?;
        assert!(refused.code == 2 && refused.stderr.contains("nonsense"), "{refused:?}");
    }
    Ok(())
}
