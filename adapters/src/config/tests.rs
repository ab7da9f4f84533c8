use super::*;

const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const STRONG: &str = "k2Jc8vQmY0sR4tW7xZ1aB3dE5fG6hJ9l";

fn data_dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn config(data_dir: &Path, pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let base = [("CALOS_DATA_DIR", data_dir.to_str().unwrap())];
    Config::from_vars(&Vars::from_pairs(base.iter().chain(pairs).copied()))
}

fn refusal(pairs: &[(&str, &str)]) -> String {
    let folder = data_dir();
    let text = config(folder.path(), pairs).unwrap_err().to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

fn production<'a>(extra: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut pairs = vec![
        ("CALOS_ENV", "production"),
        ("JWT_SECRET", STRONG),
        ("SESSION_SECRET", STRONG),
        ("CALOS_MASTER_KEY", MASTER_KEY),
        ("DOMAIN", "calos.example.com"),
    ];
    pairs.extend_from_slice(extra);
    pairs
}

#[test]
fn development_draws_missing_secrets_once_and_keeps_them_private() {
    let folder = data_dir();
    let first = config(folder.path(), &[]).unwrap();
    let second = config(folder.path(), &[]).unwrap();
    assert_eq!(first.secrets.jwt, second.secrets.jwt);
    assert_eq!(first.secrets.master_key, second.secrets.master_key);
    assert_ne!(first.secrets.jwt, first.secrets.session);
    for name in ["jwt_secret", "session_secret", "calos_master_key"] {
        let mode = std::fs::metadata(folder.path().join("secrets").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(std::fs::read_dir(folder.path().join("secrets")).unwrap().count(), 3, "no draft is left behind");
}

#[test]
fn the_data_folder_lets_postgres_pass_and_the_secrets_stay_closed() {
    let folder = data_dir();
    let data = folder.path().join("not/there/yet");
    config(&data, &[]).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let expected = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
    assert_eq!(mode(&data), expected);
    assert_eq!(mode(&data.join("secrets")), 0o700);
    assert_ne!(mode(data.parent().unwrap()) & 0o011, 0, "its parents are ordinary folders");
}

#[test]
fn many_starts_at_once_agree_on_the_drawn_secrets() {
    let folder = data_dir();
    let secrets: Vec<Secret> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| config(folder.path(), &[]).unwrap().secrets.session)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(secrets.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn production_names_the_secret_that_is_missing_short_or_a_default() {
    assert!(refusal(&[("CALOS_ENV", "production")]).starts_with("JWT_SECRET is missing"));
    assert!(refusal(&production(&[("SESSION_SECRET", "")])).starts_with("SESSION_SECRET is missing"));
    assert!(refusal(&production(&[("JWT_SECRET", "short")])).starts_with("JWT_SECRET is too short"));
    assert!(refusal(&production(&[("JWT_SECRET", "random-32-char-string")])).starts_with("JWT_SECRET is a default"));
    assert!(refusal(&production(&[("SESSION_SECRET", &"x".repeat(64))])).starts_with("SESSION_SECRET is a default"));
    assert!(
        refusal(&production(&[("CALOS_MASTER_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")]))
            .starts_with("CALOS_MASTER_KEY is one byte repeated")
    );
    assert!(
        refusal(&production(&[("STRIPE_SECRET_KEY", "sk_live_1")])).starts_with("STRIPE_WEBHOOK_SECRET is missing")
    );
}

#[test]
fn production_is_reached_over_https_or_does_not_start() {
    let folder = data_dir();
    for (name, value) in [("DOMAIN", ""), ("DOMAIN", "localhost"), ("CALOS_PUBLIC_URL", "http://calos.example.com")] {
        let text = refusal(&production(&[(name, value)]));
        assert!(text.starts_with("CALOS_PUBLIC_URL is `http://"), "{name}={value}: {text}");
    }
    let behind_a_proxy = production(&[("DOMAIN", ""), ("CALOS_PUBLIC_URL", "https://calos.example.com")]);
    for pairs in [production(&[]), behind_a_proxy] {
        let server = config(folder.path(), &pairs).unwrap().server;
        assert_eq!(server.public_url.as_str(), "https://calos.example.com");
    }
}

#[test]
fn production_writes_no_secret_to_the_disk() {
    let folder = data_dir();
    config(folder.path(), &production(&[])).unwrap();
    assert!(!folder.path().join("secrets").exists());
}

#[test]
fn a_wrong_value_is_refused_with_its_name_and_what_was_expected() {
    assert_eq!(refusal(&[("PORT", "70000")]), "PORT is `70000`: expected a whole number from 0 to 65535");
    assert_eq!(refusal(&[("CALOS_PARTITIONS", "0")]), "CALOS_PARTITIONS is `0`: expected a whole number from 1 to 256");
    assert_eq!(refusal(&[("CALOS_ENV", "prod")]), "CALOS_ENV is `prod`: expected `development` or `production`");
    assert!(refusal(&[("OLLAMA_URL", "localhost")]).starts_with("OLLAMA_URL is `localhost`: expected an address"));
    assert!(refusal(&[("TWILIO_ACCOUNT_SID", "AC1")]).starts_with("TWILIO_AUTH_TOKEN is missing"));
    assert!(refusal(&[("CALOS_TRUSTED_PROXIES", "10.0.0.0/8, nonsense")]).starts_with("CALOS_TRUSTED_PROXIES is"));
}

#[test]
fn a_refused_secret_is_not_repeated() {
    let text = refusal(&[("CALOS_MASTER_KEY", "my-own-precious")]);
    assert!(text.starts_with("CALOS_MASTER_KEY is not usable") && !text.contains("precious"), "{text}");
    let text = refusal(&[("DATABASE_URL", "mysql://root:hunter2@host/db")]);
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn what_is_printed_holds_no_secret() {
    let folder = data_dir();
    let secrets = [
        ("DATABASE_URL", "postgres://calos:hunter2@db:5432/calos?password=hunter2"),
        ("OPENAI_API_KEY", "sk-hunter2"),
        ("STRIPE_SECRET_KEY", "sk_live_hunter2"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_hunter2"),
        ("TWILIO_ACCOUNT_SID", "AC1"),
        ("TWILIO_AUTH_TOKEN", "hunter2"),
        ("TWILIO_PHONE_NUMBER", "+15551234567"),
        ("REDIS_URL", "redis://:hunter2@cache:6379"),
        ("JWT_SECRET", "hunter2-jwt"),
    ];
    let config = config(folder.path(), &secrets).unwrap();
    for text in [config.to_string(), format!("{config:?}"), format!("{config:#?}")] {
        assert!(!text.contains("hunter2"), "{text}");
        assert!(!text.contains(config.secrets.master_key.to_base64().as_str()), "{text}");
    }
    assert!(config.summary().contains("postgres://calos:<redacted>@db:5432/calos"));
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let folder = data_dir();
    let config = config(folder.path(), &[("OPENAI_API_KEY", "  ")]).unwrap();
    assert_eq!(config.server.port, 5001);
    assert_eq!(config.server.public_url.as_str(), "http://localhost:5001");
    assert_eq!(config.database.partitions, None);
    assert!(config.database.url.is_none());
    assert!(!config.providers.any_configured());
    assert_eq!(config.providers.ollama.base_url.as_str(), "http://127.0.0.1:11434");
}

#[test]
fn ollama_is_found_by_any_of_its_three_names() {
    let folder = data_dir();
    let url = |pairs: &[(&str, &str)]| config(folder.path(), pairs).unwrap().providers.ollama.base_url;
    assert_eq!(url(&[("OLLAMA_BASE_URL", "http://box:1/")]).as_str(), "http://box:1");
    assert_eq!(url(&[("OLLAMA_HOST", "0.0.0.0:11434")]).as_str(), "http://127.0.0.1:11434");
    assert_eq!(url(&[("OLLAMA_URL", "http://a"), ("OLLAMA_HOST", "b")]).as_str(), "http://a");
}

#[test]
fn the_example_file_names_every_setting_the_summary_prints() {
    let folder = data_dir();
    let twilio = [("TWILIO_ACCOUNT_SID", "AC1"), ("TWILIO_AUTH_TOKEN", "t"), ("TWILIO_PHONE_NUMBER", "+15551234567")];
    let config = config(folder.path(), &twilio).unwrap();
    let example = include_str!("../../../.env.example");
    for line in config.summary().lines() {
        let name = line.split_whitespace().next().unwrap();
        assert!(example.lines().any(|line| line.trim_start_matches('#').starts_with(&format!("{name}="))), "{name}");
    }
}
