//! Decides whether a call may be made, by whom it is answered, and what is held for it.

use calos_domain::api_key::{ApiKey, ApiKeyIssued};
use calos_domain::licence::Licence;
use calos_domain::pricing::{Allowance, Payer, PriceBook, Provider};
use calos_domain::routing::personas::Persona;
use calos_domain::routing::{Offer, Route};
use calos_domain::tenant::Tenant;
use calos_domain::wallet::{CallTerms, Caller, Wallet, WalletCommand, WalletRefusal};
use calos_domain::{Asset, HoldId, KeyringEntryId, MicroUsd, StreamId, Timestamp, UsageId};

use super::limits::{LimitStatus, TokenStatus, limited, terms_of_key, terms_of_person};
use super::messages::TOOLS_FRAME_MAX_TOKENS;
use super::route::{Reach, Story, Way, Ways};
use super::{CallKind, ChatCall, ChatCaller, ChatFailure, Circuit};
use crate::byok::KeyringEntry;
use crate::log::{EventLog, Handle, Plan, Unit};
use crate::provider::Dialect;

/// How long a hold lasts by itself: beyond the longest answer a provider may take and the settlement after it.
pub const HOLD_MAX_SECONDS: i64 = 900;

/// The shortest answer a request without a limit of its own is made for. What is left of a wallet may carry less; then
/// the request is refused rather than answered with half a sentence.
pub const ANSWER_MIN_TOKENS: u64 = 64;

/// A call that may be made.
#[derive(Clone, Debug)]
pub(super) struct Admission {
    /// Who is asked, one after the other until one answers; never empty.
    pub(super) chain: Vec<Candidate>,
    pub(super) hold_id: HoldId,
    pub(super) usage_id: UsageId,
    /// The worst case of the dearest candidate.
    pub(super) held: MicroUsd,
    pub(super) at: Timestamp,
    /// Where the caller stands with its limits, this call counted.
    pub(super) limits: LimitStatus,
    /// Why the chain is as it is.
    pub(super) story: Story,
}

impl PartialEq for Admission {
    /// Whether a provider is called the same way: what the limits and the wallet have left, which others change all the
    /// time, is no reason to call anew.
    fn eq(&self, other: &Self) -> bool {
        let Self { chain, hold_id, usage_id, held, at, limits: _, story: _ } = self;
        (chain, hold_id, usage_id, held, at) == (&other.chain, &other.hold_id, &other.usage_id, &other.held, &other.at)
    }
}

/// One who may answer, and within which bounds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Candidate {
    pub(super) route: Route,
    pub(super) payer: Payer,
    /// The most tokens of each answer; sent upstream.
    pub(super) max_tokens: u64,
    /// No tokenizer counts more for the prompt, its pictures included.
    pub(super) prompt_max_tokens: u64,
    /// Where the tenant's own key for the provider stands, when it is used in place of the platform's.
    pub(super) own_key: Option<KeyringEntry>,
    /// In whose voice; a model other than the persona's own is told how.
    pub(super) persona: Option<Persona>,
}

/// The streams an admission looks at. All of them share the tenant's partition.
pub(super) struct Streams {
    wallet: Handle<Wallet>,
    licence: Handle<Licence>,
    tenant: Handle<Tenant>,
    key: Option<Handle<ApiKey>>,
}

impl Streams {
    pub(super) fn plan<L: EventLog>(plan: &mut Plan<L>, caller: &ChatCaller) -> Self {
        let tenant = StreamId::key(caller.tenant_id);
        Self {
            wallet: plan.stream(tenant.clone()),
            licence: plan.stream(tenant.clone()),
            tenant: plan.stream(tenant),
            key: caller.key_id.as_ref().map(|key| plan.stream(StreamId::under(caller.tenant_id, key))),
        }
    }
}

/// What one admission is decided on, beside the streams.
pub(super) struct Question<'a> {
    pub(super) caller: &'a ChatCaller,
    pub(super) call: &'a ChatCall,
    pub(super) offer: Offer<'a>,
    /// Circuits that are open, whoever's, for a route that goes by that.
    pub(super) broken: &'a [Circuit],
    pub(super) hold_id: HoldId,
    pub(super) at: Timestamp,
}

