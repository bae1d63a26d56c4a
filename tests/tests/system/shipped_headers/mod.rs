//! The filter `headers` in all its parts, over real connections: what reaches the upstream, and what reaches the client.

mod answers;
mod changes;

use http::{Method, Response};
use tidegate_tests::client::{Body, empty, full, request, with};
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::guests::{Carrier, plugin};
use tidegate_tests::upstream::Upstream;

/// The filter before an upstream, with the tables of its configuration below `filter.headers.config`.
fn before(upstream: &Upstream, config: &str) -> Setup {
    Setup::with_upstream("main", &upstream.url())
        .filter("headers", plugin("headers", Carrier::Core))
        .toml(&below(config))
        .toml("[[route]]\nname = \"users\"\npath = \"/users/{id}\"\nupstream = \"main\"\nfilters = [\"headers\"]")
        .toml("[[route]]\nname = \"all\"\npath = \"/*\"\nupstream = \"main\"\nfilters = [\"headers\"]")
}

/// Tables whose names begin with a dot stand below the filter's configuration.
fn below(config: &str) -> String {
    let config = config.replace("[[.", "[[filter.headers.config.");
    format!(
        "[filter.headers.config]\n{}",
        config.replace("[.", "[filter.headers.config.")
    )
}

async fn started(upstream: &Upstream, config: &str) -> Gateway {
    before(upstream, config).start().await
}

/// An upstream that answers as a page would.
async fn page(fields: &'static [(&'static str, &'static str)]) -> Upstream {
    Upstream::serve(move |_| async move {
        let mut response = Response::builder().status(200);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        response.body(full("page")).unwrap()
    })
    .await
}

fn options(target: &str, fields: &[(&str, &str)]) -> http::Request<Body> {
    with(
        request(Method::OPTIONS, target).body(empty()).unwrap(),
        fields,
    )
}
