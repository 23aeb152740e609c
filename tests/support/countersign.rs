//! The `countersign` program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::Problem;
use crate::process::{Ca, Part, free_port, wait_for};

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; -1 if a signal ended it.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

/// Runs a program to its end.
///
/// # Errors
/// It cannot be started.
pub fn run(command: &mut Command) -> Result<Finished, Problem> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    Ok(Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The program, built from what is there now: a test of an old one would prove nothing.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "countersign", "--bin", "countersign"]);
        if std::env::current_exe().is_ok_and(|path| path.components().any(|part| part.as_os_str() == "release")) {
            build.arg("--release");
        }
        let built = build.status();
        assert!(built.is_ok_and(|status| status.success()), "countersign does not build");
        // Tests lie in the folder `deps` beside the program.
        let mut folder = std::env::current_exe().expect("a test has a path");
        folder.pop();
        if folder.ends_with("deps") {
            folder.pop();
        }
        folder.join("countersign")
    })
}

/// A running `countersign serve`.
#[derive(Debug)]
pub struct Countersign {
    /// The process.
    pub part: Part,
    /// Its port for reviews.
    pub port: u16,
    /// Its address for reviews, `https://127.0.0.1:PORT`.
    pub url: String,
    /// Its address for operations, `http://127.0.0.1:PORT`.
    pub ops: String,
    ca: PathBuf,
}

/// The body of a review of a pod with these images, which a developer creates in the namespace `n`.
#[must_use]
pub fn pod_review(images: &[impl AsRef<str>]) -> Vec<u8> {
    let container = |(index, image): (usize, &_)| {
        let image: &str = AsRef::as_ref(image);
        json!({"name": format!("c{index}"), "image": image})
    };
    let containers: Vec<_> = images.iter().enumerate().map(container).collect();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"},
        "spec": {"containers": containers}});
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u", "operation": "CREATE", "namespace": "n", "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "userInfo": {"username": "developer"}, "object": pod}})
    .to_string()
    .into_bytes()
}

