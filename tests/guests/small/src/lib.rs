//! Reads a field of the request, sets one in the request and one in the response: what a filter of a few lines does, and
//! so what benchmarks call a small filter.

use tidegate_sdk::prelude::*;

/// What to set.
#[derive(Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Config {
    /// The field that is set in both directions.
    name: String,
}

struct Small {
    name: String,
}

#[filter(name = "small")]
impl Filter for Small {
    type Config = Config;

    fn new(config: Config) -> Result<Self, ConfigError> {
        Ok(Small { name: config.name })
    }

    fn request_head(&self, request: &mut RequestHead, _: &mut ()) -> Flow {
        let agent = request.get("user-agent");
        let agent = agent.as_deref().unwrap_or(b"none");
        if let Err(refusal) = request.set(&self.name, agent) {
            log::warn(&format!("{} was not set: {refusal}", self.name));
        }
        Flow::Continue
    }

    fn response_head(&self, response: &mut ResponseHead, _: &mut ()) -> Flow {
        if let Err(refusal) = response.set(&self.name, "seen") {
            log::warn(&format!("{} was not set: {refusal}", self.name));
        }
        Flow::Continue
    }
}
