//! Names of endpoints and the addresses behind them. One task asks for all of them again and again, see `resolve`; the
//! workers only read what it learned, without a lock. Opens nothing and asks nobody.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

/// How often names are asked for unless something else is said.
const REFRESH: Duration = Duration::from_secs(5);

/// All names that upstreams use, shared by everything that makes upstreams. A name that no upstream uses any more is
/// forgotten.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<Book>);

#[derive(Debug)]
struct Book {
    names: Mutex<HashMap<Arc<str>, Weak<Name>>>,
    refresh_millis: AtomicU64,
    /// Told of new names, and of another pace.
    news: Notify,
}

/// One name and what is known of it.
#[derive(Debug)]
pub(crate) struct Name {
    host: Arc<str>,
    answer: ArcSwap<Answer>,
    /// Another number for each other set of addresses.
    version: AtomicU64,
    turn: AtomicUsize,
    told: Notify,
}

/// What was learned of a name last.
#[derive(Debug)]
enum Answer {
    /// Nobody has asked yet.
    Unknown,
    /// It never had an address; why.
    Failed(String),
    /// The addresses of the last good answer, in the order of preference. Never empty.
    Known(Vec<IpAddr>),
}

/// What an answer changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lesson {
    /// Nothing.
    Same,
    /// Other addresses than before, in this number.
    Changed(usize),
    /// There was no good answer. So many addresses of an earlier one stay; none: there never was one.
    Failed {
        /// What went wrong.
        reason: String,
        /// Addresses that stay.
        kept: usize,
    },
}

impl Default for Book {
    fn default() -> Self {
        Book {
            names: Mutex::default(),
            refresh_millis: AtomicU64::new(millis(REFRESH)),
            news: Notify::new(),
        }
    }
}

impl Names {
    /// How often each name is asked for from now on.
    pub fn refresh_every(&self, pause: Duration) {
        self.0
            .refresh_millis
            .store(millis(pause), Ordering::Relaxed);
        self.0.news.notify_one();
    }

    pub(crate) fn refresh(&self) -> Duration {
        Duration::from_millis(self.0.refresh_millis.load(Ordering::Relaxed))
    }

    /// The one entry of a name.
    pub(crate) fn get(&self, host: &str) -> Arc<Name> {
        let mut names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = names.get(host).and_then(Weak::upgrade) {
            return name;
        }
        let name = Arc::new(Name::new(host));
        names.insert(name.host.clone(), Arc::downgrade(&name));
        self.0.news.notify_one();
        name
    }

    /// The entry of a name, if it is in use.
    pub(crate) fn find(&self, host: &str) -> Option<Arc<Name>> {
        let names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.get(host).and_then(Weak::upgrade)
    }

    /// All names that are in use.
    pub(crate) fn all(&self) -> Vec<Arc<Name>> {
        let mut names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.retain(|_, name| name.strong_count() > 0);
        names.values().filter_map(Weak::upgrade).collect()
    }

    /// Waits for a name that nobody used before, or another pace.
    pub(crate) async fn news(&self) {
        self.0.news.notified().await;
    }
}

impl Name {
    fn new(host: &str) -> Self {
        Name {
            host: host.into(),
            answer: ArcSwap::from_pointee(Answer::Unknown),
            version: AtomicU64::new(0),
            turn: AtomicUsize::new(0),
            told: Notify::new(),
        }
    }

    pub(crate) fn host(&self) -> &Arc<str> {
        &self.host
    }

    /// Tells sets of addresses apart.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    /// Whether an address is among those of the last good answer.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        matches!(&**self.answer.load(), Answer::Known(known) if known.contains(&address))
    }

    /// The addresses, each of those that are preferred coming first in its turn. Waits until somebody has asked for the
    /// first time.
    ///
    /// # Errors
    /// There never was one; why.
    pub(crate) async fn addresses(&self) -> Result<Vec<IpAddr>, String> {
        loop {
            let told = self.told.notified();
            match &**self.answer.load() {
                Answer::Known(known) => {
                    let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                    return Ok(from_turn(known, turn));
                }
                Answer::Failed(reason) => return Err(reason.clone()),
                Answer::Unknown => {}
            }
            told.await;
        }
    }

    /// Takes note of an answer. A bad one takes nothing away: a name server that is in trouble, or a zone with a
    /// mistake, is no reason to lose an upstream that answers.
    pub(crate) fn learn(&self, answer: Result<Vec<IpAddr>, String>) -> Lesson {
        let before = self.answer.load();
        let answer = answer.and_then(|found| {
            if found.is_empty() {
                Err("the name has no addresses".to_owned())
            } else {
                Ok(found)
            }
        });
        let lesson = match (answer, &**before) {
            (Err(reason), Answer::Known(known)) => Lesson::Failed {
                reason,
                kept: known.len(),
            },
            (Err(reason), _) => {
                let failed = Answer::Failed(reason.clone());
                self.answer.store(Arc::new(failed));
                Lesson::Failed { reason, kept: 0 }
            }
            // Name servers shuffle: another order is nothing new, and taking turns does that already.
            (Ok(found), Answer::Known(known)) if is_same_set(&found, known) => Lesson::Same,
            (Ok(found), _) => {
                let count = found.len();
                self.answer.store(Arc::new(Answer::Known(found)));
                self.version.fetch_add(1, Ordering::Relaxed);
                Lesson::Changed(count)
            }
        };
        self.told.notify_waiters();
        lesson
    }
}

