//! One line for each exchange, written by a thread of its own behind a bounded queue: a worker never waits for a disk or a
//! pipe. What does not fit is dropped and counted. Every line is one line, whatever a client put into it.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use http::Version;
use tidegate_core::metrics::{Counter, Owner, Registry};

/// Lines that may wait to be written.
const QUEUE: usize = 8192;
/// Bytes that are written at a time.
const BATCH: usize = 64 * 1024;

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
    queue: SyncSender<Item>,
    dropped: Counter,
    reopen: Arc<AtomicBool>,
}

/// What waits to be written.
#[derive(Debug)]
enum Item {
    Line(String),
    /// Told when everything before it is written.
    Mark(SyncSender<()>),
}

impl AccessLog {
    /// Opens the log, appending to a file or writing to standard output, and starts its thread.
    ///
    /// # Errors
    /// The file can't be opened, or no thread can be had.
    pub fn start(path: Option<PathBuf>, format: Format, registry: &Registry) -> io::Result<Self> {
        let target = open(path.as_deref())?;
        let (queue, items) = sync_channel(QUEUE);
        let help = "Lines of the access log that were dropped because it could not keep up.";
        let name = "tidegate_access_log_dropped_total";
        let dropped = registry
            .counter(Owner::Process, name, help, &[])
            .unwrap_or_default();
        let log = AccessLog {
            format,
            queue,
            dropped: dropped.clone(),
            reopen: Arc::default(),
        };
        let mut writer = Writer {
            target,
            path,
            reopen: Arc::clone(&log.reopen),
            dropped,
        };
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.run(&items))?;
        Ok(log)
    }

    /// Opens the file anew before the next line, for whoever rotates it.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
    }

    /// Waits until what was logged so far is written, at most as long as given.
    pub fn finish(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let (mark, written) = sync_channel(1);
        let mut item = Item::Mark(mark);
        while let Err(TrySendError::Full(back)) = self.queue.try_send(item) {
            if Instant::now() >= until {
                return;
            }
            item = back;
            std::thread::sleep(Duration::from_millis(1));
        }
        // A writer that is stuck is not waited for any longer.
        let _ = written.recv_timeout(until.saturating_duration_since(Instant::now()));
    }

    pub(crate) fn write(&self, record: &Record<'_>) {
        let line = match self.format {
            Format::Json => record.json(),
            Format::Text => record.text(),
        };
        if self.queue.try_send(Item::Line(line)).is_err() {
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

/// The log's other end, on a thread of its own.
struct Writer {
    target: Box<dyn Write + Send>,
    path: Option<PathBuf>,
    reopen: Arc<AtomicBool>,
    dropped: Counter,
}

impl Writer {
    /// Writes until nobody can send lines any more.
    fn run(&mut self, items: &Receiver<Item>) {
        let mut batch = String::new();
        while let Ok(first) = items.recv() {
            let mut lines = 0;
            let mut marks = Vec::new();
            let mut next = Some(first);
            while let Some(item) = next {
                match item {
                    Item::Line(line) => {
                        batch.push_str(&line);
                        lines += 1;
                    }
                    Item::Mark(mark) => marks.push(mark),
                }
                next = (batch.len() < BATCH)
                    .then(|| items.try_recv().ok())
                    .flatten();
            }
            self.write(&batch, lines);
            batch.clear();
            for mark in marks {
                // Whoever waited may have given up.
                let _ = mark.try_send(());
            }
        }
    }

    fn write(&mut self, batch: &str, lines: u64) {
        if self.reopen.swap(false, Ordering::Relaxed) {
            match open(self.path.as_deref()) {
                Ok(opened) => self.target = opened,
                Err(error) => {
                    tracing::warn!(%error, "the access log can't be opened anew; the old file goes on");
                }
            }
        }
        let written = self
            .target
            .write_all(batch.as_bytes())
            .and_then(|()| self.target.flush());
        // A reader that has gone or a disk that is full must not end the thread: the lines are lost, and counted.
        if written.is_err() {
            self.dropped.add(lines);
        }
    }
}

/// What a line tells. Text that a client can choose is bytes: it need not be UTF-8.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    /// Nanoseconds since 1970.
    pub(crate) time: u64,
    pub(crate) client: IpAddr,
    pub(crate) method: &'a str,
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) version: Version,
    pub(crate) status: u16,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) duration: Duration,
    /// Until the upstream's response began.
    pub(crate) upstream_duration: Option<Duration>,
    pub(crate) route: &'a str,
    pub(crate) upstream: Option<&'a str>,
    pub(crate) endpoint: Option<&'a str>,
    pub(crate) attempts: u32,
    /// The filter that answered.
    pub(crate) answered_by: Option<&'a str>,
    /// Why the proxy answered itself, or what broke.
    pub(crate) reason: Option<&'a str>,
    pub(crate) request_id: &'a [u8],
    pub(crate) user_agent: Option<&'a [u8]>,
    pub(crate) referer: Option<&'a [u8]>,
}

