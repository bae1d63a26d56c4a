//! One line for each exchange, written by a thread of its own behind a bounded queue: a worker never waits for a disk or a
//! pipe. What does not fit is dropped and counted. Every line is one line, whatever a client put into it.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tidegate_core::metrics::{Counter, Owner, Registry};

/// Lines that may wait to be written.
const QUEUE: usize = 8192;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The combined format that web servers share, with time, upstream and id behind it.
    Text,
    /// One JSON object.
    Json,
}

/// The log's end on the workers' side.
#[derive(Clone, Debug)]
pub struct AccessLog {
    format: Format,
    lines: SyncSender<String>,
    dropped: Counter,
    reopen: Arc<AtomicBool>,
    /// Held by the writing thread until everything is written; see [`AccessLog::finish`].
    writing: Arc<Mutex<()>>,
}

impl AccessLog {
    /// Opens the log, appending to a file or writing to standard output, and starts its thread.
    ///
    /// # Errors
    /// The file can't be opened, or no thread can be had.
    pub fn start(path: Option<PathBuf>, format: Format, registry: &Registry) -> io::Result<Self> {
        let target = open(path.as_deref())?;
        let (lines, queue) = sync_channel(QUEUE);
        let help = "Lines of the access log that were dropped because it could not keep up.";
        let dropped = registry
            .counter(
                Owner::Process,
                "tidegate_access_log_dropped_total",
                help,
                &[],
            )
            .unwrap_or_default();
        let log = AccessLog {
            format,
            lines,
            dropped: dropped.clone(),
            reopen: Arc::default(),
            writing: Arc::default(),
        };
        let (reopen, writing) = (Arc::clone(&log.reopen), Arc::clone(&log.writing));
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || {
                write_lines(&queue, target, path.as_deref(), &reopen, &dropped, &writing)
            })?;
        Ok(log)
    }

    /// Opens the file anew before the next line, for whoever rotates it.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
    }

    /// Waits until what was logged so far is written, at most as long as given.
    pub fn finish(&self, patience: Duration) {
        let until = std::time::Instant::now() + patience;
        // An empty line is a mark that is not written; when the queue has taken as many marks as it holds lines, all
        // lines before are out. One mark and the lock do the same for a writer that is not stuck.
        while self.lines.try_send(String::new()).is_err() && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        while std::time::Instant::now() < until {
            if self.writing.try_lock().is_ok() {
                break;
            }
            std::thread::yield_now();
        }
    }

    pub(crate) fn write(&self, record: &Record<'_>) {
        let line = match self.format {
            Format::Json => record.json(),
            Format::Text => record.text(),
        };
        if self.lines.try_send(line).is_err() {
            self.dropped.increment();
        }
    }
}

fn open(path: Option<&Path>) -> io::Result<Box<dyn Write + Send>> {
    match path {
        None => Ok(Box::new(io::stdout())),
        Some(path) => Ok(Box::new(
            OpenOptions::new().create(true).append(true).open(path)?,
        )),
    }
}

fn write_lines(
    queue: &Receiver<String>,
    mut target: Box<dyn Write + Send>,
    path: Option<&Path>,
    reopen: &AtomicBool,
    dropped: &Counter,
    writing: &Mutex<()>,
) {
    while let Ok(first) = queue.recv() {
        let _held = writing.lock().unwrap_or_else(PoisonError::into_inner);
        if reopen.swap(false, Ordering::Relaxed) {
            match open(path) {
                Ok(opened) => target = opened,
                Err(error) => {
                    tracing::warn!(%error, "the access log can't be opened anew; the old file goes on")
                }
            }
        }
        let mut batch = first;
        let mut count = u64::from(!batch.is_empty());
        while batch.len() < 64 * 1024
            && let Ok(line) = queue.try_recv()
        {
            count += u64::from(!line.is_empty());
            batch.push_str(&line);
        }
        // A reader that has gone or a disk that is full must not end the thread: the lines are lost, and counted.
        if target
            .write_all(batch.as_bytes())
            .and_then(|()| target.flush())
            .is_err()
        {
            dropped.add(count);
        }
    }
}

