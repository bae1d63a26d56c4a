//! The floor table of ARCHITECTURE.md as data: each crate's folder, floor and permitted imports, and what
//! may never be in its tree. Checking is done elsewhere.

/// One crate's place in the house.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) name: &'static str,
    /// From the repository's root.
    pub(super) folder: &'static str,
    /// What the messages call its floor.
    pub(super) floor: &'static str,
    /// Crates of this workspace that it may import.
    pub(super) may_import: &'static [&'static str],
    /// Crates, ours or foreign, that must not be anywhere in its tree, and why.
    pub(super) never_holds: &'static [&'static str],
}

/// The crates of which there is exactly one.
pub(super) const PLACES: [Place; 7] = [
    Place {
        name: "tidegate-core",
        folder: "host/core",
        floor: "floor 1",
        may_import: &[],
        // The words everyone uses: no sockets, no wasm, no runtime.
        never_holds: &["hyper", "hyper-util", "mio", "rustls", "tokio", "wasmtime"],
    },
    Place {
        name: "tidegate-upstream",
        folder: "host/upstream",
        floor: "floor 2",
        may_import: &["tidegate-core"],
        never_holds: &["wasmtime"],
    },
    Place {
        name: "tidegate-wasm",
        folder: "host/wasm",
        floor: "floor 2",
        may_import: &["tidegate-core"],
        // What a filter reaches outwards is handed to it as a trait.
        never_holds: &["hyper", "hyper-util", "mio", "rustls"],
    },
    Place {
        name: "tidegate-gateway",
        folder: "host/gateway",
        floor: "floor 3",
        may_import: &["tidegate-core", "tidegate-upstream", "tidegate-wasm"],
        never_holds: &[],
    },
    Place {
        name: "tidegate",
        folder: "host/tidegate",
        floor: "floor 4",
        may_import: &[
            "tidegate-core",
            "tidegate-gateway",
            "tidegate-upstream",
            "tidegate-wasm",
        ],
        never_holds: &[],
    },
    Place {
        name: "tidegate-sdk",
        folder: "sdk/rust",
        floor: "beside the house",
        may_import: &["tidegate-sdk-macros"],
        never_holds: &[],
    },
    Place {
        name: "tidegate-sdk-macros",
        folder: "sdk/rust/macros",
        floor: "beside the house",
        may_import: &[],
        never_holds: &[],
    },
];

/// The crate that every filter is built on, and the only one of ours that it may import.
pub(super) const SDK: &str = "tidegate-sdk";

/// Where the shipped filters lie, one crate a folder.
pub(super) const FILTERS: &str = "plugins";

/// Crates that may import what they like and that nobody may import.
pub(super) const OUTSIDE: [(&str, &str); 5] = [
    ("tidegate-bench-upstream", "xtask/upstream"),
    ("tidegate-fuzz", "tests/fuzz"),
    ("tidegate-micro", "tests/micro"),
    ("tidegate-tests", "tests"),
    ("xtask", "xtask"),
];
