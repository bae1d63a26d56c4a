//! Two versions of one filter: the example `hello` as it is, and a copy in which its greeting was edited,
//! as its author would do. It knows the example's source by that one text.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::plugins;
use crate::workspace::Workspace;

/// The response's field that the filter sets, and what the two versions say in it.
pub(super) const FIELD: &str = "x-hello";
pub(super) const FIRST: &str = "from tidegate";
pub(super) const SECOND: &str = "from an edited tidegate";

/// The example's folder and the name of its package.
const EXAMPLE: &str = "examples/hello/filter";
const PACKAGE: &str = "hello";

/// The copy's package: cargo would take two of one name for each other.
const COPY: &str = "hello-edited";

/// The filter as the example has it.
pub(super) fn original(workspace: &Workspace) -> Result<Vec<u8>> {
    let path = workspace.target().join(format!("plugins/{PACKAGE}.wasm"));
    fs::read(&path).with_context(|| format!("can't read {}", path.display()))
}

/// The filter with another greeting, built from a copy in `folder`.
pub(super) fn edited(workspace: &Workspace, folder: &Path) -> Result<Vec<u8>> {
    let example = workspace.root().join(EXAMPLE);
    let copy = folder.join("filter");
    fs::create_dir_all(copy.join("src"))?;
    let transfer = |file: &str, from: &str, to: &str| -> Result<()> {
        let path = example.join(file);
        let text =
            fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
        let text =
            edit(&text, from, to).with_context(|| format!("the demo edits {EXAMPLE}/{file}"))?;
        fs::write(copy.join(file), text)?;
        Ok(())
    };
    transfer(
        "src/lib.rs",
        &format!("\"{FIRST}\""),
        &format!("\"{SECOND}\""),
    )?;
    let named = |name: &str| format!("name = \"{name}\"");
    transfer("Cargo.lock", &named(PACKAGE), &named(COPY))?;
    transfer("Cargo.toml", &named(PACKAGE), &named(COPY))?;
    let manifest = copy.join("Cargo.toml");
    // The path to the SDK is written from the example's folder on.
    let text = edit(
        &fs::read_to_string(&manifest)?,
        "path = \"../../../",
        &format!("path = \"{}/", workspace.root().display()),
    )
    .with_context(|| format!("the demo edits {EXAMPLE}/Cargo.toml"))?;
    fs::write(&manifest, text)?;
    plugins::build_package(workspace, &manifest, COPY)
}

/// Replaces a text that must be there.
fn edit(text: &str, from: &str, to: &str) -> Result<String> {
    if !text.contains(from) {
        bail!("it has no {from}; name what stands there now in xtask/src/demo/edit.rs");
    }
    Ok(text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_gone_is_named() {
        assert_eq!(edit("say \"a\"", "\"a\"", "\"b\"").unwrap(), "say \"b\"");
        let message = edit("say \"c\"", "\"a\"", "\"b\"").unwrap_err().to_string();
        assert!(message.contains("\"a\""), "{message}");
    }
}
