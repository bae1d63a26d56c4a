//! Worker threads: each with a runtime of its own, in which everything that belongs to a connection lives and dies.
//! They do what the control thread tells them and know nothing of files.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::thread;

use rustls::ServerConfig;
use tidegate_core::clock;
use tidegate_gateway::{Drain, Shared, Snapshot, Worker};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::accept::{Accepted, Door, DoorFigures};
use super::balance::{self, Balance, Hands};
use super::bounds::Bounds;
use super::pulse::{self, Pulse};

/// Dropped by each worker when it has done what it was told.
pub(crate) type Done = mpsc::Sender<Infallible>;

/// How a worker shares connections with the others.
type Shares = (Balance<Accepted>, Hands<Accepted>);

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Use this for the requests that come from now on.
    Install(Arc<Snapshot>, Done),
    /// Use these settings for the connections that come from now on, and the snapshot.
    Renew(Arc<Shared>, Arc<Snapshot>, Done),
    /// Accept from this socket, which is known by a number.
    Open(u64, TcpListener, Option<Arc<ServerConfig>>),
    /// Accept from that socket no more.
    Close(u64),
    /// Accept nothing more, and end when the last connection has.
    Drain,
    /// Fail in a way that no worker may.
    #[cfg(test)]
    Panic,
}

/// A worker thread that has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Which.
    pub(crate) worker: usize,
    /// Whether it did so because it was told to.
    pub(crate) told: bool,
}

/// All workers.
#[derive(Debug)]
pub(crate) struct Crew {
    orders: Vec<mpsc::UnboundedSender<Command>>,
    pulses: Vec<std::sync::Weak<Pulse>>,
    ended: mpsc::UnboundedReceiver<Ended>,
}

impl Crew {
    /// Starts so many threads, which listen to nothing yet.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(
        count: usize,
        shared: &Arc<Shared>,
        bounds: &Arc<Bounds>,
    ) -> io::Result<Self> {
        let (report, ended) = mpsc::unbounded_channel();
        let mut orders = Vec::with_capacity(count);
        let mut pulses = Vec::with_capacity(count);
        for (id, shares) in balance::among(count, &shared.registry)
            .into_iter()
            .enumerate()
        {
            let (order, commands) = mpsc::unbounded_channel();
            let (shared, bounds) = (Arc::clone(shared), Arc::clone(bounds));
            let pulse = Pulse::new(id);
            pulses.push(Arc::downgrade(&pulse));
            let end = End {
                worker: id,
                told: false,
                report: report.clone(),
            };
            thread::Builder::new()
                .name(format!("worker-{id}"))
                .spawn(move || run(pulse, shared, bounds, shares, commands, end))?;
            orders.push(order);
        }
        Ok(Crew {
            orders,
            pulses,
            ended,
        })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.orders.len()
    }

    /// Their signs of life.
    pub(crate) fn pulses(&self) -> Vec<std::sync::Weak<Pulse>> {
        self.pulses.clone()
    }

    /// Puts a snapshot in force, and waits until it is on every worker. With settings, these too.
    pub(crate) async fn install(&self, snapshot: &Arc<Snapshot>, shared: Option<&Arc<Shared>>) {
        let (done, mut all) = mpsc::channel(1);
        for order in &self.orders {
            let (snapshot, done) = (Arc::clone(snapshot), done.clone());
            let command = match shared {
                None => Command::Install(snapshot, done),
                Some(shared) => Command::Renew(Arc::clone(shared), snapshot, done),
            };
            // A worker that is gone is reported by other means.
            let _ = order.send(command);
        }
        drop(done);
        all.recv().await;
    }

    /// Gives each worker its socket.
    pub(crate) fn open(
        &self,
        number: u64,
        sockets: Vec<TcpListener>,
        tls: Option<&Arc<ServerConfig>>,
    ) {
        for (order, socket) in self.orders.iter().zip(sockets) {
            let _ = order.send(Command::Open(number, socket, tls.cloned()));
        }
    }

    /// Closes a socket on all workers.
    pub(crate) fn close(&self, number: u64) {
        for order in &self.orders {
            let _ = order.send(Command::Close(number));
        }
    }

    /// Begins the end.
    pub(crate) fn drain(&self) {
        for order in &self.orders {
            let _ = order.send(Command::Drain);
        }
    }

    /// Waits for the next worker to end; none: all have.
    pub(crate) async fn ended(&mut self) -> Option<Ended> {
        self.ended.recv().await
    }
}

/// Reports a worker's end, however it comes about.
struct End {
    worker: usize,
    told: bool,
    report: mpsc::UnboundedSender<Ended>,
}

impl Drop for End {
    fn drop(&mut self) {
        let ended = Ended {
            worker: self.worker,
            told: self.told && !thread::panicking(),
        };
        let _ = self.report.send(ended);
    }
}

fn run(
    pulse: Arc<Pulse>,
    shared: Arc<Shared>,
    bounds: Arc<Bounds>,
    shares: Shares,
    commands: mpsc::UnboundedReceiver<Command>,
    mut end: End,
) {
    let id = end.worker;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .on_thread_unpark(clock::next_turn)
        .build_local(LocalOptions::default());
    match runtime {
        Ok(runtime) => {
            let beating = pulse::beat(pulse, Arc::clone(&shared.registry));
            runtime.block_on(async {
                tokio::task::spawn_local(beating);
                work(id, shared, bounds, shares, commands).await;
            });
            end.told = true;
            // What still runs is of no use to anyone, and must not hold up the end.
            runtime.shutdown_background();
        }
        Err(error) => tracing::error!(worker = id, %error, "a worker can't start"),
    }
}

