//! Where log lines go: through a bounded queue to standard error, so that a slow reader never holds a worker up. Also
//! the sink of the filters' own lines. It must not know what is logged.

use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tidegate_core::metrics::{Counter, Owner, Registry};
use tidegate_core::services::{Level, LogSink};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::cli::{LogArgs, LogFormat};

/// Lines that may wait to be written. What comes when the queue is full is dropped and counted.
const QUEUE: usize = 8192;
/// The longest line of a filter, in bytes.
const MAX_FILTER_LINE: usize = 16 << 10;
/// How long the process's end may wait for the last lines.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Keeps the log open; when it is dropped, the lines that wait are written.
#[derive(Debug)]
pub(crate) struct Guard {
    queue: SyncSender<Item>,
}

/// Hands lines to the thread that writes them.
#[derive(Clone, Debug)]
struct Queue {
    sender: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Item {
    Line(Vec<u8>),
    /// Answered when everything before it has been written.
    Flush(SyncSender<()>),
}

/// One line while it is made.
struct Line {
    bytes: Vec<u8>,
    queue: Queue,
}

/// Starts logging.
///
/// # Errors
/// The thread that writes can't be started.
pub(crate) fn start(args: &LogArgs) -> io::Result<Guard> {
    let (sender, receiver) = sync_channel(QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&dropped);
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write_lines(&receiver, &count, &mut io::stderr()))?;
    let queue = Queue {
        sender: sender.clone(),
        dropped,
    };
    let terminal = io::stderr().is_terminal();
    let (filter, complaint) = filter(args);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(queue)
        .with_span_events(FmtSpan::NONE)
        .log_internal_errors(false);
    let json = match args.log_format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    if json {
        builder.json().flatten_event(true).init();
    } else {
        let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
        builder.with_ansi(colours).init();
    }
    if let Some(complaint) = complaint {
        tracing::warn!("{complaint}");
    }
    Ok(Guard { queue: sender })
}

