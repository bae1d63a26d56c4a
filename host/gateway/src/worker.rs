//! One worker: its instances of the filters in force, its upstream connections, its figures. Everything here belongs to
//! one thread; a new snapshot is made ready beside the old one and swapped in whole.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use tidegate_core::clock::{Clock as _, SystemClock};
use tidegate_core::filter::{Filter, FilterModule, WorkerServices};
use tidegate_core::metrics::Registry;
use tidegate_core::services::HttpClient;
use tidegate_upstream::Client as UpstreamClient;

use crate::access_log::AccessLog;
use crate::figures::Lines;
use crate::figures::{FilterFigures, RouteFigures, WorkerFigures};
use crate::guest_calls::GuestCalls;
use crate::plan::{Later, Step};
use crate::quarantine::{Admission, Tally};
use crate::settings::Settings;
use crate::snapshot::{FilterSlot, Snapshot};

/// How long a filter that can't be instantiated is left alone, at first and at most.
const PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    /// Bounds and trust.
    pub settings: Settings,
    /// Where figures are registered.
    pub registry: Arc<Registry>,
    /// Where lines go; none: nowhere.
    pub access_log: Option<AccessLog>,
}

/// One worker.
pub struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) upstreams: Rc<UpstreamClient>,
    pub(crate) figures: Rc<WorkerFigures>,
    live: RefCell<Rc<Live>>,
    services: WorkerServices,
    id: usize,
    last_id: Cell<u64>,
    random: Cell<u64>,
}

/// A snapshot with this worker's instances, plans and figures.
pub(crate) struct Live {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) filters: Vec<LiveFilter>,
    /// By the router's positions.
    routes: Vec<LiveRoute>,
    no_route: RouteFigures,
}

/// One route on this worker.
struct LiveRoute {
    steps: Box<[Step]>,
    later: Later,
    figures: RouteFigures,
}

/// One filter on this worker.
pub(crate) struct LiveFilter {
    pub(crate) slot: FilterSlot,
    pub(crate) figures: FilterFigures,
    /// Once it is made, it stays.
    filter: OnceCell<Rc<dyn Filter>>,
    /// Lines on its failures.
    pub(crate) lines: Lines,
    /// Counts its exchanges here, where failures in a row take it out of service.
    tally: Option<Tally>,
    /// When an instance may be tried for again, and the pause before the attempt after that.
    pause: Cell<Option<(Instant, Duration)>>,
}

impl Live {
    /// The chain of a route.
    pub(crate) fn steps(&self, route: usize) -> &[Step] {
        self.routes.get(route).map_or(&[], |route| &route.steps)
    }

    /// What a route's filters may want to see of heads that have gone.
    pub(crate) fn later(&self, route: usize) -> Later {
        self.routes
            .get(route)
            .map_or_else(Later::default, |route| route.later)
    }

    /// The figures of a route, or of requests without one.
    pub(crate) fn figures(&self, route: Option<usize>) -> &RouteFigures {
        route
            .and_then(|route| self.routes.get(route))
            .map_or(&self.no_route, |route| &route.figures)
    }

    /// This worker's filter of a module that is in force already.
    fn filter_of(&self, slot: &FilterSlot) -> Option<Rc<dyn Filter>> {
        let module = slot.module.as_ref()?;
        let is_same = |filter: &&LiveFilter| {
            let held = filter.slot.module.as_ref();
            held.is_some_and(|held| Arc::ptr_eq(held, module))
        };
        self.filters.iter().find(is_same)?.present().cloned()
    }
}

impl LiveFilter {
    fn new(
        slot: &FilterSlot,
        worker: usize,
        figures: FilterFigures,
        filter: Option<Rc<dyn Filter>>,
    ) -> Self {
        LiveFilter {
            tally: slot.quarantine.as_ref().map(|it| it.tally(worker)),
            slot: slot.clone(),
            figures,
            lines: Lines::default(),
            filter: filter.map_or_else(OnceCell::new, OnceCell::from),
            pause: Cell::new(None),
        }
    }

    /// Whether an exchange may call it. Each exchange asks once.
    pub(crate) fn admit(&self) -> Admission {
        let (Some(quarantine), Some(tally)) = (&self.slot.quarantine, &self.tally) else {
            return Admission::Free;
        };
        tally.count();
        if quarantine.is_clear() {
            return Admission::Free;
        }
        quarantine.admit(SystemClock.monotonic())
    }

    /// The filter, if it is here.
    pub(crate) fn present(&self) -> Option<&Rc<dyn Filter>> {
        self.filter.get()
    }

    /// Whether it can be called, after an attempt if need be.
    pub(crate) fn can_be_had(&self, services: &WorkerServices) -> bool {
        self.get(services).is_some()
    }

