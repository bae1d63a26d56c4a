//! Running other programs: with an environment of their own, with a bound, with errors that name them.

use std::env;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// A call of the cargo that called us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    forget_own_package(&mut command);
    command
}

/// `cargo run` describes our own package in the environment. Build scripts that watch such variables
/// would run again with each change between `cargo xtask test` and `cargo test`, and rebuild half the
/// tree.
fn forget_own_package(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let ours = text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_MANIFEST_")
            || text.starts_with("CARGO_BIN_")
            || matches!(
                text,
                "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE" | "OUT_DIR"
            );
        if ours {
            command.env_remove(name);
        }
    }
}

/// Whether nobody sits in front of this run. Lock files must then be right as they are.
pub(crate) fn unattended() -> bool {
    env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false" && value != "0")
}

/// Adds `--locked` where nobody is there to commit a changed lock file.
pub(crate) fn locked(command: &mut Command) -> &mut Command {
    if unattended() {
        command.arg("--locked");
    }
    command
}

/// Runs a program to its end; any status but 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("can't start {}", line(command)))?;
    if !status.success() {
        bail!("{} failed with {status}", line(command));
    }
    Ok(())
}

/// Runs a program and hands each line of its standard output on while it runs. Says whether it ended
/// with status 0.
pub(crate) fn for_each_line(command: &mut Command, mut take: impl FnMut(&str)) -> Result<bool> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start {}", line(command)))?;
    if let Some(stdout) = child.stdout.take() {
        for text in BufReader::new(stdout).split(b'\n') {
            take(&String::from_utf8_lossy(&text?));
        }
    }
    Ok(child.wait()?.success())
}

/// A program's standard output as text, or nothing if it is missing or fails: for questions to tools
/// which may not be there.
pub(crate) fn ask(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Runs a program that may hang, such as one that waits for a network; it is ended at `bound`. Says
/// whether it ended with status 0 in time.
pub(crate) fn succeeds_within(command: &mut Command, bound: Duration) -> bool {
    let Ok(mut child) = command.stdin(Stdio::null()).spawn() else {
        return false;
    };
    let deadline = Instant::now() + bound;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
            // Past its time, or lost: what matters is that it does not stay behind.
            _ => {
                let _gone_already = child.kill();
                let _same = child.wait();
                return false;
            }
        }
    }
}

/// A command as one would type it.
fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    format!("`{}`", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_named_in_the_error() {
        let error = run(Command::new("false").arg("--of-course")).unwrap_err();
        assert!(
            error.to_string().contains("`false --of-course`"),
            "{error:#}"
        );
    }

    #[test]
    fn a_program_over_its_bound_is_ended() {
        let before = Instant::now();
        assert!(!succeeds_within(
            Command::new("sleep").arg("60"),
            Duration::from_millis(50)
        ));
        assert!(before.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn lines_arrive_with_the_verdict() {
        let mut lines = Vec::new();
        let good = for_each_line(
            Command::new("sh").args(["-c", "echo one; printf two; exit 3"]),
            |line| lines.push(line.to_owned()),
        )
        .unwrap();
        assert_eq!(lines, ["one", "two"]);
        assert!(!good);
    }

    #[test]
    fn a_missing_tool_answers_nothing() {
        assert_eq!(ask(&mut Command::new("no-tool-of-this-name")), None);
    }
}
