//! Marks every request and every response with a text from the configuration, so that a test sees which filters an
//! exchange passed, in which order and in which version. It must not know which tests there are.

use tidegate_sdk::prelude::*;

/// What to mark with.
#[derive(Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Config {
    /// The text that is added to the field `x-tag` in both directions.
    value: String,
    /// Takes no part in responses, so that a test sees a phase that the configuration took out.
    #[serde(default)]
    requests_only: bool,
}

struct Tag {
    value: String,
    requests_only: bool,
}

#[filter(name = "tag")]
impl Filter for Tag {
    type Config = Config;

    fn new(config: Config) -> Result<Self, ConfigError> {
        if config.value.is_empty() {
            return Err("`value` is empty: there would be nothing to mark with".into());
        }
        Ok(Tag {
            value: config.value,
            requests_only: config.requests_only,
        })
    }

    fn interests(&self, interests: &mut Interests) {
        if self.requests_only {
            interests.remove(Phase::ResponseHead);
        }
    }

    fn request_head(&self, request: &mut RequestHead, _: &mut ()) -> Flow {
        if let Err(refusal) = request.append("x-tag", &self.value) {
            log::warn(&format!("x-tag was not added: {refusal}"));
        }
        Flow::Continue
    }

    fn response_head(&self, response: &mut ResponseHead, _: &mut ()) -> Flow {
        if let Err(refusal) = response.append("x-tag", &self.value) {
            log::warn(&format!("x-tag was not added: {refusal}"));
        }
        Flow::Continue
    }
}
