//! What the operator writes, and what becomes of it. Each part's own file says what its keys mean.

use tidegate_sdk::prelude::*;

use crate::condition::{Part, When};
use crate::cors::{self, Cors};
use crate::mistakes::{Mistakes, Place};
use crate::one_or_many::OneOrMany;
use crate::presets::cache::{self, CacheControl};
use crate::presets::security::{self, Security};
use crate::redirect::{self, Redirect};
use crate::respond::{self, Respond};
use crate::rewrite::{self, PathRule, Rewrite};
use crate::rule::{self, Rule};
use crate::table::Table;

/// The configuration of one filter. Keys that take a table take a list of them too.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Config(Table<Keys>);

/// The keys.
#[derive(Debug, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Keys {
    /// Redirects: the first that applies is answered.
    redirect: OneOrMany<Table<Redirect>>,
    /// Fixed answers: the first that applies is given.
    respond: OneOrMany<Table<Respond>>,
    /// Changes of the request's fields and cookies, before the upstream sees them.
    request: OneOrMany<Rule>,
    /// Changes of the request line. The route stays as it was chosen.
    rewrite: OneOrMany<Table<Rewrite>>,
    /// How the path's beginning is rewritten, before `rewrite`.
    path: Option<Table<PathRule>>,
    /// Whether fields that tell which software made a response are removed.
    hide_server: bool,
    /// Fields that tell browsers to be careful.
    security: Option<Table<Security>>,
    /// How long answers may be kept: the first that applies counts.
    cache_control: OneOrMany<Table<CacheControl>>,
    /// Changes of the response's fields and cookies, before the client sees them; the proxy's own answers included.
    response: OneOrMany<Rule>,
    /// Which other origins' pages may use what is behind this route.
    cors: Option<Table<Cors>>,
}

impl ConfigSchema for Config {
    const SCHEMA: &'static str = tidegate_sdk::schema::concat!(
        r#"{"$defs":{"#,
        When::DEFINITION,
        ",",
        Rule::DEFINITION,
        "},",
        // The rest of the object, without its brace.
        Keys::SCHEMA.split_at(1).1,
    );
}

/// Everything that the filter does, ready to be done.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) cors: Option<cors::Compiled>,
    pub(crate) redirects: Vec<redirect::Compiled>,
    pub(crate) responds: Vec<respond::Compiled>,
    pub(crate) request: Vec<rule::Compiled>,
    pub(crate) rewrites: Vec<rewrite::Compiled>,
    pub(crate) hide_server: bool,
    pub(crate) security: Option<security::Compiled>,
    pub(crate) cache: Vec<cache::Compiled>,
    pub(crate) response: Vec<rule::Compiled>,
}

impl Config {
    /// Checks the configuration and makes it ready.
    ///
    /// # Errors
    /// All its mistakes, each with its key.
    pub(crate) fn plan(self) -> Result<Plan, ConfigError> {
        let keys = self.0.0;
        let mut mistakes = Mistakes::default();
        let path = keys.path.map(|path| {
            let place = Place::top("path");
            Rewrite::from(path.0).compile(&place, &mut mistakes)
        });
        let rewrites = keys.rewrite.each(&Place::top("rewrite"));
        let rewrites =
            rewrites.map(|(place, Table(rewrite))| rewrite.compile(&place, &mut mistakes));
        let plan = Plan {
            rewrites: path.into_iter().chain(rewrites).collect(),
            cors: keys
                .cors
                .map(|cors| cors.0.compile(&Place::top("cors"), &mut mistakes)),
            redirects: keys
                .redirect
                .each(&Place::top("redirect"))
                .map(|(place, Table(redirect))| redirect.compile(&place, &mut mistakes))
                .collect(),
            responds: keys
                .respond
                .each(&Place::top("respond"))
                .map(|(place, Table(respond))| respond.compile(&place, &mut mistakes))
                .collect(),
            request: keys
                .request
                .each(&Place::top("request"))
                .map(|(place, rule)| rule.compile(Part::Request, &place, &mut mistakes))
                .collect(),
            hide_server: keys.hide_server,
            security: keys
                .security
                .map(|security| security.0.compile(&Place::top("security"), &mut mistakes)),
            cache: keys
                .cache_control
                .each(&Place::top("cache-control"))
                .map(|(place, Table(cache))| cache.compile(&place, &mut mistakes))
                .collect(),
            response: keys
                .response
                .each(&Place::top("response"))
                .map(|(place, rule)| rule.compile(Part::Response, &place, &mut mistakes))
                .collect(),
        };
        mistakes.end()?;
        Ok(plan)
    }
}

impl Plan {
    /// Whether nothing is to be done in the request's phase.
    pub(crate) fn leaves_requests(&self) -> bool {
        self.cors
            .as_ref()
            .is_none_or(cors::Compiled::leaves_requests)
            && self.redirects.is_empty()
            && self.responds.is_empty()
            && self.request.is_empty()
            && self.rewrites.is_empty()
    }

    /// Whether nothing is to be done in the response's phase.
    pub(crate) fn leaves_responses(&self) -> bool {
        self.cors.is_none()
            && !self.hide_server
            && self.security.is_none()
            && self.cache.is_empty()
            && self.response.is_empty()
    }
}
