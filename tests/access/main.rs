//! Private registries and difficult networks, with real parts: logins by token and by password, a proxy that is the only way
//! out, a server on IPv6. And never a password in a log or message.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_image::Sha256;
use countersign_remote::{Authenticator, Connections, DockerConfig, HttpClient, Login, Referrers, RegistryClient};
use countersign_remote::{Repository, Which};
use countersign_tests::{
    Ca, Client, Countersign, NotaryServer, Part, Problem, Registry, TokenServer, User, free_port, run,
};
use serde_json::{Value, json};

/// Passwords that must turn up in no log and no message.
const PASSWORDS: [&str; 3] = ["alices-secret-1", "bobs-secret-2", "not-the-password-3"];

fn dockerconfig(host: &str, user: &str, password: &str) -> String {
    json!({"auths": {host: {"auth": STANDARD.encode(format!("{user}:{password}"))}}}).to_string()
}

fn pull_secret(name: &str, host: &str, user: &str, password: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "n"},
        "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": dockerconfig(host, user, password)},
    })
    .to_string()
}

fn policy(repository: &str, server: &str, more: &str) -> String {
    format!(
        "apiVersion: securityenforcement.admission.cloud.ibm.com/v1beta1\nkind: ImagePolicy\nmetadata: {{name: p, namespace: \"n\"}}\nspec:\n  repositories:\n  - name: \"{repository}\"\n    policy: {{{more}trust: {{enabled: true, trustServer: \"{server}\"}}}}\n"
    )
}

fn pod(image: &str, secrets: &[&str], account: Option<&str>) -> Value {
    let secrets: Vec<_> = secrets.iter().map(|name| json!({"name": name})).collect();
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"},
        "spec": {"containers": [{"name": "web", "image": image}], "imagePullSecrets": secrets}});
    if let Some(account) = account {
        pod["spec"]["serviceAccountName"] = json!(account);
    }
    pod
}

fn message(response: &Value) -> String {
    response["status"]["message"].as_str().unwrap_or_default().to_owned()
}

/// No secret of the test in any of these.
fn nothing_leaked(texts: &[String]) {
    for text in texts {
        for password in PASSWORDS {
            let encoded = [format!("alice:{password}"), format!("bob:{password}"), format!("mallory:{password}")]
                .map(|pair| STANDARD.encode(pair));
            assert!(!text.contains(password), "{password} in {text}");
            assert!(encoded.iter().all(|encoded| !text.contains(encoded.as_str())), "{text}");
        }
    }
}

fn digest(name: &str) -> String {
    forge::hex(&forge::digest_of(name))
}

fn sign(client: &Client, gun: &str, tag: &str, digest: &str) -> Result<(), Problem> {
    client.run(&["init", gun, "--publish"])?;
    client.run(&["addhash", gun, tag, "523", "--sha256", digest, "--publish"])?;
    Ok(())
}

#[test]
fn logins_by_token() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    by_token(&folder, &Ca::make(folder.path())?)
}

#[test]
fn logins_by_token_of_an_rsa_key() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    by_token(&folder, &Ca::make_rsa(folder.path())?)
}

