//! The server and the local models, asked from outside.

use serde_json::Value;

use calos_adapters::config::Config;
use calos_adapters::probe::{Answered, Probe};

use super::Line;

/// An answer about health that takes longer than this wants to be looked at, in milliseconds.
const SLOW_MS: u128 = 250;

/// What the server says about itself, and which models Ollama has where it is configured.
pub(super) async fn lines(config: &Config, url: Option<&str>) -> Vec<Line> {
    let here = format!("http://127.0.0.1:{}", config.server.port);
    let url = url.unwrap_or(&here).trim_end_matches('/');
    let probe = match Probe::new() {
        Ok(probe) => probe,
        Err(why) => return vec![Line::fail("server", why)],
    };
    let get = async |path: &str| probe.get(&format!("{url}{path}")).await;
    let mut lines = vec![
        health(url, get("/health").await),
        database(get("/api/health/database").await),
        readiness(get("/readyz").await),
    ];
    let ollama = &config.providers.ollama;
    if ollama.configured {
        lines.push(models(probe.get(&format!("{}/api/tags", ollama.base_url.as_str().trim_end_matches('/'))).await));
    }
    lines
}

fn health(url: &str, answer: Result<Answered, String>) -> Line {
    const NAME: &str = "server";
    match answer {
        Err(why) => Line::fail(NAME, format!("{url}: {why}; see E.1 in docs/runbook.md")),
        Ok(answer) if answer.status == 200 && answer.body["status"] == "ok" => {
            let (took, up) = (answer.took.as_millis(), answer.body["uptime"].as_u64().unwrap_or_default());
            let detail = format!("answers in {took} ms, up for {up} s");
            if took > SLOW_MS { Line::warn(NAME, detail) } else { Line::ok(NAME, detail) }
        }
        Ok(answer) => Line::fail(NAME, format!("{} {}", answer.status, answer.body)),
    }
}

fn database(answer: Result<Answered, String>) -> Line {
    const NAME: &str = "server's database";
    match answer {
        Err(why) => Line::fail(NAME, why),
        Ok(Answered { status: 200, body, .. }) if body["connected"] == true => {
            Line::ok(NAME, format!("connected, {} tables", body["tables"]))
        }
        Ok(answer) => Line::fail(NAME, format!("{}: see E.2 in docs/runbook.md", answer.body["error"])),
    }
}

fn readiness(answer: Result<Answered, String>) -> Line {
    const NAME: &str = "readiness";
    let answer = match answer {
        Err(why) => return Line::fail(NAME, why),
        Ok(answer) => answer,
    };
    let Some(checks) = answer.body["checks"].as_object() else {
        return Line::fail(NAME, format!("{} and nothing that says why", answer.status));
    };
    let wrong: Vec<String> = checks
        .iter()
        .filter(|(_, check)| check["ok"] != true)
        .map(|(name, check)| format!("{name}: {}", check["detail"].as_str().unwrap_or_default()))
        .collect();
    if answer.status != 200 || !wrong.is_empty() {
        return Line::fail(NAME, format!("not ready; {}", wrong.join("; ")));
    }
    let notes = answer.body["notes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let notes: Vec<&str> = notes.iter().filter_map(Value::as_str).collect();
    let providers = answer.body["checks"]["providers"]["detail"].as_str().unwrap_or_default();
    if notes.is_empty() {
        Line::ok(NAME, format!("ready; {providers}"))
    } else {
        Line::warn(NAME, format!("ready; {providers}; {}", notes.join("; ")))
    }
}

fn models(answer: Result<Answered, String>) -> Line {
    const NAME: &str = "local models";
    match answer {
        Err(why) => Line::fail(NAME, format!("Ollama: {why}; see E.3 in docs/runbook.md")),
        Ok(Answered { status: 200, body, .. }) => {
            let models = body["models"].as_array().map(Vec::as_slice).unwrap_or_default();
            let names: Vec<&str> = models.iter().filter_map(|model| model["name"].as_str()).collect();
            if names.is_empty() {
                return Line::fail(NAME, "Ollama has none: ollama pull llama3.2:3b");
            }
            Line::ok(NAME, format!("{}: {}", names.len(), names.join(", ")))
        }
        Ok(answer) => Line::fail(NAME, format!("Ollama answers {}", answer.status)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::super::Level;
    use super::*;

    fn answered(status: u16, body: Value) -> Result<Answered, String> {
        Ok(Answered { status, body, took: Duration::from_millis(2) })
    }

    #[test]
    fn only_a_server_that_says_it_is_well_is_well() {
        let well = health("u", answered(200, json!({"status": "ok", "database": "connected", "uptime": 7})));
        assert_eq!((well.level, well.detail.as_str()), (Level::Ok, "answers in 2 ms, up for 7 s"));
        assert_eq!(health("u", answered(200, json!({"status": "degraded"}))).level, Level::Fail);
        assert_eq!(health("u", Err("nobody answers there".to_owned())).level, Level::Fail);
        assert_eq!(database(answered(503, json!({"error": "away"}))).level, Level::Fail);
    }

    #[test]
    fn readiness_names_what_is_missing_and_hands_notes_on() {
        let body = |ok| {
            json!({"ready": ok, "checks": {"projections": {"ok": ok, "detail": "halted: usage_log"},
            "providers": {"ok": true, "detail": "openai 9 models"}}, "notes": []})
        };
        let line = readiness(answered(503, body(false)));
        assert_eq!((line.level, line.detail.as_str()), (Level::Fail, "not ready; projections: halted: usage_log"));
        assert_eq!(readiness(answered(200, body(true))).detail, "ready; openai 9 models");
        let mut noted = body(true);
        noted["notes"] = json!(["simulated"]);
        assert_eq!(readiness(answered(200, noted)).level, Level::Warn);
        assert_eq!(readiness(answered(502, Value::Null)).level, Level::Fail);
    }

    #[test]
    fn an_ollama_without_models_is_of_no_use() {
        assert_eq!(models(answered(200, json!({"models": []}))).level, Level::Fail);
        let line = models(answered(200, json!({"models": [{"name": "llama3.2:3b"}]})));
        assert_eq!((line.level, line.detail.as_str()), (Level::Ok, "1: llama3.2:3b"));
    }
}
