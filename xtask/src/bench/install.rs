//! The programs that the bench needs and this repository has not: found, or installed if that is allowed.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use rustix::process::getuid;

use super::peer::{PeerKind, program};
use crate::command::run as run_to_end;

/// Generators: the program, and the package that has it in Debian and its kin.
const GENERATORS: [(&str, &str); 2] = [("wrk", "wrk"), ("h2load", "nghttp2-client")];
/// Says to Debian's packages, while it is there, that no server is to be started.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Makes sure that every program is there.
pub(super) fn check(peers: &[PeerKind], allowed: bool) -> Result<()> {
    let proxies = peers
        .iter()
        .filter_map(|peer| peer.program())
        .map(|name| (name, name));
    let missing: Vec<(&str, &str)> = GENERATORS
        .into_iter()
        .chain(proxies)
        .filter(|(program, _)| !is_there(program))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let programs: Vec<&str> = missing.iter().map(|(program, _)| *program).collect();
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    let (programs, command) = (
        programs.join(", "),
        format!("apt-get install {}", packages.join(" ")),
    );
    if !allowed {
        bail!(
            "missing: {programs}; call `{command}`, let `--install` do so, or name other proxies with `--peers`"
        );
    }
    if !getuid().is_root() {
        bail!("missing: {programs}; `--install` needs root, so call `{command}` yourself");
    }
    eprintln!(
        "installing {}: the bench compares with what the distribution ships",
        packages.join(", ")
    );
    install(&packages)
}

fn is_there(name: &str) -> bool {
    Command::new(program(name))
        .arg("--version")
        .output()
        .is_ok()
}

fn install(packages: &[&str]) -> Result<()> {
    let policy = Path::new(POLICY);
    let ours = !policy.exists();
    if ours {
        fs::write(policy, "#!/bin/sh\nexit 101\n")?;
        run_to_end(Command::new("chmod").arg("755").arg(policy))?;
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .arg("-q")
            .args(arguments);
        run_to_end(&mut command)
    };
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(packages);
    let done = apt(&["update"]).and_then(|()| apt(&arguments));
    if ours {
        fs::remove_file(policy)?;
    }
    done
}
