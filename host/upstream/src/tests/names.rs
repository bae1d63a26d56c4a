//! Endpoints that are given by name, with a name server that says what a test wants.

use super::*;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::IpAddr;
use std::rc::Rc;

/// What a name server says, and how often it was asked.
#[derive(Default)]
struct Server {
    answer: RefCell<Option<Result<Vec<IpAddr>, String>>>,
    asked: Cell<usize>,
}

impl Server {
    fn says(addresses: &[&str]) -> Rc<Self> {
        let server = Rc::new(Server::default());
        server.say(addresses);
        server
    }

    fn say(&self, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse().unwrap());
        *self.answer.borrow_mut() = Some(Ok(addresses.collect()));
    }

    fn fail(&self) {
        *self.answer.borrow_mut() = Some(Err("SERVFAIL".to_owned()));
    }

    /// Lets an asker go on once there is an answer.
    async fn ask(self: Rc<Self>) -> io::Result<Vec<IpAddr>> {
        self.asked.set(self.asked.get() + 1);
        while self.answer.borrow().is_none() {
            tokio::task::yield_now().await;
        }
        let answer = self.answer.borrow().clone().unwrap();
        answer.map_err(io::Error::other)
    }

    /// Waits until nobody has asked for a while.
    async fn heard_last(&self) {
        let mut asked = usize::MAX;
        while std::mem::replace(&mut asked, self.asked.get()) != self.asked.get() {
            tokio::time::sleep(SHORT).await;
        }
    }

    /// Waits until whatever is said now has been heard.
    async fn heard(&self) {
        let asked = self.asked.get();
        while self.asked.get() < asked + 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// A tester whose endpoint is the name `name.test` at a port, with someone who asks this server at a quick pace.
fn tester(
    scheme: &str,
    port: u16,
    server: &Rc<Server>,
    change: impl FnOnce(&mut UpstreamConfig),
) -> (Tester, Names) {
    let names = Names::default();
    names.refresh_every(Duration::from_millis(2));
    let tester = Tester::named(&[format!("{scheme}://name.test:{port}")], &names, change);
    let (registry, server, kept) = (tester.registry.clone(), server.clone(), names.clone());
    tokio::task::spawn_local(async move {
        let lookup = move |host: Arc<str>| {
            assert_eq!(&*host, "name.test");
            server.clone().ask()
        };
        kept.keep(&registry, lookup).await;
    });
    (tester, names)
}

/// Two listeners at one port of two addresses, and the port.
async fn pair() -> (TcpListener, TcpListener, u16) {
    loop {
        let one = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = one.local_addr().unwrap().port();
        // Somebody else may have the port there.
        if let Ok(other) = TcpListener::bind(("127.0.0.2", port)).await {
            return (one, other, port);
        }
    }
}

/// Answers every request with a word, on any number of connections, and says when one is closed.
fn serve(listener: TcpListener, word: &'static str) -> Rc<Cell<usize>> {
    let closed = Rc::new(Cell::new(0));
    let count = closed.clone();
    tokio::task::spawn_local(async move {
        loop {
            let mut socket = accept(&listener).await;
            let count = count.clone();
            tokio::task::spawn_local(async move {
                while try_head(&mut socket).await.is_ok() {
                    say(&mut socket, &ok(word)).await;
                }
                count.set(count.get() + 1);
            });
        }
    });
    closed
}

#[test]
fn a_name_that_leads_elsewhere_is_followed_and_old_connections_end() {
    run(async {
        let (one, other, port) = pair().await;
        let closed = serve(one, "one");
        serve(other, "other");
        let server = Server::says(&["127.0.0.1"]);
        let (tester, _names) = tester("http", port, &server, |_| {});
        for _ in 0..3 {
            assert_eq!(tester.get_text().await, "one");
        }
        server.say(&["127.0.0.2"]);
        server.heard().await;
        assert_eq!(tester.get_text().await, "other");
        while closed.get() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // A response that is under way is finished where it is.
        assert_eq!(tester.get_text().await, "other");
    });
}

#[test]
fn a_name_server_in_trouble_costs_nothing() {
    run(async {
        let (one, _other, port) = pair().await;
        serve(one, "one");
        let server = Server::says(&["127.0.0.1"]);
        let (tester, _names) = tester("http", port, &server, |config| config.idle_connections = 0);
        assert_eq!(tester.get_text().await, "one");
        for trouble in ["failure", "an empty answer"] {
            if trouble == "failure" {
                server.fail();
            } else {
                server.say(&[]);
            }
            server.heard().await;
            assert!(tester.counted("tidegate_dns_up{host=\"name.test\"} 0"));
            assert_eq!(tester.get_text().await, "one", "{trouble}");
        }
        // No answer at all.
        server.answer.take();
        for _ in 0..3 {
            assert_eq!(tester.get_text().await, "one");
        }
        assert!(!tester.counted("tidegate_dns_lookups_total{result=\"failed\"} 0"));
    });
}

#[test]
fn the_pace_of_questions_is_not_that_of_requests() {
    run(async {
        let (one, _other, port) = pair().await;
        serve(one, "one");
        let server = Server::says(&["127.0.0.1"]);
        let (tester, names) = tester("http", port, &server, |config| config.idle_connections = 0);
        assert_eq!(tester.get_text().await, "one");
        names.refresh_every(Duration::from_secs(3600));
        // A question that was due at the old pace is still asked.
        server.heard_last().await;
        let asked = server.asked.get();
        for _ in 0..50 {
            assert_eq!(tester.get_text().await, "one");
        }
        assert_eq!(server.asked.get(), asked);
        // A quicker pace holds at once.
        names.refresh_every(Duration::from_millis(1));
        server.heard().await;
    });
}

#[test]
fn a_name_that_never_resolved_is_an_error_of_its_own_until_it_does() {
    run(async {
        let (one, _other, port) = pair().await;
        serve(one, "one");
        let server = Rc::new(Server::default());
        let (tester, _names) = tester("http", port, &server, |config| {
            config.connect_timeout = SHORT;
        });
        // Nobody has answered yet: the bound of connecting holds.
        let error = tester.get().await.unwrap_err();
        assert_eq!(error.kind.reason(), "dns");
        server.fail();
        server.heard().await;
        let error = tester.get().await.unwrap_err();
        assert_eq!(error.kind.reason(), "dns");
        assert!(error.detail.contains("SERVFAIL"), "{}", error.detail);
        server.say(&["127.0.0.1"]);
        server.heard().await;
        assert_eq!(tester.get_text().await, "one");
    });
}

#[test]
fn addresses_take_turns_and_one_that_refuses_is_passed_over() {
    run(async {
        let (one, other, port) = pair().await;
        serve(one, "one");
        serve(other, "other");
        // Nobody listens at the third.
        let server = Server::says(&["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
        let (tester, _names) = tester("http", port, &server, |config| config.idle_connections = 0);
        let mut seen = Vec::new();
        for _ in 0..6 {
            seen.push(tester.get_text().await);
        }
        seen.sort();
        assert_eq!(seen, ["one", "one", "one", "one", "other", "other"]);
    });
}

#[test]
fn a_connection_of_a_certain_age_is_not_used_any_more() {
    run(async {
        let (one, _other, port) = pair().await;
        let closed = serve(one, "one");
        let server = Server::says(&["127.0.0.1"]);
        let (tester, _names) = tester("http", port, &server, |config| {
            config.max_age = Duration::from_millis(50);
        });
        while closed.get() == 0 {
            assert_eq!(tester.get_text().await, "one");
        }
    });
}

#[test]
fn a_shared_connection_follows_its_name_and_its_age_too() {
    run(async {
        let (one, other, port) = pair().await;
        let counts = [one, other].map(|listener| {
            let count = Rc::new(Cell::new(0));
            let counted = count.clone();
            tokio::task::spawn_local(async move {
                loop {
                    let socket = accept(&listener).await;
                    counted.set(counted.get() + 1);
                    tokio::task::spawn_local(http2::serve(socket));
                }
            });
            count
        });
        let server = Server::says(&["127.0.0.1"]);
        let (tester, _names) = tester("h2c", port, &server, |config| {
            config.max_age = Duration::from_millis(300);
        });
        for _ in 0..3 {
            tester.get_text().await;
        }
        assert_eq!(counts[1].get(), 0);
        server.say(&["127.0.0.2"]);
        server.heard().await;
        tester.get_text().await;
        assert!(counts[1].get() > 0);
        // It is busy all the time, and replaced all the same.
        while counts[1].get() < 2 {
            tester.get_text().await;
        }
    });
}
