//! The real binary as a child process, in a folder of its own: configured, started, waited for, asked, and ended
//! by its id. When a test fails, it prints what the proxy said.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use http::Request;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Body, Client, Reply, get};
use crate::guests;
use crate::upstream::Upstream;
use crate::wait::{eventually, until, within};
use crate::wire::Wire;

/// How long a filter's call may take by the clock in tests that are not about that: a machine that runs many tests at a
/// time may let a thread wait for longer than the ordinary 200 ms.
const FILTER_WALL_TIME: &str = "30s";

/// What a gateway is started with: a folder with a configuration and plugins.
#[derive(Debug)]
pub struct Setup {
    folder: TempDir,
    server: String,
    rest: String,
    listen: bool,
    workers: usize,
    environment: Vec<(String, String)>,
    beforehand: Option<String>,
    own_mounts: bool,
}

/// A command that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// What `exit` was told; none after a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A running proxy.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    folder: TempDir,
    stderr: Lines,
    stdout: Lines,
    http: Option<SocketAddr>,
    https: Option<SocketAddr>,
    admin: SocketAddr,
}

/// What a child wrote so far, read by a thread of its own so that the child never waits for a test.
#[derive(Debug)]
struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup {
    /// An empty plugins folder, one worker, and ports that the kernel chooses.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("tidegate-test-")
            .tempdir()
            .unwrap();
        std::fs::create_dir(folder.path().join("plugins")).unwrap();
        Setup {
            folder,
            server: String::new(),
            rest: String::new(),
            listen: true,
            workers: 1,
            environment: Vec::new(),
            beforehand: None,
            own_mounts: false,
        }
    }

    /// One route for everything to one upstream, called `main`.
    pub fn before(upstream: &Upstream) -> Self {
        Self::with_upstream("main", &upstream.url()).toml("[[route]]\nupstream = \"main\"")
    }

    /// One upstream and no route yet.
    pub fn with_upstream(name: &str, url: &str) -> Self {
        Self::new().upstream(name, url)
    }

    /// One upstream more.
    #[must_use]
    pub fn upstream(self, name: &str, url: &str) -> Self {
        self.toml(&format!("[upstream.{name}]\nendpoints = [\"{url}\"]"))
    }

    /// One route more, with filters.
    #[must_use]
    pub fn route(self, path: &str, upstream: &str, filters: &[&str]) -> Self {
        self.toml(&format!(
            "[[route]]\npath = \"{path}\"\nupstream = \"{upstream}\"\nfilters = {filters:?}"
        ))
    }

    /// Whole tables of the configuration.
    #[must_use]
    pub fn toml(mut self, text: &str) -> Self {
        writeln!(self.rest, "\n{text}").unwrap();
        self
    }

    /// Keys of `[server]`.
    #[must_use]
    pub fn server(mut self, text: &str) -> Self {
        writeln!(self.server, "{text}").unwrap();
        self
    }

    /// No listener in the clear; the test adds its own.
    #[must_use]
    pub fn without_listener(mut self) -> Self {
        self.listen = false;
        self
    }

    /// So many workers.
    #[must_use]
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = count;
        self
    }

    /// A variable of the proxy's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A shell script to run before the proxy and as the same process: to lower its limits, or to close what it inherits.
    #[must_use]
    pub fn beforehand(mut self, script: &str) -> Self {
        self.beforehand = Some(script.to_owned());
        self
    }

    /// As [`Setup::beforehand`], with mounts of its own, so that the script may put something over `/etc/hosts` or fill a
    /// small file system. None: this system lets nobody do that, and the test has to pass it over.
    pub fn with_own_mounts(mut self, script: &str) -> Option<Self> {
        let mut trial = Command::new("unshare");
        trial.args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"]);
        let allowed = trial.stderr(Stdio::null()).status();
        if !allowed.is_ok_and(|status| status.success()) {
            eprintln!("passed over: mounts of one's own are not allowed here");
            return None;
        }
        self.own_mounts = true;
        Some(self.beforehand(script))
    }

    /// A file beside the configuration; `plugins/...` for the folder that is watched.
    #[must_use]
    pub fn file(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        self
    }

    /// A filter in the plugins folder: `plugins/NAME.wasm`.
    #[must_use]
    pub fn filter(self, name: &str, wasm: impl AsRef<[u8]>) -> Self {
        self.file(&format!("plugins/{name}.wasm"), wasm)
    }

    /// Where everything lies.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration as it will be written.
    pub fn configuration(&self) -> String {
        let listen = if self.listen {
            "listen = [\"127.0.0.1:0\"]\n"
        } else {
            ""
        };
        format!(
            "[server]\n{listen}admin = \"127.0.0.1:0\"\nworkers = {}\nfilter-defaults.limits.wall-time = \"{FILTER_WALL_TIME}\"\n{}{}",
            self.workers, self.server, self.rest
        )
    }

    /// Starts the proxy and waits until it is ready.
    ///
    /// # Panics
    /// If it ends, or does not become ready in time.
    pub async fn start(self) -> Gateway {
        let text = self.configuration();
        std::fs::write(self.folder.path().join("tidegate.toml"), &text).unwrap();
        let secure = text.contains("[[server.tls]]");
        let mut command = self.command(&["run", "--config", "tidegate.toml"]);
        Gateway::launch(&mut command, self.folder, self.listen, secure).await
    }

    /// Runs `tidegate` with these arguments and no configuration of the harness's.
    pub async fn start_with(self, arguments: &[&str]) -> Gateway {
        let mut command = self.command(arguments);
        Gateway::launch(&mut command, self.folder, true, false).await
    }

    /// Starts the proxy and waits until it has ended by itself.
    pub async fn fail_to_start(&self) -> Finished {
        let text = self.configuration();
        std::fs::write(self.folder.path().join("tidegate.toml"), text).unwrap();
        self.run(&["run", "--config", "tidegate.toml"]).await
    }

    /// Runs `tidegate check` on the configuration.
    pub async fn check(&self) -> Finished {
        let text = self.configuration();
        std::fs::write(self.folder.path().join("tidegate.toml"), text).unwrap();
        self.run(&["check", "--config", "tidegate.toml"]).await
    }

    /// Runs any command of the binary to its end, in the folder.
    pub async fn run(&self, arguments: &[&str]) -> Finished {
        let mut command = tokio::process::Command::from(self.command(arguments));
        command.kill_on_drop(true);
        let what = format!("`tidegate {}` to end", arguments.join(" "));
        let output = within(&what, command.output()).await.unwrap();
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.beforehand {
            None => Command::new(binary()),
            Some(script) => {
                let mut shell = if self.own_mounts {
                    let mut unshare = Command::new("unshare");
                    unshare.args(["-rm", "sh"]);
                    unshare
                } else {
                    Command::new("sh")
                };
                shell
                    .arg("-c")
                    .arg(format!("set -e\n{script}\nexec \"$0\" \"$@\""))
                    .arg(binary());
                shell
            }
        };
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_remove("RUST_LOG")
            // The compile cache goes where no other test's goes.
            .env("HOME", self.folder.path())
            .env("XDG_CACHE_HOME", self.folder.path().join("cache"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

impl Finished {
    /// Everything that it said.
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl Gateway {
    async fn launch(command: &mut Command, folder: TempDir, http: bool, https: bool) -> Self {
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("can't start {:?}: {error}", command.get_program()));
        let stderr = Lines::of(child.stderr.take().unwrap());
        let stdout = Lines::of(child.stdout.take().unwrap());
        let mut gateway = Gateway {
            child,
            folder,
            stderr,
            stdout,
            http: None,
            https: None,
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        gateway.admin = gateway.listening("admin").await;
        if http {
            gateway.http = Some(gateway.listening("http").await);
        }
        if https {
            gateway.https = Some(gateway.listening("https").await);
        }
        gateway.wait_until_ready().await;
        gateway
    }

    /// Waits until the log tells where something listens.
    async fn listening(&mut self, kind: &str) -> SocketAddr {
        eventually(&format!("the {kind} listener"), async || {
            assert!(self.ended().is_none(), "the proxy ended");
            self.addresses(kind).first().copied()
        })
        .await
    }

    async fn wait_until_ready(&mut self) {
        until("the proxy to be ready", async || {
            assert!(self.ended().is_none(), "the proxy ended");
            self.admin("/readyz").await.status == 200
        })
        .await;
    }

    /// Every address of a kind (`http`, `https`, `admin`) that the log names, in order.
    pub fn addresses(&self, kind: &str) -> Vec<SocketAddr> {
        self.log()
            .iter()
            .filter(|line| line.says("listening") && line.field("kind") == Some(kind))
            .map(|line| line.field("address").unwrap().parse().unwrap())
            .collect()
    }

    /// Where HTTP in the clear is served.
    pub fn http(&self) -> SocketAddr {
        self.http.expect("a listener in the clear")
    }

    /// Where TLS is served.
    pub fn https(&self) -> SocketAddr {
        self.https.expect("a TLS listener")
    }

    /// Where admin is served.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Where configuration and plugins lie.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file of the plugins folder.
    pub fn plugin_file(&self, name: &str) -> PathBuf {
        self.folder.path().join("plugins").join(name)
    }

    /// The child's process id.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// How much memory the proxy holds, in KiB.
    pub fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number.unwrap().parse().unwrap()
    }

    /// The processes that the proxy has started and that still run.
    pub fn children(&self) -> Vec<Pid> {
        let own = self.child.id();
        let threads = std::fs::read_dir(format!("/proc/{own}/task")).unwrap();
        let children = threads.filter_map(Result::ok).filter_map(|thread| {
            // A thread that has ended meanwhile has none.
            std::fs::read_to_string(thread.path().join("children")).ok()
        });
        let numbers: Vec<i32> = children
            .flat_map(|text| {
                let numbers = text.split_whitespace();
                numbers.map(|it| it.parse().unwrap()).collect::<Vec<i32>>()
            })
            .collect();
        numbers.into_iter().filter_map(Pid::from_raw).collect()
    }

    /// How much of the processor the proxy has used so far.
    pub fn processor(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(path).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        // User and system time, in hundredths of a second.
        let ticks = fields.split_whitespace().skip(11).take(2);
        Duration::from_millis(ticks.map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum())
    }

    /// How many files and sockets the proxy has open.
    pub fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(path).unwrap().count()
    }

    // --- Asking it ---

    /// Sends one request on a connection of its own.
    pub async fn send(&self, request: Request<Body>) -> Reply {
        self.http1().await.send(request).await
    }

    /// Sends one GET on a connection of its own.
    pub async fn get(&self, target: &str) -> Reply {
        self.send(get(target)).await
    }

    /// An HTTP/1.1 connection.
    pub async fn http1(&self) -> Client {
        Client::http1(self.http()).await
    }

    /// An HTTP/2 connection with prior knowledge.
    pub async fn http2(&self) -> Client {
        Client::http2(self.http()).await
    }

    /// A plain connection.
    pub async fn wire(&self) -> Wire {
        Wire::connect(self.http()).await
    }

    /// What admin says.
    pub async fn admin(&self, target: &str) -> Reply {
        Client::http1(self.admin).await.send(get(target)).await
    }

    /// What `/plugins` says of one filter; null if it does not know it.
    pub async fn plugin(&self, name: &str) -> Value {
        let listed = self.admin("/plugins").await.json();
        let entries = listed.get("plugins").unwrap_or(&listed);
        let mut entries = entries.as_array().expect("a list of plugins").iter();
        entries
            .find(|entry| entry["name"] == name)
            .cloned()
            .unwrap_or_default()
    }

    /// The sum of a figure's series that have all of these labels; 0 if there is none.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let text = self.admin("/metrics").await.text();
        sum_of(&text, name, labels)
    }

    // --- What it says ---

    /// Its log so far.
    pub fn log(&self) -> Vec<LogLine> {
        let lines = self.stderr.lines.lock().unwrap();
        lines.iter().map(|line| LogLine::parse(line)).collect()
    }

    /// Waits for a line of the log of which some text, in message or fields, has all of these parts.
    pub async fn logged(&self, parts: &[&str]) -> LogLine {
        eventually(&format!("a log line with {parts:?}"), async || {
            self.log()
                .into_iter()
                .find(|line| parts.iter().all(|part| line.text.contains(part)))
        })
        .await
    }

    /// What it wrote to standard output so far.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.lines.lock().unwrap().clone()
    }

    // --- Its life ---

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let process = Pid::from_child(&self.child);
        kill_process(process, signal).unwrap();
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until it has ended by itself.
    pub async fn end(&mut self) -> ExitStatus {
        eventually("the proxy's end", async || self.ended()).await
    }

    /// Ends it and gives its folder, to start another one there.
    pub async fn stop(mut self) -> Setup {
        self.signal(Signal::TERM);
        self.end().await;
        let empty = TempDir::new().unwrap();
        Setup {
            folder: std::mem::replace(&mut self.folder, empty),
            ..Setup::new()
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Without effect on a child that has ended, whose id it still holds.
        let _ended_already = self.child.kill();
        let _same = self.child.wait();
        self.stderr.join();
        self.stdout.join();
        if std::thread::panicking() {
            eprintln!("--- the proxy's log, in {}", self.folder.path().display());
            for line in self.stderr.lines.lock().unwrap().iter() {
                eprintln!("{line}");
            }
        }
    }
}

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n') {
                let Ok(line) = line else { return };
                let line = String::from_utf8_lossy(&line).into_owned();
                shared.lock().unwrap().push(line);
            }
        });
        Lines {
            lines,
            reader: Some(reader),
        }
    }

    fn join(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _it_never_panics = reader.join();
        }
    }
}