impl Record<'_> {
    fn json(&self) -> String {
        let mut line = Line(String::with_capacity(640));
        // Writing to a string does not fail.
        let _ = write!(
            line.0,
            "{{\"time\":\"{}\",\"client\":\"{}\",\"protocol\":\"{}\",\"status\":{},\"request-bytes\":{},\
             \"response-bytes\":{},\"duration-ms\":{},\"attempts\":{}",
            rfc3339(self.time),
            self.client,
            protocol(self.version),
            self.status,
            self.request_bytes,
            self.response_bytes,
            milliseconds(self.duration),
            self.attempts,
        );
        if let Some(took) = self.upstream_duration {
            let _ = write!(line.0, ",\"upstream-ms\":{}", milliseconds(took));
        }
        line.member("method", Some(self.method.as_bytes()));
        line.member("host", Some(self.host.as_bytes()));
        line.0.push_str(",\"target\":\"");
        self.target(&mut line, json_escape);
        line.0.push('"');
        line.member("route", Some(self.route.as_bytes()));
        line.member("upstream", self.upstream.map(str::as_bytes));
        line.member("endpoint", self.endpoint.map(str::as_bytes));
        line.member("answered-by", self.answered_by.map(str::as_bytes));
        line.member("reason", self.reason.map(str::as_bytes));
        line.member("request-id", Some(self.request_id));
        line.member("user-agent", self.user_agent);
        line.member("referer", self.referer);
        line.0.push_str("}\n");
        line.0
    }

    fn text(&self) -> String {
        let mut line = Line(String::with_capacity(320));
        let seconds = seconds(self.duration);
        let _ = write!(line.0, "{} - - [{}] \"", self.client, rfc3339(self.time));
        line.escaped(self.method.as_bytes(), text_escape);
        line.0.push(' ');
        self.target(&mut line, text_escape);
        let (protocol, status, bytes) = (protocol(self.version), self.status, self.response_bytes);
        let _ = write!(line.0, " {protocol}\" {status} {bytes} \"");
        line.or_dash(self.referer);
        line.0.push_str("\" \"");
        line.or_dash(self.user_agent);
        let _ = write!(line.0, "\" {seconds} ");
        let cause = self.reason.or(self.answered_by);
        let rest = [
            Some(self.route).filter(|route| !route.is_empty()),
            self.endpoint,
            cause,
        ];
        for word in rest {
            line.or_dash(word.map(str::as_bytes));
            line.0.push(' ');
        }
        line.escaped(self.request_id, text_escape);
        line.0.push('\n');
        line.0
    }

    fn target(&self, line: &mut Line, escape: Escape) {
        line.escaped(self.path.as_bytes(), escape);
        if let Some(query) = self.query {
            line.0.push('?');
            line.escaped(query.as_bytes(), escape);
        }
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// A number with three digits behind the point, from thousandths.
struct Thousandths(u128);

impl fmt::Display for Thousandths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

fn milliseconds(duration: Duration) -> Thousandths {
    Thousandths(duration.as_micros())
}

fn seconds(duration: Duration) -> Thousandths {
    Thousandths(duration.as_millis())
}

/// How a character is written that can't stand as it is.
type Escape = fn(&mut String, char);

/// As JSON has it (RFC 8259 section 7).
fn json_escape(out: &mut String, c: char) {
    let _ = match c {
        '"' | '\\' => write!(out, "\\{c}"),
        c => write!(out, "\\u{:04x}", u32::from(c)),
    };
}

/// As nginx has it.
fn text_escape(out: &mut String, c: char) {
    let _ = write!(out, "\\x{:02x}", u32::from(c));
}

/// A line as it grows.
struct Line(String);

impl Line {
    /// Adds text in which nothing can end a line or a quoted string, or speak to a terminal. What is no UTF-8 becomes
    /// U+FFFD.
    fn escaped(&mut self, bytes: &[u8], escape: Escape) {
        let plain = |byte: &u8| (b' '..=b'~').contains(byte) && !matches!(byte, b'"' | b'\\');
        if bytes.iter().all(plain)
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            self.0.push_str(text);
            return;
        }
        for c in String::from_utf8_lossy(bytes).chars() {
            if c.is_control() || matches!(c, '"' | '\\' | '\u{2028}' | '\u{2029}') {
                escape(&mut self.0, c);
            } else {
                self.0.push(c);
            }
        }
    }

    fn or_dash(&mut self, bytes: Option<&[u8]>) {
        self.escaped(bytes.unwrap_or(b"-"), text_escape);
    }

    /// Adds a member to a JSON object, if there is a value.
    fn member(&mut self, name: &str, value: Option<&[u8]>) {
        let Some(value) = value else { return };
        for text in [",\"", name, "\":\""] {
            self.0.push_str(text);
        }
        self.escaped(value, json_escape);
        self.0.push('"');
    }
}

