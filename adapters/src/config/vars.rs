//! Where settings come from: the environment, then the nearest `.env` file. An empty value counts as absent.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

/// Why the configuration was refused. Every message names the variable and what was expected, and none shows a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value that does not parse or lies outside its bounds.
    #[error("{name} is `{got}`: expected {expected}")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// What was found.
        got: String,
        /// What it must be.
        expected: String,
    },
    /// A secret that does not parse; its value is not shown.
    #[error("{name} is not usable: expected {expected}")]
    InvalidSecret {
        /// The variable.
        name: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// A variable that must be there and is not.
    #[error("{name} is missing: {why}")]
    Missing {
        /// The variable.
        name: &'static str,
        /// Why it is needed and how to get one.
        why: &'static str,
    },
    /// A secret that production does not accept.
    #[error("{name} {problem}: CALOS_ENV=production needs {needs}")]
    Weak {
        /// The variable.
        name: &'static str,
        /// What is wrong with it.
        problem: &'static str,
        /// What is needed in its place.
        needs: &'static str,
    },
    /// The `.env` file could not be read.
    #[error(".env cannot be read: {0}")]
    DotEnv(String),
    /// A file or folder of the data folder could not be used.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done, such as `writing`.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// The settings as text, by name.
pub struct Vars(BTreeMap<String, String>);

impl Vars {
    /// The process's environment over the nearest `.env` file.
    pub fn from_process() -> Result<Self, ConfigError> {
        let mut values = BTreeMap::new();
        match dotenvy::dotenv_iter() {
            Ok(lines) => {
                for line in lines {
                    let (name, value) = line.map_err(|error| ConfigError::DotEnv(describe(&error)))?;
                    values.insert(name, value);
                }
            }
            Err(error) if error.not_found() => {}
            Err(error) => return Err(ConfigError::DotEnv(describe(&error))),
        }
        for (name, value) in std::env::vars_os() {
            // A variable that is not UTF-8 can be none of ours by name; by value it is replaced and then refused by its parser.
            if let Some(name) = name.to_str() {
                values.insert(name.to_owned(), value.to_string_lossy().into_owned());
            }
        }
        Ok(Self(values))
    }

    /// Settings given one by one, for tests and for a server that runs inside another program.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// The trimmed value, unless it is absent or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The value through `parse`, refused with `expected` when it does not parse.
    pub fn parse<T>(
        &self,
        name: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match parse(text) {
            Some(value) => Ok(Some(value)),
            None => Err(ConfigError::Invalid { name, got: text.to_owned(), expected: expected.to_owned() }),
        }
    }

    /// A whole number within `bounds`.
    pub fn number<T: FromStr + PartialOrd + Display>(
        &self,
        name: &'static str,
        bounds: RangeInclusive<T>,
    ) -> Result<Option<T>, ConfigError> {
        let expected = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        self.parse(name, &expected, |text| text.parse().ok().filter(|value| bounds.contains(value)))
    }
}

/// The error without the line's text, since that line can hold a secret.
fn describe(error: &dotenvy::Error) -> String {
    match error {
        dotenvy::Error::LineParse(_, offset) => {
            format!("a line is not of the form NAME=value (near its character {})", offset + 1)
        }
        dotenvy::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}
