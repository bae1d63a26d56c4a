//! Does to an exchange what the request's `x-probe` field says, and tells what came of it: every function of the
//! contract can be called by a test that writes no filter. It must not know which tests there are.
//!
//! The field is a list of commands, `PHASE VERB ARGUMENTS`, with `; ` between them; `~` in an argument stands for a
//! space. The verbs are in [`verbs`] (what every phase can do) and [`views`] (what one can do to its part). What they
//! gave is logged as `probe: COMMAND => RESULT`, and the response's field `x-probe` holds a line of that form for each
//! command that ran before its head left.

mod verbs;
mod views;

use tidegate_sdk::prelude::*;
use tidegate_sdk::{BodyMode, metrics};

use crate::verbs::Outcome;
use crate::views::View;

/// How the probe takes part.
#[derive(Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Config {
    /// Refuses the configuration in these words.
    fail: Option<String>,
    /// How the request's body is taken.
    #[serde(default)]
    request_body: Take,
    /// How the response's body is taken.
    #[serde(default)]
    response_body: Take,
    /// The bytes that a whole body may have.
    #[serde(default)]
    limit: u32,
}

/// A body as it is taken.
#[derive(Clone, Copy, Default, Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case")]
enum Take {
    /// Piece by piece.
    #[default]
    Stream,
    /// In one piece.
    Whole,
    /// Only after `hold`.
    OnHold,
}

impl Take {
    fn mode(self) -> BodyMode {
        match self {
            Take::Stream => BodyMode::Stream,
            Take::Whole => BodyMode::Whole,
            Take::OnHold => BodyMode::OnHold,
        }
    }
}

/// What an exchange was told to do and what came of it so far.
#[derive(Default)]
struct Script {
    commands: Vec<(String, Vec<String>)>,
    lines: Vec<String>,
}

struct Probe {
    config: Config,
    figures: verbs::Figures,
}

#[cfg_attr(
    feature = "calls",
    filter(
        name = "rust-probe",
        store = "tests call the store",
        http = "tests make calls",
        env = "tests read the environment"
    )
)]
#[cfg_attr(
    not(feature = "calls"),
    filter(
        name = "sync-probe",
        store = "tests call the store",
        env = "tests read the environment"
    )
)]
impl Filter for Probe {
    type Config = Config;
    type State = Script;

    fn new(config: Config) -> Result<Self, ConfigError> {
        if let Some(words) = config.fail {
            return Err(words.into());
        }
        let refused = |refusal: Refusal| ConfigError::from(format!("a figure: {refusal}"));
        let labels = [("kind", "probe")];
        let figures = verbs::Figures {
            counter: metrics::Counter::define("probe_count", "Counts.", &labels)
                .map_err(refused)?,
            gauge: metrics::Gauge::define("probe_gauge", "Goes up and down.", &labels)
                .map_err(refused)?,
            histogram: metrics::Histogram::define("probe_size", "Sizes.", &[], &[1.0, 10.0])
                .map_err(refused)?,
        };
        Ok(Probe { config, figures })
    }

    fn interests(&self, interests: &mut Interests) {
        interests.request_body.mode = self.config.request_body.mode();
        interests.request_body.limit = self.config.limit;
        interests.response_body.mode = self.config.response_body.mode();
        interests.response_body.limit = self.config.limit;
    }

    fn request_head(&self, request: &mut RequestHead, script: &mut Script) -> Flow {
        if let Some(text) = request.get_str("x-probe") {
            script.commands = commands(&text);
        }
        self.run("request-head", request, script)
    }

    fn request_body(&self, body: &mut RequestBody, script: &mut Script) -> Flow {
        self.run("request-body", body, script)
    }

    fn request_trailers(&self, trailers: &mut RequestTrailers, script: &mut Script) -> Flow {
        self.run("request-trailers", trailers, script)
    }

    fn response_head(&self, response: &mut ResponseHead, script: &mut Script) -> Flow {
        let flow = self.run("response-head", response, script);
        for line in &script.lines {
            if let Err(refusal) = response.append("x-probe", line) {
                log::warn(&format!("probe: x-probe was not added: {refusal}"));
            }
        }
        flow
    }

    fn response_body(&self, body: &mut ResponseBody, script: &mut Script) -> Flow {
        self.run("response-body", body, script)
    }

    fn response_trailers(&self, trailers: &mut ResponseTrailers, script: &mut Script) -> Flow {
        self.run("response-trailers", trailers, script)
    }

    fn log(&self, ended: &Ended, script: &mut Script) {
        let mut ended = views::Over(ended);
        self.run("log", &mut ended, script);
    }
}

impl Probe {
    /// Runs the commands of one phase. The last flow that one of them asks for is what the phase returns.
    fn run(&self, phase: &str, view: &mut dyn View, script: &mut Script) -> Flow {
        let mut flow = Flow::Continue;
        for (wanted, words) in &script.commands {
            if wanted != phase {
                continue;
            }
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let outcome = view
                .verb(&words)
                .or_else(|| verbs::run(&words, view, &self.figures))
                .unwrap_or_else(|| Outcome::Text("no such command".to_owned()));
            let result = match outcome {
                Outcome::Text(text) => text,
                Outcome::Flow(wanted) => {
                    flow = wanted;
                    format!("{wanted:?}")
                }
            };
            let line = format!("{phase} {} => {result}", words.join(" "));
            log::info(&format!("probe: {line}"));
            script.lines.push(line);
        }
        flow
    }
}

fn commands(text: &str) -> Vec<(String, Vec<String>)> {
    text.split("; ")
        .filter_map(|command| {
            let mut words = command
                .split_whitespace()
                .map(|word| word.replace('~', " "));
            Some((words.next()?, words.collect()))
        })
        .collect()
}
