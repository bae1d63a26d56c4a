//! Why an engine could not be made or a file could not become a filter. Every message says what is wrong and what
//! to do; the file is named by the caller, who knows it.

use std::borrow::Cow;
use std::sync::Arc;

use tidegate_core::error::{Fault, Limit};
use tidegate_core::phase::Phase;

/// The process can't run wasm.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The runtime did not accept this machine or its settings.
    #[error("the wasm runtime can't start: {0}")]
    Runtime(String),
    /// The thread that counts time for the guests could not be started.
    #[error("the thread that bounds the filters' time can't start: {0}")]
    Ticker(#[source] std::io::Error),
}

/// A file that is no filter, or a filter that can't be put into service.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is no filter of a kind that this version runs.
    #[error("not a filter: {0}")]
    NotAFilter(String),
    /// The code could not be compiled.
    #[error("it can't be compiled: {0}")]
    Compile(String),
    /// Its imports or exports do not fit, in the runtime's words.
    #[error("it can't be linked: {0}")]
    Link(String),
    /// It imports something that no host function stands for.
    #[error("it imports `{import}`, which this host does not have: {known}")]
    UnknownImport {
        /// Interface and function.
        import: String,
        /// What there is instead.
        known: String,
    },
    /// It is made for a contract that this host does not speak yet.
    #[error(
        "it is made for contract {wanted} (`{item}`), this host speaks {ours}: update tidegate"
    )]
    NewerContract {
        /// The import or export that says so.
        item: String,
        /// The contract's version in the file.
        wanted: String,
        /// The contract's version here.
        ours: &'static str,
    },
    /// It imports a function that the version which it names does not have.
    #[error(
        "it imports `{import}`, which came with contract {since}: name the interface with @{since}, not @{named}"
    )]
    AddedLater {
        /// Interface and function.
        import: String,
        /// The version that brought it.
        since: String,
        /// The version in the file.
        named: String,
    },
    /// It exports a callback that the contract does not have.
    #[error("it exports `{export}`, which is no callback: there are {known}")]
    UnknownExport {
        /// The export.
        export: String,
        /// The callbacks that there are.
        known: String,
    },
    /// An import or export has another type than the contract's.
    #[error("{item} must have the type {expected}, but has {found}")]
    WrongType {
        /// `import ..` or `export ..`.
        item: String,
        /// The contract's type.
        expected: String,
        /// The file's type.
        found: String,
    },
    /// It lacks an export that its imports or phases make necessary.
    #[error("it does not export {export}, which {needed_by} needs")]
    MissingExport {
        /// What is missing.
        export: String,
        /// Why it must be there.
        needed_by: String,
    },
    /// It wants to reach something outside that nobody granted.
    #[error(
        "filter `{filter}` imports {import} but is not granted {what}; add `{line}` to [filter.{}]",
        toml_key(filter)
    )]
    NotGranted {
        /// The filter's name in the configuration.
        filter: Arc<str>,
        /// The import.
        import: String,
        /// In words.
        what: &'static str,
        /// The line that grants it.
        line: String,
    },
    /// It begins with more than it may have.
    #[error(
        "filter `{filter}` begins with {needed} {} and may have {bound}; raise `limits.{limit}` of [filter.{}]",
        match limit { Limit::Memory => "bytes of memory", _ => "table elements" },
        toml_key(filter)
    )]
    TooLarge {
        /// The filter's name in the configuration.
        filter: Arc<str>,
        /// Which bound: memory or table.
        limit: Limit,
        /// What it begins with.
        needed: u64,
        /// What it may have.
        bound: u64,
    },
    /// Its exchanges are to share an instance, which they can't.
    #[error(
        "filter `{filter}` makes HTTP calls, so an exchange would wait for another one's: `isolation` of [filter.{}] \
         must be \"exclusive\" or \"fresh\"",
        toml_key(filter)
    )]
    Isolation {
        /// The filter's name in the configuration.
        filter: Arc<str>,
    },
    /// It refused its configuration.
    #[error("filter `{filter}` refused its configuration: {message}")]
    Refused {
        /// The filter's name in the configuration.
        filter: Arc<str>,
        /// The guest's own words.
        message: String,
    },
    /// It failed before it was in service.
    #[error("filter `{filter}` failed in {phase}: {fault}")]
    Failed {
        /// The filter's name in the configuration.
        filter: Arc<str>,
        /// Where.
        phase: Phase,
        /// How.
        fault: Fault,
    },
}

impl LoadError {
    /// The callback that failed, where it came so far.
    pub fn phase(&self) -> Option<Phase> {
        match self {
            LoadError::Refused { .. } => Some(Phase::Configure),
            LoadError::Failed { phase, .. } => Some(*phase),
            _ => None,
        }
    }
}

/// A name as a key of TOML: what has more than letters, digits, hyphens and underscores stands in quotes.
pub(crate) fn toml_key(name: &str) -> Cow<'_, str> {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if name.bytes().all(bare) {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(format!("\"{name}\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_names_a_table_that_toml_reads() {
        assert_eq!(toml_key("auth"), "auth");
        assert_eq!(toml_key("a.b"), "\"a.b\"");
        assert_eq!(toml_key("headers@users"), "\"headers@users\"");
    }
}
