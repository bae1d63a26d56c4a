//! The proxies that are compared, each with a configuration of one meaning: one worker, connections kept alive on both
//! sides, the usual forwarding fields, no access log. It must not know how they are measured.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use rustix::process::getuid;

use super::PROXY_CORE;
use super::measure::Bench;
use super::process::{Process, free_port};
use super::workload::{KEY, Workload};
use crate::client::get_once;
use crate::workspace::Workspace;

/// The least of a filter: `tests/guests/small`.
const SMALL: &str = "small";

/// A proxy and what it is given to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub(super) enum PeerKind {
    /// nginx.
    Nginx,
    /// HAProxy.
    Haproxy,
    /// tidegate without filters.
    Tidegate,
    /// tidegate with auth by API key, limit and headers.
    #[value(name = "tidegate+shipped")]
    TidegateShipped,
    /// tidegate with one small filter.
    #[value(name = "tidegate+1")]
    Tidegate1,
    /// tidegate with three small filters.
    #[value(name = "tidegate+3")]
    Tidegate3,
    /// tidegate with ten small filters.
    #[value(name = "tidegate+10")]
    Tidegate10,
    /// tidegate with one small filter as a component.
    #[value(name = "tidegate+component")]
    TidegateComponent,
    /// tidegate with one small filter that gets a new instance for each request.
    #[value(name = "tidegate+fresh")]
    TidegateFresh,
}

impl PeerKind {
    pub(super) const ALL: [Self; 9] = [
        Self::Nginx,
        Self::Haproxy,
        Self::Tidegate,
        Self::TidegateShipped,
        Self::Tidegate1,
        Self::Tidegate3,
        Self::Tidegate10,
        Self::TidegateComponent,
        Self::TidegateFresh,
    ];

    /// What the command line and the tables call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Tidegate => "tidegate",
            Self::TidegateShipped => "tidegate+shipped",
            Self::Tidegate1 => "tidegate+1",
            Self::Tidegate3 => "tidegate+3",
            Self::Tidegate10 => "tidegate+10",
            Self::TidegateComponent => "tidegate+component",
            Self::TidegateFresh => "tidegate+fresh",
        }
    }

    /// The program that must be there, if it is not ours.
    pub(super) fn program(self) -> Option<&'static str> {
        match self {
            Self::Nginx => Some("nginx"),
            Self::Haproxy => Some("haproxy"),
            _ => None,
        }
    }

    /// How many small filters it has.
    pub(super) fn small_filters(self) -> u8 {
        match self {
            Self::Tidegate1 | Self::TidegateComponent | Self::TidegateFresh => 1,
            Self::Tidegate3 => 3,
            Self::Tidegate10 => 10,
            _ => 0,
        }
    }

    /// Whether a workload belongs to the whole table. What a small filter costs is the same whatever is asked.
    pub(super) fn tells_something_with(self, workload: Workload) -> bool {
        self.small_filters() == 0 || workload == Workload::Get
    }
}

/// Where a proxy listens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) http: u16,
    pub(super) h2c: u16,
    pub(super) tls: u16,
}

impl Ports {
    fn free() -> Result<Self> {
        Ok(Self {
            http: free_port()?,
            h2c: free_port()?,
            tls: free_port()?,
        })
    }
}

/// What every proxy needs to be started.
#[derive(Debug)]
pub(super) struct Place {
    folder: PathBuf,
    binary: PathBuf,
    /// Where the filters were built.
    built: PathBuf,
    upstream: u16,
}

impl Place {
    pub(super) fn new(
        workspace: &Workspace,
        binary: &Path,
        folder: &Path,
        upstream: u16,
    ) -> Result<Self> {
        let place = Self {
            folder: folder.to_owned(),
            binary: binary.to_owned(),
            built: workspace.target().to_owned(),
            upstream,
        };
        place.write_certificate()?;
        Ok(place)
    }

    fn certificate(&self) -> PathBuf {
        self.folder.join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.join("key.pem")
    }

    /// Certificate and key in one file, as HAProxy wants them.
    fn both(&self) -> PathBuf {
        self.folder.join("both.pem")
    }

    fn write_certificate(&self) -> Result<()> {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made =
            rcgen::generate_simple_self_signed(names).context("no certificate could be made")?;
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        for (path, text) in [
            (self.certificate(), certificate.clone()),
            (self.key(), key.clone()),
            (self.both(), certificate + &key),
        ] {
            let mut options = fs::OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            file.write_all(text.as_bytes())?;
        }
        Ok(())
    }

