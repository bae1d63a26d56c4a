//! The recipes of `docs/filters/*.md`, read and run: a ```` ```toml ```` block, and the ```` ```http ```` blocks behind it, which
//! say what a client sends, what it gets, and what the upstream saw. It must not know what any filter does.
//!
//! - A `toml` block without `http` blocks is only held against `tidegate check`.
//! - An `http` block has up to three paragraphs: a request, the response, and what the upstream saw (`nothing`: it was not
//!   asked). Behind a request line or status line come `Name: value` lines, `!name` for a field that must not be there, and
//!   `| text` lines: the body, or what the body must contain. `*` in an expected value stands for anything. `times=5` behind
//!   `http` runs it five times.
//! - `http upstream=NAME` holds a request line and the answer that the upstream NAME gives to it.
//! - `# env: NAME=value` in the `toml` block sets the proxy's environment.

use std::collections::BTreeMap;

use http::{Method, Request, Response, StatusCode};

use crate::client::{Body, Reply, full};
use crate::gateway::{Gateway, Setup};
use crate::guests::{Carrier, plugin};
use crate::upstream::{Echo, Upstream};

/// The filters that recipes may use.
const FILTERS: [&str; 3] = ["auth", "limit", "headers"];

/// One configuration and what is said of it.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// The page's heading above it.
    pub title: String,
    toml: String,
    exchanges: Vec<Exchange>,
    /// By upstream: a request line's method and target, and the answer to it.
    answers: BTreeMap<String, Vec<(String, Message)>>,
}

/// One exchange of a recipe.
#[derive(Clone, Debug)]
struct Exchange {
    times: usize,
    request: Message,
    response: Message,
    upstream: Option<Message>,
}

/// A paragraph: its first line, fields, fields that must not be there, and body lines.
#[derive(Clone, Debug, Default)]
struct Message {
    first: String,
    fields: Vec<(String, String)>,
    absent: Vec<String>,
    body: Vec<String>,
}

impl Message {
    fn read(paragraph: &str) -> Self {
        let mut lines = paragraph.lines();
        let mut message = Message {
            first: lines.next().unwrap_or_default().trim().to_owned(),
            ..Message::default()
        };
        for line in lines {
            if let Some(body) = line.strip_prefix('|') {
                message
                    .body
                    .push(body.strip_prefix(' ').unwrap_or(body).to_owned());
            } else if let Some(name) = line.strip_prefix('!') {
                message.absent.push(name.trim().to_ascii_lowercase());
            } else if let Some((name, value)) = line.split_once(':') {
                let name = name.trim().to_ascii_lowercase();
                message.fields.push((name, value.trim().to_owned()));
            } else {
                panic!("no field, no `!name` and no `| body`: {line:?}");
            }
        }
        message
    }

    /// Method and target of a request line.
    fn line(&self) -> (&str, &str) {
        let mut words = self.first.split_whitespace();
        let line = (words.next(), words.next());
        let (Some(method), Some(target)) = line else {
            panic!("no request line: {:?}", self.first);
        };
        (method, target)
    }

    /// The status of a status line.
    fn status(&self) -> StatusCode {
        let number = self.first.split_whitespace().nth(1);
        let status = number.and_then(|number| number.parse().ok());
        status.unwrap_or_else(|| panic!("no status line: {:?}", self.first))
    }

    fn request(&self) -> Request<Body> {
        let (method, target) = self.line();
        let method: Method = method.parse().unwrap();
        let mut builder = Request::builder().method(method).uri(target);
        for (name, value) in &self.fields {
            builder = builder.header(name, value);
        }
        builder.body(full(self.body.join("\n"))).unwrap()
    }

    fn answer(&self) -> Response<Body> {
        let mut builder = Response::builder().status(self.status());
        for (name, value) in &self.fields {
            builder = builder.header(name, value);
        }
        builder.body(full(self.body.join("\n"))).unwrap()
    }

