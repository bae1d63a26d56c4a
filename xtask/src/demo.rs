//! `cargo xtask demo`: builds everything, starts an upstream and the real proxy with the shipped filters,
//! and lets the reader try it; with `--once` it tries for them and says whether all held.

mod echo;
mod edit;
mod proxy;
mod story;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use self::proxy::Proxy;
use crate::command::{cargo, locked, run as run_to_end};
use crate::output::put;
use crate::plugins;
use crate::workspace::Workspace;

/// The proxy's configuration, with `@NAME@` where this run's values go.
const CONFIGURATION: &str = include_str!("demo/tidegate.toml");

/// The filters and the names of their files in the demo's folder; the numbers only order them.
const FILTERS: [(&str, &str); 3] = [
    ("auth", "10-auth.wasm"),
    ("limit", "20-limit.wasm"),
    ("headers", "30-headers.wasm"),
];

/// The file that is replaced while the proxy runs.
const HELLO: &str = "40-hello.wasm";

/// Its second version, for readers to copy over it.
const EDITED: &str = "hello-edited.wasm";

/// The key that the configuration knows the digest of.
const KEY: &str = "demo-key-ada";

/// How many requests its filter `limit` lets through at once.
const BURST: u32 = 5;

/// A folder with everything that the proxy needs, and the two greetings that its last filter can say.
#[derive(Debug)]
struct Stage {
    folder: PathBuf,
    first: Vec<u8>,
    second: Vec<u8>,
}

/// Shows the proxy. Says whether all held; without `once` that is whether it came to an end by request.
pub(crate) fn run(workspace: &Workspace, once: bool) -> Result<bool> {
    plugins::run(workspace, false)?;
    let mut build = cargo();
    build.current_dir(workspace.root());
    build.args(["build", "--workspace", "--bins"]);
    run_to_end(locked(&mut build))?;

    let stage = Stage::set(workspace)?;
    let upstream = echo::start()?;
    // Readers get the ports that the documentation names, if they are free; nobody types the others.
    let (listen, admin) = if once { (0, 0) } else { (8080, 9901) };
    let listen = proxy::free_address(listen)?;
    let admin = proxy::free_address(admin)?;
    let configuration = stage.folder.join("tidegate.toml");
    let text = CONFIGURATION
        .replace("@LISTEN@", &listen.to_string())
        .replace("@ADMIN@", &admin.to_string())
        .replace("@UPSTREAM@", &upstream.to_string());
    put(&configuration, text.as_bytes())?;

    let binary = workspace.target().join("debug/tidegate");
    let mut proxy = Proxy::start(&binary, &configuration, &stage.folder, listen, admin)?;
    if once {
        let held = story::tell(&proxy, &stage)?;
        return Ok(proxy.stop()? && held);
    }
    invite(&proxy, upstream, &stage);
    proxy.wait_for_signal()
}

impl Stage {
    /// Makes the folder anew, so that what an earlier run left does not take part.
    fn set(workspace: &Workspace) -> Result<Self> {
        let folder = workspace.target().join("demo");
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("can't empty {}", folder.display()))?;
        }
        let stage = Self {
            first: edit::original(workspace)?,
            second: edit::edited(workspace, &folder)?,
            folder,
        };
        for (name, file) in FILTERS {
            let built = workspace.target().join(format!("plugins/{name}.wasm"));
            let bytes =
                fs::read(&built).with_context(|| format!("can't read {}", built.display()))?;
            put(&stage.filter(file), &bytes)?;
        }
        put(&stage.filter(HELLO), &stage.first)?;
        put(&stage.folder.join(EDITED), &stage.second)?;
        Ok(stage)
    }

    fn filter(&self, file: &str) -> PathBuf {
        self.folder.join("plugins").join(file)
    }

    /// Replaces the last filter by its second version, in one step.
    fn replace_hello(&self) -> Result<()> {
        put(&self.filter(HELLO), &self.second).map(|_changed| ())
    }
}

/// Tells the reader what there is to try.
fn invite(proxy: &Proxy, upstream: SocketAddr, stage: &Stage) {
    let listen = proxy.listen;
    let admin = proxy.admin;
    let folder = stage.folder.display();
    println!(
        "
The proxy listens on http://{listen}, its admin on http://{admin};
behind it an upstream on http://{upstream} answers with what it was asked.
Configuration, filters and the log lie in {folder}.

No key, no way in:
    curl -i http://{listen}/api/users
With one; the sixth request within a minute is one too many:
    curl -i -H 'x-api-key: {KEY}' http://{listen}/api/users
A filter can be replaced, removed and put back while the proxy runs:
    curl -i http://{listen}/hello
    cp {folder}/{EDITED} {folder}/plugins/{HELLO}
    curl -i http://{listen}/hello
What the proxy says of itself:
    curl http://{admin}/plugins
    curl http://{admin}/metrics

Ctrl-C ends it."
    );
}