fn by_token(folder: &tempfile::TempDir, ca: &Ca) -> Result<(), Problem> {
    let port = free_port()?;
    let registry_port_unknown = "team/app";
    // The registry's name is part of the repository's, so it must be known before the token server is.
    let users = |gun: &str| {
        let user = |password: &str, repositories: Vec<String>| User { password: password.to_owned(), repositories };
        BTreeMap::from([
            ("alice".to_owned(), user(PASSWORDS[0], vec![gun.to_owned(), registry_port_unknown.to_owned()])),
            ("bob".to_owned(), user(PASSWORDS[1], vec!["another/repository".to_owned()])),
        ])
    };
    let gun = "127.0.0.1/team/app";
    let tokens = TokenServer::start(ca, users(gun))?;
    let notary = NotaryServer::start_as(&format!("127.0.0.1:{port}"), Some(&tokens), ca, folder.path())?;
    let login = format!("alice:{}", PASSWORDS[0]);
    let owner = Client::new(&notary.url, ca, &folder.path().join("owner")).with_login(&login);
    sign(&owner, gun, "v1", &digest("v1"))?;

    let policies = folder.path().join("policies");
    fs::create_dir(&policies)?;
    fs::write(policies.join("p.yaml"), policy("127.0.0.1/*", &notary.url, ""))?;
    let secrets = [
        pull_secret("alice", "127.0.0.1", "alice", PASSWORDS[0]),
        pull_secret("bob", "127.0.0.1", "bob", PASSWORDS[1]),
        pull_secret("wrong", "127.0.0.1", "mallory", PASSWORDS[2]),
        pull_secret("elsewhere", "registry.example.com", "alice", PASSWORDS[0]),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "builder", "namespace": "n"}, "imagePullSecrets": [{"name": "alice"}]}).to_string(),
    ];
    fs::write(policies.join("secrets.yaml"), secrets.join("\n---\n"))?;
    let host = notary.url.trim_start_matches("https://").to_owned();
    let token_host = tokens.realm.trim_start_matches("https://").trim_end_matches("/token").to_owned();
    let image = format!("{gun}:v1");
    let mut said = Vec::new();
    let cases: [(&[&str], Option<&str>, Option<String>); 8] = [
        (&["alice"], None, None),
        (&[], Some("builder"), None),
        (&["wrong", "bob", "alice"], None, None),
        (&["bob"], Some("builder"), None),
        (&[], None, Some(format!("{host} asks for a login, and there are no credentials for it"))),
        (
            &["missing", "elsewhere"],
            Some("nobody"),
            Some(format!("{host} asks for a login, and there are no credentials for it")),
        ),
        (
            &["wrong"],
            None,
            Some(format!(
                "{token_host} refuses the login with the credentials at hand: wrong user name, password or token"
            )),
        ),
        (&["bob"], None, Some(format!("{host} gives no access to {gun} with the credentials at hand"))),
    ];
    for (secrets, account, refusal) in &cases {
        // Each with a memory of its own: what one pod's login brought would serve the next.
        let served = Countersign::serve(ca, folder.path(), &policies, &[])?;
        let response = served.admit(&pod(&image, secrets, *account), "developer")?;
        match refusal {
            None => assert_eq!(response["allowed"], true, "{secrets:?} {account:?}: {response}"),
            Some(refusal) => {
                assert!(message(&response).contains(refusal.as_str()), "{secrets:?} {account:?}: {response}");
                assert!(served.get("/metrics")?.1.contains("verdict=\"undecided\",mode=\"enforce\"} 1"));
            }
        }
        said.push(response.to_string());
        said.push(served.part.log_text());
    }
    // With --private-trust what alice's pod brought is not bob's.
    for private in [false, true] {
        let flags: &[&str] = if private { &["--private-trust"] } else { &[] };
        let served = Countersign::serve(ca, folder.path(), &policies, flags)?;
        assert_eq!(served.admit(&pod(&image, &["alice"], None), "developer")?["allowed"], true);
        let bob = served.admit(&pod(&image, &["bob"], None), "developer")?;
        assert_eq!(bob["allowed"], json!(!private), "{bob}");
        said.push(served.part.log_text());
    }
    assert!(tokens.asked().contains(&"alice".to_owned()));

    // The same on the command line: a configuration, the user's own, and a credential helper.
    let home = folder.path().join("home");
    fs::create_dir_all(home.join(".docker"))?;
    let file = folder.path().join("docker.json");
    fs::write(&file, dockerconfig("127.0.0.1", "alice", PASSWORDS[0]))?;
    let (file, ca_text) = (file.display().to_string(), ca.ca.display().to_string());
    let verify = ["verify", &image, "--trust-server", &notary.url, "--trust-ca", &ca_text];
    let finished = Countersign::run(&[&verify[..], &["--registry-config", &file]].concat())?;
    assert_eq!(finished.code, 0, "{finished:?}");
    let as_user = |config: &str| -> Result<countersign_tests::Finished, Problem> {
        fs::write(home.join(".docker/config.json"), config)?;
        let path = format!("{}:{}", home.display(), std::env::var("PATH")?);
        run(Countersign::command().args(verify).env("HOME", &home).env_remove("DOCKER_CONFIG").env("PATH", path))
    };
    let own = as_user(&dockerconfig("127.0.0.1", "alice", PASSWORDS[0]))?;
    assert_eq!(own.code, 0, "{own:?}");
    let helper = home.join("docker-credential-test");
    fs::write(
        &helper,
        format!(
            "#!/bin/sh\nhost=$(cat)\necho \"$1 $host\" >> {}\n[ \"$host\" = 127.0.0.1 ] && printf '{{\"Username\":\"alice\",\"Secret\":\"{}\"}}'\n",
            home.join("asked").display(),
            PASSWORDS[0]
        ),
    )?;
    run(Command::new("chmod").arg("755").arg(&helper))?;
    let helped = as_user(r#"{"credHelpers":{"127.0.0.1":"test", "other.example.com":"test"}}"#)?;
    assert_eq!(helped.code, 0, "{helped:?}");
    let asked = fs::read_to_string(home.join("asked"))?;
    assert_eq!(asked, "get 127.0.0.1\n", "for the host that wants a login, and once");
    let stored = as_user(r#"{"credsStore":"test"}"#)?;
    assert_eq!(stored.code, 0, "{stored:?}");
    let asked = fs::read_to_string(home.join("asked"))?;
    assert!(!asked.contains("list") && asked.lines().all(|line| line.starts_with("get 127.0.0.1")), "{asked}");
    let nobody = as_user("{}")?;
    assert!(nobody.code == 3 && nobody.stderr.contains("asks for a login"), "{nobody:?}");
    for finished in [own, helped, stored, nobody, finished] {
        said.push(format!("{finished:?}"));
    }
    nothing_leaked(&said);
    Ok(())
}

/// A registry that lets in alice alone, by tokens, and the server that gives them.
fn closed_registry(ca: &Ca, folder: &Path) -> Result<(TokenServer, Registry), Problem> {
    let alice = User { password: PASSWORDS[0].to_owned(), repositories: vec!["team/app".to_owned()] };
    let tokens = TokenServer::start(ca, BTreeMap::from([("alice".to_owned(), alice)]))?;
    let login = format!("alice:{}", PASSWORDS[0]);
    let registry = Registry::start_as(Some((&tokens, &login)), ca, folder)?;
    Ok((tokens, registry))
}

/// The registry behind the same kind of login, and whether it has what was signed.
#[test]
fn the_registry_itself() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let ca = Ca::make(folder.path())?;
    let (_tokens, registry) = closed_registry(&ca, folder.path())?;
    let notary = NotaryServer::start(&ca, folder.path())?;
    let first = registry.push("team/app", "v1", "first")?;
    let gun = format!("{}/team/app", registry.host);
    let owner = Client::new(&notary.url, &ca, &folder.path().join("owner"));
    sign(&owner, &gun, "v1", &first.digest)?;
    owner.run(&["addhash", &gun, "v2", "523", "--sha256", &digest("never pushed"), "--publish"])?;

    let file = folder.path().join("docker.json");
    fs::write(&file, dockerconfig(&registry.host, "alice", PASSWORDS[0]))?;
    let (file, ca_text) = (file.display().to_string(), ca.ca.display().to_string());
    let common = ["--trust-server", &notary.url, "--trust-ca", &ca_text, "--registry-config", &file];
    let command = |arguments: &[&str]| Countersign::run(&[arguments, &common[..]].concat());
    let image = format!("{gun}:v1");
    let verified = command(&["verify", &image, "--registry", "-o", "json"])?;
    let answer: Value = serde_json::from_str(&verified.stdout)?;
    assert_eq!(
        answer["registry"],
        json!({"digest": format!("sha256:{}", first.digest), "moved": false}),
        "{verified:?}"
    );
    let walked = command(&["doctor", &image])?;
    assert!(walked.code == 0 && walked.stdout.lines().all(|line| line.starts_with("ok ")), "{walked:?}");

    // Somebody pushes other content under the signed tag.
    let second = registry.push("team/app", "v1", "second")?;
    let verified = command(&["verify", &image, "--registry"])?;
    assert_eq!(verified.stdout.trim(), format!("sha256:{}", first.digest), "{verified:?}");
    assert!(
        verified.stderr.contains(&format!("sha256:{}", second.digest))
            && verified.stderr.contains("moved since it was signed"),
        "{verified:?}"
    );
    let inspected = command(&["inspect", &gun, "--registry"])?;
    assert!(
        inspected.stdout.contains("moved since it was signed") && inspected.stdout.contains("not there"),
        "{inspected:?}"
    );

    // A policy may ask that the registry has what was signed.
    let policies = folder.path().join("policies");
    fs::create_dir(&policies)?;
    fs::write(policies.join("p.yaml"), policy(&gun, &notary.url, "requirePresent: true, "))?;
    fs::write(policies.join("s.yaml"), pull_secret("alice", &registry.host, "alice", PASSWORDS[0]))?;
    let served = Countersign::serve(&ca, folder.path(), &policies, &[])?;
    assert_eq!(served.admit(&pod(&image, &["alice"], None), "developer")?["allowed"], true);
    let missing = served.admit(&pod(&format!("{gun}:v2"), &["alice"], None), "developer")?;
    assert!(
        message(&missing).contains("is signed, but the registry") && message(&missing).contains("does not have it"),
        "{missing}"
    );
    let no_login = served.admit(&pod(&image, &[], None), "developer")?;
    assert!(message(&no_login).contains("registry: ") && message(&no_login).contains("asks for a login"), "{no_login}");
    nothing_leaked(&[
        served.part.log_text(),
        missing.to_string(),
        no_login.to_string(),
        format!("{verified:?}{inspected:?}{walked:?}"),
    ]);
    Ok(())
}

