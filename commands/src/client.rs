//! What a client says about itself, and what CALOS makes of it.

use std::net::IpAddr;

use crate::ports::SecretText;

/// The longest text of a client about itself that is kept, in characters.
const USER_AGENT_MAX_CHARACTERS: usize = 512;

/// The longest device secret that is looked at, in bytes.
pub const DEVICE_SECRET_MAX_BYTES: usize = 128;

/// Whoever is signing in, as far as they can be seen.
#[derive(Clone, Debug)]
pub struct Client {
    /// Where they come from.
    pub address: IpAddr,
    /// What they say they are.
    pub user_agent: Option<String>,
    /// The secret their device kept from an earlier login.
    pub device_secret: Option<SecretText>,
}

impl Client {
    /// What they say they are, cut to what is kept.
    #[must_use]
    pub fn kept_user_agent(&self) -> Option<String> {
        let text: String = self.user_agent.as_ref()?.chars().take(USER_AGENT_MAX_CHARACTERS).collect();
        (!text.is_empty()).then_some(text)
    }

    /// `iOS`, `Android`, `macOS`, `Windows`, `Linux` or `unknown`: by what they say, which proves nothing.
    #[must_use]
    pub fn platform(&self) -> &'static str {
        // In this order: an iPhone says Mac OS X too, an Android says Linux too.
        const SIGNS: [(&str, &str); 8] = [
            ("iPhone", "iOS"),
            ("iPad", "iOS"),
            ("Android", "Android"),
            ("Windows", "Windows"),
            ("Macintosh", "macOS"),
            ("Mac OS X", "macOS"),
            ("Linux", "Linux"),
            ("X11", "Linux"),
        ];
        self.first_sign(&SIGNS).unwrap_or("unknown")
    }

    /// A first name for the device: `Firefox on Linux`.
    #[must_use]
    pub fn nickname(&self) -> String {
        // In this order: Edge and Opera say Chrome too, and Chrome says Safari.
        const SIGNS: [(&str, &str); 6] = [
            ("Edg", "Edge"),
            ("OPR", "Opera"),
            ("Firefox", "Firefox"),
            ("Chrome", "Chrome"),
            ("Safari", "Safari"),
            ("curl", "curl"),
        ];
        match (self.first_sign(&SIGNS), self.platform()) {
            (Some(browser), "unknown") => browser.to_owned(),
            (Some(browser), platform) => format!("{browser} on {platform}"),
            (None, "unknown") => "Unknown device".to_owned(),
            (None, platform) => format!("{platform} device"),
        }
    }

    fn first_sign(&self, signs: &[(&str, &'static str)]) -> Option<&'static str> {
        let text = self.user_agent.as_deref()?;
        signs.iter().find(|(sign, _)| text.contains(sign)).map(|(_, name)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(user_agent: &str) -> Client {
        Client { address: [127, 0, 0, 1].into(), user_agent: Some(user_agent.to_owned()), device_secret: None }
    }

    #[test]
    fn a_device_is_named_after_what_it_says() {
        for (user_agent, platform, nickname) in [
            ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Linux", "Firefox on Linux"),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Version/18.0 Safari/604.1",
                "iOS",
                "Safari on iOS",
            ),
            (
                "Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 Chrome/140.0.0.0 Mobile Safari/537.36",
                "Android",
                "Chrome on Android",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0",
                "Windows",
                "Edge on Windows",
            ),
            ("curl/8.5.0", "unknown", "curl"),
            ("something else", "unknown", "Unknown device"),
        ] {
            assert_eq!((client(user_agent).platform(), client(user_agent).nickname().as_str()), (platform, nickname));
        }
    }

    #[test]
    fn a_long_text_is_cut_and_an_empty_one_is_none() {
        assert_eq!(client(&"ü".repeat(2_000)).kept_user_agent().map(|text| text.chars().count()), Some(512));
        assert_eq!(client("").kept_user_agent(), None);
    }
}
