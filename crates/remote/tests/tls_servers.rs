//! Trust servers over TLS: certificates of every wrong kind, pinned ones, logins, and who gets to see a password.

mod tls;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_notary::{Error, Repository, RootPins, TrustServer};
use countersign_remote::{
    Ask, AuthError, Authenticator, Connections, DockerConfig, Failure, HttpClient, HttpError, Login, NotaryClient,
    Options, PinnedCertificate, Sharing,
};
use forge::{Files, Repo, digest_of};
use futures::StreamExt as _;
use rcgen::{BasicConstraints, CertificateParams, IsCa};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use tls::{Authority, Certificate, Handler, LONG, PASSWORD, Server, answer, basic, config, path_of, trusting};

const GUN: &str = "registry.example.com/team/app";

fn sound() -> Files {
    let mut repo = Repo::new(GUN, forge::NOW);
    repo.tag("targets", "v1", &digest_of("v1"));
    repo.build()
}

/// Serves the files of a repository.
fn files(files: Files) -> Handler {
    Arc::new(move |head| {
        let name = path_of(head).rsplit_once("/_trust/tuf/").map_or("", |(_, name)| name).to_owned();
        match files.get(&name) {
            Some(bytes) => answer("200 OK", "", bytes),
            None => answer("404 Not Found", "", b""),
        }
    })
}

/// Serves them to whoever sends this `Authorization`, and challenges everybody else.
fn guarded(challenge: String, expected: String) -> Handler {
    let open = files(sound());
    Arc::new(move |head| {
        if head.lines().any(|line| line.eq_ignore_ascii_case(&format!("authorization: {expected}"))) {
            open(head)
        } else {
            answer("401 Unauthorized", &format!("WWW-Authenticate: {challenge}\r\n"), b"{}")
        }
    })
}

fn options(private: bool) -> Options {
    Options {
        refresh: LONG,
        stale: Duration::ZERO,
        flight: LONG,
        clock: Arc::new(|| forge::NOW),
        state: None,
        on_trouble: Arc::new(|problem| panic!("{problem}")),
        sharing: Sharing::private(private),
    }
}

fn client(authority: &Authority, authenticator: Authenticator, private: bool) -> NotaryClient {
    let http = HttpClient::new(&trusting(authority), LONG).unwrap();
    NotaryClient::new(http, Arc::new(authenticator), options(private))
}

async fn ask(
    client: &NotaryClient,
    server: &TrustServer,
    certificate: Option<&PinnedCertificate>,
    login: &Login,
) -> Result<Arc<Repository>, Failure> {
    let pins = RootPins::none();
    client
        .repository(Ask { certificate, ..Ask::new(server, GUN, &pins, login) })
        .await
        .map(|seen| Arc::clone(seen.repository()))
}

