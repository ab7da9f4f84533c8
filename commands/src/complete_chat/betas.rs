//! Which of Anthropic's betas a call takes along.

/// Betas that change how a model works and not what it costs, by the beginning of their names.
const PRICE_NEUTRAL: [&str; 3] = ["interleaved-thinking-", "fine-grained-tool-streaming-", "context-management-"];

/// Of the betas a client named, separated by commas, those that go to Anthropic: all of them into its own account, and into
/// the platform's those that change no price. The others are left out, as clients name some in every call.
pub(super) fn passed_on(betas: Option<&str>, own_account: bool) -> Option<String> {
    let named = betas?.split(',').map(str::trim).filter(|beta| !beta.is_empty());
    let passed = named.filter(|beta| own_account || PRICE_NEUTRAL.iter().any(|neutral| beta.starts_with(neutral)));
    let passed: Vec<&str> = passed.collect();
    (!passed.is_empty()).then(|| passed.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn into_the_platforms_account_go_only_betas_that_change_no_price() {
        let named = "interleaved-thinking-2025-05-14, output-128k-2025-02-19,context-management-2025-06-27";
        let neutral = "interleaved-thinking-2025-05-14,context-management-2025-06-27";
        assert_eq!(passed_on(Some(named), false).as_deref(), Some(neutral));
        assert_eq!(passed_on(Some("context-1m-2025-08-07"), false), None);
        assert_eq!(passed_on(None, true), None);
    }

    #[test]
    fn into_the_tenants_own_account_go_all_of_them() {
        let named = "output-128k-2025-02-19,context-1m-2025-08-07";
        assert_eq!(passed_on(Some(named), true).as_deref(), Some(named));
        assert_eq!(passed_on(Some(" , "), true), None);
    }
}
