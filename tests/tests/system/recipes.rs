//! Every recipe of `docs/filters/`, run as it stands there.

use std::fs;
use std::path::{Path, PathBuf};

use tidegate_tests::recipes;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/filters")
}

async fn run(filter: &str) {
    let path = folder().join(format!("{filter}.md"));
    let page =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let recipes = recipes::read(&page);
    assert!(!recipes.is_empty(), "{} has no recipe", path.display());
    for recipe in recipes {
        recipe.run(filter).await;
    }
}

#[tokio::test]
async fn of_auth() {
    run("auth").await;
}

#[tokio::test]
async fn of_headers() {
    run("headers").await;
}

#[tokio::test]
async fn of_limit() {
    run("limit").await;
}

/// Every page has a test here.
#[test]
fn every_page_has_a_test() {
    let sources = include_str!("recipes.rs");
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(sources.contains(&format!("run(\"{name}\")")), "{name}");
    }
}