/// Where a connection leads that was made to a name's address.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    name: Arc<Name>,
    version: u64,
    address: IpAddr,
}

impl Origin {
    /// A connection that was just made to an address of a name.
    pub(crate) fn new(name: Arc<Name>, address: IpAddr) -> Self {
        Origin {
            version: name.version(),
            name,
            address,
        }
    }

    /// Whether the name leads elsewhere by now.
    pub(crate) fn is_gone(&self) -> bool {
        self.name.version() != self.version && !self.name.has(self.address)
    }
}

fn is_same_set(one: &[IpAddr], other: &[IpAddr]) -> bool {
    one.iter().all(|it| other.contains(it)) && other.iter().all(|it| one.contains(it))
}

/// Turns those at the beginning that are of one family. The others are worse by the system's own judgement (RFC 6724),
/// and stay behind.
fn from_turn(known: &[IpAddr], turn: usize) -> Vec<IpAddr> {
    let leads_v4 = known.first().is_some_and(IpAddr::is_ipv4);
    let best = known.iter().take_while(|it| it.is_ipv4() == leads_v4);
    let best = best.count();
    let mut turned = known.to_vec();
    if let Some(first) = turn.checked_rem(best) {
        let (leading, _) = turned.split_at_mut(best);
        leading.rotate_left(first);
    }
    turned
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_bad_answer_takes_nothing_away() {
        let name = Name::new("a.test");
        let failed = |kept| Lesson::Failed {
            reason: "why".to_owned(),
            kept,
        };
        assert_eq!(name.learn(Err("why".to_owned())), failed(0));
        assert_eq!(name.learn(Ok(addresses(&["10.0.0.1"]))), Lesson::Changed(1));
        let version = name.version();
        assert_eq!(name.learn(Err("why".to_owned())), failed(1));
        let Lesson::Failed { kept: 1, .. } = name.learn(Ok(Vec::new())) else {
            panic!("no addresses are no answer");
        };
        assert!(name.has("10.0.0.1".parse().unwrap()));
        assert_eq!(name.version(), version);
    }

    #[test]
    fn a_connection_is_gone_when_its_address_is() {
        let name = Arc::new(Name::new("a.test"));
        name.learn(Ok(addresses(&["10.0.0.1", "10.0.0.2"])));
        let origin = Origin::new(name.clone(), "10.0.0.2".parse().unwrap());
        assert!(!origin.is_gone());
        assert_eq!(
            name.learn(Ok(addresses(&["10.0.0.2", "10.0.0.1"]))),
            Lesson::Same
        );
        name.learn(Ok(addresses(&["10.0.0.2", "10.0.0.3"])));
        assert!(!origin.is_gone());
        name.learn(Ok(addresses(&["10.0.0.3"])));
        assert!(origin.is_gone());
        name.learn(Err("why".to_owned()));
        assert!(origin.is_gone());
    }

    #[test]
    fn the_preferred_family_takes_turns_and_the_other_stays_behind() {
        let known = addresses(&["::1", "::2", "10.0.0.1", "10.0.0.2"]);
        let first = from_turn(&known, 0);
        assert_eq!(first, known);
        let second = addresses(&["::2", "::1", "10.0.0.1", "10.0.0.2"]);
        assert_eq!(from_turn(&known, 1), second);
        assert_eq!(from_turn(&known, 2), known);
        assert!(from_turn(&[], 7).is_empty());
    }

    #[test]
    fn a_name_is_one_as_long_as_somebody_uses_it() {
        let names = Names::default();
        let (one, other) = (names.get("a.test"), names.get("a.test"));
        assert!(Arc::ptr_eq(&one, &other));
        assert_eq!(names.all().len(), 1);
        drop((one, other));
        assert!(names.all().is_empty());
    }
}