#[tokio::test]
async fn certificates_are_refused_with_their_reason_and_may_be_pinned() {
    const UNKNOWN: &str = "was refused: its certificate is signed by an authority that is not trusted; give that authority's certificate with --trust-ca";
    const NAMESAKE: &str = "was refused: its certificate is not signed by the trusted authority of that name; if another one has the same name, give its certificate with --trust-ca";
    let authority = Authority::make();
    let other = Authority::named("other CA");
    let namesake = Authority::make();
    let years = |from: i32, to: i32| {
        move |params: &mut CertificateParams| {
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(to, 1, 1);
        }
    };
    let cases: [(&str, Certificate, &str); 7] = [
        ("another name", authority.issue(|params| params.subject_alt_names.clear()), "is for another name"),
        ("expired", authority.issue(years(2000, 2001)), "has expired"),
        ("not yet", authority.issue(years(2100, 2101)), "is not valid yet"),
        ("unknown authority", other.issue(|_| ()), UNKNOWN),
        ("authority of the same name", namesake.issue(|_| ()), NAMESAKE),
        ("self-signed", Certificate::self_signed(|_| ()), UNKNOWN),
        (
            "a CA as a leaf",
            Certificate::self_signed(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            "the TLS connection",
        ),
    ];
    let nobody = Login::none();
    for (name, certificate, expected) in cases {
        let server = Server::start(&certificate, files(sound())).await;
        let client = client(&authority, Authenticator::default(), false);
        let refused = ask(&client, &server.url(), None, &nobody).await.unwrap_err();
        assert!(matches!(refused, Failure::Http(HttpError::Tls { .. })), "{name}: {refused:?}");
        assert!(
            refused.to_string().contains(expected) && refused.to_string().contains(&server.host),
            "{name}: {refused}"
        );
        assert!(server.heads.lock().unwrap().is_empty(), "{name}: nothing is asked of it");
        // With exactly this certificate pinned it will do; with another one it will not.
        let pinned = PinnedCertificate::parse(&certificate.pem, "test").unwrap();
        ask(&client, &server.url(), Some(&pinned), &nobody).await.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        let wrong = PinnedCertificate::parse(&authority.issue(|_| ()).pem, "test").unwrap();
        let refused = ask(&client, &server.url(), Some(&wrong), &nobody).await.unwrap_err();
        assert!(
            refused.to_string().contains("another certificate than trustServerCertificate pins"),
            "{name}: {refused}"
        );
        // What the pinned connection brought says nothing to a policy that asks for a sound one.
        assert!(ask(&client, &server.url(), None, &nobody).await.is_err(), "{name}");
    }
    // A pin is the only thing that counts: a sound certificate that is not it is refused.
    let sound_one = authority.issue(|_| ());
    let server = Server::start(&sound_one, files(sound())).await;
    let client = client(&authority, Authenticator::default(), false);
    assert!(ask(&client, &server.url(), None, &nobody).await.is_ok());
    let wrong = PinnedCertificate::parse(&authority.pem, "test").unwrap();
    assert!(ask(&client, &server.url(), Some(&wrong), &nobody).await.is_err());
    for text in ["", "rubbish", &format!("{}{}", authority.pem, sound_one.pem)] {
        assert!(PinnedCertificate::parse(text, "test").is_err());
    }
}

#[tokio::test]
async fn plain_http_where_https_is_asked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
        }
    });
    let client = client(&Authority::make(), Authenticator::default(), false);
    let server = TrustServer::parse(&format!("https://{host}")).unwrap();
    let refused = ask(&client, &server, None, &Login::none()).await.unwrap_err();
    assert!(refused.is_undecided() && refused.to_string().contains(&host.to_string()), "{refused}");
}

/// A body that ends too early at whatever byte never becomes a repository.
#[tokio::test]
async fn a_connection_that_breaks_anywhere() {
    let authority = Authority::make();
    let certificate = authority.issue(|_| ());
    let good = files(sound());
    let whole = good("GET /v2/x/_trust/tuf/timestamp.json HTTP/1.1");
    let tries = (0..whole.len()).step_by(7).map(|cut| {
        let (good, certificate, authority) = (Arc::clone(&good), certificate.clone(), &authority);
        async move {
            let broken: Handler = Arc::new(move |head| {
                let mut bytes = good(head);
                if path_of(head).ends_with("timestamp.json") {
                    bytes.truncate(cut);
                }
                bytes
            });
            let server = Server::start(&certificate, broken).await;
            let client = client(authority, Authenticator::default(), false);
            (cut, ask(&client, &server.url(), None, &Login::none()).await)
        }
    });
    // Some at a time: a connection must come about within a fixed time, and all share this thread.
    let mut outcomes = futures::stream::iter(tries).buffer_unordered(4);
    while let Some((cut, outcome)) = outcomes.next().await {
        let failure = outcome.map(|_| ()).unwrap_err();
        let broke = matches!(failure, Failure::Http(HttpError::Unreachable { .. }));
        assert!(broke && failure.is_undecided(), "{cut}: {failure:?}");
    }
}