    /// The filter, made anew if earlier attempts failed. Attempts are made by the requests that want it, with a pause that
    /// grows, so that a filter that can't be had does not hold the others' requests up.
    pub(crate) fn get(&self, services: &WorkerServices) -> Option<&Rc<dyn Filter>> {
        if let Some(filter) = self.present() {
            return Some(filter);
        }
        let pause = match self.pause.get() {
            Some((until, _)) if Instant::now() < until => return None,
            Some((_, pause)) => pause,
            None => Duration::ZERO,
        };
        self.make(services, pause)
    }

    #[cold]
    fn make(&self, services: &WorkerServices, pause: Duration) -> Option<&Rc<dyn Filter>> {
        match self.slot.module.as_ref()?.on_worker(services) {
            Ok(filter) => {
                self.pause.set(None);
                Some(self.filter.get_or_init(|| filter))
            }
            Err(error) => {
                tracing::error!(filter = %self.slot.name, %error, "a filter can't be instantiated");
                let next = (pause * 2).clamp(PAUSE, MAX_PAUSE);
                self.pause.set(Some((Instant::now() + pause, next)));
                None
            }
        }
    }
}

impl Worker {
    /// A worker without routes: it answers 404 until [`Worker::install`].
    pub fn new(id: usize, shared: Arc<Shared>) -> Rc<Self> {
        let figures = Rc::new(WorkerFigures::new(Arc::clone(&shared.registry), id));
        let upstreams = Rc::new(UpstreamClient::new(Arc::clone(&shared.registry), id));
        let calls = Rc::new(GuestCalls::new(Rc::clone(&upstreams)));
        let mut seed = [0; 8];
        // Without the system's randomness, ids are only as different as the clock is.
        if getrandom::fill(&mut seed).is_err() {
            let nanos = std::time::UNIX_EPOCH
                .elapsed()
                .map_or(0, |time| u64::from(time.subsec_nanos()));
            seed = nanos.to_le_bytes();
        }
        let live = Live {
            snapshot: Arc::new(Snapshot::default()),
            filters: Vec::new(),
            routes: Vec::new(),
            no_route: figures.route(""),
        };
        let worker = Rc::new(Worker {
            shared,
            upstreams,
            figures,
            live: RefCell::new(Rc::new(live)),
            services: WorkerServices {
                give_way: || Box::pin(tokio::task::yield_now()),
                sleep: |time| Box::pin(tokio::time::sleep(time)),
                http: Rc::clone(&calls) as Rc<dyn HttpClient>,
            },
            id,
            last_id: Cell::new(0),
            random: Cell::new(u64::from_le_bytes(seed)),
        });
        calls.serve_for(&worker);
        worker
    }

    /// Puts a snapshot in force for the requests that come from now on. Those under way end with theirs.
    pub fn install(&self, snapshot: Arc<Snapshot>) {
        let before = self.live();
        let make = |slot: &FilterSlot| {
            // A filter that stays the same keeps its instances and what they remember.
            let held = before.filter_of(slot);
            let figures = self.figures.filter(&slot.name);
            let filter = LiveFilter::new(slot, self.id, figures, held);
            filter.get(&self.services);
            filter
        };
        let filters: Vec<LiveFilter> = snapshot.filters.iter().map(make).collect();
        let step = |position: &usize| {
            let module = snapshot.filters.get(*position)?.module.as_deref();
            Some(Step::new(*position, module.map(FilterModule::interests)))
        };
        let routes = snapshot
            .router
            .routes()
            .iter()
            .map(|route| {
                let steps: Box<[Step]> = route.filters.iter().filter_map(step).collect();
                LiveRoute {
                    later: Later::of(&steps),
                    steps,
                    figures: self.figures.route(&route.name),
                }
            })
            .collect();
        self.live.replace(Rc::new(Live {
            routes,
            filters,
            snapshot,
            no_route: self.figures.route(""),
        }));
    }

    pub(crate) fn live(&self) -> Rc<Live> {
        Rc::clone(&self.live.borrow())
    }

    pub(crate) fn filter_services(&self) -> &WorkerServices {
        &self.services
    }

    pub(crate) fn next_id(&self) -> u64 {
        let id = self.last_id.get().wrapping_add(1);
        self.last_id.set(id);
        id
    }

    /// A request id of 128 bits. It only has to be different from others, not secret.
    pub(crate) fn request_id(&self) -> HeaderValue {
        let next = || {
            // SplitMix64.
            let state = self.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
            self.random.set(state);
            let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            mixed ^ (mixed >> 31)
        };
        let number = u128::from(next()) << 64 | u128::from(next());
        let mut text = [b'0'; 32];
        for (place, shift) in text.iter_mut().rev().zip((0..).step_by(4)) {
            // Four bits are a digit.
            let digit = (number >> shift & 0xF) as u32;
            *place = char::from_digit(digit, 16).map_or(b'0', |digit| digit as u8);
        }
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("0"))
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}
