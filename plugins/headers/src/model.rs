//! Rules held against a model: a plain list of pairs, on which each verb is what its sentence in the documentation says.
//! Thousands of rules and requests, made at random from a seed that a failure names.

use std::collections::BTreeMap;

use tidegate_sdk::serde_json::{Map, Value, json};
use tidegate_sdk::test::{Harness, Request};

use crate::Headers;

const NAMES: [&str; 6] = ["x-a", "x-b", "x-ba", "x-c", "x-d", "y"];
const VALUES: [&str; 6] = ["", "1", "a1", "b2 c3", "same", "a,b"];

/// A generator of numbers (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn one(&mut self, of: &[&'static str]) -> &'static str {
        of[self.below(of.len())]
    }

    fn some<T>(&mut self, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(3)).map(|_| make(self)).collect()
    }
}

/// A rule, as the model and as the configuration have it.
#[derive(Debug, Default)]
struct Rule {
    remove: Vec<String>,
    rename: BTreeMap<&'static str, &'static str>,
    copy: BTreeMap<&'static str, &'static str>,
    replace: BTreeMap<&'static str, (char, String)>,
    default: BTreeMap<&'static str, Vec<String>>,
    set: BTreeMap<&'static str, Vec<String>>,
    append: BTreeMap<&'static str, Vec<String>>,
    drop_empty: bool,
    when: Option<(&'static str, bool)>,
}

impl Rule {
    fn new(random: &mut Random) -> Self {
        let pairs = |random: &mut Random| {
            let pairs = random.some(|random| (random.one(&NAMES), random.one(&NAMES)));
            pairs.into_iter().filter(|(from, to)| from != to).collect()
        };
        let values = |random: &mut Random| {
            let values = random.some(|random| {
                let count = 1 + random.below(2);
                let texts: Vec<String> = (0..count)
                    .map(|_| match random.below(3) {
                        0 => format!("{{header:{}}}", random.one(&NAMES)),
                        _ => random.one(&VALUES).to_owned(),
                    })
                    .collect();
                (random.one(&NAMES), texts)
            });
            values.into_iter().collect()
        };
        Rule {
            remove: random.some(|random| match random.below(4) {
                0 => "x-b*".to_owned(),
                _ => random.one(&NAMES).to_uppercase(),
            }),
            rename: pairs(random),
            copy: pairs(random),
            replace: random
                .some(|random| {
                    (
                        random.one(&NAMES),
                        (
                            ['a', '1', ','][random.below(3)],
                            random.one(&VALUES).to_owned(),
                        ),
                    )
                })
                .into_iter()
                .collect(),
            default: values(random),
            set: values(random),
            append: values(random),
            drop_empty: random.below(2) == 0,
            when: (random.below(3) == 0).then(|| (random.one(&NAMES), random.below(2) == 0)),
        }
    }

    fn config(&self) -> Value {
        let mut config = json!({
            "remove": self.remove, "rename": self.rename, "copy": self.copy, "default": self.default, "set": self.set,
            "append": self.append, "drop-empty": self.drop_empty,
            "replace": self.replace.iter().map(|(name, (pattern, with))| {
                ((*name).to_owned(), json!({"pattern": pattern.to_string(), "with": with}))
            }).collect::<Map<String, Value>>(),
        });
        if let Some((name, there)) = self.when {
            config["when"] = json!({"header": {name: there}});
        }
        config
    }
}

/// Fields, as the documentation speaks of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Model(Vec<(String, String)>);

impl Model {
    fn all(&self, name: &str) -> Vec<String> {
        let found = self.0.iter().filter(|(known, _)| known == name);
        found.map(|(_, value)| value.clone()).collect()
    }

    fn put(&mut self, name: &str, values: &[String]) {
        self.0.retain(|(known, _)| known != name);
        self.0
            .extend(values.iter().map(|value| (name.to_owned(), value.clone())));
    }

    fn rendered(&self, texts: &[String], drop_empty: bool) -> Vec<String> {
        let render = |text: &String| match text.strip_prefix("{header:") {
            Some(rest) => self
                .all(rest.trim_end_matches('}'))
                .first()
                .cloned()
                .unwrap_or_default(),
            None => text.clone(),
        };
        let rendered = texts.iter().map(render);
        rendered
            .filter(|value| !(drop_empty && value.is_empty()))
            .collect()
    }

    fn apply(&mut self, rule: &Rule) {
        if let Some((name, there)) = rule.when
            && self.all(name).is_empty() == there
        {
            return;
        }
        for pattern in &rule.remove {
            let pattern = pattern.to_lowercase();
            self.0.retain(|(name, _)| match pattern.strip_suffix('*') {
                Some(beginning) => !name.starts_with(beginning),
                None => *name != pattern,
            });
        }
        for (from, to) in &rule.rename {
            let values = self.all(from);
            if !values.is_empty() {
                self.put(from, &[]);
                self.put(to, &values);
            }
        }
        for (from, to) in &rule.copy {
            let values = self.all(from);
            if !values.is_empty() {
                self.put(to, &values);
            }
        }
        for (name, (pattern, with)) in &rule.replace {
            for (known, value) in &mut self.0 {
                if known == name {
                    *value = value.replace(*pattern, with);
                }
            }
        }
        for (name, texts) in &rule.default {
            if self.all(name).is_empty() {
                // One after another: the second sees the first.
                for text in texts {
                    let more = self.rendered(std::slice::from_ref(text), rule.drop_empty);
                    self.0
                        .extend(more.into_iter().map(|value| ((*name).to_owned(), value)));
                }
            }
        }
        for (name, texts) in &rule.set {
            let values = self.rendered(texts, rule.drop_empty);
            self.put(name, &values);
        }
        for (name, texts) in &rule.append {
            for text in texts {
                let more = self.rendered(std::slice::from_ref(text), rule.drop_empty);
                self.0
                    .extend(more.into_iter().map(|value| ((*name).to_owned(), value)));
            }
        }
    }
}

#[test]
fn rules_do_what_the_documentation_says() {
    for seed in 1..3000_u64 {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let rules: Vec<Rule> = (0..=random.below(3))
            .map(|_| Rule::new(&mut random))
            .collect();
        let config: Vec<Value> = rules.iter().map(Rule::config).collect();
        let mut model = Model(Vec::new());
        let mut request = Request::get("/");
        for _ in 0..random.below(8) {
            let (name, value) = (random.one(&NAMES), random.one(&VALUES));
            request = request.field(name, value);
            model.0.push((name.to_owned(), value.to_owned()));
        }
        let before = model.clone();
        for rule in &rules {
            model.apply(rule);
        }
        let mut harness = Harness::<Headers>::new(json!({"request": config})).unwrap();
        let outcome = harness.request(request);
        for name in NAMES {
            let fields = outcome
                .request
                .fields
                .iter()
                .filter(|(known, _)| known == name);
            let values: Vec<_> = fields
                .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
                .collect();
            assert_eq!(
                values,
                model.all(name),
                "seed {seed}, {name}: {before:?} by {rules:#?}"
            );
        }
        assert_eq!(outcome.request.fields.len(), model.0.len(), "seed {seed}");
        assert_eq!(harness.lines(), [""; 0], "seed {seed}");
    }
}
