//! Fetches the files of one update of a repository.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use countersign_notary::{Answer, Request as Wanted, RoleName};
use futures::FutureExt as _;
use futures::future::{Either, join_all, select, try_join_all};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use reqwest::header::HeaderValue;
use tokio::sync::{Mutex, watch};
use url::Url;

use super::ask::{Key, host_of};
use super::guess::{AtHand, GUESSED_BYTES, MAX_AT_ONCE};
use super::manners::Manners;
use crate::credentials::Authenticator;
use crate::failure::Failure;
use crate::http::{HttpClient, HttpError, Pool, Request, Response, Retry, host_port};
use crate::load::MAX_UPDATE_BYTES;
use crate::login::Login;

/// How many files of one repository are fetched at once.
const PARALLEL_FETCHES: usize = MAX_AT_ONCE;

/// How long guessed files are waited for once all others have come. They are asked for at the same moment, and most are small: a server
/// that takes this long for them does not bear to be asked for all at once.
const PATIENCE: Duration = Duration::from_secs(1);

/// Fetches the files of one update.
pub(crate) struct Fetcher<'a> {
    http: &'a HttpClient,
    auth: &'a Authenticator,
    manners: &'a Manners,
    key: &'a Key,
    login: &'a Login,
    /// How many more bytes may come.
    left: u64,
    /// What is asked for beside the first files.
    guesses: Vec<RoleName>,
    /// What came of that.
    at_hand: AtHand,
    access: watch::Sender<Access>,
    /// One after the other, so that the second finds what the first was let in with.
    logging_in: Mutex<()>,
}

/// How the server lets us in.
#[derive(Debug, Default)]
struct Access {
    /// What it let in last, or is shown just now: the other files of the repository are asked for with it.
    header: Option<HeaderValue>,
    /// Whether files are asked for without waiting for the first of them.
    may_go: bool,
    /// Whether everything has come that is needed, so that nothing more becomes of this.
    is_over: bool,
}

/// What became of a guess.
enum Guess {
    Came(RoleName, Vec<u8>),
    /// Nothing that is of use.
    Nothing,
    /// The server does not bear it.
    TooMuch,
}

impl<'a> Fetcher<'a> {
    /// For one update of a repository; `guesses` are the roles whose files are asked for together with the first ones that it needs.
    pub(crate) fn new(
        http: &'a HttpClient,
        auth: &'a Authenticator,
        manners: &'a Manners,
        (key, login): (&'a Key, &'a Login),
        guesses: Vec<RoleName>,
    ) -> Self {
        Self {
            http,
            auth,
            manners,
            key,
            login,
            left: MAX_UPDATE_BYTES,
            guesses,
            at_hand: AtHand::default(),
            access: watch::Sender::default(),
            logging_in: Mutex::default(),
        }
    }

    /// How many bytes may be there at most once these files are, with those that were guessed. A reader stops one byte later.
    pub(crate) fn most(&self, requests: &[Wanted]) -> u64 {
        let lacking = requests.iter().filter(|request| !self.at_hand.has(request));
        let guessed = if self.guesses.is_empty() { self.at_hand.weight() } else { GUESSED_BYTES };
        most(lacking).saturating_add(guessed)
    }

    /// Fetches the files of one step, several at once. The metadata says beforehand how long each may be, so what is too
    /// much is not even begun.
    pub(crate) async fn fetch_all(&mut self, requests: &[Wanted]) -> Result<Vec<Answer>, Failure> {
        if !self.guesses.is_empty() {
            return self.fetch_first(requests).await;
        }
        let at_hand: Vec<_> = requests.iter().map(|request| self.at_hand.take(request)).collect();
        let lacking =
            requests.iter().zip(&at_hand).filter(|(_, at_hand)| at_hand.is_none()).map(|(request, _)| request);
        let mut fetched = self.fetch_these(lacking.collect()).await?.into_iter();
        let answer = |at_hand: Option<Vec<u8>>| match at_hand {
            Some(bytes) => Answer::Found(bytes),
            None => fetched.next().unwrap_or(Answer::Missing),
        };
        Ok(at_hand.into_iter().map(answer).collect())
    }

