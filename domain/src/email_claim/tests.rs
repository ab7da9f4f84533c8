use uuid::Uuid;

use super::*;
use crate::{Decider, Timestamp, UserId};

const AT: Timestamp = Timestamp::from_micros(1_000_000);
const ANNA: UserId = UserId(Uuid::from_u128(1));
const BEN: UserId = UserId(Uuid::from_u128(2));

fn held_by(user_id: UserId) -> EmailClaim {
    let mut claim = EmailClaim::default();
    claim.evolve(&EmailClaimEvent::EmailClaimed(EmailClaimed { user_id, claimed_at: AT }));
    claim
}

#[test]
fn a_free_address_is_claimed() {
    let events = EmailClaim::default().decide(EmailClaimCommand::Claim { user_id: ANNA, at: AT });
    assert_eq!(events, Ok(vec![EmailClaimEvent::EmailClaimed(EmailClaimed { user_id: ANNA, claimed_at: AT })]));
}

#[test]
fn a_taken_address_is_refused_to_everybody_but_its_holder() {
    assert_eq!(held_by(ANNA).decide(EmailClaimCommand::Claim { user_id: BEN, at: AT }), Err(EmailClaimRefusal::Taken));
    assert_eq!(held_by(ANNA).decide(EmailClaimCommand::Claim { user_id: ANNA, at: AT }), Ok(Vec::new()));
}

#[test]
fn a_released_address_can_be_claimed_by_another() {
    let mut claim = held_by(ANNA);
    for event in claim.decide(EmailClaimCommand::Release { user_id: ANNA, at: AT }).unwrap() {
        claim.evolve(&event);
    }
    assert_eq!(claim.decide(EmailClaimCommand::Claim { user_id: BEN, at: AT }).unwrap().len(), 1);
}

#[test]
fn nobody_releases_what_another_holds() {
    assert_eq!(
        held_by(ANNA).decide(EmailClaimCommand::Release { user_id: BEN, at: AT }),
        Err(EmailClaimRefusal::NotTheHolder)
    );
}

#[test]
fn plausible_addresses_are_taken_and_others_are_not() {
    for good in ["user@example.com", "a.b+tag@mail.example.co.uk", " Someone@Example.COM ", "jürgen@münchen.example"]
    {
        assert!(good.parse::<EmailAddress>().is_ok(), "{good}");
    }
    for bad in [
        "",
        "user",
        "@example.com",
        "user@",
        "user@host",
        "a b@example.com",
        "a@@example.com",
        "a@b@example.com",
        ".a@example.com",
        "a..b@example.com",
        "a@-example.com",
        "a@example..com",
        "a\u{0}@example.com",
        "a@example.com\nbcc: b@example.com",
    ] {
        assert_eq!(bad.parse::<EmailAddress>(), Err(NoEmailAddress::Malformed), "{bad:?}");
    }
    let long = format!("{}@example.com", "a".repeat(300));
    assert_eq!(long.parse::<EmailAddress>(), Err(NoEmailAddress::TooLong { bytes: 312 }));
}

#[test]
fn two_spellings_of_one_address_are_equal_once_normalised() {
    let one: EmailAddress = "User@Example.com".parse().unwrap();
    let other: EmailAddress = " user@EXAMPLE.com".parse().unwrap();
    assert_eq!(one.normalised(), other.normalised());
}

#[test]
fn an_address_does_not_show_itself_to_a_debugger() {
    let address: EmailAddress = "user@example.com".parse().unwrap();
    assert!(!format!("{address:?}").contains("example"));
}
