//! The control thread: hears signals and changes of files, has everything looked at off the workers, and puts what came
//! of it in force. It never touches a request.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use notify::Event;
use tidegate_core::metrics::Registry;
use tidegate_gateway::{Shared, Snapshot};
use tidegate_upstream::{Names, resolve};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};

use super::admin::{self, Pages, Phase};
use super::bounds::{Bounds, OfSources};
use super::build::{self, BuildError};
use super::descriptors::make_room;
use super::drain;
use super::filters::Reach;
use super::listen::{self, ListenError, Protocols};
use super::listeners::Listeners;
use super::memory::{self, Freed};
use super::pass::{Configuration, Reader, Report};
use super::pulse;
use super::settle::{Effort, Look, Next, Settle, Sign, Weight};
use super::signals::{Asked, Signals};
use super::standing::Standing;
use super::start::{self, Parts, StartError, lock};
use super::tell::Teller;
use super::watch::{Survey, Watch};
use super::worker::Crew;
use crate::config::checked::{Checked, Server};

/// How long the control thread waits for a worker to take a snapshot before it goes on without knowing.
const SLOW_WORKER: Duration = Duration::from_secs(5);
/// How often it is asked whether memory should be given back.
const TIDY: Duration = Duration::from_secs(1);
/// Set to `poll`, changes of files are only looked for, as where the system tells of none.
const WATCH: &str = "TIDEGATE_WATCH";

/// What the control thread holds.
pub(crate) struct Control {
    crew: Crew,
    listeners: Listeners,
    admin: Option<(SocketAddr, SocketAddr, AbortHandle)>,
    pages: Rc<Pages>,
    teller: Teller,
    shared: Arc<Shared>,
    bounds: Arc<Bounds>,
    registry: Arc<Registry>,
    snapshot: Arc<Snapshot>,
    checked: Arc<Checked>,
    standing: Standing,
    names: Names,
    freed: Freed,
}

impl Control {
    /// Starts everything, and runs until the end.
    pub(crate) async fn run(parts: Parts) -> Result<ExitCode, StartError> {
        let begun = Instant::now();
        let system = |what| move |error| StartError::System { what, error };
        let mut signals = Signals::new().map_err(system("signals"))?;
        let Parts {
            reader,
            checked,
            shared,
            bounds,
            registry,
        } = parts;
        let pages = Rc::new(Pages::new(Arc::clone(&registry)));
        // First of all, so that probes can see that it starts.
        let admin = open_admin(&checked.server, &pages)?;
        let names = reader.names();
        names.refresh_every(checked.server.dns_refresh);
        keep_names(&names, &registry);
        let reader = Arc::new(Mutex::new(reader));
        let report = tokio::select! {
            report = first_look(&reader) => report?,
            () = told_to_end(&mut signals) => return Ok(ExitCode::SUCCESS),
        };
        let crew =
            Crew::start(checked.server.workers, &shared, &bounds).map_err(system("threads"))?;
        tokio::task::spawn_local(pulse::watch(crew.pulses(), Arc::clone(&registry)));
        let mut control = Control {
            crew,
            listeners: Listeners::new()?,
            admin,
            pages,
            teller: Teller::new(Arc::clone(&registry)),
            shared,
            bounds,
            registry,
            snapshot: report.snapshot.clone().unwrap_or_default(),
            checked: Arc::clone(&report.checked),
            standing: Standing::good(Timestamp::now()),
            names,
            freed: Freed::new(begun),
        };
        let mut watch = Watch::new(std::env::var_os(WATCH).is_none_or(|it| it != "poll"));
        watch.follow(report.wanted.clone(), report.seen.clone());
        control.crew.install(&control.snapshot, None).await;
        let checked = Arc::clone(&control.checked);
        if let Some(error) = control
            .listeners
            .follow(&checked.server, &control.crew)
            .into_iter()
            .next()
        {
            return Err(error.into());
        }
        control.show(&report);
        control.pages.set_phase(Phase::Ready);
        tracing::info!(
            workers = control.crew.len(),
            filters = report.statuses.iter().filter(|it| it.running).count(),
            took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            "ready"
        );
        // It holds the first snapshot, which must go when another one has come.
        drop(report);
        control.follow(&mut signals, watch, reader).await?;
        control.pages.set_phase(Phase::Draining);
        let bound = control.checked.server.drain_timeout;
        let code = drain::drain(&mut control.crew, &mut signals, bound).await;
        if let Some(log) = &control.shared.access_log {
            log.finish(Duration::from_millis(500));
        }
        Ok(code)
    }

