use std::net::IpAddr;

use uuid::Uuid;

use super::*;
use crate::{Decider, MicroUsd, TenantId, Timestamp, UserId};

const AT: Timestamp = Timestamp::from_micros(1_000_000);
const ANNA: UserId = UserId(Uuid::from_u128(1));

fn issue() -> ApiKeyIssued {
    ApiKeyIssued {
        tenant_id: TenantId(Uuid::from_u128(3)),
        key_id: "abcd1234".parse().unwrap(),
        secret_hash: "$2b$10$hash".to_owned(),
        last_four: "wxyz".to_owned(),
        name: None,
        endpoints: None,
        models: None,
        ip_allowlist: None,
        limits: KeyLimits::default(),
        budgets: KeyBudgets::default(),
        expires_at: None,
        replaces: None,
        line: None,
        issued_by: ANNA,
        issued_at: AT,
    }
}

fn given(events: &[ApiKeyEvent]) -> ApiKey {
    let mut key = ApiKey::default();
    events.iter().for_each(|event| key.evolve(event));
    key
}

fn revoked() -> ApiKeyEvent {
    ApiKeyEvent::ApiKeyRevoked(ApiKeyRevoked { revoked_by: ANNA, revoked_at: AT.plus_seconds(5) })
}

fn refusal(issue: ApiKeyIssued) -> ApiKeyRefusal {
    given(&[]).decide(ApiKeyCommand::Issue(issue)).unwrap_err()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_key_is_issued_once() {
    assert_eq!(given(&[]).decide(ApiKeyCommand::Issue(issue())), Ok(vec![ApiKeyEvent::ApiKeyIssued(issue())]));
    let known = given(&[ApiKeyEvent::ApiKeyIssued(issue())]);
    assert_eq!(known.decide(ApiKeyCommand::Issue(issue())), Ok(Vec::new()));
    let other = ApiKeyIssued { secret_hash: "$2b$10$other".to_owned(), ..issue() };
    assert_eq!(known.decide(ApiKeyCommand::Issue(other)), Err(ApiKeyRefusal::AlreadyIssued));
}

#[test]
fn a_key_is_revoked_once_and_for_ever() {
    let key = given(&[ApiKeyEvent::ApiKeyIssued(issue())]);
    let revoke = || ApiKeyCommand::Revoke { by: ANNA, at: AT.plus_seconds(5) };
    assert_eq!(key.decide(revoke()), Ok(vec![revoked()]));
    let gone = given(&[ApiKeyEvent::ApiKeyIssued(issue()), revoked()]);
    assert_eq!(gone.decide(revoke()), Ok(Vec::new()));
    assert_eq!(gone.standing(AT), Err(KeyDenial::Revoked));
    assert_eq!(given(&[]).decide(revoke()), Err(ApiKeyRefusal::NotIssued));
}

#[test]
fn a_key_stands_until_it_expires() {
    let expires_at = AT.plus_seconds(60);
    let key = given(&[ApiKeyEvent::ApiKeyIssued(ApiKeyIssued { expires_at: Some(expires_at), ..issue() })]);
    assert!(key.standing(AT.plus_seconds(59)).is_ok());
    assert_eq!(key.standing(expires_at), Err(KeyDenial::Expired { expired_at: expires_at }));
    assert_eq!(given(&[]).standing(AT), Err(KeyDenial::Unknown));
}

#[test]
fn a_restricted_key_calls_only_what_is_listed() {
    let key = ApiKeyIssued {
        endpoints: Some(vec!["/v1/models".to_owned()]),
        models: Some(vec!["gpt-4".to_owned()]),
        ..issue()
    };
    assert!(key.admits("/v1/models", address("203.0.113.1")).is_ok());
    assert_eq!(
        key.admits("/v1/chat/completions", address("203.0.113.1")),
        Err(KeyDenial::Endpoint { endpoint: "/v1/chat/completions".to_owned() })
    );
    assert!(key.admits_model("gpt-4"));
    assert!(!key.admits_model("gpt-4o"));
    assert!(issue().admits_model("anything"));
    let local = ApiKeyIssued { models: Some(vec!["llama2".to_owned(), "phi:mini".to_owned()]), ..issue() };
    assert!(local.admits_model("llama2:latest") && local.admits_model("llama2") && local.admits_model("phi:mini"));
    assert!(!local.admits_model("llama2:7b") && !local.admits_model("phi"));
}

#[test]
fn a_key_with_an_allow_list_is_refused_from_elsewhere() {
    let networks = ["203.0.113.0/24", "2001:db8::/32"].map(str::to_owned).to_vec();
    let key = ApiKeyIssued { ip_allowlist: Some(networks), ..issue() };
    for inside in ["203.0.113.200", "2001:db8:1::1", "::ffff:203.0.113.9"] {
        assert!(key.admits("/v1/models", address(inside)).is_ok(), "{inside}");
    }
    for outside in ["203.0.114.1", "2001:db9::1", "::1"] {
        assert_eq!(
            key.admits("/v1/models", address(outside)),
            Err(KeyDenial::Address { address: address(outside) }),
            "{outside}"
        );
    }
}

#[test]
fn restrictions_that_lock_everybody_out_are_refused() {
    assert_eq!(
        refusal(ApiKeyIssued { endpoints: Some(Vec::new()), ..issue() }),
        ApiKeyRefusal::Restrictions { list: "endpoints" }
    );
    let many = vec!["gpt-4".to_owned(); KEY_RESTRICTIONS_MAX + 1];
    assert_eq!(refusal(ApiKeyIssued { models: Some(many), ..issue() }), ApiKeyRefusal::Restrictions { list: "models" });
    assert_eq!(
        refusal(ApiKeyIssued { ip_allowlist: Some(vec!["10.0.0.0/33".to_owned()]), ..issue() }),
        ApiKeyRefusal::NotANetwork { entry: "10.0.0.0/33".to_owned() }
    );
}

#[test]
fn limits_must_make_sense() {
    let limits = KeyLimits { per_minute: 0, per_hour: 1, per_day: 1 };
    assert_eq!(
        refusal(ApiKeyIssued { limits, ..issue() }),
        ApiKeyRefusal::Limits { per_minute: 0, per_hour: 1, per_day: 1 }
    );
    let limits = KeyLimits { per_minute: 60, per_hour: 10, per_day: 100 };
    assert_eq!(
        refusal(ApiKeyIssued { limits, ..issue() }),
        ApiKeyRefusal::Limits { per_minute: 60, per_hour: 10, per_day: 100 }
    );
}

#[test]
fn a_name_and_an_end_must_make_sense() {
    assert_eq!(
        refusal(ApiKeyIssued { name: Some(" ".to_owned()), ..issue() }),
        ApiKeyRefusal::NameLength { characters: 1 }
    );
    assert_eq!(refusal(ApiKeyIssued { expires_at: Some(AT), ..issue() }), ApiKeyRefusal::ExpiresInThePast);
}

#[test]
fn networks_are_read_strictly_and_written_in_their_shortest_form() {
    let network = |text: &str| text.parse::<Network>().map(|network| network.to_string());
    assert_eq!(network("203.0.113.77/24"), Ok("203.0.113.0/24".to_owned()));
    assert_eq!(network("203.0.113.77"), Ok("203.0.113.77/32".to_owned()));
    assert_eq!(network("2001:db8::1/32"), Ok("2001:db8::/32".to_owned()));
    assert_eq!(network("0.0.0.0/0"), Ok("0.0.0.0/0".to_owned()));
    for bad in ["", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "::/129", "10.0.0/8", "host/8", "10.0.0.0/8/8"] {
        assert_eq!(network(bad), Err(NoNetwork), "{bad}");
    }
    assert!("0.0.0.0/0".parse::<Network>().unwrap().contains(address("203.0.113.1")));
    assert!("::/0".parse::<Network>().unwrap().contains(address("2001:db8::1")));
}

fn change(change: KeyChange) -> ApiKeyCommand {
    ApiKeyCommand::Change { change, by: ANNA, at: AT.plus_seconds(10) }
}

fn when(key: &mut ApiKey, command: ApiKeyCommand) -> Result<usize, ApiKeyRefusal> {
    let events = key.decide(command)?;
    events.iter().for_each(|event| key.evolve(event));
    Ok(events.len())
}

fn rotation(number: u32, ends_at: Timestamp) -> ApiKeyRotated {
    let replaced_by = format!("newkey{number:02}").parse().unwrap();
    ApiKeyRotated { replaced_by, ends_at, rotated_by: ANNA, rotated_at: AT.plus_seconds(10) }
}

#[test]
fn a_change_leaves_everything_else_as_it_was() {
    let first = ApiKeyIssued {
        name: Some("ci".to_owned()),
        models: Some(vec!["gpt-4".to_owned()]),
        budgets: KeyBudgets { per_day: Some(MicroUsd::new(5)), per_month: None },
        ..issue()
    };
    let mut key = given(&[ApiKeyEvent::ApiKeyIssued(first.clone())]);
    let wanted = KeyChange {
        models: Patch::Clear,
        endpoints: Patch::Set(vec!["/v1/models".to_owned()]),
        per_day: Some(50_000),
        budget_per_month: Patch::Set(MicroUsd::new(90)),
        ..KeyChange::default()
    };
    assert_eq!(when(&mut key, change(wanted.clone())), Ok(1));
    let expected = ApiKeyIssued {
        models: None,
        endpoints: Some(vec!["/v1/models".to_owned()]),
        limits: KeyLimits { per_day: 50_000, ..KeyLimits::default() },
        budgets: KeyBudgets { per_day: Some(MicroUsd::new(5)), per_month: Some(MicroUsd::new(90)) },
        ..first.clone()
    };
    assert_eq!(key.standing(AT), Ok(&expected));
    assert_eq!(when(&mut key, change(wanted)), Ok(0), "what is so already is no event");
    assert_eq!(when(&mut key, ApiKeyCommand::Issue(first)), Ok(0), "the same key, whatever was changed since");
}

#[test]
fn a_change_that_makes_no_sense_or_comes_too_late_is_refused() {
    let mut key = given(&[ApiKeyEvent::ApiKeyIssued(issue())]);
    let before = key.clone();
    let refused = |key: &mut ApiKey, wanted| when(key, change(wanted)).unwrap_err();
    let limits = KeyChange { per_minute: Some(5_000), ..KeyChange::default() };
    assert!(matches!(refused(&mut key, limits), ApiKeyRefusal::Limits { per_minute: 5_000, .. }));
    let budget = MicroUsd::new(-1);
    let below = KeyChange { budget_per_day: Patch::Set(budget), ..KeyChange::default() };
    assert_eq!(refused(&mut key, below), ApiKeyRefusal::Budget { budget });
    let past = KeyChange { expires_at: Patch::Set(AT), ..KeyChange::default() };
    assert_eq!(refused(&mut key, past), ApiKeyRefusal::ExpiresInThePast);
    assert_eq!(key, before);
    let named = || KeyChange { name: Patch::Set("x".to_owned()), ..KeyChange::default() };
    assert_eq!(refused(&mut ApiKey::default(), named()), ApiKeyRefusal::NotIssued);
    key.evolve(&revoked());
    assert_eq!(refused(&mut key, named()), ApiKeyRefusal::Ended(KeyDenial::Revoked));
}

#[test]
fn a_rotated_key_ends_with_the_overlap_and_cannot_outlast_it() {
    let mut key = given(&[ApiKeyEvent::ApiKeyIssued(issue())]);
    let ends_at = AT.plus_seconds(100);
    assert_eq!(when(&mut key, ApiKeyCommand::Rotate(rotation(1, ends_at))), Ok(1));
    assert!(key.standing(AT.plus_seconds(99)).is_ok());
    assert_eq!(key.standing(ends_at), Err(KeyDenial::Expired { expired_at: ends_at }));
    assert_eq!(when(&mut key, ApiKeyCommand::Rotate(rotation(1, ends_at))), Ok(0));
    let again = when(&mut key, ApiKeyCommand::Rotate(rotation(2, ends_at)));
    assert_eq!(again, Err(ApiKeyRefusal::AlreadyRotated("newkey01".parse().unwrap())));
    for expires_at in [Patch::Clear, Patch::Set(AT.plus_seconds(101))] {
        let longer = KeyChange { expires_at, ..KeyChange::default() };
        assert_eq!(when(&mut key, change(longer)), Err(ApiKeyRefusal::Replaced { ends_at }));
    }
    let sooner = KeyChange { expires_at: Patch::Set(AT.plus_seconds(50)), ..KeyChange::default() };
    assert_eq!(when(&mut key, change(sooner)), Ok(1));
    assert!(key.standing(AT.plus_seconds(50)).is_err());
}

#[test]
fn a_rotation_never_makes_a_key_last_longer() {
    let expires_at = Some(AT.plus_seconds(60));
    let mut key = given(&[ApiKeyEvent::ApiKeyIssued(ApiKeyIssued { expires_at, ..issue() })]);
    when(&mut key, ApiKeyCommand::Rotate(rotation(1, AT.plus_seconds(1_000)))).unwrap();
    assert!(key.standing(AT.plus_seconds(60)).is_err());
}

#[test]
fn an_overlap_has_its_bounds_and_what_has_ended_is_not_rotated() {
    let issued = [ApiKeyEvent::ApiKeyIssued(issue())];
    for (seconds, fits) in [(9, false), (10, true), (10 + ROTATION_OVERLAP_MAX_SECONDS, true)] {
        let rotated = when(&mut given(&issued), ApiKeyCommand::Rotate(rotation(1, AT.plus_seconds(seconds))));
        assert_eq!(rotated, if fits { Ok(1) } else { Err(ApiKeyRefusal::Overlap) }, "{seconds}");
    }
    let too_long = rotation(1, AT.plus_seconds(11 + ROTATION_OVERLAP_MAX_SECONDS));
    assert_eq!(when(&mut given(&issued), ApiKeyCommand::Rotate(too_long)), Err(ApiKeyRefusal::Overlap));
    let mut gone = given(&[ApiKeyEvent::ApiKeyIssued(issue()), revoked()]);
    let late = when(&mut gone, ApiKeyCommand::Rotate(rotation(1, AT.plus_seconds(20))));
    assert_eq!(late, Err(ApiKeyRefusal::Ended(KeyDenial::Revoked)));
}

#[test]
fn lists_that_are_too_long_together_are_refused_unless_they_were_there_before() {
    let bytes = KEY_RESTRICTIONS_MAX_BYTES + 1;
    let entry = |length: usize| "m".repeat(length);
    let mut models = vec![entry(100); KEY_RESTRICTIONS_MAX_BYTES / 100];
    models.push(entry(bytes % 100));
    let (paths, models) = (models.split_off(50), models);
    assert_eq!(models.iter().chain(&paths).map(String::len).sum::<usize>(), bytes);
    let large = ApiKeyIssued { endpoints: Some(paths), models: Some(models.clone()), ip_allowlist: None, ..issue() };
    let refused = Err(ApiKeyRefusal::RestrictionsTooLarge { bytes });
    assert_eq!(when(&mut ApiKey::default(), ApiKeyCommand::Issue(large.clone())), refused);
    let successor = ApiKeyIssued { replaces: Some("oldkey01".parse().unwrap()), ..large.clone() };
    assert_eq!(when(&mut ApiKey::default(), ApiKeyCommand::Issue(successor)), Ok(1));

    let mut from_before = given(&[ApiKeyEvent::ApiKeyIssued(large)]);
    let named = KeyChange { name: Patch::Set("x".to_owned()), ..KeyChange::default() };
    assert_eq!(when(&mut from_before, change(named)), Ok(1));
    let fewer = models[..49].to_vec();
    let shorter = KeyChange { models: Patch::Set(fewer), ..KeyChange::default() };
    assert_eq!(when(&mut from_before, change(shorter)), Ok(1));
    let longer = KeyChange { models: Patch::Set(models), ..KeyChange::default() };
    assert_eq!(when(&mut from_before, change(longer)), refused);
}