/// Whoever writes a pod, or a namespace's policy, chooses the registry: it is shown no configured credentials for a pattern of hosts.
#[test]
fn a_pod_chooses_who_is_shown_configured_credentials() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let ca = Ca::make(folder.path())?;
    let (_tokens, registry) = closed_registry(&ca, folder.path())?;
    let notary = NotaryServer::start(&ca, folder.path())?;
    let pushed = registry.push("team/app", "v1", "image")?;
    let gun = format!("{}/team/app", registry.host);
    sign(&Client::new(&notary.url, &ca, &folder.path().join("owner")), &gun, "v1", &pushed.digest)?;
    let (first, rest) = registry.host.split_once('.').ok_or("a host without a dot")?;
    let pattern = format!("*.{rest}");
    let any_host = format!("{first}.*/*");
    let cases = [
        (&gun, true, &pattern, true),
        (&any_host, true, &pattern, false),
        (&gun, false, &pattern, false),
        (&any_host, true, &registry.host, true),
        (&gun, false, &registry.host, true),
    ];
    for (index, (entry, of_operator, credentials, allowed)) in cases.into_iter().enumerate() {
        let folder = folder.path().join(index.to_string());
        fs::create_dir_all(folder.join("policies"))?;
        let mut written = policy(entry, &notary.url, "requirePresent: true, ");
        if of_operator {
            written =
                written.replace("kind: ImagePolicy", "kind: ClusterImagePolicy").replace(", namespace: \"n\"", "");
        }
        fs::write(folder.join("policies/p.yaml"), &written)?;
        let file = folder.join("docker.json");
        fs::write(&file, dockerconfig(credentials, "alice", PASSWORDS[0]))?;
        let flags = ["--registry-config", &file.display().to_string()];
        let served = Countersign::serve(&ca, &folder, &folder.join("policies"), &flags)?;
        let answer = served.admit(&pod(&format!("{gun}:v1"), &[], None), "developer")?;
        assert_eq!(answer["allowed"], allowed, "{credentials} {written}: {answer}");
        assert!(allowed || message(&answer).contains("asks for a login"), "{answer}");
        nothing_leaked(&[served.part.log_text(), answer.to_string()]);
    }
    Ok(())
}