    /// Follows changes until a signal asks for the end.
    async fn follow(
        &mut self,
        signals: &mut Signals,
        mut watch: Watch,
        reader: Arc<Mutex<Reader>>,
    ) -> Result<(), StartError> {
        let (mut settle, mut effort) = (Settle::default(), Effort::default());
        // What the start left out: files that no route uses.
        settle.stir(Instant::now());
        let mut reach = Reach::Change;
        let mut look: Option<(Instant, JoinHandle<Report>)> = None;
        let mut survey: Option<JoinHandle<Survey>> = None;
        let mut events: Vec<Event> = Vec::new();
        let (compiled, mut done) = mpsc::unbounded_channel::<PathBuf>();
        lock(&reader).when_compiled(Arc::new(move |path: &Path| {
            // Nobody hears it any more when the process ends.
            let _ = compiled.send(path.to_owned());
        }));
        let mut slow = tokio::time::interval(watch.slow());
        slow.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        slow.tick().await;
        let mut tidy = tokio::time::interval(TIDY);
        tidy.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let idle = look.is_none();
            let next = if idle {
                settle.next(Instant::now())
            } else {
                Next::Wait
            };
            let until = match next {
                Next::Look(how) => {
                    look = Some((Instant::now(), begin(&reader, how, reach)));
                    reach = Reach::Change;
                    continue;
                }
                Next::At(time) => Some(time),
                Next::Wait => None,
            };
            tokio::select! {
                asked = signals.next() => match asked {
                    Asked::End => return Ok(()),
                    Asked::Reload => {
                        tracing::info!("SIGHUP: everything is read again");
                        self.reopen();
                        reach = Reach::Again;
                        settle.stir(Instant::now());
                    }
                    Asked::Reopen => self.reopen(),
                },
                ended = self.crew.ended() => {
                    return Err(StartError::Worker(ended.map_or(0, |ended| ended.worker)));
                }
                (began, report) = finished(&mut look), if !idle => {
                    look = None;
                    let now = Instant::now();
                    settle.rest_until(effort.spend(now - began, now));
                    if let Some(report) = report {
                        // What was seen of the files before this look is old news.
                        survey = None;
                        self.put_in_force(&report, &mut watch).await;
                    }
                }
                () = watch.heard(&mut events) => {
                    let lost = watch.tell(std::mem::take(&mut events), &mut settle, Instant::now());
                    if lost && survey.is_none() {
                        survey = Some(begin_survey(&watch));
                        settle.stir(Instant::now());
                    }
                }
                _ = slow.tick(), if idle && survey.is_none() => {
                    self.teller.count_snapshots();
                    survey = Some(begin_survey(&watch));
                }
                found = surveyed(&mut survey), if survey.is_some() => {
                    survey = None;
                    if let Some(found) = found && look.is_none() {
                        watch.compare(found, &mut settle, Instant::now());
                    }
                }
                Some(path) = done.recv() => {
                    settle.hear(&path, Sign::Done, Weight::Alone, Instant::now());
                }
                _ = tidy.tick() => self.tidy(),
                () = sleep_until(until) => {}
            }
        }
    }

    /// Gives memory back if it is worth it, on a thread of its own.
    fn tidy(&mut self) {
        if self.freed.is_due(self.bounds.open(), Instant::now()) {
            tokio::task::spawn_blocking(memory::give_back);
        }
    }

    fn reopen(&self) {
        if let Some(log) = &self.shared.access_log {
            log.reopen();
        }
    }

    /// Puts in force what came of a look, and tells of it.
    async fn put_in_force(&mut self, report: &Report, watch: &mut Watch) {
        let renewed = match &report.configuration {
            Configuration::Changed { .. } => self.renew(&report.checked),
            _ => None,
        };
        if let Some(snapshot) = &report.snapshot {
            self.snapshot = Arc::clone(snapshot);
            self.freed.replaced();
        }
        if report.snapshot.is_some() || renewed.is_some() {
            let installed = self.crew.install(&self.snapshot, renewed.as_ref());
            if tokio::time::timeout(SLOW_WORKER, installed).await.is_err() {
                tracing::warn!("a worker is slow to take up what changed");
            }
        }
        if let Some(shared) = renewed {
            self.shared = shared;
        }
        self.checked = Arc::clone(&report.checked);
        if *watch.wanted() == report.wanted {
            watch.saw(report.seen.clone());
        } else {
            watch.follow(report.wanted.clone(), report.seen.clone());
        }
        self.show(report);
    }

    /// Follows changes to what is not part of a snapshot. Gives new settings for the workers, if they changed.
    fn renew(&mut self, checked: &Checked) -> Option<Arc<Shared>> {
        let (before, now) = (Arc::clone(&self.checked), &checked.server);
        let before = &before.server;
        for error in self.listeners.follow(now, &self.crew) {
            tracing::error!("{error}");
        }
        if now.admin != before.admin {
            self.move_admin(now);
        }
        if now.limits.max_connections != before.limits.max_connections {
            let connections = make_room(now.limits.max_connections, self.crew.len());
            self.bounds.change_connections(connections);
        }
        self.names.refresh_every(now.dns_refresh);
        self.bounds.change_handshake(now.limits.handshake_timeout);
        self.bounds.change_sources(OfSources::of(now));
        for (key, changed) in [
            ("workers", now.workers != before.workers),
            ("filter-pool", now.filter_pool != before.filter_pool),
            ("cache", now.cache != before.cache),
            ("filter-pool", now.filter_pool != before.filter_pool),
        ] {
            if changed {
                tracing::warn!("a changed `{key}` comes into force at the next start");
            }
        }
        let settings = build::settings(now);
        let access_log = if now.access_log == before.access_log {
            self.shared.access_log.clone()
        } else {
            start::access_log(now.access_log.as_ref(), &self.registry).unwrap_or_else(|error| {
                tracing::error!("{error}; the earlier one goes on");
                self.shared.access_log.clone()
            })
        };
        let same = format!("{settings:?}") == format!("{:?}", self.shared.settings)
            && now.access_log == before.access_log;
        (!same).then(|| {
            Arc::new(Shared {
                settings,
                registry: Arc::clone(&self.registry),
                access_log,
            })
        })
    }

    fn move_admin(&mut self, server: &Server) {
        match open_admin(server, &self.pages) {
            Ok(opened) => {
                if let Some((_, _, accepting)) = std::mem::replace(&mut self.admin, opened) {
                    accepting.abort();
                }
            }
            Err(error) => tracing::error!("{error}; the admin pages stay where they are"),
        }
    }

    /// Shows and tells the state of things.
    fn show(&mut self, report: &Report) {
        self.standing
            .follow(&report.configuration, Timestamp::now());
        self.teller.tell(report, &self.standing);
        if let Some(snapshot) = &report.snapshot {
            self.teller.hold(snapshot);
            self.pages.hold(snapshot);
        }
        self.pages.set_plugins(&report.statuses);
        let admin = self
            .admin
            .iter()
            .map(|(_, address, _)| (Protocols::Admin, *address));
        let listening: Vec<_> = self.listeners.addresses().chain(admin).collect();
        self.pages
            .set_configuration(&report.checked, &listening, &self.standing);
    }
}