/// Which lines are written: `--log-level`, else `RUST_LOG`, else those from `info` on.
fn filter(args: &LogArgs) -> (EnvFilter, Option<String>) {
    let default = || EnvFilter::new("info");
    let written = match &args.log_level {
        Some(level) => Some(level.clone()),
        None => std::env::var("RUST_LOG").ok().filter(|it| !it.is_empty()),
    };
    match written.as_deref().map(EnvFilter::try_new) {
        None => (default(), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => {
            let complaint = format!("RUST_LOG can't be used, `info` is in force: {error}");
            (default(), Some(complaint))
        }
    }
}

/// The figure of lines that were lost, once there are figures.
static FIGURE: OnceLock<Counter> = OnceLock::new();

/// Counts lines that are lost from now on among the figures.
pub(crate) fn count_in(registry: &Registry) {
    let help =
        "Lines of the log that were dropped because whoever takes them is too slow, gone or full.";
    let name = "tidegate_log_dropped_total";
    if let Ok(counter) = registry.counter(Owner::Process, name, help, &[]) {
        // There is one log, and one registry.
        let _ = FIGURE.set(counter);
    }
}

/// Takes note of a line that is lost, for the next one that is written to tell.
fn lost(dropped: &AtomicU64) {
    dropped.fetch_add(1, Ordering::Relaxed);
    if let Some(figure) = FIGURE.get() {
        figure.increment();
    }
}

/// Writes until every sender is gone. A reader that went away, or a disk that is full, is no reason to end: there may be
/// another one, or room.
fn write_lines(lines: &Receiver<Item>, dropped: &AtomicU64, out: &mut impl Write) {
    while let Ok(item) = lines.recv() {
        let untold = dropped.swap(0, Ordering::Relaxed);
        if untold > 0 {
            let told = writeln!(
                out,
                "{{\"level\":\"WARN\",\"message\":\"log lines were dropped\",\"count\":{untold}}}"
            );
            if told.is_err() {
                dropped.fetch_add(untold, Ordering::Relaxed);
            }
        }
        match item {
            Item::Line(line) => {
                if out.write_all(&line).is_err() {
                    lost(dropped);
                }
            }
            Item::Flush(done) => {
                let _ = out.flush();
                let _ = done.try_send(());
            }
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (done, wait) = sync_channel(1);
        // A full queue is tried again: whoever reads may have been slow.
        let mut item = Item::Flush(done);
        for _ in 0..10 {
            match self.queue.try_send(item) {
                Ok(()) => {
                    let _: Result<(), RecvTimeoutError> = wait.recv_timeout(LAST_WAIT);
                    return;
                }
                Err(std::sync::mpsc::TrySendError::Full(back)) => {
                    item = back;
                    thread::park_timeout(LAST_WAIT / 10);
                }
                Err(std::sync::mpsc::TrySendError::Disconnected(_)) => return,
            }
        }
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line {
            bytes: Vec::with_capacity(256),
            queue: self.clone(),
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let line = std::mem::take(&mut self.bytes);
        if !line.is_empty() && self.queue.sender.try_send(Item::Line(line)).is_err() {
            lost(&self.queue.dropped);
        }
    }
}

/// Takes the filters' lines; they have the target `filter`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GuestLog;

impl LogSink for GuestLog {
    fn enabled(&self, level: Level) -> bool {
        match level {
            Level::Error => tracing::enabled!(target: "filter", tracing::Level::ERROR),
            Level::Warn => tracing::enabled!(target: "filter", tracing::Level::WARN),
            Level::Info => tracing::enabled!(target: "filter", tracing::Level::INFO),
            Level::Debug => tracing::enabled!(target: "filter", tracing::Level::DEBUG),
            Level::Trace => tracing::enabled!(target: "filter", tracing::Level::TRACE),
        }
    }

    fn write(&self, level: Level, filter: &str, request_id: Option<&str>, message: &str) {
        let message = plain(message);
        match level {
            Level::Error => tracing::error!(target: "filter", filter, request_id, "{message}"),
            Level::Warn => tracing::warn!(target: "filter", filter, request_id, "{message}"),
            Level::Info => tracing::info!(target: "filter", filter, request_id, "{message}"),
            Level::Debug => tracing::debug!(target: "filter", filter, request_id, "{message}"),
            Level::Trace => tracing::trace!(target: "filter", filter, request_id, "{message}"),
        }
    }
}

/// A filter's line as one line: control characters escaped, and cut at a bound.
fn plain(message: &str) -> String {
    let mut out = String::with_capacity(message.len().min(MAX_FILTER_LINE));
    for char in message.chars() {
        if out.len() >= MAX_FILTER_LINE {
            out.push_str("...");
            break;
        }
        if char.is_control() {
            out.extend(char.escape_default());
        } else {
            out.push(char);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filters_line_is_one_line_and_bounded() {
        assert_eq!(
            plain("a\r\nb\u{1b}[2J\u{9b}é"),
            "a\\r\\nb\\u{1b}[2J\\u{9b}é"
        );
        assert!(plain(&"x".repeat(MAX_FILTER_LINE * 2)).len() <= MAX_FILTER_LINE + 3);
    }

    #[test]
    fn a_full_queue_drops_lines_and_counts_them() {
        let (sender, receiver) = sync_channel(2);
        let queue = Queue {
            sender,
            dropped: Arc::new(AtomicU64::new(0)),
        };
        for text in ["a\n", "b\n", "c\n", "d\n"] {
            queue.make_writer().write_all(text.as_bytes()).unwrap();
        }
        let dropped = Arc::clone(&queue.dropped);
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
        drop(queue);
        let mut out = Vec::new();
        write_lines(&receiver, &dropped, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("\"count\":2}\na\nb\n"), "{text}");
    }

    /// A pipe whose reader is gone until somebody else reads.
    struct Broken {
        failures: usize,
        written: Vec<u8>,
    }

    impl Write for Broken {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.failures > 0 {
                self.failures -= 1;
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.written.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_is_gone_costs_lines_which_the_next_one_is_told_of() {
        let (sender, receiver) = sync_channel(8);
        for text in ["a\n", "b\n", "c\n"] {
            sender.send(Item::Line(text.into())).unwrap();
        }
        drop(sender);
        // The first line, then telling of it, and the second.
        let mut out = Broken {
            failures: 3,
            written: Vec::new(),
        };
        let dropped = AtomicU64::new(0);
        write_lines(&receiver, &dropped, &mut out);
        let text = String::from_utf8(out.written).unwrap();
        assert!(text.ends_with("\"count\":2}\nc\n"), "{text}");
    }
}