#[tokio::test]
async fn basic_logins_are_tried_in_turn() {
    let authority = Authority::make();
    let certificate = authority.issue(|_| ());
    let expected = basic("alice", PASSWORD);
    let server = Server::start(&certificate, guarded("Basic realm=\"notary\"".into(), expected.clone())).await;
    let host = server.host.clone();
    let configured = |user: &str| Authenticator::new(config(&host, user, PASSWORD));
    let login =
        |users: &[&str]| Login::with(users.iter().map(|user| Arc::new(config(&host, user, PASSWORD))).collect());
    let nobody = Login::none();
    // The pod's, wrong and then right; then the configured one; then none.
    ask(&client(&authority, configured("mallory"), false), &server.url(), None, &login(&["bob", "alice"]))
        .await
        .unwrap();
    ask(&client(&authority, configured("alice"), false), &server.url(), None, &login(&["bob"])).await.unwrap();
    let wrong = ask(&client(&authority, configured("mallory"), false), &server.url(), None, &login(&["bob"])).await;
    assert_eq!(wrong.unwrap_err(), Failure::Auth(AuthError::WrongCredentials { host: host.clone() }));
    let none = ask(&client(&authority, Authenticator::default(), false), &server.url(), None, &nobody).await;
    assert_eq!(none.unwrap_err(), Failure::Auth(AuthError::NoCredentials { host: host.clone() }));
    // Credentials that are for somebody else are not shown.
    let elsewhere = Server::start(&certificate, guarded("Basic realm=\"x\"".into(), "never".into())).await;
    let other = Authenticator::new(config("registry.example.com", "alice", PASSWORD));
    let refused = ask(&client(&authority, other, false), &elsewhere.url(), None, &login(&["alice"])).await.unwrap_err();
    assert!(!elsewhere.saw("uthorization") && !format!("{refused:?}{refused}").contains(PASSWORD), "{refused}");
}

/// A token server that gives the token `good` to alice, and `weak` to everybody else.
fn token_server() -> Handler {
    Arc::new(|head| {
        let alice = basic("alice", PASSWORD);
        let mallory = basic("mallory", PASSWORD);
        let has = |value: &str| head.lines().any(|line| line.eq_ignore_ascii_case(&format!("authorization: {value}")));
        if has(&mallory) || head.contains("refresh_token=stale") {
            return answer("401 Unauthorized", "", b"{}");
        }
        let asked = head.contains("service=notary") && head.contains("scope=repository%3Ateam%2Fapp%3Apull");
        let good = has(&alice) || head.contains("refresh_token=identity");
        let token = if good && asked { "good" } else { "weak" };
        answer("200 OK", "", format!("{{\"token\":\"{token}\",\"expires_in\":3600}}").as_bytes())
    })
}

#[tokio::test]
async fn bearer_tokens() {
    let authority = Authority::make();
    let certificate = authority.issue(|_| ());
    let tokens = Server::start(&certificate, token_server()).await;
    let challenge =
        format!("Bearer realm=\"https://{}/token\",service=\"notary\",scope=\"repository:team/app:pull\"", tokens.host);
    let server = Server::start(&certificate, guarded(challenge, "Bearer good".into())).await;
    let host = server.host.clone();
    let of = |user: &str| Authenticator::new(config(&host, user, PASSWORD));
    let nobody = Login::none();

    let alice = client(&authority, of("alice"), false);
    ask(&alice, &server.url(), None, &nobody).await.unwrap();
    // One token for all files of the repository.
    assert_eq!(tokens.heads.lock().unwrap().len(), 1);
    // Each of the four and releases, which there might be, without it and with it.
    assert!(server.asked() <= 10, "{}", server.asked());
    assert!(!server.saw(&STANDARD.encode(format!("alice:{PASSWORD}"))), "the password is for the token server alone");

    let bob = ask(&client(&authority, of("bob"), false), &server.url(), None, &nobody).await.unwrap_err();
    assert_eq!(bob, Failure::Auth(AuthError::NoAccess { host: host.clone(), repository: GUN.into() }));
    let mallory = ask(&client(&authority, of("mallory"), false), &server.url(), None, &nobody).await.unwrap_err();
    assert_eq!(mallory, Failure::Auth(AuthError::WrongCredentials { host: tokens.host.clone() }));
    let none =
        ask(&client(&authority, Authenticator::default(), false), &server.url(), None, &nobody).await.unwrap_err();
    assert_eq!(none, Failure::Auth(AuthError::NoCredentials { host: host.clone() }));

    let identity = |token: &str| {
        let text = serde_json::json!({"auths": {host.as_str(): {"identitytoken": token}}}).to_string();
        Authenticator::new(DockerConfig::parse(text.as_bytes()).unwrap())
    };
    ask(&client(&authority, identity("identity"), false), &server.url(), None, &nobody).await.unwrap();
    let stale = ask(&client(&authority, identity("stale"), false), &server.url(), None, &nobody).await.unwrap_err();
    assert_eq!(stale, Failure::Auth(AuthError::WrongCredentials { host: tokens.host.clone() }));
}