impl Question<'_> {
    /// Decides; the hold is placed when it answers, and nothing has happened when it refuses.
    pub(super) fn admit(&self, unit: &mut Unit<'_>, streams: &Streams) -> Result<Admission, ChatFailure> {
        let at = self.at;
        let (tier, markup_percent) = unit.with(streams.licence, |licence| {
            licence.may_use(at).map(|()| (licence.tier(), licence.markup_percent()))
        })?;
        let tier = tier.ok_or(calos_domain::licence::LicenceRefusal::NotIssued)?;
        let (by, terms) = self.may_call(unit, streams)?;
        let (strict, own_keys) = unit.with(streams.tenant, |tenant| {
            let keys = tenant.provider_keys.iter().map(|(provider, key)| (*provider, key.entry_id));
            (tenant.strict_models, keys.collect::<Vec<_>>())
        });
        let own: Vec<Provider> = own_keys.iter().map(|(provider, _)| *provider).collect();
        let offer = Offer { byok: &own, ..self.offer };
        let (available, held_already) = unit
            .with(streams.wallet, |wallet| (wallet.available_at(Asset::Usd, at).get(), wallet.held(Asset::Usd).get()));
        let (available, held_already) = (MicroUsd::new(available), MicroUsd::new(held_already));
        let reach = Reach { tier, strict, available, held: held_already };
        let Ways { mut ways, mut story } = self.ways(reach, &offer, &self.broken_with(&own_keys))?;
        if let Some(key) = streams.key {
            ways = unit.with(key, |key| allowed(key.standing(at)?, offer.book, ways))?;
        }
        let room = by.as_ref().and_then(|by| unit.with(streams.wallet, |wallet| wallet.budget_room(by, &terms, at)));
        let carried = room.map_or(available, |room| available.min(room));
        let purse = Purse { available, carried, held: held_already, markup_percent, own_keys: &own_keys };
        let mut chain = Vec::with_capacity(ways.len());
        let mut held = MicroUsd::ZERO;
        let mut refused = None;
        for way in ways {
            match self.candidate(&way, &purse) {
                Ok((candidate, worst_case)) => {
                    held = held.max(worst_case);
                    story.goes(&way);
                    chain.push(candidate);
                }
                // Whoever comes behind it may cost less.
                Err(ChatFailure::CannotPay { needed, .. }) => {
                    story.costs_too_much(&way);
                    refused.get_or_insert(needed);
                    // A default's successor is there for when it is gone, not for when it is too dear.
                    if !self.call.routing.has_fallbacks() {
                        break;
                    }
                }
                Err(other) => return Err(other),
            }
        }
        if chain.is_empty() {
            let needed = refused.unwrap_or_default();
            return Err(match &by {
                // The wallet could pay; it is the key's budget that cannot carry even a short answer.
                Some(by) if needed <= available => {
                    let checked = unit.with(streams.wallet, |wallet| wallet.may_call(by, &terms, needed, at));
                    checked.map_or_else(ChatFailure::from, |()| ChatFailure::Lost("its budget could not be reckoned"))
                }
                Some(_) | None => ChatFailure::CannotPay { needed, available, held: held_already },
            });
        }
        let usage_id = UsageId(self.hold_id.0);
        unit.decide(
            streams.wallet,
            WalletCommand::PlaceHold {
                hold_id: self.hold_id,
                asset: Asset::Usd,
                amount: held.into(),
                meter: self.call.kind.meter(),
                caller: by.clone(),
                terms: terms.clone(),
                usage_id,
                admitted_at: at,
                expires_at: at.plus_seconds(HOLD_MAX_SECONDS),
            },
        )?;
        let limits = self.standing(unit, streams, by.as_ref(), &terms);
        Ok(Admission { chain, hold_id: self.hold_id, usage_id, held, at, limits, story })
    }

    /// The models out of reach for one with these keys, which take the place of the platform's account.
    fn broken_with(&self, own_keys: &[(Provider, KeyringEntryId)]) -> Vec<(Provider, String)> {
        let account = |provider| own_keys.iter().find(|(own, _)| *own == provider).map(|(_, entry_id)| *entry_id);
        let broken = self.broken.iter().filter(|circuit| circuit.account == account(circuit.provider));
        broken.map(|circuit| (circuit.provider, circuit.model.clone())).collect()
    }

    /// What asking this one is held to, and costs at most.
    fn candidate(&self, way: &Way, purse: &Purse<'_>) -> Result<(Candidate, MicroUsd), ChatFailure> {
        let (route, call) = (&way.route, way.spoken(self.call));
        let payer = if route.byok { Payer::Byok } else { Payer::Platform { markup_percent: purse.markup_percent } };
        let money = Money { book: self.offer.book, route, payer, available: purse.carried, held: purse.held };
        let (max_tokens, worst_case) = money.worst_case(&call)?;
        if self.call.routing.has_fallbacks() && worst_case > purse.carried {
            return Err(ChatFailure::CannotPay { needed: worst_case, available: purse.available, held: purse.held });
        }
        let prompt_max_tokens = money.allowance(&call, max_tokens).prompt_tokens;
        let own_key = purse.own_keys.iter().find(|(provider, _)| route.byok && *provider == route.provider);
        let own_key = own_key.map(|(provider, entry_id)| KeyringEntry {
            tenant_id: self.caller.tenant_id,
            provider: *provider,
            entry_id: *entry_id,
        });
        let (route, persona) = (route.clone(), way.persona);
        Ok((Candidate { route, payer, max_tokens, prompt_max_tokens, own_key, persona }, worst_case))
    }

    /// Who calls and what they are held to, unless they have called too often: then nothing else matters, and nothing
    /// else is reckoned.
    fn may_call(&self, unit: &mut Unit<'_>, streams: &Streams) -> Result<(Option<Caller>, CallTerms), ChatFailure> {
        let by = limited(self.caller);
        let terms = match (streams.key, &by) {
            (Some(key), _) => unit.with(key, |key| terms_of_key(key, self.at))?,
            (None, Some(_)) => terms_of_person(),
            (None, None) => CallTerms::default(),
        };
        if let Some(by) = &by {
            let checked = unit.with(streams.wallet, |wallet| wallet.may_call(by, &terms, MicroUsd::ZERO, self.at));
            checked.map_err(|refusal| match refusal {
                WalletRefusal::RateLimited(_) => {
                    ChatFailure::RateLimited(self.standing(unit, streams, Some(by), &terms))
                }
                other => other.into(),
            })?;
        }
        Ok((by, terms))
    }

    fn standing(&self, unit: &mut Unit<'_>, streams: &Streams, by: Option<&Caller>, terms: &CallTerms) -> LimitStatus {
        let calls = by.zip(terms.limits).map(|(by, limits)| {
            unit.with(streams.wallet, |wallet| wallet.call_status(&terms.counted(by), limits, self.at))
        });
        let tokens = unit.with(streams.licence, |licence| TokenStatus::of(licence, self.at));
        LimitStatus { calls, tokens, at: self.at }
    }
}