    /// Writes a configuration from its template.
    fn fill(&self, template: &str, ports: Ports, folder: &Path, name: &str) -> Result<PathBuf> {
        let mut text = template.to_owned();
        for (place, value) in [
            ("@HTTP@", ports.http.to_string()),
            ("@H2C@", ports.h2c.to_string()),
            ("@TLS@", ports.tls.to_string()),
            ("@UPSTREAM@", self.upstream.to_string()),
            ("@FOLDER@", folder.display().to_string()),
            ("@CACHE@", self.folder.join("cache").display().to_string()),
            ("@CERTIFICATE@", self.certificate().display().to_string()),
            ("@KEY@", self.key().display().to_string()),
            ("@BOTH@", self.both().display().to_string()),
        ] {
            text = text.replace(place, &value);
        }
        fs::create_dir_all(folder)?;
        let path = folder.join(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    fn copy_filter(&self, folder: &Path, from: &str, name: &str) -> Result<()> {
        let from = self.built.join(from);
        fs::copy(&from, folder.join(format!("plugins/{name}.wasm")))
            .with_context(|| format!("can't read {}", from.display()))?;
        Ok(())
    }

    /// A folder with tidegate's configuration and filters. Gives the command.
    fn tidegate(&self, kind: PeerKind, ports: Ports, workers: u32) -> Result<Command> {
        let folder = self.folder.join(format!("{}-{workers}", kind.name()));
        fs::create_dir_all(folder.join("plugins"))?;
        let mut filters = Vec::new();
        let mut more = String::new();
        if kind == PeerKind::TidegateShipped {
            for name in ["auth", "limit", "headers"] {
                self.copy_filter(&folder, &format!("plugins/{name}.wasm"), name)?;
                filters.push(format!("{name:?}"));
            }
            more = include_str!("shipped.toml").to_owned();
        } else if kind.small_filters() > 0 {
            let file = match kind {
                PeerKind::TidegateComponent => "guests/small.component.wasm",
                _ => "guests/small.wasm",
            };
            self.copy_filter(&folder, file, SMALL)?;
            if kind == PeerKind::TidegateFresh {
                more = format!("\n[filter.{SMALL}]\nisolation = \"fresh\"\n");
            }
            for number in 1..=kind.small_filters() {
                filters.push(format!(
                    "{{ use = \"{SMALL}\", name = \"{SMALL}-{number}\", config = {{ name = \"x-small-{number}\" }} }}"
                ));
            }
        }
        let template = include_str!("tidegate.toml")
            .replace("@WORKERS@", &workers.to_string())
            .replace("@FILTERS@", &filters.join(", "));
        let configuration = self.fill(&(template + &more), ports, &folder, "tidegate.toml")?;
        let mut command = Command::new(&self.binary);
        command
            .arg("run")
            .arg("--config")
            .arg(configuration)
            .current_dir(&folder);
        Ok(command)
    }
}

/// A running proxy.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) kind: PeerKind,
    pub(super) ports: Ports,
    pub(super) process: Process,
    /// Resident memory in MiB before the first request, and the most that was seen.
    pub(super) idle: f64,
    pub(super) highest: f64,
}

impl Peer {
    pub(super) fn start(kind: PeerKind, place: &Place) -> Result<Self> {
        let mut ports = Ports::free()?;
        let folder = place.folder.join(kind.name());
        let mut command = match kind {
            PeerKind::Nginx => {
                // Only root may say as whom the worker runs, and must: its own user could not read the folder.
                let user = if getuid().is_root() { "user root;" } else { "" };
                let template = include_str!("nginx.conf").replace("@USER@", user);
                let path = place.fill(&template, ports, &folder, "nginx.conf")?;
                let mut command = Command::new(program("nginx"));
                command
                    .arg("-p")
                    .arg(&folder)
                    .args(["-e", "stderr", "-c"])
                    .arg(path);
                command
            }
            PeerKind::Haproxy => {
                ports.h2c = ports.http;
                let path =
                    place.fill(include_str!("haproxy.cfg"), ports, &folder, "haproxy.cfg")?;
                let mut command = Command::new(program("haproxy"));
                command.arg("-db").arg("-f").arg(path);
                command
            }
            _ => {
                ports.h2c = ports.http;
                place.tidegate(kind, ports, 1)?
            }
        };
        let mut process = Process::start(kind.name(), &mut command, PROXY_CORE, &place.folder)?;
        process.wait_for(ports.http)?;
        process.wait_for(ports.tls)?;
        let idle = process.resident();
        Ok(Self {
            kind,
            ports,
            process,
            idle,
            highest: idle,
        })
    }

    /// Refuses a proxy that does not do what it is measured for.
    pub(super) fn check(&mut self, bench: &mut Bench, workload: Workload) -> Result<()> {
        let what = || format!("{} with workload {}", self.kind.name(), workload.name());
        let output = bench.trial(self.ports, workload).with_context(what)?;
        workload.check_trial(&output).with_context(what)?;
        let (name, value) = KEY.split_once(": ").unwrap_or_default();
        let address = ([127, 0, 0, 1], self.ports.http).into();
        let response = get_once(address, "/size/128", &[(name, value)])?;
        for number in 1..=self.kind.small_filters() {
            if response.field(&format!("x-small-{number}")) != Some("seen") {
                bail!("{}: small filter {number} did not run", what());
            }
        }
        if self.kind == PeerKind::TidegateShipped {
            let refused = get_once(address, "/size/128", &[])?;
            let told = response.field("ratelimit").is_some()
                && response.field("x-served-by") == Some("tidegate");
            if refused.status != 401 || !told {
                bail!("{}: the shipped filters do not run", what());
            }
        }
        Ok(())
    }

    pub(super) fn stop(&mut self) {
        self.process.stop();
    }
}

/// What tidegate with two workers and the three shipped filters holds before its first request, in MiB.
pub(super) fn idle_memory_with_two_workers(place: &Place) -> Result<f64> {
    let ports = Ports::free()?;
    let mut command = place.tidegate(PeerKind::TidegateShipped, ports, 2)?;
    let mut process = Process::start("two-workers", &mut command, PROXY_CORE, &place.folder)?;
    process.wait_for(ports.tls)?;
    Ok(process.resident())
}

/// Where distributions put servers, which is not in everyone's path.
pub(super) fn program(name: &str) -> PathBuf {
    let path = Path::new("/usr/sbin").join(name);
    if path.exists() { path } else { name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line() {
        for kind in PeerKind::ALL {
            let value = kind.to_possible_value().unwrap();
            assert_eq!(value.get_name(), kind.name());
        }
    }
}