    /// Holds fields and body against what was expected.
    fn hold(&self, found: &[(String, String)], body: &str, what: &str) {
        for (name, value) in &self.fields {
            let values: Vec<&str> = found
                .iter()
                .filter(|(known, _)| known == name)
                .map(|(_, value)| value.as_str())
                .collect();
            assert!(
                values.iter().any(|found| alike(value, found)),
                "{what}: `{name}` is {values:?} and not {value:?}"
            );
        }
        for name in &self.absent {
            let there = found.iter().find(|(known, _)| known == name);
            assert!(there.is_none(), "{what}: `{name}` is there: {there:?}");
        }
        for line in &self.body {
            assert!(
                alike(&format!("*{line}*"), body),
                "{what}: no {line:?} in the body {body:?}"
            );
        }
    }
}

/// Whether a text is as a pattern says, in which `*` stands for anything.
fn alike(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.split_once(part) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Reads the recipes of a page.
///
/// # Panics
/// If a block is not as the module says.
pub fn read(page: &str) -> Vec<Recipe> {
    let mut recipes: Vec<Recipe> = Vec::new();
    let mut title = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(heading) = line.strip_prefix('#') {
            title = heading.trim_start_matches('#').trim().to_owned();
        }
        let Some(fence) = line.strip_prefix("```") else {
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let block = block.join("\n");
        let mut words = fence.split_whitespace();
        match words.next() {
            Some("toml") => recipes.push(Recipe {
                title: title.clone(),
                toml: block,
                ..Recipe::default()
            }),
            Some("http") => {
                let recipe = recipes
                    .last_mut()
                    .unwrap_or_else(|| panic!("{title}: an http block before any toml block"));
                recipe.add(&block, words.next().unwrap_or_default());
            }
            _ => {}
        }
    }
    recipes
}

impl Recipe {
    fn add(&mut self, block: &str, option: &str) {
        let mut paragraphs = block.split("\n\n").map(Message::read);
        let (Some(request), Some(response)) = (paragraphs.next(), paragraphs.next()) else {
            panic!("{}: an http block is a request and a response", self.title);
        };
        if let Some(upstream) = option.strip_prefix("upstream=") {
            let (method, target) = request.line();
            let key = format!("{method} {target}");
            let answers = self.answers.entry(upstream.to_owned()).or_default();
            answers.push((key, response));
            return;
        }
        self.exchanges.push(Exchange {
            times: option
                .strip_prefix("times=")
                .map_or(1, |times| times.parse().expect("`times` is a number")),
            request,
            response,
            upstream: paragraphs.next(),
        });
    }

    /// Runs it for the filter that its page is about.
    ///
    /// # Panics
    /// If anything is not as the recipe says.
    pub async fn run(&self, filter: &str) {
        let echo = Upstream::echo().await;
        let (setup, _others) = self.setup(filter, &echo).await;
        if self.exchanges.is_empty() {
            let checked = setup.check().await;
            assert_eq!(checked.code, Some(0), "{}: {}", self.title, checked.said());
            return;
        }
        let gateway = setup.start().await;
        for (number, exchange) in self.exchanges.iter().enumerate() {
            for _ in 0..exchange.times {
                let what = format!("{}, exchange {}", self.title, number + 1);
                exchange.run(&gateway, &echo, &what).await;
            }
        }
    }

    async fn setup(&self, filter: &str, echo: &Upstream) -> (Setup, Vec<Upstream>) {
        let mut toml = self.toml.clone();
        let mut others = Vec::new();
        for name in upstreams(&self.toml) {
            let upstream = self.upstream(&name).await;
            toml = with_endpoint(&toml, &name, &upstream.url());
            others.push(upstream);
        }
        let mut setup = Setup::with_upstream("main", &echo.url()).toml(&toml);
        // One that is there and not configured would be a mistake.
        let wanted = |name: &&&str| {
            let named = [format!("[filter.{name}"), format!("\"{name}\"")];
            **name == filter || named.iter().any(|named| self.toml.contains(named))
        };
        for name in FILTERS.iter().filter(wanted) {
            setup = setup.filter(name, plugin(name, Carrier::Core));
        }
        if !toml.contains("[[route]]") {
            setup = setup.route("/*", "main", &[filter]);
        }
        for line in toml.lines() {
            if let Some((name, value)) = line
                .strip_prefix("# env: ")
                .and_then(|pair| pair.split_once('='))
            {
                setup = setup.env(name, value);
            }
        }
        (setup, others)
    }

    async fn upstream(&self, name: &str) -> Upstream {
        let answers = self.answers.get(name).cloned().unwrap_or_default();
        Upstream::serve(move |seen: Echo| {
            let key = format!("{} {}", seen.method, seen.target);
            let found = answers.iter().find(|(known, _)| *known == key);
            let answer = found.map_or_else(
                || {
                    let nothing = Response::builder().status(StatusCode::NOT_FOUND);
                    nothing.body(full("")).unwrap()
                },
                |(_, message)| message.answer(),
            );
            std::future::ready(answer)
        })
        .await
    }
}

impl Exchange {
    async fn run(&self, gateway: &Gateway, echo: &Upstream, what: &str) {
        echo.forget();
        let reply = gateway.send(self.request.request()).await;
        let fields = fields_of(&reply);
        assert_eq!(
            reply.status,
            self.response.status(),
            "{what}: {fields:?} {}\n{:#?}",
            reply.text(),
            gateway.log()
        );
        self.response.hold(&fields, &reply.text(), what);
        let Some(expected) = &self.upstream else {
            return;
        };
        let seen = echo.seen();
        if expected.first == "nothing" {
            assert!(seen.is_empty(), "{what}: the upstream saw {seen:?}");
            return;
        }
        let [seen] = &*seen else {
            panic!("{what}: the upstream saw {seen:?}");
        };
        let (method, target) = expected.line();
        assert_eq!(
            (method, target),
            (seen.method.as_str(), seen.target.as_str()),
            "{what}"
        );
        expected.hold(
            &seen.fields,
            &seen.body,
            &format!("{what}, at the upstream"),
        );
    }
}

fn fields_of(reply: &Reply) -> Vec<(String, String)> {
    let fields = reply.fields.iter();
    fields
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        })
        .collect()
}

