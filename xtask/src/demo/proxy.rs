//! The real proxy as a child process: started, waited for, ended by its id, and never left behind.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::client::get_once;

/// How long the proxy may take to compile its filters and open its ports, and to end when told to.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running proxy.
#[derive(Debug)]
pub(super) struct Proxy {
    child: Child,
    pub(super) listen: SocketAddr,
    pub(super) admin: SocketAddr,
    /// Where its log goes.
    pub(super) log: PathBuf,
}

impl Proxy {
    /// Starts the proxy in `folder` and waits until it says that it is ready.
    pub(super) fn start(
        binary: &Path,
        configuration: &Path,
        folder: &Path,
        listen: SocketAddr,
        admin: SocketAddr,
    ) -> Result<Self> {
        let log = folder.join("proxy.log");
        let file = File::create(&log).with_context(|| format!("can't write {}", log.display()))?;
        let child = Command::new(binary)
            .arg("run")
            .arg("--config")
            .arg(configuration)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("can't start {}", binary.display()))?;
        let mut proxy = Self {
            child,
            listen,
            admin,
            log,
        };
        proxy.wait_until_ready()?;
        Ok(proxy)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if get_once(self.admin, "/readyz", &[]).is_ok_and(|response| response.status == 200) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "the proxy ended with {status}; it said: {}",
                    self.last_words()
                );
            }
            if Instant::now() > deadline {
                bail!(
                    "the proxy is not ready after {} s; it said: {}",
                    PATIENCE.as_secs(),
                    self.last_words()
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The end of its log.
    pub(super) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(30);
        lines.get(from..).unwrap_or_default().join("\n")
    }

    /// Lets the proxy drain and end. Says whether it did so in good order.
    pub(super) fn stop(&mut self) -> Result<bool> {
        // The standard library knows no other signal than the one that can't be answered.
        let ask = format!("kill -TERM {}", self.child.id());
        Command::new("sh").args(["-c", &ask]).status()?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.success());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(false)
    }

    /// Keeps the proxy up until Ctrl-C or another end by request. Says whether that is why it ended.
    pub(super) fn wait_for_signal(&mut self) -> Result<bool> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGCHLD])?;
        // The child may have gone before its signal was listened for.
        while self.child.try_wait()?.is_none() {
            if signals.wait().any(|signal| signal != SIGCHLD) {
                return self.stop();
            }
        }
        eprintln!("the proxy ended by itself; it said: {}", self.last_words());
        Ok(false)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Without effect on a child that has ended, whose id it still holds.
        let _ended_already = self.child.kill();
        let _same = self.child.wait();
    }
}

/// A local address for the proxy: `wish` as the port, or any free one if that is taken.
pub(super) fn free_address(wish: u16) -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", wish))
        .or_else(|_taken| TcpListener::bind(("127.0.0.1", 0)))
        .context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_replaced_by_a_free_one() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let address = free_address(port).unwrap();
        assert_ne!(address.port(), port);
    }

    #[test]
    fn a_proxy_that_ends_at_once_is_reported_with_its_words() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("proxy");
        std::fs::write(&script, "echo no such upstream; exit 1").unwrap();
        let address = free_address(0).unwrap();
        // `sh run --config script`: a shell that is given a file named `run` and finds it.
        std::fs::copy(&script, folder.path().join("run")).unwrap();
        let error = Proxy::start(Path::new("sh"), &script, folder.path(), address, address)
            .unwrap_err()
            .to_string();
        assert!(error.contains("no such upstream"), "{error}");
    }
}