    /// Fetches the first files of an update, and what is guessed beside them, all at once. If the server does not bear that, what is needed
    /// is asked for again by itself.
    async fn fetch_first(&mut self, requests: &[Wanted]) -> Result<Vec<Answer>, Failure> {
        let guesses = std::mem::take(&mut self.guesses);
        let server = &self.key.record.server;
        // One that wants a login is asked for one file, until it is known what it lets in: asked for all, it would refuse each of them.
        let known_to_ask = self.manners.wants_login(server, Instant::now());
        self.access.send_modify(|access| access.may_go = !known_to_ask);
        let pool = Pool::new(GUESSED_BYTES);
        let this = &*self;
        let needed = async {
            let fetches = requests.iter().enumerate().map(async |(index, request)| {
                if index > 0 {
                    this.wait(|access| access.may_go || access.header.is_some()).await;
                }
                let answer = this.fetch(request).await;
                this.access.send_modify(|access| access.may_go = true);
                answer
            });
            let needed = try_join_all(fetches).await;
            this.access.send_modify(|access| access.is_over = true);
            needed
        };
        let count = guesses.len();
        let came = std::sync::Mutex::new(Vec::with_capacity(count));
        let keep = |guess| came.lock().unwrap_or_else(PoisonError::into_inner).push(guess);
        let guessed = join_all(guesses.into_iter().map(|role| this.guess(role, &pool).map(&keep)));
        let needed = match select(Box::pin(needed), Box::pin(guessed)).await {
            Either::Left((needed, guessed)) => {
                if needed.is_ok() {
                    // Whether they have all come is seen by what has.
                    let _ = tokio::time::timeout(PATIENCE, guessed).await;
                }
                needed
            }
            Either::Right((_, needed)) => needed.await,
        };
        let came = came.into_inner().unwrap_or_else(PoisonError::into_inner);
        let bears_it = came.len() == count && !came.iter().any(|guess| matches!(guess, Guess::TooMuch));
        let again = needed.as_ref().is_err_and(|failure| match failure {
            Failure::Http(HttpError::Status { status, .. }) => is_too_much(*status),
            Failure::Http(HttpError::Unreachable { .. }) => true,
            _ => false,
        });
        if again || (needed.is_ok() && !bears_it) {
            self.manners.spare(server, Instant::now());
        }
        for guess in came {
            if let Guess::Came(role, bytes) = guess {
                self.at_hand.keep(role, bytes);
            }
        }
        // What was thrown away has come too.
        self.left = self.left.saturating_sub(GUESSED_BYTES - pool.left());
        if again {
            return self.fetch_these(requests.iter().collect()).await;
        }
        let needed = needed?;
        self.left = self.left.saturating_sub(weight(&needed));
        Ok(needed)
    }

    async fn fetch_these(&mut self, requests: Vec<&Wanted>) -> Result<Vec<Answer>, Failure> {
        if most(requests.iter().copied()) > self.left {
            return Err(Failure::TooMuch { gun: self.key.record.gun.clone(), host: host_of(&self.key.record.server) });
        }
        let this = &*self;
        let fetches: Vec<_> = requests.into_iter().map(|request| this.fetch(request)).collect();
        let answers: Vec<_> = stream::iter(fetches).buffered(PARALLEL_FETCHES).try_collect().await?;
        self.left = self.left.saturating_sub(weight(&answers));
        Ok(answers)
    }

    async fn fetch(&self, request: &Wanted) -> Result<Answer, Failure> {
        let url = self.url(&request.file)?;
        let send = async |header: Option<HeaderValue>| {
            let response = self.http.send(self.request(&url, header, request.limit)).await;
            response.map_err(Failure::Http)
        };
        let shown = self.access.borrow().header.clone();
        let mut response = send(shown.clone()).await?;
        if is_refusal(&response) {
            // What is forbidden says nothing of the server's other repositories.
            if response.status == 401 {
                self.manners.wanted_login(&self.key.record.server, Instant::now());
            }
            let _turn = self.logging_in.lock().await;
            let newer = self.access.borrow().header.clone().filter(|header| Some(header) != shown.as_ref());
            if newer.is_some() {
                response = send(newer).await?;
            }
            if is_refusal(&response) {
                response = self.log_in(&url, response, request.limit).await?;
            }
        }
        match response.status {
            200 => Ok(Answer::Found(response.body)),
            404 => Ok(Answer::Missing),
            status => {
                let path = url.path().to_owned();
                Err(Failure::Http(HttpError::Status { host: host_port(&url), status, path }))
            }
        }
    }