/// The names of the upstreams that a configuration has.
fn upstreams(toml: &str) -> Vec<String> {
    let names = toml
        .lines()
        .filter_map(|line| line.strip_prefix("[upstream.")?.strip_suffix(']'));
    names.map(str::to_owned).collect()
}

/// The configuration with another endpoint for an upstream.
fn with_endpoint(toml: &str, upstream: &str, url: &str) -> String {
    let mut inside = false;
    let lines = toml.lines().map(|line| {
        if line.starts_with('[') {
            inside = line == format!("[upstream.{upstream}]");
        }
        if inside && line.starts_with("endpoints") {
            format!("endpoints = [\"{url}\"]")
        } else {
            line.to_owned()
        }
    });
    lines.collect::<Vec<String>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
            ("", "", true),
            ("*", "", true),
        ] {
            assert_eq!(alike(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_page_is_read_in_order() {
        let page = "# Page\n## First\n```toml\n[filter.a]\n```\n```http times=2\nGET / HTTP/1.1\nA: b\n\nHTTP/1.1 200\n!x\n\nGET / HTTP/1.1\n```\n\
                    ```http upstream=x\nGET /keys HTTP/1.1\n\nHTTP/1.1 200\n| {}\n```\n## Second\n```text\n```\n```toml\n```\n";
        let recipes = read(page);
        assert_eq!(recipes.len(), 2);
        assert_eq!(
            (recipes[0].title.as_str(), recipes[1].title.as_str()),
            ("First", "Second")
        );
        assert_eq!(recipes[0].exchanges[0].times, 2);
        assert_eq!(recipes[0].exchanges[0].response.absent, ["x"]);
        assert_eq!(recipes[0].answers["x"][0].0, "GET /keys");
        assert_eq!(recipes[0].answers["x"][0].1.body, ["{}"]);
    }
}