/// Manifests, blobs, and what refers to them, as a real registry without lists of referrers has them, which asks for a token.
#[test]
fn what_a_registry_has() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let ca = Ca::make(folder.path())?;
    let (_tokens, registry) = closed_registry(&ca, folder.path())?;
    let image = Sha256::from_hex(&registry.push("team/app", "v1", "image")?.digest).ok_or("no digest")?;
    let payload = b"what was signed";
    let blob = registry.push_blob("team/app", payload)?;
    let empty = registry.push_blob("team/app", b"{}")?;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let signature = json!({
        "schemaVersion": 2, "mediaType": kind,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "digest": empty},
        "layers": [{"mediaType": "application/octet-stream", "size": payload.len(), "digest": blob}],
    });
    let signature = registry.push_manifest("team/app", "signature", &signature)?;
    let listed = format!("sha256:{}", signature.digest);
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{"mediaType": kind, "size": signature.size, "digest": listed, "artifactType": "a/signature"}],
    });
    registry.push_manifest("team/app", &format!("sha256-{}", image.hex()), &index)?;

    let mut connections = Connections::default();
    connections.add(&fs::read(&ca.ca)?, "test")?;
    let own = DockerConfig::parse(dockerconfig(&registry.host, "alice", PASSWORDS[0]).as_bytes())?;
    let http = HttpClient::new(&connections, std::time::Duration::from_secs(60))?;
    let client = RegistryClient::new(http, std::sync::Arc::new(Authenticator::new(own)));
    let repository = Repository::parse(&format!("{}/team/app", registry.host))?;
    let login = Login::none();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let found = client.referrers(&repository, image, &login).await;
        assert_eq!(found.trouble, []);
        let found = found.descriptors;
        assert_eq!(found.iter().map(|one| one.artifact_type.as_deref()).collect::<Vec<_>>(), [Some("a/signature")]);
        let manifest =
            client.manifest(&repository, Which::Digest(found[0].digest), &login).await?.ok_or("no manifest")?;
        assert_eq!((manifest.bytes, manifest.media_type.as_str()), (fs::read(&signature.manifest)?, kind));
        let digest = Sha256::parse(&blob).ok_or("no digest")?;
        assert_eq!(client.blob(&repository, digest, 1024, &login).await?.as_deref(), Some(&payload[..]));
        let tagged = client.manifest(&repository, Which::Tag("v1"), &login).await?.ok_or("no manifest")?;
        assert_eq!(tagged.digest, image);
        assert_eq!(client.manifest(&repository, Which::Tag("v2"), &login).await?, None);
        assert_eq!(client.blob(&repository, Sha256::of(b"never pushed"), 1024, &login).await?, None);
        assert_eq!(client.referrers(&repository, found[0].digest, &login).await, Referrers::default());
        Ok(())
    })
}