/// Follows commands until the last connection has ended after a drain.
async fn work(
    id: usize,
    shared: Arc<Shared>,
    bounds: Arc<Bounds>,
    (balance, hands): Shares,
    mut commands: mpsc::UnboundedReceiver<Command>,
) {
    let (trigger, drain) = Drain::new();
    let (alive, mut connections) = mpsc::channel(1);
    let figures = DoorFigures::new(Arc::clone(&shared.registry), id);
    let door = Rc::new(Door {
        worker: RefCell::new(Worker::new(id, shared)),
        bounds,
        balance,
        drain,
        alive,
        figures,
        refusing: Cell::new(0),
    });
    let (stop, stopped) = oneshot::channel();
    let receiving = tokio::task::spawn_local(Rc::clone(&door).receive(hands, stopped));
    let mut older: Vec<Weak<Worker>> = Vec::new();
    let mut sockets: HashMap<u64, JoinHandle<()>> = HashMap::new();
    while let Some(command) = commands.recv().await {
        match command {
            Command::Install(snapshot, done) => {
                door.worker.borrow().install(Arc::clone(&snapshot));
                install_on(&mut older, &snapshot);
                drop(done);
            }
            Command::Renew(shared, snapshot, done) => {
                let renewed = Worker::new(id, shared);
                renewed.install(Arc::clone(&snapshot));
                install_on(&mut older, &snapshot);
                let before = door.worker.replace(renewed);
                before.install(snapshot);
                older.push(Rc::downgrade(&before));
                drop(done);
            }
            Command::Open(number, socket, tls) => match tokio::net::TcpListener::from_std(socket) {
                Ok(socket) => {
                    sockets.insert(number, door.open(socket, tls));
                }
                Err(error) => tracing::error!(worker = id, %error, "a socket can't be used"),
            },
            Command::Close(number) => {
                if let Some(accepting) = sockets.remove(&number) {
                    end(accepting).await;
                }
            }
            Command::Drain => break,
            #[cfg(test)]
            Command::Panic => panic!("as a test asked"),
        }
    }
    for accepting in sockets.into_values() {
        end(accepting).await;
    }
    // What another worker handed over before it knew still is a connection like all others.
    drop(stop);
    // It ends when nothing is left; how is no news.
    let _ = receiving.await;
    trigger.drain();
    // Every connection and every task at the door holds it until it is gone.
    drop(door);
    connections.recv().await;
}

/// Ends a task that accepts, and waits until its socket is closed.
async fn end(accepting: JoinHandle<()>) {
    accepting.abort();
    // It was told to end; how it did is no news.
    let _ = accepting.await;
}

/// Connections that began under earlier settings keep those, but see the routes and filters that are in force.
fn install_on(older: &mut Vec<Weak<Worker>>, snapshot: &Arc<Snapshot>) {
    older.retain(|worker| match worker.upgrade() {
        Some(worker) => {
            worker.install(Arc::clone(snapshot));
            true
        }
        None => false,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::listen;
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpStream};
    use std::time::Duration;
    use tidegate_core::metrics::Registry;
    use tidegate_gateway::Settings;

    fn shared() -> Arc<Shared> {
        Arc::new(Shared {
            settings: Settings::default(),
            registry: Arc::new(Registry::new()),
            access_log: None,
        })
    }

    fn crew(count: usize) -> (Crew, SocketAddr) {
        let bounds = Arc::new(Bounds::new(100, Duration::from_secs(1)));
        let crew = Crew::start(count, &shared(), &bounds).unwrap();
        let (address, sockets) = listen::open("127.0.0.1:0".parse().unwrap(), count).unwrap();
        crew.open(1, sockets, None);
        (crew, address)
    }

    fn in_runtime(test: impl Future<Output = ()>) {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap();
        runtime.block_on(test);
    }

    /// Sends a request and leaves the connection open.
    fn ask(address: SocketAddr) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            .unwrap();
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer).unwrap();
        answer.truncate(length);
        (stream, String::from_utf8(answer).unwrap())
    }

    #[test]
    fn every_worker_serves_and_ends_when_its_connections_have() {
        let (mut crew, address) = crew(2);
        in_runtime(async {
            crew.install(&Arc::default(), None).await;
            // The kernel spreads connections by chance; these many meet both.
            let mut open: Vec<TcpStream> = Vec::new();
            for _ in 0..20 {
                let (stream, answer) = ask(address);
                assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
                open.push(stream);
            }
            crew.drain();
            let mut ended = Vec::new();
            while let Some(end) = crew.ended().await {
                assert!(end.told);
                ended.push(end.worker);
            }
            ended.sort_unstable();
            assert_eq!(ended, [0, 1]);
            for mut stream in open {
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).unwrap();
            }
            assert!(TcpStream::connect(address).is_err());
        });
    }

    #[test]
    fn a_closed_socket_refuses_and_what_is_open_goes_on() {
        let (mut crew, address) = crew(1);
        in_runtime(async {
            let (mut stream, _) = ask(address);
            crew.close(1);
            // Settings and snapshots reach connections that are open; and it comes after the closing.
            crew.install(&Arc::default(), Some(&shared())).await;
            crew.install(&Arc::default(), None).await;
            assert!(TcpStream::connect(address).is_err());
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                .unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 404");
            drop(stream);
            crew.drain();
            assert_eq!(
                crew.ended().await,
                Some(Ended {
                    worker: 0,
                    told: true
                })
            );
        });
    }

    #[test]
    fn a_worker_that_dies_is_reported_so_that_the_process_can_end() {
        let (mut crew, _) = crew(2);
        in_runtime(async {
            crew.orders[1].send(Command::Panic).unwrap();
            assert_eq!(
                crew.ended().await,
                Some(Ended {
                    worker: 1,
                    told: false
                })
            );
            // Whoever waits for all workers does not wait for the dead one.
            crew.install(&Arc::default(), None).await;
        });
    }
}