/// A realm on another host gets no password, unless the configuration allows that host.
#[tokio::test]
async fn a_realm_elsewhere_gets_no_password() {
    let authority = Authority::make();
    let certificate = authority.issue(|_| ());
    let tokens = Server::start(&certificate, token_server()).await;
    // `localhost` is another party than 127.0.0.1.
    let elsewhere = tokens.host.replace("127.0.0.1", "localhost");
    let challenge =
        format!("Bearer realm=\"https://{elsewhere}/token\",service=\"notary\",scope=\"repository:team/app:pull\"");
    let server = Server::start(&certificate, guarded(challenge, "Bearer good".into())).await;
    let mut authenticator = Authenticator::new(config(&server.host, "alice", PASSWORD));
    let refused =
        ask(&client(&authority, authenticator, false), &server.url(), None, &Login::none()).await.unwrap_err();
    assert_eq!(refused, Failure::Auth(AuthError::ForeignRealm { host: server.host.clone(), realm: elsewhere }));
    assert!(!tokens.saw("uthorization"), "{:?}", tokens.heads.lock().unwrap());
    authenticator = Authenticator::new(config(&server.host, "alice", PASSWORD));
    authenticator.allow_realms("127.0.0.1", vec!["localhost".into()]);
    ask(&client(&authority, authenticator, false), &server.url(), None, &Login::none()).await.unwrap();
}

/// Who names the token server chooses neither as whom it is asked, nor that it is one at this machine.
#[tokio::test]
async fn a_realm_elsewhere_is_not_at_home() {
    let authority = Authority::make();
    let certificate = authority.issue(|_| ());
    let tokens = Server::start(&certificate, token_server()).await;
    let named =
        |realm: String| format!("Bearer realm=\"{realm}\",service=\"notary\",scope=\"repository:team/app:pull\"");
    let port = tokens.host.rsplit_once(':').unwrap().1.to_owned();
    for (realm, expected) in [
        (format!("https://alice:open-sesame@{}/token", tokens.host), "is not an https address"),
        (format!("https://localhost:{port}/token"), "no other server may send us there"),
        (format!("https://127.0.0.2:{port}/token"), "no other server may send us there"),
        ("https://169.254.169.254/token".to_owned(), "no other server may send us there"),
    ] {
        let server = Server::start(&certificate, guarded(named(realm.clone()), "Bearer weak".into())).await;
        let nobody = client(&authority, Authenticator::default(), false);
        let refused = ask(&nobody, &server.url(), None, &Login::none()).await.unwrap_err().to_string();
        assert!(refused.contains(expected), "{realm}: {refused}");
        assert_eq!(tokens.heads.lock().unwrap().len(), 0, "{realm}");
    }
    // The same, where the operator says so.
    let server =
        Server::start(&certificate, guarded(named(format!("https://localhost:{port}/token")), "Bearer weak".into()))
            .await;
    let mut authenticator = Authenticator::default();
    authenticator.allow_realms("127.0.0.1", vec!["localhost".into()]);
    ask(&client(&authority, authenticator, false), &server.url(), None, &Login::none()).await.unwrap();
    assert_eq!(tokens.heads.lock().unwrap().len(), 1);
}