/// A password that a TLS proxy in front of the server asks for.
#[test]
fn logins_by_password_at_a_proxy() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let ca = Ca::make(folder.path())?;
    let notary = NotaryServer::start(&ca, folder.path())?;
    let gun = "127.0.0.1/team/app";
    sign(&Client::new(&notary.url, &ca, &folder.path().join("owner")), gun, "v1", &digest("v1"))?;
    let port = free_port()?;
    let hashed = run(Command::new("openssl").args(["passwd", "-apr1", PASSWORDS[0]]))?.stdout;
    fs::write(folder.path().join("users"), format!("alice:{}\n", hashed.trim()))?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let config = format!(
        "daemon off;\nmaster_process off;\npid {pid};\nerror_log {log} error;\nevents {{}}\nhttp {{\n access_log off;\n client_body_temp_path {body};\n proxy_temp_path {temp};\n fastcgi_temp_path {temp};\n uwsgi_temp_path {temp};\n scgi_temp_path {temp};\n server {{\n  listen 127.0.0.1:{port} ssl;\n  ssl_certificate {certificate};\n  ssl_certificate_key {key};\n  location /notary/ {{\n   auth_basic \"trust\";\n   auth_basic_user_file {users};\n   proxy_pass {notary}/;\n  }}\n }}\n}}\n",
        pid = path("nginx.pid"),
        log = path("nginx-error.log"),
        body = path("body"),
        temp = path("temp"),
        certificate = ca.certificate.display(),
        key = ca.key.display(),
        users = path("users"),
        notary = notary.url,
    );
    fs::write(folder.path().join("nginx.conf"), config)?;
    // nginx gives its workers to another user, who must be able to read what is here.
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(folder.path()))?;
    let mut nginx = Part::start(
        "nginx",
        Command::new("nginx").arg("-c").arg(folder.path().join("nginx.conf")).arg("-p").arg(folder.path()),
        folder.path(),
    )?;
    nginx.listening_on(port)?;
    let server = format!("https://127.0.0.1:{port}/notary");
    let ca_text = ca.ca.display().to_string();
    let image = format!("{gun}:v1");
    let mut said = Vec::new();
    let cases = [
        ("alice", PASSWORDS[0], 0, ""),
        ("alice", PASSWORDS[2], 3, "wrong user name, password or token"),
        ("", "", 3, "asks for a login"),
    ];
    for (user, password, code, expected) in cases {
        let file = folder.path().join("docker.json");
        let text =
            if user.is_empty() { "{}".to_owned() } else { dockerconfig(&format!("127.0.0.1:{port}"), user, password) };
        fs::write(&file, text)?;
        let file = file.display().to_string();
        let arguments =
            ["verify", &image, "--trust-server", &server, "--trust-ca", &ca_text, "--registry-config", &file];
        let finished = Countersign::run(&arguments)?;
        assert_eq!(finished.code, code, "{user} {finished:?}\n{}", nginx.log_text());
        assert!(
            finished.stderr.contains(expected) && (code == 0 || finished.stderr.contains(&format!("127.0.0.1:{port}"))),
            "{finished:?}"
        );
        said.push(format!("{finished:?}"));
    }
    nothing_leaked(&said);
    Ok(())
}

