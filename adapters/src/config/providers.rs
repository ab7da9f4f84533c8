//! The settings of what CALOS calls: model providers, Stripe, Twilio.

use super::vars::{ConfigError, Vars};
use super::{BaseUrl, Environment, Secret, base_url};

/// The model providers.
#[derive(Debug, Clone)]
pub struct ProvidersConfig {
    /// `OPENAI_API_KEY`, `OPENAI_BASE_URL` (default `https://api.openai.com`; `/v1/…` is added by the adapter).
    pub openai: ProviderConfig,
    /// `ANTHROPIC_API_KEY`, `ANTHROPIC_BASE_URL` (default `https://api.anthropic.com`).
    pub anthropic: ProviderConfig,
    /// `DEEPSEEK_API_KEY`, `DEEPSEEK_BASE_URL` (default `https://api.deepseek.com`).
    pub deepseek: ProviderConfig,
    /// The local models.
    pub ollama: OllamaConfig,
}

/// A provider that wants a key.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// The platform's own key; `None` leaves the provider to tenants that bring theirs.
    pub api_key: Option<Secret>,
    /// Where it is reached.
    pub base_url: BaseUrl,
}

/// The local models.
#[derive(Debug, Clone)]
pub struct OllamaConfig {
    /// `OLLAMA_URL`, else `OLLAMA_BASE_URL`, else `OLLAMA_HOST` (also one that names every interface); default
    /// `http://127.0.0.1:11434`.
    pub base_url: BaseUrl,
    /// Whether one of those variables was set.
    pub configured: bool,
    /// `OLLAMA_PERSONA_URLS`: personas that have a host of their own, such as `soulfra=http://127.0.0.1:11435`.
    pub personas: Vec<(String, BaseUrl)>,
}

impl ProvidersConfig {
    pub(super) fn resolve(vars: &Vars) -> Result<Self, ConfigError> {
        let provider = |key: &str, base: &'static str, default: &str| {
            Ok(ProviderConfig { api_key: vars.get(key).map(Secret::new), base_url: base_url(vars, base, default)? })
        };
        Ok(Self {
            openai: provider("OPENAI_API_KEY", "OPENAI_BASE_URL", "https://api.openai.com")?,
            anthropic: provider("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "https://api.anthropic.com")?,
            deepseek: provider("DEEPSEEK_API_KEY", "DEEPSEEK_BASE_URL", "https://api.deepseek.com")?,
            ollama: OllamaConfig::resolve(vars)?,
        })
    }

    /// Whether any provider was configured; without one, `make run` uses simulated ones.
    pub fn any_configured(&self) -> bool {
        self.ollama.configured
            || [&self.openai, &self.anthropic, &self.deepseek].iter().any(|provider| provider.api_key.is_some())
    }
}

impl OllamaConfig {
    fn resolve(vars: &Vars) -> Result<Self, ConfigError> {
        const EXPECTED: &str = "an address such as http://127.0.0.1:11434";
        let given = match vars.parse("OLLAMA_URL", EXPECTED, BaseUrl::parse)? {
            Some(url) => Some(url),
            None => match vars.parse("OLLAMA_BASE_URL", EXPECTED, BaseUrl::parse)? {
                Some(url) => Some(url),
                None => vars.parse("OLLAMA_HOST", "a host such as 127.0.0.1:11434", BaseUrl::parse_ollama_host)?,
            },
        };
        Ok(Self {
            configured: given.is_some(),
            base_url: given.unwrap_or_else(|| BaseUrl::loopback(11434)),
            personas: vars
                .parse("OLLAMA_PERSONA_URLS", "persona=address pairs separated by commas", parse_personas)?
                .unwrap_or_default(),
        })
    }
}

fn parse_personas(text: &str) -> Option<Vec<(String, BaseUrl)>> {
    text.split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, address) = pair.split_once('=')?;
            let name = name.trim();
            (!name.is_empty()).then_some((name.to_owned(), BaseUrl::parse(address)?))
        })
        .collect()
}

/// Payments.
#[derive(Debug, Clone)]
pub struct StripeConfig {
    /// `STRIPE_SECRET_KEY`; without it nothing can be bought.
    pub secret_key: Option<Secret>,
    /// `STRIPE_PUBLISHABLE_KEY`, shown to browsers.
    pub publishable_key: Option<String>,
    /// `STRIPE_WEBHOOK_SECRET`; without it every webhook is refused.
    pub webhook_secret: Option<Secret>,
    /// `STRIPE_API_BASE`; default `https://api.stripe.com`.
    pub api_base: BaseUrl,
}

impl StripeConfig {
    pub(super) fn resolve(vars: &Vars, environment: Environment) -> Result<Self, ConfigError> {
        let stripe = Self {
            secret_key: vars.get("STRIPE_SECRET_KEY").map(Secret::new),
            publishable_key: vars.get("STRIPE_PUBLISHABLE_KEY").map(str::to_owned),
            webhook_secret: vars.get("STRIPE_WEBHOOK_SECRET").map(Secret::new),
            api_base: base_url(vars, "STRIPE_API_BASE", "https://api.stripe.com")?,
        };
        if environment == Environment::Production && stripe.secret_key.is_some() && stripe.webhook_secret.is_none() {
            return Err(ConfigError::Missing {
                name: "STRIPE_WEBHOOK_SECRET",
                why: "STRIPE_SECRET_KEY is set, and without it paid money would never arrive in a wallet",
            });
        }
        Ok(stripe)
    }
}

/// Phone messaging.
#[derive(Debug, Clone)]
pub struct TwilioConfig {
    /// `TWILIO_ACCOUNT_SID`.
    pub account_sid: String,
    /// `TWILIO_AUTH_TOKEN`: authenticates calls and verifies webhooks.
    pub auth_token: Secret,
    /// `TWILIO_PHONE_NUMBER`, in E.164.
    pub phone_number: String,
    /// `FORWARD_TO_NUMBER`, in E.164: where incoming calls go.
    pub forward_to_number: Option<String>,
}

impl TwilioConfig {
    pub(super) fn resolve(vars: &Vars) -> Result<Option<Self>, ConfigError> {
        const EXPECTED: &str = "a phone number such as +15551234567";
        const WHY: &str = "TWILIO_ACCOUNT_SID is set; all of TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN and TWILIO_PHONE_NUMBER \
                           are needed to send messages";
        let phone_number = vars.parse("TWILIO_PHONE_NUMBER", EXPECTED, parse_phone_number)?;
        let forward_to_number = vars.parse("FORWARD_TO_NUMBER", EXPECTED, parse_phone_number)?;
        let Some(account_sid) = vars.get("TWILIO_ACCOUNT_SID") else { return Ok(None) };
        let auth_token =
            vars.get("TWILIO_AUTH_TOKEN").ok_or(ConfigError::Missing { name: "TWILIO_AUTH_TOKEN", why: WHY })?;
        Ok(Some(Self {
            account_sid: account_sid.to_owned(),
            auth_token: Secret::new(auth_token),
            phone_number: phone_number.ok_or(ConfigError::Missing { name: "TWILIO_PHONE_NUMBER", why: WHY })?,
            forward_to_number,
        }))
    }
}

fn parse_phone_number(text: &str) -> Option<String> {
    let digits = text.strip_prefix('+')?;
    let valid = (7..=15).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0');
    valid.then(|| text.to_owned())
}
