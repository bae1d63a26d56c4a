//! What is known to be wrong with older versions of the wasm runtime and concerns what tidegate does with it: none of it
//! may be what Cargo.lock names. `cargo deny check advisories` asks the database of the day; this needs no network.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

/// Advisories against `wasmtime`, with the version from which on they are mended.
const MENDED: [(&str, [u64; 3]); 4] = [
    // A suspended call that is dropped.
    ("RUSTSEC-2026-0022", [41, 0, 4]),
    // What an earlier instance left in a slot of the pool.
    ("RUSTSEC-2026-0088", [43, 0, 1]),
    // Types of one engine in another.
    ("RUSTSEC-2026-0222", [47, 0, 3]),
    // Time that the host spends for the guest.
    ("RUSTSEC-2026-0223", [47, 0, 3]),
];

/// Every locked version of a crate.
fn locked(name: &str) -> Vec<[u64; 3]> {
    let lock: toml::Table = include_str!("../../../Cargo.lock").parse().unwrap();
    let packages = lock.get("package").unwrap().as_array().unwrap();
    let versions = packages.iter().filter_map(|package| {
        let is = package.get("name")?.as_str()? == name;
        let version = package.get("version")?.as_str()?;
        let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
        let mut part = || parts.next().unwrap_or(0);
        is.then(|| [part(), part(), part()])
    });
    versions.collect()
}

#[test]
fn the_runtime_is_newer_than_what_is_known_to_be_wrong_with_it() {
    let versions = locked("wasmtime");
    assert_eq!(versions.len(), 1, "one engine only: {versions:?}");
    for (advisory, mended) in MENDED {
        for version in &versions {
            assert!(*version >= mended, "{advisory}: {version:?} < {mended:?}");
        }
    }
    // Its baseline compiler had advisories of its own; it is not built in.
    assert!(locked("wasmtime-internal-winch").is_empty());
    // Nor are its own implementations of WASI.
    assert!(locked("wasmtime-wasi").is_empty());
}