/// A server that asks for a token for more than to read its repository gets one for that, or none: it might use it elsewhere.
#[tokio::test]
async fn a_token_is_for_one_repository() {
    let authority = Authority::make();
    let certificate = authority.issue(|_| ());
    for (scope, good) in [
        ("repository:team/app:pull,push repository:team/secret:pull", true),
        ("repository:team/secret:pull", false),
        ("registry:catalog:*", false),
    ] {
        let tokens = Server::start(&certificate, token_server()).await;
        let challenge = format!("Bearer realm=\"https://{}/token\",service=\"notary\",scope=\"{scope}\"", tokens.host);
        let server = Server::start(&certificate, guarded(challenge, "Bearer good".into())).await;
        let alice = Authenticator::new(config(&server.host, "alice", PASSWORD));
        let found = ask(&client(&authority, alice, false), &server.url(), None, &Login::none()).await;
        if good {
            found.unwrap();
            assert!(!tokens.saw("push") && !tokens.saw("secret"), "{:?}", tokens.heads.lock().unwrap());
        } else {
            assert!(matches!(found, Err(Failure::Auth(AuthError::BadScope { .. }))), "{found:?}");
            assert!(tokens.heads.lock().unwrap().is_empty());
        }
    }
}

/// What alice brought is everybody's, as it is public to whoever may pull; unless the operator says otherwise.
#[tokio::test]
async fn what_is_shared_and_what_is_not() {
    let authority = Authority::make();
    let certificate = authority.issue(|_| ());
    let server = Server::start(&certificate, guarded("Basic realm=\"x\"".into(), basic("alice", PASSWORD))).await;
    let alice = Login::with(vec![Arc::new(config(&server.host, "alice", PASSWORD))]);
    let bob = Login::with(vec![Arc::new(config(&server.host, "bob", PASSWORD))]);
    for (private, shared) in [(false, true), (true, false)] {
        let client = client(&authority, Authenticator::default(), private);
        assert!(ask(&client, &server.url(), None, &bob).await.is_err());
        ask(&client, &server.url(), None, &alice).await.unwrap();
        assert_eq!(ask(&client, &server.url(), None, &bob).await.is_ok(), shared, "private: {private}");
        assert_eq!(ask(&client, &server.url(), None, &Login::none()).await.is_ok(), shared, "private: {private}");
        let asked = server.heads.lock().unwrap().len();
        ask(&client, &server.url(), None, &alice).await.unwrap();
        assert_eq!(server.heads.lock().unwrap().len(), asked, "alice was let in a moment ago");
    }
}

/// Authorities and client certificates that are one host's go to no other.
#[tokio::test]
async fn settings_of_one_host() {
    let (theirs, ours) = (Authority::named("their CA"), Authority::named("our CA"));
    let server = Server::start_for(&theirs.issue(|_| ()), Some(&ours), files(sound())).await;
    let me = ours.issue(|params| params.subject_alt_names.clear());
    let key = PrivateKeyDer::try_from(me.key.clone()).unwrap();
    let key_pem =
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(key.secret_der()));
    let outcome = async |host: &str, identity: bool| {
        let mut connections = Connections::default();
        connections.add_for_host(host, theirs.pem.as_bytes(), "test").unwrap();
        if identity {
            connections.set_identity(host, me.pem.as_bytes(), key_pem.as_bytes(), "test").unwrap();
        }
        let http = HttpClient::new(&connections, LONG).unwrap();
        let client = NotaryClient::new(http, Arc::default(), options(false));
        ask(&client, &server.url(), None, &Login::none()).await
    };
    for host in [server.host.as_str(), "127.0.0.1"] {
        assert!(outcome(host, true).await.is_ok(), "{host}");
        let without = outcome(host, false).await.unwrap_err();
        assert!(without.is_undecided(), "{without:?}");
    }
    let elsewhere = outcome("notary.example.com", true).await.unwrap_err();
    assert!(elsewhere.to_string().contains("signed by an authority that is not trusted"), "{elsewhere}");
    let mut connections = Connections::default();
    assert!(connections.set_identity("h", me.pem.as_bytes(), b"rubbish", "test").is_err());
    assert!(connections.set_identity("h", b"rubbish", key_pem.as_bytes(), "test").is_err());
    assert!(connections.add_for_host("h", b"rubbish", "test").is_err());
}