/// RFC 3339 in UTC with milliseconds, from nanoseconds since 1970. All but the milliseconds is made once a second.
fn rfc3339(nanoseconds: u64) -> String {
    thread_local! {
        static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    let (second, rest) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    SECOND.with_borrow_mut(|(made, text)| {
        if *made != second {
            let time = i64::try_from(second)
                .ok()
                .and_then(|second| jiff::Timestamp::from_second(second).ok());
            *text = time.map(|time| format!("{time:.0}")).unwrap_or_default();
            text.truncate(text.len().saturating_sub(1));
            *made = second;
        }
        format!("{text}.{:03}Z", rest / 1_000_000)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record<'static> {
        Record {
            time: 1_700_000_000_123_000_000,
            client: IpAddr::from([192, 0, 2, 1]),
            method: "GET",
            host: "a",
            path: "/a\"b\\\u{1b}[31m",
            query: Some("q=1"),
            version: Version::HTTP_11,
            status: 200,
            request_bytes: 0,
            response_bytes: 5,
            duration: Duration::from_micros(1500),
            upstream_duration: None,
            route: "",
            upstream: None,
            endpoint: None,
            attempts: 0,
            answered_by: None,
            reason: None,
            request_id: b"id",
            user_agent: Some(b"x\ny\xff\x7f\xc2\x9b"),
            referer: None,
        }
    }

    #[test]
    fn a_line_is_one_line_whatever_is_in_it() {
        let text = record().text();
        assert_eq!(
            text,
            "192.0.2.1 - - [2023-11-14T22:13:20.123Z] \"GET /a\\x22b\\x5c\\x1b[31m?q=1 HTTP/1.1\" 200 5 \"-\" \
             \"x\\x0ay\u{fffd}\\x7f\\x9b\" 0.001 - - - id\n"
        );
        let line = record().json();
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["user-agent"], "x\ny\u{fffd}\u{7f}\u{9b}");
        assert_eq!(json["target"], "/a\"b\\\u{1b}[31m?q=1");
        assert_eq!(json["time"], "2023-11-14T22:13:20.123Z");
        assert_eq!(json["duration-ms"], 1.5);
        assert_eq!(json.get("reason"), None);
        for line in [text, line] {
            let line = line.strip_suffix('\n').unwrap();
            assert!(!line.chars().any(char::is_control), "{line:?}");
        }
    }

    #[test]
    fn every_byte_makes_valid_json() {
        let all: Vec<u8> = (0..=255).collect();
        for piece in all.chunks(7).chain([&all[..]]) {
            let record = Record {
                user_agent: Some(piece),
                ..record()
            };
            let json: serde_json::Value = serde_json::from_str(&record.json()).unwrap();
            assert_eq!(json["user-agent"], *String::from_utf8_lossy(piece));
        }
    }

    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("tidegate-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn what_was_logged_is_written_when_it_is_finished() {
        let folder = scratch("log-finish");
        let path = folder.join("log");
        let log = AccessLog::start(Some(path.clone()), Format::Json, &Registry::new()).unwrap();
        for round in 1..=20 {
            for _ in 0..100 {
                log.write(&record());
            }
            log.finish(Duration::from_secs(10));
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text.lines().count(), round * 100);
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew() {
        let folder = scratch("log-reopen");
        let (path, moved) = (folder.join("log"), folder.join("log.1"));
        let log = AccessLog::start(Some(path.clone()), Format::Text, &Registry::new()).unwrap();
        log.write(&record());
        log.finish(Duration::from_secs(10));
        std::fs::rename(&path, &moved).unwrap();
        log.reopen();
        log.write(&record());
        log.finish(Duration::from_secs(10));
        for file in [&path, &moved] {
            assert_eq!(std::fs::read_to_string(file).unwrap().lines().count(), 1);
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_sink_that_breaks_costs_lines_and_nothing_else() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let dropped = Counter::default();
        let mut writer = Writer {
            target: Box::new(Broken),
            path: None,
            reopen: Arc::default(),
            dropped: dropped.clone(),
        };
        let (queue, items) = sync_channel(10);
        for _ in 0..3 {
            queue.send(Item::Line("line\n".to_owned())).unwrap();
        }
        drop(queue);
        writer.run(&items);
        assert_eq!(dropped.get(), 3);
    }

    #[test]
    fn time_is_written_as_it_passes() {
        for (nanoseconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_700_000_000_999_999_999, "2023-11-14T22:13:20.999Z"),
            (1_700_000_001_000_000_000, "2023-11-14T22:13:21.000Z"),
        ] {
            assert_eq!(rfc3339(nanoseconds), text);
        }
    }
}
