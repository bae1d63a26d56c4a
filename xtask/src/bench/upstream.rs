//! The upstream as this program sees it: a child that is asked how many answers it has given.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::LOAD_CORE;
use super::process::Process;

const PATIENCE: Duration = Duration::from_secs(10);

/// The running upstream and a connection to it.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) process: Process,
    pub(super) port: u16,
    stream: BufReader<TcpStream>,
}

impl Upstream {
    pub(super) fn start(binary: &Path, folder: &Path) -> Result<Self> {
        let mut process = Process::start("upstream", &mut Command::new(binary), LOAD_CORE, folder)?;
        let deadline = Instant::now() + PATIENCE;
        let port = loop {
            process.must_run()?;
            let said = process.output();
            if let Some(port) = said.strip_suffix('\n') {
                break port
                    .parse()
                    .with_context(|| format!("the upstream said {port}, which is no port"))?;
            }
            if Instant::now() > deadline {
                bail!("the upstream told no port");
            }
            thread::sleep(Duration::from_millis(5));
        };
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let stream = BufReader::new(stream);
        Ok(Self {
            process,
            port,
            stream,
        })
    }

    /// Answers given so far.
    pub(super) fn count(&mut self) -> Result<u64> {
        self.stream
            .get_mut()
            .write_all(b"GET /count HTTP/1.1\r\nhost: bench\r\n\r\n")?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            match line.trim_end() {
                "" => break,
                line => {
                    if let Some(value) = line.strip_prefix("content-length: ") {
                        length = value.parse()?;
                    }
                }
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(String::from_utf8_lossy(&body).parse()?)
    }
}
