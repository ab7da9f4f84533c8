//! The resolved configuration as people see it at the start: one setting a line, secrets redacted.

use std::fmt::Write as _;

use super::{Config, Environment, Secret};

const NAME_WIDTH: usize = 28;

pub(super) fn summary(config: &Config) -> String {
    let mut lines = Lines(String::new());
    lines.put(
        "CALOS_ENV",
        match config.environment {
            Environment::Development => "development",
            Environment::Production => "production",
        },
    );
    lines.put("PORT", config.server.port);
    lines.put("CALOS_BIND", config.server.bind);
    lines.put("DOMAIN", &config.server.domain);
    lines.put("CALOS_PUBLIC_URL", &config.server.public_url);
    lines.put("CALOS_TRUSTED_PROXIES", joined(&config.server.trusted_proxies));
    lines.put("CALOS_STOP_DELAY_SECONDS", config.server.stop_delay.as_secs());
    lines.secret("CALOS_METRICS_TOKEN", config.server.metrics_token.as_ref());
    match &config.database.url {
        Some(url) => lines.put("DATABASE_URL", without_password(url.expose())),
        None => lines.put("DATABASE_URL", "(embedded PostgreSQL)"),
    }
    lines.put("CALOS_DATABASE_CONNECTIONS", config.database.max_connections);
    lines.put("CALOS_QUEUE_COMMANDS", config.database.queue_max_commands);
    lines.put(
        "CALOS_PARTITIONS",
        match config.database.partitions {
            Some(partitions) => partitions.to_string(),
            None => "(as the log has them, 16 when new)".to_owned(),
        },
    );
    lines.put("CALOS_DATA_DIR", config.data_dir.display());
    lines.put("CALOS_ANCHOR_DIR", config.anchor_dir.display());
    lines.put("CALOS_ANCHOR_INTERVAL_SECONDS", config.anchor_interval.as_secs());
    lines.put("CALOS_ANCHOR_STDOUT", u8::from(config.anchor_stdout));
    lines.put("JWT_SECRET", "<redacted>");
    lines.put("SESSION_SECRET", "<redacted>");
    lines.put("CALOS_MASTER_KEY", "<redacted>");
    lines.put(
        "CALOS_MASTER_KEY_PREVIOUS",
        match config.secrets.master_key_previous {
            Some(_) => "<redacted>",
            None => "(none)",
        },
    );
    providers(config, &mut lines);
    lines.secret("REDIS_URL", config.redis_url.as_ref());
    lines.put("HACKERNEWS_BASE_URL", &config.hackernews_base_url);
    lines.put("CALOS_ADMIN_EMAIL", config.admin_email.as_deref().unwrap_or("(none)"));
    lines.0
}

fn providers(config: &Config, lines: &mut Lines) {
    let providers = &config.providers;
    lines.secret("OPENAI_API_KEY", providers.openai.api_key.as_ref());
    lines.put("OPENAI_BASE_URL", &providers.openai.base_url);
    lines.secret("ANTHROPIC_API_KEY", providers.anthropic.api_key.as_ref());
    lines.put("ANTHROPIC_BASE_URL", &providers.anthropic.base_url);
    lines.secret("DEEPSEEK_API_KEY", providers.deepseek.api_key.as_ref());
    lines.put("DEEPSEEK_BASE_URL", &providers.deepseek.base_url);
    lines.put("OLLAMA_URL", &providers.ollama.base_url);
    let personas: Vec<String> = providers.ollama.personas.iter().map(|(name, url)| format!("{name}={url}")).collect();
    lines.put("OLLAMA_PERSONA_URLS", joined(&personas));
    lines.secret("STRIPE_SECRET_KEY", config.stripe.secret_key.as_ref());
    lines.put("STRIPE_PUBLISHABLE_KEY", config.stripe.publishable_key.as_deref().unwrap_or("(none)"));
    lines.secret("STRIPE_WEBHOOK_SECRET", config.stripe.webhook_secret.as_ref());
    lines.put("STRIPE_API_BASE", &config.stripe.api_base);
    if let Some(twilio) = &config.twilio {
        lines.put("TWILIO_ACCOUNT_SID", &twilio.account_sid);
        lines.put("TWILIO_AUTH_TOKEN", "<redacted>");
        lines.put("TWILIO_PHONE_NUMBER", &twilio.phone_number);
        lines.put("FORWARD_TO_NUMBER", twilio.forward_to_number.as_deref().unwrap_or("(none)"));
    } else {
        lines.put("TWILIO_ACCOUNT_SID", "(none)");
    }
    lines.put("TWILIO_API_BASE", &config.twilio_api_base);
}

struct Lines(String);

impl Lines {
    fn put(&mut self, name: &str, value: impl std::fmt::Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{name:<NAME_WIDTH$} {value}");
    }

    fn secret(&mut self, name: &str, secret: Option<&Secret>) {
        self.put(name, if secret.is_some() { "<redacted>" } else { "(none)" });
    }
}

fn joined<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return "(none)".to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Host, port and database of the address; whatever could hold a password is left out.
fn without_password(url: &str) -> String {
    match reqwest::Url::parse(url) {
        Ok(url) => {
            let host = url.host_str().unwrap_or("");
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            let user =
                if url.username().is_empty() { String::new() } else { format!("{}:<redacted>@", url.username()) };
            format!("{}://{user}{host}{port}{}", url.scheme(), url.path())
        }
        Err(_) => "<redacted>".to_owned(),
    }
}
