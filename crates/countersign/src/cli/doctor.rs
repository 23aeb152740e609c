//! `countersign doctor`: walks the whole way to a trust server or registry, and says where it ends and what helps. Looks at the installation in a
//! cluster first.

mod cluster;
mod cosign;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use countersign_image::{ImageReference, NotSha256, Wanted, shown};
use countersign_notary::TrustServer;
use countersign_policy::{
    Ask, ContainerImage, Defaults, DenyReason, Need, NotaryAsk, Refusal, Requirement, Within, plan,
};
use countersign_remote::{AuthError, Failure, HttpError, Login, Request, Retry};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use url::Url;

use super::judging::{From, Origin, SettingsFile, Unreachable};
use super::output::print;
use super::{arguments, clients, exit, help};
use crate::cluster::Cluster;
use crate::config::Settings;
use crate::prove::notary::{Demands, Question};
use crate::source::Moment;
use crate::telemetry;

/// Look at an installation, and at the whole way to a trust server; say what helps
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  countersign doctor registry.example.com/team/app:v1 --policies ./policies -n payments\n  countersign doctor registry.example.com/team/app:v1 --trust-server https://notary.example.com:4443\n  countersign doctor --kubeconfig ~/.kube/config   (the installation alone)\n\nExit codes: 0 all is well, 1 the image is not trusted, 2 wrong usage, 3 something on the way does not work"
)]
pub(crate) struct Args {
    /// The image, as a container would name it; without one, only the installation is looked at
    #[arg(required_unless_present_any = ["kubeconfig", "in_cluster"])]
    image: Option<String>,

    /// Namespace whose policies apply
    #[arg(short, long, default_value = "default")]
    namespace: String,

    #[command(flatten)]
    settings: SettingsFile,

    #[command(flatten)]
    origin: Origin,

    /// The trust server, without policies [default: the registry's host, port 4443]
    #[arg(long, value_name = "URL", conflicts_with_all = ["policies", "kubeconfig", "in_cluster"])]
    trust_server: Option<String>,

    /// A signer who must have signed, and the file with their public key, without policies (repeatable)
    #[arg(long, value_name = "NAME=KEYFILE")]
    signer: Vec<String>,

    #[command(flatten)]
    reach: clients::Reach,

