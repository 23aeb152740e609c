//! How trust servers have behaved of late: which of them want a login, which cannot bear to be asked for much at once, and which
//! are not asked ahead of need since they failed.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// For how long a server is asked in order that could not bear to be asked at once.
pub(crate) const SPARED: Duration = Duration::from_secs(10 * 60);

/// For how long it is known of a server that it wants a login.
const LOGIN: Duration = Duration::from_secs(3600);

/// How often in a row the time doubles for which a server is not asked ahead of need after it failed.
const MAX_DOUBLINGS: u32 = 5;

/// The longest time for which it is not.
const MAX_PAUSE: Duration = Duration::from_secs(15 * 60);

/// Of how many servers something is known. Where there are more, what is lost least by goes: first that a server wants a login, which
/// costs a request to find out, then what would be over soonest.
const MAX_SERVERS: usize = 1024;

#[derive(Debug, Default, Clone, Copy)]
struct Manner {
    spared_until: Option<Instant>,
    login_until: Option<Instant>,
    /// How often in a row it failed when it was asked ahead of need.
    failures: u32,
    paused_until: Option<Instant>,
}

impl Manner {
    /// What counts more is greater.
    fn worth(&self) -> (bool, Option<Instant>) {
        let spares = self.spared_until.max(self.paused_until);
        (spares.is_some(), spares.max(self.login_until))
    }

    fn is_over(&self, now: Instant) -> bool {
        [self.spared_until, self.login_until, self.paused_until].iter().flatten().all(|until| *until <= now)
    }
}

/// What is known of servers, by their addresses.
#[derive(Debug, Default)]
pub(crate) struct Manners(Mutex<HashMap<String, Manner>>);

impl Manners {
    fn servers(&self) -> MutexGuard<'_, HashMap<String, Manner>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, server: &str) -> Manner {
        self.servers().get(server).copied().unwrap_or_default()
    }

    fn change(&self, server: &str, now: Instant, change: impl FnOnce(&mut Manner)) {
        let mut servers = self.servers();
        if servers.len() >= MAX_SERVERS && !servers.contains_key(server) {
            servers.retain(|_, manner| !manner.is_over(now));
            let mut new = Manner::default();
            change(&mut new);
            // Not each newcomer has to look for the least of all again.
            if servers.len() >= MAX_SERVERS {
                let mut worths: Vec<_> = servers.values().map(Manner::worth).collect();
                let (_, bound, _) = worths.select_nth_unstable(MAX_SERVERS / 16);
                let bound = *bound;
                servers.retain(|_, manner| manner.worth() > bound);
            }
            servers.insert(server.to_owned(), new);
            return;
        }
        change(servers.entry(server.to_owned()).or_default());
    }

    /// Whether a server may be asked for much at once.
    pub(crate) fn bears_much(&self, server: &str, now: Instant) -> bool {
        self.of(server).spared_until.is_none_or(|until| until <= now)
    }

    /// A server could not bear it.
    pub(crate) fn spare(&self, server: &str, now: Instant) {
        self.change(server, now, |manner| manner.spared_until = Some(now + SPARED));
    }

    /// Whether a server is known to want a login.
    pub(crate) fn wants_login(&self, server: &str, now: Instant) -> bool {
        self.of(server).login_until.is_some_and(|until| until > now)
    }

    /// A server wanted a login.
    pub(crate) fn wanted_login(&self, server: &str, now: Instant) {
        self.change(server, now, |manner| manner.login_until = Some(now + LOGIN));
    }

    /// Until when a server is not asked ahead of need, if that is later than now.
    pub(crate) fn paused_until(&self, server: &str, now: Instant) -> Option<Instant> {
        self.of(server).paused_until.filter(|until| *until > now)
    }

    /// A server failed when it was asked ahead of need, which it is every so often. Those who were asking already when it was found out do not
    /// count again.
    pub(crate) fn failed(&self, server: &str, refresh: Duration, now: Instant) {
        self.change(server, now, |manner| {
            if manner.paused_until.is_none_or(|until| until <= now) {
                let pause = refresh.saturating_mul(1 << manner.failures.min(MAX_DOUBLINGS)).min(MAX_PAUSE);
                manner.failures += 1;
                manner.paused_until = Some(now + pause);
            }
        });
    }

    /// Ends the time for which a server is not asked ahead of need.
    #[cfg(test)]
    pub(crate) fn end_pause(&self, server: &str) {
        if let Some(manner) = self.servers().get_mut(server) {
            manner.paused_until = None;
        }
    }

    /// A server answered.
    pub(crate) fn answered(&self, server: &str) {
        if let Some(manner) = self.servers().get_mut(server) {
            (manner.failures, manner.paused_until) = (0, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_spared_for_a_while() {
        let (manners, now) = (Manners::default(), Instant::now());
        assert!(manners.bears_much("a", now) && !manners.wants_login("a", now));
        manners.spare("a", now);
        manners.wanted_login("a", now);
        assert!(!manners.bears_much("a", now) && manners.wants_login("a", now) && manners.bears_much("b", now));
        assert!(manners.bears_much("a", now + SPARED) && !manners.wants_login("a", now + LOGIN));
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        let (manners, mut now, refresh) = (Manners::default(), Instant::now(), Duration::from_secs(30));
        let mut pauses = Vec::new();
        for _ in 0..8 {
            manners.failed("a", refresh, now);
            // Of many who asked at once one counts.
            manners.failed("a", refresh, now);
            let until = manners.paused_until("a", now).unwrap();
            pauses.push(until - now);
            now = until;
            assert_eq!(manners.paused_until("a", now), None);
        }
        assert_eq!(pauses, [30, 60, 120, 240, 480, 900, 900, 900].map(Duration::from_secs));
        manners.answered("a");
        manners.failed("a", refresh, now);
        assert_eq!(manners.paused_until("a", now), Some(now + refresh));
    }

    /// Whoever has names enough to fill the table with servers that want logins takes nothing from those that cannot bear much.
    #[test]
    fn that_servers_want_logins_leaves_room_for_what_spares_others() {
        let (manners, now) = (Manners::default(), Instant::now());
        manners.spare("first", now);
        for index in 0..2 * MAX_SERVERS {
            manners.wanted_login(&index.to_string(), now);
        }
        manners.spare("second", now);
        manners.failed("third", Duration::from_secs(30), now);
        assert!(!manners.bears_much("first", now) && !manners.bears_much("second", now));
        assert!(manners.paused_until("third", now).is_some() && manners.servers().len() <= MAX_SERVERS);
    }

    #[test]
    fn what_is_known_is_bounded() {
        let (manners, now) = (Manners::default(), Instant::now());
        for index in 0..2 * MAX_SERVERS {
            manners.spare(&index.to_string(), now);
        }
        assert!(manners.servers().len() <= MAX_SERVERS);
        manners.spare("new", now + SPARED);
        assert!(!manners.bears_much("new", now + SPARED), "what is over made room");
    }
}
