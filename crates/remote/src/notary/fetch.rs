//! Fetches the files of one update of a repository.

use std::sync::{Mutex, PoisonError};

use countersign_notary::{Answer, Request as Wanted};
use futures::FutureExt as _;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use reqwest::header::HeaderValue;
use url::Url;

use super::ask::{Key, host_of};
use crate::credentials::Authenticator;
use crate::failure::Failure;
use crate::http::{HttpClient, HttpError, Request, Response, Retry, host_port};
use crate::load::MAX_UPDATE_BYTES;
use crate::login::Login;

/// How many files of one repository are fetched at once.
const PARALLEL_FETCHES: usize = 16;

/// Fetches the files of one update.
pub(crate) struct Fetcher<'a> {
    http: &'a HttpClient,
    auth: &'a Authenticator,
    key: &'a Key,
    login: &'a Login,
    /// How many more bytes may come.
    left: u64,
    /// What the server let in last: the other files of the repository are asked for with it.
    authorization: Mutex<Option<HeaderValue>>,
}

impl<'a> Fetcher<'a> {
    pub(crate) fn new(http: &'a HttpClient, auth: &'a Authenticator, key: &'a Key, login: &'a Login) -> Self {
        Self { http, auth, key, login, left: MAX_UPDATE_BYTES, authorization: Mutex::default() }
    }

    /// Fetches the files of one step, several at once. The metadata says beforehand how long each may be, so what is too
    /// much is not even begun.
    pub(crate) async fn fetch_all(&mut self, requests: &[Wanted]) -> Result<Vec<Answer>, Failure> {
        if most(requests) > self.left {
            return Err(Failure::TooMuch { gun: self.key.record.gun.clone(), host: host_of(&self.key.record.server) });
        }
        let this = &*self;
        let fetches: Vec<_> = requests.iter().map(|request| this.fetch(request)).collect();
        let answers: Vec<_> = stream::iter(fetches).buffered(PARALLEL_FETCHES).try_collect().await?;
        self.left = self.left.saturating_sub(weight(&answers));
        Ok(answers)
    }

    async fn fetch(&self, request: &Wanted) -> Result<Answer, Failure> {
        let url = self.url(&request.file)?;
        let known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut response = self.http.send(self.request(&url, known, request.limit)).await.map_err(Failure::Http)?;
        if matches!(response.status, 401 | 403) {
            response = self.log_in(&url, response, request.limit).await?;
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

    /// To ask once more changes nothing at the server.
    fn request<'b>(&'b self, url: &'b Url, authorization: Option<HeaderValue>, limit: u64) -> Request<'b> {
        let request = Request::get(url, limit).pinned(self.key.certificate.as_ref());
        request.authorization(authorization).retry(Retry::IfBroken)
    }

    /// Answers a challenge; what the server lets in is kept for the other files of the repository.
    async fn log_in(&self, url: &Url, refusal: Response, limit: u64) -> Result<Response, Failure> {
        let send = |header| self.http.send(self.request(url, Some(header), limit)).boxed();
        let (response, header) =
            self.auth.log_in(self.http, url, &self.key.record.gun, self.login, &refusal, &send).await?;
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(header);
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

/// How many bytes these may bring at most. A reader stops one byte later.
pub(crate) fn most(requests: &[Wanted]) -> u64 {
    requests.iter().map(|request| request.limit).sum()
}

/// How many bytes these have brought.
pub(crate) fn weight(answers: &[Answer]) -> u64 {
    let bytes = |answer: &Answer| match answer {
        Answer::Found(bytes) => bytes.len() as u64,
        Answer::Missing => 0,
    };
    answers.iter().map(bytes).sum()
}
