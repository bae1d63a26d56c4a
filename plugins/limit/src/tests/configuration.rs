//! Mistakes in a configuration: each is told with its place and what to do.

use super::*;

fn refusal(config: Value) -> String {
    match Harness::<Limit>::new(config.clone()) {
        Ok(_) => panic!("{config} is taken"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_mistake_is_told_at_its_place() {
    let rule = |rule: Value| json!({"rules": [{"name": "good", "rate": 1}, rule]});
    for (config, place, words) in [
        (json!({}), "", "add `rate`"),
        (json!({"rate": 0}), "`rate`", "from 1 to"),
        (json!({"rate": 1, "burst": 0}), "`burst`", "from 1 to"),
        (json!({"rate": -1}), "`rate`", "-1"),
        (json!({"rate": 1, "per": "fortnight"}), "`per`", "fortnight"),
        (json!({"rate": 1, "per": 10}), "`per`", "integer `10`"),
        (
            json!({"rate": 1, "key": "adress"}),
            "`key`",
            "there is client",
        ),
        (
            json!({"rate": 1, "key": ["client", "header:"]}),
            "`key",
            "behind a colon",
        ),
        (json!({"rate": 1, "key": []}), "`key", "one to four"),
        (
            json!({"rate": 1, "header": "x"}),
            "`header`",
            "unknown field",
        ),
        (
            json!({"rate": 1, "ipv6-prefix": 129}),
            "`ipv6-prefix`",
            "0 to 128",
        ),
        (json!({"rate": 1, "name": "a b"}), "`name`", "letters"),
        (
            json!({"rate": 1, "rules": [{"rate": 1}]}),
            "`rate` and `rules`",
            "exclude",
        ),
        (
            json!({"burst": 1, "rules": [{"rate": 1}]}),
            "`burst`",
            "each of the `rules`",
        ),
        (
            json!({"rate": 1, "quota-fields": "all"}),
            "`quota-fields`",
            "x-ratelimit",
        ),
        (
            json!({"rate": 1, "store-failure": "ignore"}),
            "`store-failure`",
            "open",
        ),
        (json!({"rate": 1, "exempt": {}}), "`exempt`", "clients"),
        (
            json!({"rate": 1, "exempt": {"clients": ["10.0.0.1/8"]}}),
            "`exempt.clients[0]`",
            "behind its prefix",
        ),
        (
            json!({"rate": 1, "answer": {"status": 200}}),
            "`answer.status`",
            "400 to 599",
        ),
        (
            json!({"rate": 1, "answer": {"fields": {"content-length": "1"}}}),
            "`answer`",
            "content-length",
        ),
        (
            json!({"rate": 1, "answer": {"fields": {"a b": "1"}}}),
            "`answer`",
            "`a b`",
        ),
        (
            json!({"rate": 1, "answer": {"fields": {"x-a": "1\r\nx-b: 2"}}}),
            "`answer`",
            "control character",
        ),
        (
            json!({"rate": 1, "answer": {"content-type": "a/b"}}),
            "`answer`",
            "add `body`",
        ),
        (
            rule(json!({"rate": 1, "name": "good"})),
            "`rules[1]`",
            "another rule",
        ),
        (rule(json!({})), "`rules[1]`", "add `rate` or `concurrent`"),
        (
            rule(json!({"rate": 1, "concurrent": 1})),
            "`rules[1]`",
            "two rules",
        ),
        (
            rule(json!({"concurrent": 1, "burst": 1})),
            "`rules[1]`",
            "`burst` belongs to a `rate`",
        ),
        (
            rule(json!({"concurrent": 1, "delay": "1s"})),
            "`rules[1]`",
            "`delay`",
        ),
        (
            rule(json!({"rate": 1, "refill": "calendar", "burst": 2})),
            "`rules[1]`",
            "`burst`",
        ),
        (
            rule(json!({"rate": 1, "refill": "sometimes"})),
            "`rules[1].refill`",
            "calendar",
        ),
        (
            rule(json!({"rate": 1, "delay": "2m"})),
            "`rules[1].delay`",
            "60s",
        ),
        (
            rule(json!({"rate": 1, "delay": "10ms"})),
            "`rules[1]`",
            "shorter",
        ),
        (
            rule(json!({"rate": 1, "cost": 0})),
            "`rules[1].cost`",
            "1 to",
        ),
        (
            rule(json!({"rate": 1, "cost": "x-cost"})),
            "`rules[1].cost`",
            "request:FIELD",
        ),
        (
            rule(json!({"rate": 1, "cost": 2})),
            "`rules[1]`",
            "no request could pass",
        ),
        (
            rule(json!({"rate": 1, "max-cost": 2})),
            "`rules[1]`",
            "`max-cost`",
        ),
        (
            rule(json!({"rate": 9, "delay": "1s", "cost": "response:x"})),
            "`rules[1]`",
            "`delay`",
        ),
        (
            rule(json!({"rate": 1, "methods": ["post"]})),
            "`rules[1].methods[0]`",
            "upper case",
        ),
        (
            rule(json!({"rate": 1, "burst": 1_000_000_000_000_u64, "per": "month"})),
            "`rules[1]`",
            "292 years",
        ),
        (
            rule(json!({"rate": 1, "quotas": [{"rate": 1}]})),
            "`rules[1]`: `quotas[0]`",
            "`consumer`",
        ),
        (
            rule(json!({"rate": 1, "quotas": [{"consumer": "a"}]})),
            "`rules[1]`: `quotas[0]`",
            "unlimited",
        ),
        (
            rule(json!({"rate": 1, "quotas": [{"role": "a", "concurrent": 1}]})),
            "`rules[1]`: `quotas[0]`",
            "another rule",
        ),
        (
            rule(json!({"rate": 1, "quotas": [{"role": "a", "rate": 1, "unlimited": true}]})),
            "`rules[1]`: `quotas[0]`",
            "excludes",
        ),
        (
            rule(
                json!({"rate": 1, "quotas": [{"role": "a", "rate": 1}, {"role": "a", "rate": 2}]}),
            ),
            "`rules[1]`: `quotas[1]`",
            "before it",
        ),
    ] {
        let said = refusal(config.clone());
        // A key that is not known is told of where it would stand.
        let placed = said.starts_with(place) || (words == "unknown field" && said.contains(place));
        assert!(placed && said.contains(words), "{config}: {said}");
    }
    let many: Vec<Value> = (0..17)
        .map(|n| json!({"name": n.to_string(), "rate": 1}))
        .collect();
    assert!(refusal(json!({ "rules": many })).contains("more than 16"));
}

#[test]
fn the_schema_names_the_keys_that_are_read() {
    let harness = limit(json!({"rate": 1}));
    let schema = &harness.manifest()["config-schema"];
    // A key that the schema names is read: with a value that fits no key, the mistake is about the value.
    for (key, _) in schema["properties"].as_object().unwrap() {
        let said = refusal(json!({ key: null, "no": 1 }));
        assert!(
            !said.contains("unknown field") || said.contains("`no`"),
            "{key}: {said}"
        );
    }
    let rule = &schema["properties"]["rules"]["allOf"][0]["items"];
    assert!(rule["properties"].as_object().unwrap().len() > 15);
    for (key, _) in rule["properties"].as_object().unwrap() {
        let said = refusal(json!({"rules": [{ key: {"odd": []} }]}));
        assert!(
            !said.contains("unknown field `odd`") || key == "answer",
            "{key}: {said}"
        );
        assert!(
            !said.contains(&format!("unknown field `{key}`")),
            "{key}: {said}"
        );
    }
}

#[test]
fn every_key_stands_on_the_page() {
    fn keys(schema: &Value, found: &mut Vec<String>) {
        for (key, value) in schema.as_object().into_iter().flatten() {
            if key == "properties" {
                found.extend(value.as_object().unwrap().keys().cloned());
            }
            keys(value, found);
        }
        schema
            .as_array()
            .into_iter()
            .flatten()
            .for_each(|value| keys(value, found));
    }
    let page = include_str!("../../../../docs/filters/limit.md");
    let (_, tables) = page.split_once("\n# Keys\n").unwrap();
    let mut all = Vec::new();
    keys(
        &limit(json!({"rate": 1})).manifest()["config-schema"],
        &mut all,
    );
    assert!(all.len() > 35, "{all:?}");
    for key in all {
        assert!(
            tables.contains(&format!("`{key}`")),
            "`{key}` is not on the page"
        );
    }
}