/// What a line tells.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Record<'a> {
    pub(crate) time: String,
    pub(crate) client: String,
    pub(crate) method: &'a str,
    pub(crate) host: &'a str,
    pub(crate) target: &'a str,
    pub(crate) protocol: &'static str,
    pub(crate) status: u16,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) upstream_ms: Option<f64>,
    pub(crate) route: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<&'a str>,
    pub(crate) attempts: u32,
    /// The filter that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) answered_by: Option<&'a str>,
    /// Why the proxy answered itself, or what broke.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'a str>,
    pub(crate) request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) referer: Option<String>,
}

impl Record<'_> {
    fn json(&self) -> String {
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }

    fn text(&self) -> String {
        let dash = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), escaped);
        let mut line = String::with_capacity(256);
        // Writing to a string does not fail.
        let _ = writeln!(
            line,
            "{} - - [{}] \"{} {} {}\" {} {} \"{}\" \"{}\" {:.3} {} {} {} {}",
            self.client,
            self.time,
            escaped(self.method),
            escaped(self.target),
            self.protocol,
            self.status,
            self.response_bytes,
            dash(self.referer.as_deref()),
            dash(self.user_agent.as_deref()),
            self.duration_ms / 1000.0,
            dash(Some(self.route).filter(|route| !route.is_empty())),
            dash(self.endpoint),
            dash(self.reason.or(self.answered_by)),
            escaped(self.request_id),
        );
        line
    }
}

/// Text that can't end a line, a quoted string, or speak to a terminal.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || matches!(c, '"' | '\\' | '\u{2028}' | '\u{2029}') {
            let _ = write!(out, "\\x{:02x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// RFC 3339 in UTC with milliseconds, from nanoseconds since 1970.
pub(crate) fn rfc3339(nanoseconds: u64) -> String {
    i64::try_from(nanoseconds / 1_000_000)
        .ok()
        .and_then(|milliseconds| jiff::Timestamp::from_millisecond(milliseconds).ok())
        .map(|time| format!("{time:.3}"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record<'static> {
        Record {
            time: rfc3339(1_700_000_000_123_000_000),
            client: "192.0.2.1".to_owned(),
            method: "GET",
            host: "a",
            target: "/a\"b\\\u{1b}[31m",
            protocol: "HTTP/1.1",
            status: 200,
            request_bytes: 0,
            response_bytes: 5,
            duration_ms: 1.5,
            upstream_ms: None,
            route: "",
            upstream: None,
            endpoint: None,
            attempts: 0,
            answered_by: None,
            reason: None,
            request_id: "id",
            user_agent: Some("x\ny".to_owned()),
            referer: None,
        }
    }

    #[test]
    fn a_line_is_one_line_whatever_is_in_it() {
        let text = record().text();
        assert_eq!(text.lines().count(), 1);
        assert_eq!(
            text,
            "192.0.2.1 - - [2023-11-14T22:13:20.123Z] \"GET /a\\x22b\\x5c\\x1b[31m HTTP/1.1\" 200 5 \"-\" \"x\\x0ay\" \
             0.002 - - - id\n"
        );
        let json: serde_json::Value = serde_json::from_str(&record().json()).unwrap();
        assert_eq!(json["user-agent"], "x\ny");
        assert_eq!(record().json().lines().count(), 1);
    }

    #[test]
    fn lines_reach_the_file() {
        let folder = std::env::temp_dir().join(format!("tidegate-access-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("log");
        let log = AccessLog::start(Some(path.clone()), Format::Json, &Registry::new()).unwrap();
        for _ in 0..10 {
            log.write(&record());
        }
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while std::fs::read_to_string(&path).unwrap().lines().count() < 10 {
            assert!(std::time::Instant::now() < until, "the lines never came");
            std::thread::yield_now();
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
