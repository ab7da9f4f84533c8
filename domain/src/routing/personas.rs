//! The voices CALOS lends to models. Each has a model of its own on Ollama; where that is not installed, the local
//! default plays it by its system prompt.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::task::Task;

/// A voice. Its name is also the name of its model on Ollama.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Persona {
    /// Creative.
    Soulfra,
    /// Analytical.
    DeathToData,
    /// Decides what to keep.
    SaveOrSink,
    /// Technical and reasoning.
    RoughSparks,
    /// Writes code.
    CodeLlama,
}

/// Why a text names no persona.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a persona is soulfra, deathtodata, saveorsink, roughsparks or codellama")]
pub struct NoPersona;

impl Persona {
    /// Every persona.
    pub const ALL: [Self; 5] = [Self::Soulfra, Self::DeathToData, Self::SaveOrSink, Self::RoughSparks, Self::CodeLlama];

    /// The name in requests and answers, and of the model on Ollama.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Soulfra => "soulfra",
            Self::DeathToData => "deathtodata",
            Self::SaveOrSink => "saveorsink",
            Self::RoughSparks => "roughsparks",
            Self::CodeLlama => "codellama",
        }
    }

    /// What it is best at.
    #[must_use]
    pub const fn task(self) -> Task {
        match self {
            Self::Soulfra => Task::Creative,
            Self::DeathToData => Task::Analytics,
            Self::SaveOrSink => Task::Triage,
            Self::RoughSparks => Task::Reasoning,
            Self::CodeLlama => Task::Code,
        }
    }

    /// What another model is told so that it speaks in this voice. The persona's own model knows it by itself.
    #[must_use]
    pub const fn system_prompt(self) -> &'static str {
        match self {
            Self::Soulfra => {
                "You are Soulfra, the creative voice of CALOS. You write with warmth, rhythm and concrete images, and you \
                 prefer one surprising idea over three safe ones. When you write code or markup, it is beautiful and it \
                 works. You give the work itself, without a preamble."
            }
            Self::DeathToData => {
                "You are DeathToData, the analytical voice of CALOS. You cut through noise: say what the figures show, how \
                 sure one can be, and what is missing. Lead with the finding, then the evidence, as short as it can be. \
                 Never invent a number."
            }
            Self::SaveOrSink => {
                "You are SaveOrSink, the triage voice of CALOS. You decide quickly and plainly what deserves attention: \
                 begin with one verdict, save or sink, or a priority where one is asked for, and give one sentence why. \
                 When you cannot tell, say what you would need to know."
            }
            Self::RoughSparks => {
                "You are RoughSparks, the technical voice of CALOS. You reason step by step, name your assumptions, check \
                 your result before you give it, and say so when something cannot be decided. Rough edges are welcome, \
                 wrong answers are not."
            }
            Self::CodeLlama => {
                "You are CodeLlama, the coding voice of CALOS. You answer with working, idiomatic code in the language that \
                 is asked for, handle the edge cases, and explain only what the code cannot say."
            }
        }
    }

    /// The persona a model's name is that of, with or without a tag.
    #[must_use]
    pub fn of_model(name: &str) -> Option<Self> {
        let bare = name.split_once(':').map_or(name, |(bare, _)| bare);
        bare.parse().ok()
    }

    /// Whether a model has to be told how to speak: any but the persona's own.
    #[must_use]
    pub fn has_to_be_played(self, model: &str) -> bool {
        Self::of_model(model) != Some(self)
    }
}

impl fmt::Display for Persona {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Persona {
    type Err = NoPersona;
    fn from_str(text: &str) -> Result<Self, NoPersona> {
        Self::ALL.into_iter().find(|persona| persona.as_str() == text).ok_or(NoPersona)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_persona_is_known_by_its_models_name_whatever_the_tag() {
        assert_eq!(Persona::of_model("soulfra"), Some(Persona::Soulfra));
        assert_eq!(Persona::of_model("codellama:7b"), Some(Persona::CodeLlama));
        assert_eq!(Persona::of_model("llama3.2:3b"), None);
        assert!(Persona::Soulfra.has_to_be_played("llama3.2:3b") && Persona::Soulfra.has_to_be_played("codellama"));
        assert!(!Persona::Soulfra.has_to_be_played("soulfra:latest"));
    }

    #[test]
    fn every_persona_has_a_name_a_prompt_and_a_task_of_its_own() {
        for persona in Persona::ALL {
            assert_eq!(persona.as_str().parse(), Ok(persona));
            assert_eq!(serde_json::to_value(persona).unwrap(), persona.as_str());
            assert!(persona.system_prompt().len() > 100 && !persona.system_prompt().contains("  "), "{persona}");
            assert_eq!(Persona::ALL.iter().filter(|other| other.task() == persona.task()).count(), 1);
        }
    }
}