    /// What to print
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// Whom to look at for one ask.
enum Found {
    /// A trust server.
    Notary(Patient),
    /// A registry, for signatures of cosign.
    Cosign(cosign::Patient),
}

/// What is to be found out at a trust server.
struct Patient {
    image: ImageReference,
    server: TrustServer,
    demands: Demands,
}

/// Why the walk ended, what helps, and the exit code.
struct Trouble {
    cause: String,
    cure: String,
    code: u8,
}

impl Trouble {
    /// What a refusal comes to, with what the page with the messages says that helps. `here` is what helps in this case, ready to paste.
    fn of(refusal: &Refusal, here: Option<String>) -> Self {
        let code = if refusal.is_undecided() { exit::UNDECIDED } else { exit::DENIED };
        let here = here.map(|here| format!("{here}\n\n")).unwrap_or_default();
        Self { cause: refusal.to_string(), cure: here + &help::cure(refusal.cause()), code }
    }
}

fn trouble(cause: impl Into<String>, cure: impl Into<String>) -> Trouble {
    Trouble { cause: cause.into(), cure: cure.into(), code: exit::UNDECIDED }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Prints each step as it is done, or all of them at the end.
struct Walk {
    begun: Instant,
    output: Format,
    /// For machines.
    steps: Vec<Value>,
}

impl Walk {
    fn step(&mut self, name: &str, said: &str) {
        self.line("ok", name, said);
    }

    /// Something that must be mended, and does not stop the walk.
    fn warn(&mut self, name: &str, said: &str) {
        self.line("WARN", name, said);
    }

    /// Something that is wrong, and does not stop the walk.
    fn fail(&mut self, name: &str, said: &str) {
        self.line("FAIL", name, said);
    }

    fn line(&mut self, word: &str, name: &str, said: &str) {
        self.tell(word, name, said, None);
    }

    fn end(&mut self, name: &str, trouble: &Trouble) -> u8 {
        self.tell("FAIL", name, &trouble.cause, Some(&trouble.cure));
        trouble.code
    }

    fn tell(&mut self, word: &str, name: &str, said: &str, cure: Option<&str>) {
        let took = self.begun.elapsed().as_secs_f64() * 1000.0;
        match self.output {
            Format::Text => {
                let cure = cure.map(|cure| format!("\n{cure}\n")).unwrap_or_default();
                print(&format!("{word:<5} {name:<12} {took:>7.1} ms  {said}\n{cure}"));
            }
            Format::Json => self.steps.push(json!({
                "step": name, "result": word.to_ascii_lowercase(), "milliseconds": took, "said": said, "cure": cure,
            })),
        }
        self.begun = Instant::now();
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    clients::runtime()?.block_on(walk(args))
}

async fn walk(args: &Args) -> anyhow::Result<u8> {
    let image = args.image.as_deref().map(arguments::image).transpose()?;
    let settings = args.settings.read()?;
    let from = if args.trust_server.is_some() { None } else { args.origin.from(&settings)? };
    let mut walk = Walk { begun: Instant::now(), output: args.output, steps: Vec::new() };
    let mut sound = true;
    if let Some(From::Cluster(kubeconfig)) = &from {
        let cluster = Cluster::connect(kubeconfig.as_deref()).await?;
        sound = cluster::look(&cluster.client, &mut walk).await;
    }
    let code = match image {
        Some(image) => walk_to(args, image, &settings, from.as_ref(), &mut walk).await?,
        None => exit::OK,
    };
    let code = if code == exit::OK && !sound { exit::UNDECIDED } else { code };
    if args.output == Format::Json {
        print(&format!("{:#}\n", json!({"sound": code == exit::OK, "steps": walk.steps})));
    }
    Ok(code)
}

/// The way from an image to its registry, once for each thing that is asked for.
async fn walk_to(
    args: &Args,
    image: ImageReference,
    settings: &Settings,
    from: Option<&From>,
    walk: &mut Walk,
) -> anyhow::Result<u8> {
    let clients = args.reach.clients(settings)?;
    let examined = match examine(args, &image, settings, from).await? {
        Ok(Some(examined)) => examined,
        Ok(None) => {
            walk.step("policy", "the entry that applies asks for no trust: the image is allowed with no further check");
            return Ok(exit::OK);
        }
        Err(trouble) => return Ok(walk.end("policy", &trouble)),
    };
    let mut codes = Vec::new();
    for found in examined.found {
        codes.push(match found {
            Ok((found, said)) => {
                walk.step("policy", &said);
                match found {
                    Found::Notary(patient) => treat(&clients, &patient, walk).await,
                    Found::Cosign(patient) => cosign::treat(&clients, &patient, walk).await,
                }
            }
            Err(trouble) => walk.end("policy", &trouble),
        });
    }
    Ok(together(&examined.requirement, &mut codes.into_iter()))
}

/// The way to one trust server and to the registry; gives the exit code.
async fn treat(clients: &clients::Clients, patient: &Patient, walk: &mut Walk) -> u8 {
    let steps = async {
        let said = resolve_name(&patient.server).await.map_err(|trouble| ("name", trouble))?;
        walk.step("name", &said);
        let said = connect(&patient.server).await.map_err(|trouble| ("connection", trouble))?;
        walk.step("connection", &said);
        let said = greet(clients, patient).await.map_err(|trouble| ("https", trouble))?;
        walk.step("https", &said);
        let said = verify(clients, patient, walk).await?;
        walk.step("signatures", &said);
        let said = compare(clients, patient).await.map_err(|trouble| ("registry", trouble))?;
        walk.step("registry", &said);
        Ok::<_, (&str, Trouble)>(())
    };
    match steps.await {
        Ok(()) => exit::OK,
        Err((name, trouble)) => walk.end(name, &trouble),
    }
}

/// The exit code of a requirement, by those of its asks.
fn together<A>(requirement: &Requirement<A>, codes: &mut impl Iterator<Item = u8>) -> u8 {
    let (parts, order) = match requirement {
        Requirement::One(_) => return codes.next().unwrap_or(exit::UNDECIDED),
        Requirement::All(parts) => (parts, [exit::DENIED, exit::UNDECIDED, exit::OK]),
        Requirement::Any(parts) => (parts, [exit::OK, exit::UNDECIDED, exit::DENIED]),
    };
    let codes: Vec<u8> = parts.iter().map(|part| together(part, &mut *codes)).collect();
    order.into_iter().find(|code| codes.contains(code)).unwrap_or(exit::UNDECIDED)
}

/// What is asked for, and for each ask whom to look at.
struct Examined {
    requirement: Requirement<()>,
    /// With what is said of it, in the order of [`Requirement::asks`].
    found: Vec<Result<(Found, String), Trouble>>,
}

/// Finds servers, signers and pins: from policies, or from what was typed.
async fn examine(
    args: &Args,
    image: &ImageReference,
    settings: &Settings,
    from: Option<&From>,
) -> anyhow::Result<Result<Option<Examined>, Trouble>> {
    let (moment, defaults): (Arc<dyn Moment>, Defaults) = if let Some(from) = from {
        let defaults = args.origin.secrets.defaults(from, settings)?;
        match from.source(&args.origin.secrets.namespace(from, settings)).await {
            Ok(source) => (source.now()?, defaults),
            Err(error) if error.is::<Unreachable>() => {
                let cure = "Look at the API server, the kubeconfig and the rights of its user.";
                return Ok(Err(trouble(error.to_string(), cure)));
            }
            Err(error) => return Err(error),
        }
    } else {
        let server = arguments::server(args.trust_server.as_deref(), image, settings)?;
        let said = format!("none asked; trust server {server}");
        let patient = Patient { image: image.clone(), server, demands: arguments::demands(&args.signer)? };
        return Ok(Ok(Some(Examined {
            requirement: Requirement::One(()),
            found: vec![Ok((Found::Notary(patient), said))],
        })));
    };
    if !args.signer.is_empty() {
        bail!("--signer goes with --trust-server; with policies the signers are theirs");
    }
    let container = ContainerImage { pointer: "/".into(), path: "doctor".into(), image: image.as_written().to_owned() };
    let now = (telemetry::wall_clock())().as_second();
    let mode = settings.mode.unwrap_or_default().into();
    let within = Within { namespace: &args.namespace, mode, now };
    let planned = plan(moment.policies(), within, std::slice::from_ref(&container), &defaults).remove(0);
    let need = match planned.need {
        Need::Nothing => return Ok(Ok(None)),
        Need::Denied(reason) => return Ok(Err(of_the_policy(&reason))),
        Need::Proof(need) => need,
    };
    let entry =
        planned.entry.map_or_else(String::new, |entry| format!("{} {}, entry {}", entry.kind, entry.name, entry.entry));
    let mut found = Vec::new();
    for ask in need.requirement.asks() {
        found.push(match ask {
            Ok(Ask::Notary(ask)) => examine_notary(moment.as_ref(), ask, image, &entry).await?,
            Ok(Ask::Cosign(ask)) => cosign::examine(moment.as_ref(), ask, &entry).await?,
            Err(refusal) => Err(of_the_policy(&refusal.clone().into())),
        });
    }
    Ok(Ok(Some(Examined { requirement: need.requirement.map(&mut |_| ()), found })))
}

/// Nobody need be asked: the policies deny.
fn of_the_policy(reason: &DenyReason) -> Trouble {
    let code = if reason.is_undecided() { exit::UNDECIDED } else { exit::DENIED };
    Trouble { cause: reason.to_string(), cure: help::cure(reason.cause()), code }
}

async fn examine_notary(
    moment: &dyn Moment,
    ask: &NotaryAsk,
    image: &ImageReference,
    entry: &str,
) -> anyhow::Result<Result<(Found, String), Trouble>> {
    let demands = match Demands::read(moment, ask).await {
        Ok(demands) => demands,
        Err(Refusal::Undecided { cause, .. }) => bail!(cause),
        Err(refusal) => {
            let here = match &refusal {
                Refusal::SignerSecret { secret, .. } | Refusal::SignerKey { secret, .. } => {
                    let root = ask.root_secrets().any(|root| root == *secret);
                    let name = if root { "" } else { " --from-literal=name=SIGNER" };
                    Some(format!(
                        "kubectl create secret generic {} -n {}{name} --from-file=publicKey=KEY.pub",
                        secret.name, secret.namespace
                    ))
                }
                _ => None,
            };
            return Ok(Err(Trouble::of(&refusal, here)));
        }
    };
    let said = format!("{entry}: {} signers, trust server {}", demands.signers.len(), ask.server);
    let patient = Patient { image: image.clone(), server: ask.server.clone(), demands };
    Ok(Ok((Found::Notary(patient), said)))
}

async fn resolve_name(server: &TrustServer) -> Result<String, Trouble> {
    if clients::proxied() {
        return Ok("left to the proxy".to_owned());
    }
    match tokio::net::lookup_host(server.host_port()).await {
        Ok(found) => {
            let found: Vec<_> = found.map(|address| address.ip().to_string()).collect();
            Ok(found.join(", "))
        }
        Err(error) => {
            let cure = format!(
                "{} is not known to this machine's DNS. Is it spelt as the server is named? In a pod, the cluster's DNS must know it.",
                server.host()
            );
            Err(trouble(error.to_string(), cure))
        }
    }
}

async fn connect(server: &TrustServer) -> Result<String, Trouble> {
    if clients::proxied() {
        return Ok("through the proxy of the environment".to_owned());
    }
    let connected = tokio::time::timeout(Duration::from_secs(5), TcpStream::connect(server.host_port())).await;
    match connected {
        Ok(Ok(stream)) => Ok(stream.peer_addr().map_or_else(|_| String::new(), |peer| peer.to_string())),
        Ok(Err(error)) => Err(trouble(
            error.to_string(),
            "Does the server run, and listen on this port? Is a firewall or a NetworkPolicy in between?",
        )),
        Err(_) => Err(trouble(
            "no connection within 5 s",
            "Something swallows the connection: a firewall, a NetworkPolicy, or a wrong address. A proxy is used if HTTPS_PROXY names one.",
        )),
    }
}

async fn greet(clients: &clients::Clients, patient: &Patient) -> Result<String, Trouble> {
    let url = Url::parse(&format!("{}/v2/", patient.server)).map_err(|error| trouble(error.to_string(), ""))?;
    let request = Request::get(&url, 64 << 10).pinned(patient.demands.certificate.as_ref()).retry(Retry::IfBroken);
    let answered = clients.http.send(request).await;
    match answered {
        Ok(response) if response.status == 401 => {
            Ok(format!("it wants a login: {}", shown(&response.challenges.join("; "))))
        }
        Ok(response) => Ok(format!("it answers {}", response.status)),
        Err(error) => {
            let cure = match &error {
                HttpError::Tls { .. } => {
                    "The certificate must be for this name, valid now, and signed by an authority that is trusted (--trust-ca). One that cannot be replaced can be pinned: trustServerCertificate."
                }
                HttpError::Redirected { .. } => "Name the final address as trustServer.",
                HttpError::TimedOut { .. } => {
                    "The server takes connections and says nothing. Is this the port of its HTTPS interface?"
                }
                _ => "Is there an HTTPS server at this port?",
            };
            Err(trouble(Failure::Http(error).to_string(), cure))
        }
    }
}

async fn verify<'a>(
    clients: &clients::Clients,
    patient: &Patient,
    walk: &mut Walk,
) -> Result<String, (&'a str, Trouble)> {
    let gun = patient.image.repository();
    let question = Question { server: &patient.server, gun: &gun, demands: &patient.demands, pinned_in: None };
    let repository = match question.repository(&clients.notary).await {
        Ok(repository) => repository,
        Err(Failure::Auth(error)) => {
            let cure = match &error {
                AuthError::NoCredentials { .. } => {
                    "Log in (docker login), give --registry-config, or in a cluster add a pull secret to the pod or its service account."
                }
                AuthError::WrongCredentials { .. } => {
                    "The user name, password or token is wrong or has expired: log in again, and renew the pull secret."
                }
                AuthError::NoAccess { .. } => {
                    "The login is right; whoever keeps the registry must let this user read the repository."
                }
                AuthError::BadRealm { .. } => "The server's configuration must name a token server on https.",
                AuthError::ForeignRealm { .. } => {
                    "If that token server is the right one, list it: hosts, the server, token-servers in the configuration file of serve."
                }
                _ => "Look at the server's configuration of logins.",
            };
            return Err(("login", trouble(error.to_string(), cure)));
        }
        Err(failure) => {
            let here = format!("countersign inspect {gun} shows what the repository holds.");
            return Err(("metadata", Trouble::of(&question.refusal(failure), Some(here))));
        }
    };
    let root = repository.root().trusted().body();
    walk.step(
        "metadata",
        &format!(
            "verified; root version {}, {} delegations",
            countersign_notary::metadata::Metadata::version(root),
            repository.roles().count()
        ),
    );
    let wanted = Wanted::of(&patient.image)
        .map_err(|NotSha256 { algorithm }| ("signatures", of_the_policy(&DenyReason::DigestAlgorithm { algorithm })))?;
    let resolved = question.resolve(&repository, &wanted, (telemetry::wall_clock())()).map_err(|refusal| {
        ("signatures", Trouble::of(&refusal, Some(format!("countersign inspect {gun} shows who signed what."))))
    })?;
    let signers: Vec<_> = resolved.by().iter().map(|by| by.signer.as_str()).collect();
    Ok(format!(
        "{} by {}",
        resolved.digest(),
        if signers.is_empty() { "the repository".to_owned() } else { signers.join(", ") }
    ))
}

/// What the registry has is no part of trust: a pod pulls what was signed, or nothing.
async fn compare(clients: &clients::Clients, patient: &Patient) -> Result<String, Trouble> {
    let cure =
        "The image is signed, but a node may not be able to pull it. Look at the registry, and at its credentials.";
    let found = clients.registry.digest(&patient.image, &Login::none()).await;
    match found {
        Ok(Some(digest)) => Ok(format!("the image is {digest} there")),
        Ok(None) => Err(trouble("the registry does not have the image", "Push the signed image again.")),
        Err(error) => Err(trouble(error.to_string(), cure)),
    }
}