    /// Asks for a role's newest file, which nobody has said that there is. It is shown what the files that are needed are let in with, and
    /// logs in nowhere by itself.
    async fn guess(&self, role: RoleName, pool: &Pool) -> Guess {
        let Ok(url) = self.url(&format!("{role}.json")) else {
            return Guess::Nothing;
        };
        self.wait(|access| access.may_go || access.header.is_some()).await;
        let mut shown = self.access.borrow().header.clone();
        // Three times at most: as is known now, with the header that the first file is asked for with, and with the one that it came with.
        for _ in 0..3 {
            let request = self.request(&url, shown.clone(), GUESSED_BYTES).spare(pool);
            let response = match self.http.send(request).await {
                Ok(response) => response,
                Err(HttpError::Unreachable { .. } | HttpError::TimedOut { .. }) => return Guess::TooMuch,
                Err(_) => return Guess::Nothing,
            };
            match response.status {
                200 if !response.cut => return Guess::Came(role, response.body),
                401 | 403 => {}
                status if is_too_much(status) => return Guess::TooMuch,
                _ => return Guess::Nothing,
            }
            let newer = |access: &Access| access.header.is_some() && access.header != shown;
            self.wait(|access| access.is_over || newer(access)).await;
            let access = self.access.borrow().header.clone();
            if access.is_none() || access == shown {
                return Guess::Nothing;
            }
            shown = access;
        }
        Guess::Nothing
    }

    /// Waits until something is known of how the server lets us in.
    async fn wait(&self, condition: impl FnMut(&Access) -> bool) {
        // It ends with the fetcher at the latest, which holds the other end.
        let _ = self.access.subscribe().wait_for(condition).await.map(|_| ());
    }

    /// To ask once more changes nothing at the server.
    fn request<'b>(&'b self, url: &'b Url, authorization: Option<HeaderValue>, limit: u64) -> Request<'b> {
        let request = Request::get(url, limit).pinned(self.key.certificate.as_ref());
        request.authorization(authorization).retry(Retry::IfBroken)
    }

    /// Answers a challenge; what the server lets in is kept for the other files of the repository.
    async fn log_in(&self, url: &Url, refusal: Response, limit: u64) -> Result<Response, Failure> {
        let send = |header: HeaderValue| {
            // A token says that the login was right: the others need not wait until the server has said so too. A password may be wrong, and
            // is tried once.
            if header.as_bytes().starts_with(b"Bearer ") {
                self.access.send_modify(|access| access.header = access.header.take().or(Some(header.clone())));
            }
            self.http.send(self.request(url, Some(header), limit)).boxed()
        };
        let (response, header) =
            self.auth.log_in(self.http, url, &self.key.record.gun, self.login, &refusal, &send).await?;
        self.access.send_modify(|access| access.header = Some(header));
        Ok(response)
    }

    /// `<server>/v2/<GUN>/_trust/tuf/<file>` (`docs/notary-v1.md#addresses`). The GUN goes in as it is; one that a URL would change is
    /// refused, or another repository would be asked for.
    fn url(&self, file: &str) -> Result<Url, Failure> {
        let tail = format!("/v2/{}/_trust/tuf/{file}", self.key.record.gun);
        let url = Url::parse(&format!("{}{tail}", self.key.record.server)).ok();
        let url = url.filter(|url| url.path().ends_with(&tail) && url.query().is_none() && url.fragment().is_none());
        url.ok_or_else(|| Failure::BadName { gun: self.key.record.gun.clone() })
    }
}

fn is_refusal(response: &Response) -> bool {
    matches!(response.status, 401 | 403)
}

/// Whether a server says by a status that it is asked for too much, or breaks down over it.
pub(super) fn is_too_much(status: u16) -> bool {
    status == 429 || status >= 500
}

/// How many bytes these may bring at most.
fn most<'a>(requests: impl IntoIterator<Item = &'a Wanted>) -> u64 {
    requests.into_iter().map(|request| request.limit).sum()
}

/// How many bytes these have brought.
pub(crate) fn weight(answers: &[Answer]) -> u64 {
    let bytes = |answer: &Answer| match answer {
        Answer::Found(bytes) => bytes.len() as u64,
        Answer::Missing => 0,
    };
    answers.iter().map(bytes).sum()
}
