//! What changes state needs a confirmation, and the type says so: nothing else can make a [`Confirmed`].

use std::io::{BufRead, IsTerminal, Write};

use crate::error::ToolError;

/// Proof that somebody said yes to one named change.
#[derive(Debug)]
pub struct Confirmed {
    what: String,
}

impl Confirmed {
    /// What was confirmed, as it was asked.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }
}

/// How an operator says yes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Assent {
    /// `--yes` on the command line, or a caller inside the process that asked already.
    Given,
    /// Ask on the terminal; the answer has to be typed out.
    Ask,
}

/// Whether somebody can say yes: given already, or there is a terminal to ask on. For a verb that looks before it asks.
///
/// # Errors
/// [`ToolError::Usage`] when there is nobody to ask.
pub fn can_ask(assent: Assent, what: &str) -> Result<(), ToolError> {
    match assent {
        Assent::Given => Ok(()),
        Assent::Ask if std::io::stdin().is_terminal() => Ok(()),
        Assent::Ask => Err(ToolError::Usage(format!("`{what}` changes state: add --yes"))),
    }
}

/// Confirms a change, described in words that can be typed: `rebuild wallet_balance`.
///
/// # Errors
/// [`ToolError::Usage`] when there is no terminal to ask on, or when something else was typed.
pub fn confirm(assent: Assent, what: &str) -> Result<Confirmed, ToolError> {
    let stdin = std::io::stdin();
    match assent {
        Assent::Given => Ok(Confirmed { what: what.to_owned() }),
        Assent::Ask if stdin.is_terminal() => ask(what, &mut stdin.lock(), &mut std::io::stderr()),
        Assent::Ask => Err(ToolError::Usage(format!("`{what}` changes state: add --yes"))),
    }
}

fn ask(what: &str, answers: &mut impl BufRead, questions: &mut impl Write) -> Result<Confirmed, ToolError> {
    write!(questions, "This changes state. Type `{what}` to go on: ")?;
    questions.flush()?;
    let mut line = String::new();
    answers.read_line(&mut line)?;
    if line.trim() == what {
        Ok(Confirmed { what: what.to_owned() })
    } else {
        Err(ToolError::Usage("not confirmed; nothing was changed".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_words_confirm() {
        let mut shown = Vec::new();
        assert!(ask("rebuild all", &mut &b"yes\n"[..], &mut shown).is_err());
        assert!(ask("rebuild all", &mut &b""[..], &mut shown).is_err());
        let confirmed = ask("rebuild all", &mut &b"rebuild all\n"[..], &mut shown).unwrap();
        assert_eq!(confirmed.what(), "rebuild all");
        assert!(String::from_utf8(shown).unwrap().contains("Type `rebuild all`"));
    }
}