/// Those of the ways whose models the key may use, by whichever of their names it has them.
fn allowed(key: &ApiKeyIssued, book: &PriceBook, mut ways: Vec<Way>) -> Result<Vec<Way>, ChatFailure> {
    let first = ways.first().map(|way| way.route.model.clone());
    ways.retain(|way| book.names_of(&way.route.model).any(|name| key.admits_model(name)));
    match (ways.is_empty(), first) {
        (true, Some(model)) => Err(ChatFailure::ModelNotAllowed { model }),
        (true, None) | (false, _) => Ok(ways),
    }
}

/// What may be spent on a call, and by whose keys.
struct Purse<'a> {
    available: MicroUsd,
    /// What is available within the key's budget.
    carried: MicroUsd,
    held: MicroUsd,
    markup_percent: u32,
    own_keys: &'a [(Provider, KeyringEntryId)],
}

/// What a worst case is reckoned from.
struct Money<'a> {
    book: &'a PriceBook,
    route: &'a Route,
    payer: Payer,
    available: MicroUsd,
    held: MicroUsd,
}

impl Money<'_> {
    /// The answer's limit, and what prompt and answer cost at most.
    fn worst_case(&self, call: &ChatCall) -> Result<(u64, MicroUsd), ChatFailure> {
        let (provider, model) = (self.route.provider, self.route.model.as_str());
        if call.kind == CallKind::Embeddings {
            return Ok((0, self.cost(call, 0)?));
        }
        let asked = call.max_tokens.map(|(limit, _)| limit);
        let mut max_tokens = self.book.output_tokens(provider, model, asked);
        if asked.is_none() {
            // SDKs send no limit by default; that must neither lock a whole wallet nor be refused while it can pay.
            let allowance = self.allowance(call, 0);
            let carried = self.book.output_tokens_within(self.available, provider, model, allowance, self.payer)?;
            let carried = carried.unwrap_or(0);
            if carried < max_tokens {
                let least = max_tokens.min(ANSWER_MIN_TOKENS);
                if carried < least {
                    let needed = self.cost(call, least)?;
                    return Err(ChatFailure::CannotPay { needed, available: self.available, held: self.held });
                }
                max_tokens = carried;
            }
        }
        Ok((max_tokens, self.cost(call, max_tokens)?))
    }

    fn cost(&self, call: &ChatCall, max_tokens: u64) -> Result<MicroUsd, ChatFailure> {
        let allowance = self.allowance(call, max_tokens);
        let cost = self.book.worst_case(self.route.provider, &self.route.model, allowance, self.payer)?;
        Ok(cost.total)
    }

    fn allowance(&self, call: &ChatCall, output_tokens: u64) -> Allowance {
        let image_tokens = self.book.image_max_tokens(self.route.provider, &self.route.model);
        // Anthropic tells its models about tools in words of its own, and charges for them.
        let frame = match (self.route.provider, call.dialect) {
            (Provider::Anthropic, Dialect::OpenAi) if call.offers_tools() => TOOLS_FRAME_MAX_TOKENS,
            _ => 0,
        };
        let pictures = call.images.saturating_mul(image_tokens);
        let prompt_tokens = call.prompt_max_tokens.saturating_add(pictures).saturating_add(frame);
        Allowance { prompt_tokens, output_tokens, answers: call.choices }
    }
}

