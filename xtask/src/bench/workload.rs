//! What is asked of a proxy, and the generators that ask it: wrk for HTTP/1.1, h2load for HTTP/2 and for a fixed rate.
//! Turns a workload into a command and the command's words into figures; runs nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use super::peer::Ports;

/// Connections of an HTTP/1.1 workload.
const CONNECTIONS: u32 = 64;
/// Connections and streams on each of an HTTP/2 workload.
const H2_CONNECTIONS: u32 = 8;
const H2_STREAMS: u32 = 8;
/// Requests a second of the latency workload.
const RATE: u32 = 500;
/// Bytes of a request's body.
const POSTED: usize = 10 * 1024;
/// The key that the filter `auth` asks for. Every proxy gets it, so that all get the same requests.
pub(super) const KEY: &str = "x-api-key: bench-key";

/// One kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub(super) enum Workload {
    /// GET, 128 bytes back.
    Get,
    /// GET, 10 KiB back.
    #[value(name = "get-10k")]
    Get10k,
    /// POST of 10 KiB, 128 bytes back.
    Post,
    /// GET, 1 MiB back.
    #[value(name = "get-1m")]
    Get1m,
    /// GET of 128 bytes over TLS 1.3.
    Tls,
    /// GET of 128 bytes over HTTP/2 without TLS.
    H2,
    /// GET of 128 bytes over HTTP/2 with TLS 1.3.
    H2Tls,
    /// GET of 128 bytes, each on a connection of its own.
    New,
    /// GET of 128 bytes on one connection, 500 a second.
    Latency,
}

impl Workload {
    pub(super) const ALL: [Self; 9] = [
        Self::Get,
        Self::Get10k,
        Self::Post,
        Self::Get1m,
        Self::Tls,
        Self::H2,
        Self::H2Tls,
        Self::New,
        Self::Latency,
    ];

    /// What the command line calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Get10k => "get-10k",
            Self::Post => "post",
            Self::Get1m => "get-1m",
            Self::Tls => "tls",
            Self::H2 => "h2",
            Self::H2Tls => "h2-tls",
            Self::New => "new",
            Self::Latency => "latency",
        }
    }

    /// What tables call it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Get => "GET 128 B",
            Self::Get10k => "GET 10 KiB",
            Self::Post => "POST 10 KiB",
            Self::Get1m => "GET 1 MiB",
            Self::Tls => "TLS 1.3",
            Self::H2 => "HTTP/2",
            Self::H2Tls => "HTTP/2 TLS",
            Self::New => "new connection",
            Self::Latency => "500/s",
        }
    }

    fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::H2Tls)
    }

    fn is_h2(self) -> bool {
        matches!(self, Self::H2 | Self::H2Tls)
    }

    /// Bytes of each answer's body.
    fn size(self) -> u64 {
        match self {
            Self::Get10k => 10 * 1024,
            Self::Get1m => 1024 * 1024,
            _ => 128,
        }
    }

    /// Where it goes.
    fn url(self, ports: Ports) -> String {
        let (scheme, port) = match self {
            Self::Tls | Self::H2Tls => ("https", ports.tls),
            Self::H2 => ("http", ports.h2c),
            _ => ("http", ports.http),
        };
        format!("{scheme}://127.0.0.1:{port}/size/{}", self.size())
    }

    /// The generator for so many seconds.
    pub(super) fn command(self, ports: Ports, seconds: u32, files: &Files) -> Command {
        if self.is_h2() {
            return h2load(
                &[
                    "-c",
                    &H2_CONNECTIONS.to_string(),
                    "-m",
                    &H2_STREAMS.to_string(),
                    "-D",
                    &seconds.to_string(),
                ],
                &self.url(ports),
            );
        }
        if self == Self::Latency {
            let mut command = h2load(
                &[
                    "--h1",
                    "-c",
                    "1",
                    "-m",
                    "1",
                    "-D",
                    &seconds.to_string(),
                    "--rps",
                    &RATE.to_string(),
                ],
                &self.url(ports),
            );
            command.arg("--log-file").arg(&files.latencies);
            return command;
        }
        let mut command = Command::new("wrk");
        command.args([
            "-t1",
            &format!("-c{CONNECTIONS}"),
            &format!("-d{seconds}s"),
            "-H",
            KEY,
        ]);
        match self {
            Self::Post => {
                command.arg("-s").arg(&files.script);
            }
            Self::New => {
                command.args(["-H", "Connection: close"]);
            }
            _ => {}
        }
        command.arg(self.url(ports));
        command
    }

    /// A few requests, to see that the answers are right.
    pub(super) fn trial(self, ports: Ports, files: &Files) -> Command {
        let mut arguments = vec!["-c", "1", "-m", "1", "-n", "4"];
        if !self.is_h2() {
            arguments.push("--h1");
        }
        let mut command = h2load(&arguments, &self.url(ports));
        if self == Self::Post {
            command.arg("-d").arg(&files.body);
        }
        command
    }

    /// Refuses a trial that did not give what it should.
    pub(super) fn check_trial(self, output: &str) -> Result<()> {
        let answers = h2load_answers(output)?;
        if answers.requests != 4 || answers.bytes != 4 * self.size() {
            bail!(
                "4 requests were answered {} times with {} bytes in all, not with {} each",
                answers.requests,
                answers.bytes,
                self.size()
            );
        }
        if self.is_tls() && !output.contains("TLS Protocol: TLSv1.3") {
            bail!("it speaks no TLS 1.3");
        }
        let protocol = match self {
            Self::H2Tls => "Application protocol: h2\n",
            Self::H2 => "Application protocol: h2c\n",
            _ => "Application protocol: http/1.1\n",
        };
        if !output.contains(protocol) {
            bail!("it does not speak the workload's protocol");
        }
        Ok(())
    }

    /// How many requests a generator saw answered; an error if any was not answered well.
    pub(super) fn requests(self, output: &str) -> Result<u64> {
        if self.is_h2() || self == Self::Latency {
            return Ok(h2load_answers(output)?.requests);
        }
        if let Some(line) = output
            .lines()
            .find(|line| line.contains("Non-2xx") || line.contains("Socket errors"))
        {
            bail!("{}", line.trim());
        }
        let line = output.lines().find(|line| line.contains(" requests in "));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok())
            .filter(|requests| *requests > 0)
            .with_context(|| format!("wrk said nothing of requests: {output}"))
    }
}

