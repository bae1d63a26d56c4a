//! The native contract's names and versions: which words of a file belong to it, and whether this host speaks the
//! version that they ask for. Pure rules on names; reads no file.

use std::fmt;

use tidegate_core::phase::Phase;

/// The package's name, without its version.
pub(crate) const PACKAGE: &str = "tidegate:filter";
/// The version that this host speaks, as text.
pub(crate) const OURS_TEXT: &str = "0.1.1";
/// The version that this host speaks.
pub(crate) const OURS: Version = Version(0, 1, 1);
/// The first version.
const FIRST: Version = Version(0, 1, 0);
/// Functions that came after the first version: interface, name, version.
const ADDED: [(&str, &str, Version); 8] = [
    ("exchange", "elapsed", Version(0, 1, 1)),
    ("exchange", "delay", Version(0, 1, 1)),
    ("exchange", "client-certificate", Version(0, 1, 1)),
    ("limiter", "try-take", Version(0, 1, 1)),
    ("limiter", "peek", Version(0, 1, 1)),
    ("limiter", "take-all", Version(0, 1, 1)),
    ("limiter", "charge", Version(0, 1, 1)),
    ("limiter", "enter", Version(0, 1, 1)),
];

/// The version that brought a function of the contract.
pub(crate) fn since(interface: &str, name: &str) -> Version {
    ADDED
        .iter()
        .find(|added| (added.0, added.1) == (interface, name))
        .map_or(FIRST, |added| added.2)
}

/// A contract's version: major, minor, patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl Version {
    fn parse(text: &str) -> Option<Version> {
        let mut parts = text.split('.').map(|part| {
            part.bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| part.parse().ok())
                .flatten()
        });
        let version = Version(parts.next()??, parts.next()??, parts.next()??);
        parts.next().is_none().then_some(version)
    }

    /// Whether a host of version `host` runs a file of this version: a later minor version only adds, so every
    /// older one is spoken too.
    pub(crate) fn runs_on(self, host: Version) -> bool {
        self.0 == host.0 && self <= host
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// An interface of the contract, as a file names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interface<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: Version,
}

/// Reads `tidegate:filter/NAME@VERSION`.
pub(crate) fn interface(text: &str) -> Option<Interface<'_>> {
    let rest = text.strip_prefix(PACKAGE)?.strip_prefix('/')?;
    let (name, version) = rest.split_once('@')?;
    Some(Interface {
        name,
        version: Version::parse(version)?,
    })
}

/// A callback that a core module exports, or what belongs to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Callback {
    pub(crate) version: Version,
    pub(crate) phase: Phase,
    /// Whether it frees what the callback returned, and is not the callback itself.
    pub(crate) post: bool,
}

/// Reads the name of a core module's export: `tidegate:filter/callbacks@VERSION#NAME` or the plain identifier of
/// it, each also behind `cabi_post_`. An outer `Some` says that the name is the contract's; an inner `None`, that
/// this host knows no such callback (the version is then given).
pub(crate) fn callback(export: &str) -> Option<Result<Callback, Version>> {
    let (post, name) = match export.strip_prefix("cabi_post_") {
        Some(name) => (true, name),
        None => (false, export),
    };
    let (version, known) = canonical(name).or_else(|| plain(name))?;
    Some(match known {
        Some(phase) => Ok(Callback {
            version,
            phase,
            post,
        }),
        None => Err(version),
    })
}

fn canonical(name: &str) -> Option<(Version, Option<Phase>)> {
    let (module, function) = name.split_once('#')?;
    let found = interface(module).filter(|interface| interface.name == "callbacks")?;
    let phase = Phase::ALL
        .into_iter()
        .find(|phase| phase.name() == function);
    Some((found.version, phase))
}

fn plain(name: &str) -> Option<(Version, Option<Phase>)> {
    let rest = name.strip_prefix("tidegate_filter_callbacks_")?;
    let mut parts = rest.splitn(4, '_');
    let mut number = || parts.next()?.parse().ok();
    let version = Version(number()?, number()?, number()?);
    let function = parts.next()?;
    let phase = Phase::ALL
        .into_iter()
        .find(|phase| phase.name().replace('-', "_") == function);
    Some((version, phase))
}

/// The export's name in its canonical form, for messages.
pub(crate) fn export_name(phase: Phase) -> String {
    format!("{PACKAGE}/callbacks@{OURS_TEXT}#{phase}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_an_export_are_the_same_callback() {
        for name in [
            "tidegate:filter/callbacks@0.1.0#request-head",
            "tidegate_filter_callbacks_0_1_0_request_head",
        ] {
            let expected = Callback {
                version: FIRST,
                phase: Phase::RequestHead,
                post: false,
            };
            assert_eq!(callback(name), Some(Ok(expected)), "{name}");
            let post = callback(&format!("cabi_post_{name}"));
            assert_eq!(
                post,
                Some(Ok(Callback {
                    post: true,
                    ..expected
                }))
            );
        }
        for name in ["memory", "cabi_realloc", "tidegate_filter", "a#b"] {
            assert_eq!(callback(name), None, "{name}");
        }
        assert_eq!(
            callback("tidegate:filter/callbacks@0.2.0#request-idle"),
            Some(Err(Version(0, 2, 0)))
        );
        assert_eq!(
            callback("tidegate_filter_callbacks_0_2_0_request_idle"),
            Some(Err(Version(0, 2, 0)))
        );
    }

    #[test]
    fn older_versions_run_and_newer_ones_do_not() {
        let host = Version(0, 3, 1);
        for old in [Version(0, 3, 1), Version(0, 3, 0), Version(0, 1, 9)] {
            assert!(old.runs_on(host), "{old}");
        }
        for new in [Version(0, 3, 2), Version(0, 4, 0), Version(1, 0, 0)] {
            assert!(!new.runs_on(host), "{new}");
        }
        assert!(!Version(0, 9, 0).runs_on(Version(1, 0, 0)));
    }

    #[test]
    fn versions_are_three_plain_numbers() {
        assert_eq!(
            interface("tidegate:filter/exchange@0.1.0").map(|found| (found.name, found.version)),
            Some(("exchange", FIRST))
        );
        for bad in [
            "tidegate:filter/exchange",
            "tidegate:filter/exchange@1",
            "tidegate:filter/exchange@0.1.0.0",
            "tidegate:filter/exchange@+0.1.0",
            "tidegate:filter/exchange@0.1.",
            "other:filter/exchange@0.1.0",
        ] {
            assert_eq!(interface(bad), None, "{bad}");
        }
    }
}