#[cfg(test)]
mod tests {
    use calos_domain::pricing::Provider;

    use super::*;

    fn call(text: &str) -> ChatCall {
        ChatCall::read(serde_json::from_str(text).unwrap()).unwrap()
    }

    fn worst_case(available: i64, held: i64, call: &ChatCall) -> Result<(u64, i64), ChatFailure> {
        let route = Route { provider: Provider::OpenAi, model: "gpt-4".to_owned(), substituted_for: None, byok: false };
        let money = Money {
            book: PriceBook::current(),
            route: &route,
            payer: Payer::Platform { markup_percent: 30 },
            available: MicroUsd::new(available),
            held: MicroUsd::new(held),
        };
        money.worst_case(call).map(|(tokens, cost)| (tokens, cost.get()))
    }

    #[test]
    fn what_is_asked_for_is_what_is_held() {
        let call = call(r#"{"messages":[{"role":"user","content":"hi"}],"max_tokens":100,"n":2}"#);
        let (tokens, cost) = worst_case(10_000_000, 0, &call).unwrap();
        assert_eq!(tokens, 100);
        let prompt = i64::try_from(call.prompt_max_tokens).unwrap();
        assert_eq!(cost, (prompt * 30 + 2 * 100 * 60) * 13 / 10);
    }

    #[test]
    fn a_picture_is_held_for_as_the_model_counts_it() {
        let image = r#"{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}"#;
        let call = call(&format!(r#"{{"messages":[{{"role":"user","content":[{image},{image}]}}],"max_tokens":1}}"#));
        let route =
            Route { provider: Provider::OpenAi, model: "gpt-4o-mini".to_owned(), substituted_for: None, byok: false };
        let money = Money {
            book: PriceBook::current(),
            route: &route,
            payer: Payer::Platform { markup_percent: 0 },
            available: MicroUsd::new(10_000_000),
            held: MicroUsd::ZERO,
        };
        assert_eq!(money.allowance(&call, 1).prompt_tokens, call.prompt_max_tokens + 2 * 48_169);
        assert!(money.worst_case(&call).unwrap().1.get() >= 2 * 48_169 * 15 / 100);
    }

    #[test]
    fn a_request_without_a_limit_gets_what_the_wallet_carries() {
        let call = call(r#"{"messages":[{"role":"user","content":"hi"}]}"#);
        assert_eq!(worst_case(10_000_000, 0, &call).unwrap().0, 4_096);
        let (tokens, cost) = worst_case(100_000, 0, &call).unwrap();
        assert!((ANSWER_MIN_TOKENS..4_096).contains(&tokens), "{tokens}");
        assert!((99_900..=100_000).contains(&cost), "{cost}");
    }

    #[test]
    fn an_empty_wallet_is_told_what_a_short_answer_needs() {
        let call = call(r#"{"messages":[{"role":"user","content":"hi"}]}"#);
        let refused = worst_case(1_000, 9_000_000, &call).unwrap_err();
        assert!(refused.waits_for_holds());
        let refused = worst_case(1_000, 0, &call).unwrap_err();
        let ChatFailure::CannotPay { needed, .. } = refused else { panic!("{refused}") };
        let prompt = i64::try_from(call.prompt_max_tokens).unwrap();
        assert_eq!(needed.get(), (prompt * 30 + 64 * 60) * 13 / 10);
    }
}