impl Countersign {
    /// Runs a subcommand to its end.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(arguments: &[&str]) -> Result<Finished, Problem> {
        run(Command::new(program()).args(arguments))
    }

    /// The program of the last release, which `scripts/last-release` builds when it is not there yet; `None` where this repository's
    /// history is not at hand, of which it would be built.
    ///
    /// # Errors
    /// It cannot be built.
    pub fn last_release() -> Result<Option<PathBuf>, Problem> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/last-release");
        let output = Command::new(script).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let output = output.map_err(|error| format!("scripts/last-release cannot be run: {error}"))?;
        match output.status.code() {
            Some(0) => {
                let text = String::from_utf8(output.stdout)?;
                Ok(Some(PathBuf::from(text.lines().last().ok_or("scripts/last-release prints a path")?)))
            }
            Some(3) => Ok(None),
            _ => Err("scripts/last-release failed; it says why above".into()),
        }
    }

    /// The program, to be run in other ways than here.
    #[must_use]
    pub fn program() -> &'static Path {
        program()
    }

    /// The program, as a command without arguments.
    #[must_use]
    pub fn command() -> Command {
        Command::new(program())
    }

    /// Starts the webhook, and waits until it is ready. It has as long for a review as it may have, unless `more` says otherwise.
    ///
    /// # Errors
    /// It does not become ready; with its log.
    pub fn serve(ca: &Ca, folder: &Path, policies: &Path, more: &[&str]) -> Result<Self, Problem> {
        let files: Vec<_> =
            [policies, &ca.certificate, &ca.key].iter().map(|path| path.display().to_string()).collect();
        let own = ["--policies", &files[0], "--tls-cert", &files[1], "--tls-key", &files[2]];
        let deadline: &[&str] = if more.contains(&"--deadline") { &[] } else { &["--deadline", "30s"] };
        let served = Self::start("countersign", ca, folder, &[&own, deadline, more].concat())?;
        served.ready()?;
        Ok(served)
    }

    /// Starts the webhook with these arguments and its ports, and waits until it listens. `name` is that of its log.
    ///
    /// # Errors
    /// It does not listen; with its log.
    pub fn start(name: &str, ca: &Ca, folder: &Path, arguments: &[&str]) -> Result<Self, Problem> {
        Self::start_program(program(), name, ca, folder, arguments)
    }

    /// The same for another build of the program.
    ///
    /// # Errors
    /// It does not listen; with its log.
    pub fn start_program(
        program: &Path,
        name: &str,
        ca: &Ca,
        folder: &Path,
        arguments: &[&str],
    ) -> Result<Self, Problem> {
        let (port, ops_port) = (free_port()?, free_port()?);
        let mut command = Command::new(program);
        command.arg("serve").args(arguments).arg("--trust-ca").arg(&ca.ca);
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--ops-listen", &format!("127.0.0.1:{ops_port}")]);
        let mut part = Part::start(name, &mut command, folder)?;
        part.listening_on(ops_port)?;
        Ok(Self {
            part,
            port,
            url: format!("https://127.0.0.1:{port}"),
            ops: format!("http://127.0.0.1:{ops_port}"),
            ca: ca.ca.clone(),
        })
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// It does not become ready; with its log.
    pub fn ready(&self) -> Result<(), Problem> {
        let ready = wait_for("readiness", || self.get("/readyz").is_ok_and(|(status, _)| status == 200));
        ready.map_err(|problem| format!("{problem}; {:?}\n{}", self.get("/readyz"), self.part.log_text()).into())
    }

    /// GETs a path of the operations port: status and body.
    ///
    /// # Errors
    /// No answer.
    pub fn get(&self, path: &str) -> Result<(u16, String), Problem> {
        self.curl(&["--url", &format!("{}{path}", self.ops)], b"")
    }

    /// Posts bytes to `/admit`: status and body.
    ///
    /// # Errors
    /// No answer.
    pub fn post(&self, body: &[u8]) -> Result<(u16, String), Problem> {
        self.post_to("/admit", body)
    }

    /// Posts bytes to a path of the reviews' port: status and body.
    ///
    /// # Errors
    /// No answer.
    pub fn post_to(&self, path: &str, body: &[u8]) -> Result<(u16, String), Problem> {
        self.curl(&["--data-binary", "@-", "--url", &format!("{}{path}", self.url)], body)
    }

    /// Has the mutating webhook review an object that `user` creates, and gives the `response` of the answer.
    ///
    /// # Errors
    /// No answer, or one that is no review.
    pub fn admit(&self, object: &Value, user: &str) -> Result<Value, Problem> {
        self.review("/admit", object, user, false)
    }

    /// The same for the validating webhook.
    ///
    /// # Errors
    /// No answer, or one that is no review.
    pub fn validate(&self, object: &Value, user: &str) -> Result<Value, Problem> {
        self.review("/validate", object, user, false)
    }

    /// Has a webhook review an object that `user` creates, perhaps in a dry run.
    ///
    /// # Errors
    /// No answer, or one that is no review.
    pub fn review(&self, path: &str, object: &Value, user: &str, dry_run: bool) -> Result<Value, Problem> {
        let (group, version) = match object["apiVersion"].as_str().unwrap_or_default().split_once('/') {
            Some((group, version)) => (group, version),
            None => ("", "v1"),
        };
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "test", "operation": "CREATE", "namespace": object["metadata"]["namespace"],
                "kind": {"group": group, "version": version, "kind": object["kind"]},
                "userInfo": {"username": user}, "object": object, "dryRun": dry_run,
            },
        });
        let (status, body) = self.post_to(path, review.to_string().as_bytes())?;
        let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{status} {body}: {error}"))?;
        Ok(answer["response"].clone())
    }

    fn curl(&self, arguments: &[&str], body: &[u8]) -> Result<(u16, String), Problem> {
        use std::io::Write as _;
        let mut command = Command::new("curl");
        command.args([
            "-sS",
            "--max-time",
            "600",
            "-w",
            "\n%{http_code}",
            "-H",
            "Content-Type: application/json",
            "-H",
            "Expect:",
        ]);
        command.arg("--cacert").arg(&self.ca).args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut input) = child.stdin.take() {
            // The server may answer, and close, before it has read everything.
            let _ = input.write_all(body);
        }
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').ok_or("curl printed nothing")?;
        match status.parse() {
            Ok(status) if status != 0 => Ok((status, body.to_owned())),
            _ => Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
        }
    }
}
