//! What came of a look, in the log and in the figures. Decides nothing.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Instant;

use tidegate_core::metrics::{Owner, Registry};
use tidegate_gateway::Snapshot;

use super::filters::{News, State, Status};
use super::pass::{Configuration, Report};
use super::standing::Standing;
use crate::config::checked::Checked;

/// Tells of looks.
#[derive(Debug)]
pub(crate) struct Teller {
    registry: Arc<Registry>,
    /// Digests, routes, upstreams and certificates that have series of their own.
    digests: BTreeSet<String>,
    routes: BTreeSet<String>,
    upstreams: BTreeSet<String>,
    expiring: BTreeSet<String>,
    /// Snapshots that came into force, as long as somebody holds them.
    snapshots: Vec<(Instant, Weak<Snapshot>)>,
}

impl Teller {
    /// Begins, with what never changes.
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        let labels = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("commit", env!("TIDEGATE_COMMIT")),
        ];
        if let Ok(info) = registry.gauge("tidegate_build_info", "What this is; always 1.", &labels)
        {
            info.set(1.0);
        }
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let help = "When the process started, in seconds since 1970.";
        if let Ok(start) = registry.gauge("tidegate_start_time_seconds", help, &[]) {
            start.set(now.as_secs_f64());
        }
        Teller {
            registry,
            digests: BTreeSet::new(),
            routes: BTreeSet::new(),
            upstreams: BTreeSet::new(),
            expiring: BTreeSet::new(),
            snapshots: Vec::new(),
        }
    }

    /// Takes note of a snapshot that came into force.
    pub(crate) fn hold(&mut self, snapshot: &Arc<Snapshot>) {
        self.snapshots
            .push((Instant::now(), Arc::downgrade(snapshot)));
        self.count_snapshots();
    }

    /// Counts the snapshots that exchanges still hold.
    pub(crate) fn count_snapshots(&mut self) {
        self.snapshots
            .retain(|(_, snapshot)| snapshot.strong_count() > 0);
        let oldest = self.snapshots.first().map(|(since, _)| since.elapsed());
        let help =
            "Snapshots in memory: the one in force, and those that running exchanges began with.";
        // A few thousands at most; a float holds that exactly.
        let count = u32::try_from(self.snapshots.len()).unwrap_or(u32::MAX);
        if let Ok(gauge) = self.registry.gauge("tidegate_snapshots", help, &[]) {
            gauge.set(count.into());
        }
        let help = "How long ago the oldest snapshot in memory came into force.";
        let name = "tidegate_oldest_snapshot_seconds";
        if let Ok(gauge) = self.registry.gauge(name, help, &[]) {
            gauge.set(oldest.unwrap_or_default().as_secs_f64());
        }
    }

    /// Tells what came of a look.
    pub(crate) fn tell(&mut self, report: &Report, standing: &Standing) {
        self.configuration(&report.configuration);
        let help =
            "Whether the configuration and the certificates are in force as they lie on disk.";
        if let Ok(up) = self.registry.gauge("tidegate_configuration_up", help, &[]) {
            up.set(if standing.is_good() { 1.0 } else { 0.0 });
        }
        for stray in &report.strays {
            tracing::error!("{stray}");
        }
        for news in &report.news {
            self.news(news);
        }
        self.infos(&report.statuses);
        self.certificates(&report.checked);
        self.forget(report);
    }

    fn configuration(&self, configuration: &Configuration) {
        match configuration {
            Configuration::Same => {}
            Configuration::Changed { warnings } => {
                for warning in warnings {
                    tracing::warn!("{warning}");
                }
                tracing::info!("what is configured changed and is in force");
                self.reloaded("ok");
            }
            Configuration::Refused { again: true, .. } => {}
            Configuration::Refused { mistakes, .. } => {
                for mistake in mistakes {
                    tracing::error!("{mistake}");
                }
                tracing::error!(
                    mistakes = mistakes.len(),
                    "the configuration can't be used; the earlier one stays in force"
                );
                self.reloaded("failed");
            }
        }
    }

    fn reloaded(&self, result: &str) {
        let help = "Times that the configuration was read again because it changed, by result.";
        self.count("tidegate_reloads_total", help, ("result", result));
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let help = "When the configuration was last read again, by result, in seconds since 1970.";
        let labels = [("result", result)];
        if let Ok(time) = self
            .registry
            .gauge("tidegate_reload_time_seconds", help, &labels)
        {
            time.set(now.as_secs_f64());
        }
    }

    fn count(&self, name: &str, help: &str, label: (&str, &str)) {
        if let Ok(counter) = self.registry.counter(Owner::Process, name, help, &[label]) {
            counter.increment();
        }
    }

    fn news(&self, news: &News) {
        match news {
            News::Loaded {
                filter,
                file,
                digest,
                version,
                replaced,
            } => {
                let file = file.display();
                let version = version.as_deref();
                let message = if *replaced {
                    "a new version of the filter is in service"
                } else {
                    "the filter is in service"
                };
                tracing::info!(%filter, %file, %digest, version, "{message}");
                let help = "Versions of a filter that went into service.";
                self.count("tidegate_filter_reloads_total", help, ("filter", filter));
            }
            News::Failed {
                filter,
                file,
                reason,
                running,
                used,
            } => {
                let file = file.display();
                match (used, running) {
                    (true, true) => {
                        tracing::error!(%filter, %file, reason, "the filter can't be used as it is now; its last good version goes on");
                    }
                    (true, false) => {
                        tracing::error!(%filter, %file, reason, "the filter can't be used");
                    }
                    (false, _) => {
                        tracing::warn!(%filter, %file, reason, "a filter that no route uses could not be used");
                    }
                }
                let help = "Versions of a filter that could not be put into service.";
                let label = ("filter", &**filter);
                self.count("tidegate_filter_reload_failures_total", help, label);
            }
            News::Recovered { filter, file } => {
                tracing::info!(%filter, file = %file.display(), "the filter is good again");
            }
            News::Removed { filter } => {
                tracing::info!(%filter, "the filter was removed");
                self.registry.forget("filter", filter);
            }
        }
    }

    /// One series a filter, which names the version in service.
    fn infos(&mut self, statuses: &[Status]) {
        for digest in std::mem::take(&mut self.digests) {
            self.registry.forget("digest", &digest);
        }
        for status in statuses {
            let set = |name: &str, help: &str, labels: &[(&str, &str)], value: bool| {
                if let Ok(gauge) = self.registry.gauge(name, help, labels) {
                    gauge.set(if value { 1.0 } else { 0.0 });
                }
            };
            let up = status.state == State::Ok;
            let help = "Whether the newest version of a filter could be put into service.";
            let name = [("filter", &*status.name)];
            set("tidegate_filter_up", help, &name, up);
            let Some(digest) = &status.digest else {
                continue;
            };
            let version = status.version.as_deref().unwrap_or_default();
            let help = "The version of a filter that is in service; always 1.";
            let labels = [
                ("filter", &*status.name),
                ("version", version),
                ("digest", &**digest),
            ];
            set("tidegate_filter_info", help, &labels, true);
            self.digests.insert(digest.to_string());
        }
    }

    /// Until when the certificates in service hold.
    fn certificates(&mut self, checked: &Checked) {
        let identities = checked.server.tls.iter().flat_map(|it| &it.identities);
        let mut shown = BTreeSet::new();
        for identity in identities {
            let Some(expires) = identity.expires else {
                continue;
            };
            let file = identity.certificate.display().to_string();
            let help = "When a certificate that is in service expires, in seconds since 1970.";
            let name = "tidegate_certificate_expiry_seconds";
            let labels = [("certificate", &*file)];
            if let Ok(gauge) = self.registry.gauge(name, help, &labels) {
                // Exact for some hundred million years.
                #[expect(clippy::cast_precision_loss, reason = "a float holds any such date")]
                gauge.set(expires as f64);
            }
            shown.insert(file);
        }
        for gone in self.expiring.difference(&shown) {
            self.registry.forget("certificate", gone);
        }
        self.expiring = shown;
    }

    /// Series of what is not configured any more are forgotten, so that reloads don't pile them up.
    fn forget(&mut self, report: &Report) {
        let routes = report.checked.routes.iter();
        let routes = routes.map(|route| route.name.to_string()).collect();
        let upstreams = report.checked.upstreams.iter();
        let upstreams = upstreams.map(|it| it.name.to_string()).collect();
        for (label, before, now) in [
            ("route", &mut self.routes, routes),
            ("upstream", &mut self.upstreams, upstreams),
        ] {
            for gone in before.difference(&now) {
                self.registry.forget(label, gone);
            }
            *before = now;
        }
    }
}