#[tokio::test]
async fn mirrors() {
    let authority = Authority::make();
    let certificate = authority.issue(|_| ());
    let server = Server::start(&certificate, files(sound())).await;
    let mut connections = trusting(&authority);
    connections.set_alias("notary.example.com", &server.host).unwrap();
    assert!(connections.set_alias("x", "a/b").is_err() && connections.set_alias("x", "user@h").is_err());
    let http = HttpClient::new(&connections, LONG).unwrap();
    let client = NotaryClient::new(http, Arc::default(), options(false));
    let named = TrustServer::parse("https://notary.example.com:4443").unwrap();
    ask(&client, &named, None, &Login::none()).await.unwrap();
    assert!(server.saw(&format!("/v2/{GUN}/_trust/tuf/root.json")));
}

/// One request that hangs does not make a server a dead one: what else it has is still had.
#[tokio::test]
async fn one_slow_repository_is_no_dead_server() {
    let authority = Authority::make();
    let certificate = authority.issue(|_| ());
    let server = Server::start(&certificate, files(sound())).await;
    let at = |name: &str| TrustServer::parse(&format!("https://{}/{name}", server.host)).unwrap();
    let mut last = None;
    // The time that is too little for any answer must be enough for a good one, and who knows how fast that is here.
    for patience in [1, 4, 16, 64, 256].map(Duration::from_secs) {
        let http = HttpClient::new(&trusting(&authority), patience).unwrap();
        let client = NotaryClient::new(http, Arc::default(), options(false));
        let slow = ask(&client, &at("silent"), None, &Login::none()).await.unwrap_err();
        assert!(slow.to_string().contains("did not answer in time"), "{slow}");
        match ask(&client, &at("good"), None, &Login::none()).await {
            Ok(_) => return,
            Err(failure) => last = Some(failure),
        }
    }
    panic!("{last:?}");
}

/// Two reviews that differ in nothing but the login do not wait for each other's refusal.
#[tokio::test]
async fn one_login_does_not_spoil_another() {
    let authority = Authority::make();
    let certificate = authority.issue(|_| ());
    let server = Server::start(&certificate, guarded("Basic realm=\"x\"".into(), basic("alice", PASSWORD))).await;
    let client = client(&authority, Authenticator::default(), false);
    let alice = Login::with(vec![Arc::new(config(&server.host, "alice", PASSWORD))]);
    let bob = Login::with(vec![Arc::new(config(&server.host, "bob", PASSWORD))]);
    let url = server.url();
    let (one, other) = tokio::join!(ask(&client, &url, None, &bob), ask(&client, &url, None, &alice));
    assert!(other.is_ok() && one.is_err(), "{:?}", one.map(|_| ()));
}

/// More signatures than anybody needs are not tried.
#[tokio::test]
async fn a_flood_of_signatures_is_refused() {
    let authority = Authority::make();
    let certificate = authority.issue(|_| ());
    let mut repo = Repo::new(GUN, forge::NOW);
    let key = forge::Key::p256("signer");
    for index in 0..40 {
        repo.signer(&format!("s{index}"), &key);
        repo.sign(&format!("s{index}"), "v1", &digest_of("v1"));
        repo.file(Box::leak(format!("targets/s{index}").into_boxed_str())).signers = vec![key.clone(); 200];
    }
    let server = Server::start(&certificate, files(repo.build())).await;
    let client = client(&authority, Authenticator::default(), false);
    let refused = ask(&client, &server.url(), None, &Login::none()).await.unwrap_err();
    assert!(
        matches!(&refused, Failure::Untrusted(error) if matches!(**error, Error::TooManySignatures { .. })),
        "{refused:?}"
    );
}