/// One line of the proxy's log.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// As it was written.
    pub text: String,
    json: Value,
}

impl LogLine {
    fn parse(text: &str) -> Self {
        LogLine {
            text: text.to_owned(),
            json: serde_json::from_str(text).unwrap_or_default(),
        }
    }

    /// A field that is text, wherever the format puts it.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.json["fields"][name]
            .as_str()
            .or_else(|| self.json[name].as_str())
    }

    /// A field that is a number, wherever the format puts it.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.json["fields"][name]
            .as_u64()
            .or_else(|| self.json[name].as_u64())
    }

    /// Whether the message is this.
    pub fn says(&self, message: &str) -> bool {
        self.field("message") == Some(message)
    }

    /// Whether it is JSON, as it should be when nobody reads it on a terminal.
    pub fn is_json(&self) -> bool {
        self.json.is_object()
    }
}

/// The sum of a figure's series, in Prometheus' text form, that have all of these labels.
pub fn sum_of(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(series, _)| {
            let (found, rest) = series.split_once('{').unwrap_or((series, ""));
            found == name
                && labels
                    .iter()
                    .all(|(label, value)| rest.contains(&format!("{label}=\"{value}\"")))
        })
        .map(|(_, value)| value.parse::<f64>().unwrap())
        .sum()
}

/// The binary that the tests run.
pub fn binary() -> PathBuf {
    let path = guests::target().join("debug/tidegate");
    assert!(
        path.is_file(),
        "there is no {}: run `cargo xtask test`",
        path.display()
    );
    path
}