/// A network namespace that ends with the test.
struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run(Command::new("ip").args(["netns", "del", &self.0]));
        let _ = run(Command::new("ip").args(["link", "del", &format!("{}h", self.0)]));
    }
}

fn ip(arguments: &[&str]) -> Result<(), Problem> {
    let done = run(Command::new("ip").args(arguments))?;
    if done.code == 0 { Ok(()) } else { Err(format!("ip {arguments:?}: {}", done.stderr).into()) }
}

/// A forward proxy that is the only way out of the network.
#[test]
fn a_proxy_is_the_only_way() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let ca = Ca::make(folder.path())?;
    let notary = NotaryServer::start(&ca, folder.path())?;
    let gun = "registry.example.com/team/app";
    sign(&Client::new(&notary.url, &ca, &folder.path().join("owner")), gun, "v1", &digest("v1"))?;
    let number = std::process::id() % 200;
    let name = format!("cs{}", std::process::id() % 100_000);
    let (host_end, inner_end) = (format!("{name}h"), format!("{name}n"));
    let (outside, inside) = (format!("10.{}.7.1", 40 + number), format!("10.{}.7.2", 40 + number));
    ip(&["netns", "add", &name])?;
    let namespace = Namespace(name.clone());
    ip(&["link", "add", &host_end, "type", "veth", "peer", "name", &inner_end, "netns", &name])?;
    ip(&["addr", "add", &format!("{outside}/30"), "dev", &host_end])?;
    ip(&["link", "set", &host_end, "up"])?;
    ip(&["-n", &name, "addr", "add", &format!("{inside}/30"), "dev", &inner_end])?;
    ip(&["-n", &name, "link", "set", &inner_end, "up"])?;
    ip(&["-n", &name, "link", "set", "lo", "up"])?;

    let port = free_port()?;
    let config = folder.path().join("tinyproxy.conf");
    let ports: u16 = notary.url.rsplit(':').next().unwrap_or_default().parse()?;
    fs::write(
        &config,
        format!(
            "Port {port}\nListen {outside}\nTimeout 20\nMaxClients 20\nConnectPort {ports}\nAllow {inside}\nAllow {outside}\nLogLevel Error\n"
        ),
    )?;
    let mut proxy =
        Part::start("tinyproxy", Command::new("tinyproxy").arg("-d").arg("-c").arg(&config), folder.path())?;
    proxy.listening_at(&format!("{outside}:{port}"))?;

    let ca_text = ca.ca.display().to_string();
    let image = format!("{gun}:v1");
    let verify = |proxy: Option<&str>, no_proxy: &str, server: &str| -> Result<countersign_tests::Finished, Problem> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace.0]).arg(Countersign::program());
        command.args(["verify", &image, "--trust-server", server, "--trust-ca", &ca_text, "--timeout", "5m"]);
        command.env_remove("HTTPS_PROXY").env_remove("https_proxy").env("NO_PROXY", no_proxy);
        if let Some(proxy) = proxy {
            command.env("HTTPS_PROXY", proxy);
        }
        run(&mut command)
    };
    let through = format!("http://{outside}:{port}");
    let direct = verify(None, "", &notary.url)?;
    assert!(direct.code == 3 && direct.stderr.contains("cannot reach 127.0.0.1"), "{direct:?}");
    let proxied = verify(Some(&through), "", &notary.url)?;
    assert_eq!(proxied.code, 0, "{proxied:?}\n{}", proxy.log_text());
    let excepted = verify(Some(&through), "127.0.0.1", &notary.url)?;
    assert!(excepted.code == 3 && excepted.stderr.contains("cannot reach 127.0.0.1"), "{excepted:?}");
    // What the proxy does not let through names the server, and says that it was the proxy.
    let refused = verify(Some(&through), "", "https://127.0.0.1:9")?;
    assert!(
        refused.code == 3 && refused.stderr.contains("127.0.0.1:9") && refused.stderr.contains("proxy"),
        "{refused:?}"
    );
    let no_proxy_there = verify(Some(&format!("http://{outside}:9")), "", &notary.url)?;
    assert!(no_proxy_there.code == 3 && no_proxy_there.stderr.contains("proxy"), "{no_proxy_there:?}");
    Ok(())
}

#[test]
fn a_server_on_ipv6_only() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let ca = Ca::make(folder.path())?;
    let port = free_port()?;
    let notary = NotaryServer::start_as(&format!("[::1]:{port}"), None, &ca, folder.path())?;
    let gun = "[::1]:5000/team/app";
    let known = "registry.example.com/team/app";
    sign(&Client::new(&notary.url, &ca, &folder.path().join("owner")), known, "v1", &digest("v1"))?;
    let ca_text = ca.ca.display().to_string();
    let run = |image: &str| Countersign::run(&["verify", image, "--trust-server", &notary.url, "--trust-ca", &ca_text]);
    let finished = run(&format!("{known}:v1"))?;
    assert_eq!(finished.code, 0, "{finished:?}");
    let unsigned = run(&format!("{gun}:v1"))?;
    assert!(
        unsigned.code == 1 && unsigned.stderr.contains(&format!("[::1]:{port} does not have trust data for {gun}")),
        "{unsigned:?}"
    );
    Ok(())
}
