//! What is in force: routes, filters and upstreams, as one value that is replaced as a whole. Immutable, shared by all
//! workers.

use std::collections::HashMap;
use std::sync::Arc;

use tidegate_core::filter::FilterModule;
use tidegate_upstream::Upstream;

use crate::quarantine::Quarantine;
use crate::route::{Conflict, RouteSpec, Router};

/// What happens to an exchange when a filter fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failure {
    /// It is answered with 503.
    #[default]
    Closed,
    /// It goes on as if the filter were not there.
    Open,
}

impl Failure {
    /// Its name in the configuration and the log.
    pub const fn name(self) -> &'static str {
        match self {
            Failure::Closed => "closed",
            Failure::Open => "open",
        }
    }
}

/// A filter's place in a snapshot.
#[derive(Clone, Debug)]
pub struct FilterSlot {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The filter; none if no version of it could ever be loaded. Then its policy answers.
    pub module: Option<Arc<dyn FilterModule>>,
    /// Its policy.
    pub failure: Failure,
    /// Its failures so far, shared by all workers and all snapshots with this version of it; none: it is never taken out.
    pub quarantine: Option<Arc<Quarantine>>,
}

/// Everything that is in force.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub(crate) filters: Vec<FilterSlot>,
    pub(crate) router: Router,
    pub(crate) upstreams: HashMap<Arc<str>, Arc<Upstream>>,
}

impl Snapshot {
    /// Puts the parts together. `RouteSpec::filters` are positions in `filters`; one past the end is left out.
    ///
    /// # Errors
    /// The routes that no request can tell apart.
    pub fn new(
        filters: Vec<FilterSlot>,
        mut routes: Vec<RouteSpec>,
        upstreams: impl IntoIterator<Item = Arc<Upstream>>,
    ) -> Result<Self, Vec<Conflict>> {
        for route in &mut routes {
            route.filters.retain(|position| *position < filters.len());
        }
        let upstreams = upstreams
            .into_iter()
            .map(|upstream| (Arc::clone(upstream.name()), upstream))
            .collect();
        Ok(Snapshot {
            filters,
            router: Router::new(routes)?,
            upstreams,
        })
    }
}
