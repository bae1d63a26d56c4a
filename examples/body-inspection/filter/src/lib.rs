//! Refuses requests whose body holds a forbidden word, before anything of them has left.

use tidegate_sdk::prelude::*;

#[derive(Deserialize, ConfigSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Config {
    /// Words that no body may hold.
    forbidden: Vec<String>,
}

struct Inspection {
    forbidden: Vec<String>,
}

#[filter(name = "body-inspection", request_body = "whole", limit = 65536)]
impl Filter for Inspection {
    type Config = Config;

    fn new(config: Config) -> Result<Self, ConfigError> {
        if config.forbidden.iter().any(String::is_empty) {
            return Err("`forbidden` holds an empty word, which every body holds".into());
        }
        Ok(Inspection {
            forbidden: config.forbidden,
        })
    }

    fn request_body(&self, body: &mut RequestBody, _: &mut ()) -> Flow {
        let bytes = body.read();
        let holds = |word: &String| {
            bytes
                .windows(word.len())
                .any(|piece| piece == word.as_bytes())
        };
        if self.forbidden.iter().any(holds) {
            return Answer::new(403).text("this body is not accepted\n").send();
        }
        Flow::Continue
    }
}