type Admin = (SocketAddr, SocketAddr, AbortHandle);

/// Opens the admin pages where the configuration wants them.
fn open_admin(server: &Server, pages: &Rc<Pages>) -> Result<Option<Admin>, ListenError> {
    let Some(wanted) = server.admin else {
        return Ok(None);
    };
    let (address, sockets) = listen::open(wanted, 1)?;
    let Some(socket) = sockets.into_iter().next() else {
        return Ok(None);
    };
    let socket = listen::into_tokio(socket, wanted)?;
    let accepting = admin::serve(socket, Rc::clone(pages));
    tracing::info!(kind = %Protocols::Admin, %address, "listening");
    Ok(Some((wanted, address, accepting)))
}

/// Asks for the names in endpoints, from now on and for ever.
fn keep_names(names: &Names, registry: &Arc<Registry>) {
    let (names, registry) = (names.clone(), Arc::clone(registry));
    tokio::task::spawn_local(async move { names.keep(&registry, resolve::system).await });
}

async fn first_look(reader: &Arc<Mutex<Reader>>) -> Result<Report, StartError> {
    let reader = Arc::clone(reader);
    let look = tokio::task::spawn_blocking(move || lock(&reader).start());
    let report: Result<Report, BuildError> = look.await.map_err(|_| StartError::Loader)?;
    Ok(report?)
}

async fn told_to_end(signals: &mut Signals) {
    while signals.next().await != Asked::End {}
}

fn begin(reader: &Arc<Mutex<Reader>>, how: Look, reach: Reach) -> JoinHandle<Report> {
    let reader = Arc::clone(reader);
    tokio::task::spawn_blocking(move || lock(&reader).look(&how, reach))
}

/// Waits for the look that runs. No report: it panicked, which was logged.
async fn finished(look: &mut Option<(Instant, JoinHandle<Report>)>) -> (Instant, Option<Report>) {
    match look {
        Some((began, running)) => (*began, running.await.ok()),
        None => std::future::pending().await,
    }
}

fn begin_survey(watch: &Watch) -> JoinHandle<Survey> {
    let wanted = watch.wanted().clone();
    tokio::task::spawn_blocking(move || wanted.survey())
}

async fn surveyed(survey: &mut Option<JoinHandle<Survey>>) -> Option<Survey> {
    match survey {
        Some(running) => running.await.ok(),
        None => std::future::pending().await,
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