fn h2load(arguments: &[&str], url: &str) -> Command {
    let mut command = Command::new("h2load");
    command
        .args(["-t", "1", "-H", KEY])
        .args(arguments)
        .arg(url);
    command
}

struct Answers {
    requests: u64,
    bytes: u64,
}

fn h2load_answers(output: &str) -> Result<Answers> {
    let line = |start: &str| {
        let line = output.lines().find_map(|line| line.strip_prefix(start));
        line.with_context(|| format!("h2load said nothing of {start}"))
    };
    let of = |line: &str, what: &str| -> Result<u64> {
        let mut parts = line.split(", ");
        let number = parts.find_map(|part| {
            part.strip_suffix(what)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        });
        number.with_context(|| format!("h2load said nothing of{what}: {line}"))
    };
    let requests = line("requests: ")?;
    let statuses = line("status codes: ")?;
    let (done, good) = (of(requests, " done")?, of(requests, " succeeded")?);
    // A run that ends at a time may cut requests off; those are neither done nor failed.
    if done == 0 || good != done || of(requests, " failed")? > 0 || of(statuses, " 2xx")? < good {
        bail!("{requests}; {statuses}");
    }
    let data = line("traffic: ")?
        .rsplit_once(") data")
        .and_then(|(before, _)| before.rsplit_once('(')?.1.parse().ok());
    Ok(Answers {
        requests: done,
        bytes: data.context("h2load said nothing of data")?,
    })
}

/// Files that generators read and write.
#[derive(Debug)]
pub(super) struct Files {
    script: PathBuf,
    body: PathBuf,
    latencies: PathBuf,
}

impl Files {
    pub(super) fn write(folder: &Path) -> Result<Self> {
        let files = Self {
            script: folder.join("post.lua"),
            body: folder.join("body"),
            latencies: folder.join("latencies"),
        };
        let script = format!("wrk.method = \"POST\"\nwrk.body = (\"x\"):rep({POSTED})\n");
        fs::write(&files.script, script)?;
        fs::write(&files.body, vec![b'x'; POSTED])?;
        Ok(files)
    }

    /// Takes the latencies of the last run, in microseconds.
    pub(super) fn take_latencies(&self) -> Result<Vec<f64>> {
        let text = fs::read_to_string(&self.latencies).context("h2load wrote no latencies")?;
        fs::remove_file(&self.latencies)?;
        latencies(&text)
    }
}

/// The third column: microseconds from the request to the end of its answer.
fn latencies(text: &str) -> Result<Vec<f64>> {
    let column = |line: &str| line.split('\t').nth(2)?.parse().ok();
    text.lines()
        .map(|line| column(line).with_context(|| format!("no latency in {line}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const H2LOAD: &str = "Application protocol: h2c\n\
        requests: 4 total, 4 started, 4 done, 4 succeeded, 0 failed, 0 errored, 0 timeout\n\
        status codes: 4 2xx, 0 3xx, 0 4xx, 0 5xx\n\
        traffic: 624B (624) total, 484B (484) headers (space savings 0.00%), 512B (512) data\n";

    #[test]
    fn a_trial_holds_protocol_status_and_bytes() {
        Workload::H2.check_trial(H2LOAD).unwrap();
        for (from, to) in [
            ("4 succeeded, 0 failed", "3 succeeded, 1 failed"),
            ("4 2xx", "3 2xx"),
            ("(512)", "(511)"),
            ("h2c", "http/1.1"),
        ] {
            assert!(
                Workload::H2.check_trial(&H2LOAD.replace(from, to)).is_err(),
                "{to}"
            );
        }
        assert!(Workload::H2Tls.check_trial(H2LOAD).is_err());
    }

    #[test]
    fn wrk_counts_only_if_all_went_well() {
        let good = "  835 requests in 1.00s, 4.64MB read\nRequests/sec:    831.98\n";
        assert_eq!(Workload::Get.requests(good).unwrap(), 835);
        for bad in [
            "  Non-2xx or 3xx responses: 4\n",
            "  Socket errors: connect 0, read 1, write 0, timeout 0\n",
        ] {
            assert!(Workload::Get.requests(&format!("{good}{bad}")).is_err());
        }
        assert!(Workload::Get.requests("nothing").is_err());
    }

    #[test]
    fn latencies_are_the_third_column() {
        assert_eq!(
            latencies("17\t200\t1250\n18\t200\t80\n").unwrap(),
            [1250.0, 80.0]
        );
        assert!(latencies("17\t200\n").is_err());
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for workload in Workload::ALL {
            let value = workload.to_possible_value().unwrap();
            assert_eq!(value.get_name(), workload.name());
        }
    }
}
