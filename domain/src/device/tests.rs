use uuid::Uuid;

use super::*;
use crate::sealed::Sealed;
use crate::{Decider, DeviceId, SubjectId, Timestamp, UserId};

const AT: Timestamp = Timestamp::from_micros(1_000_000);

fn nickname() -> Sealed {
    Sealed { subject: SubjectId(Uuid::from_u128(2)), ciphertext: "Firefox on Linux".to_owned() }
}

fn trusted() -> DeviceTrusted {
    DeviceTrusted {
        device_id: DeviceId(Uuid::from_u128(1)),
        user_id: UserId(Uuid::from_u128(2)),
        fingerprint: "aa".to_owned(),
        nickname: nickname(),
        platform: "Linux".to_owned(),
        trust_level: TrustLevel::Password,
        path: TrustPath::Registration,
        trusted_at: AT,
    }
}

fn seen() -> DeviceSeen {
    DeviceSeen {
        device_id: DeviceId(Uuid::from_u128(1)),
        user_id: UserId(Uuid::from_u128(2)),
        fingerprint: "aa".to_owned(),
        nickname: nickname(),
        platform: "Linux".to_owned(),
        seen_at: AT,
    }
}

fn given(events: &[DeviceEvent]) -> Device {
    let mut device = Device::default();
    events.iter().for_each(|event| device.evolve(event));
    device
}

#[test]
fn the_device_an_account_is_registered_on_is_trusted_once() {
    let new = given(&[]);
    assert_eq!(new.decide(DeviceCommand::Trust(trusted())), Ok(vec![DeviceEvent::DeviceTrusted(trusted())]));
    let known = given(&[DeviceEvent::DeviceTrusted(trusted())]);
    assert_eq!(known.trust, Some(TrustLevel::Password));
    assert_eq!(known.decide(DeviceCommand::Trust(trusted())), Ok(Vec::new()));
}

#[test]
fn an_unknown_device_is_seen_but_not_trusted() {
    let new = given(&[]);
    assert_eq!(new.decide(DeviceCommand::See(seen())), Ok(vec![DeviceEvent::DeviceSeen(seen())]));
    let strange = given(&[DeviceEvent::DeviceSeen(seen())]);
    assert_eq!(strange.trust, None);
    assert_eq!(strange.decide(DeviceCommand::See(seen())), Ok(Vec::new()));
}

#[test]
fn a_trusted_device_seen_again_stays_trusted() {
    let known = given(&[DeviceEvent::DeviceTrusted(trusted())]);
    assert_eq!(known.decide(DeviceCommand::See(seen())), Ok(Vec::new()));
}

#[test]
fn a_device_id_with_another_fingerprint_or_user_is_refused() {
    let known = given(&[DeviceEvent::DeviceTrusted(trusted())]);
    let other = DeviceSeen { fingerprint: "bb".to_owned(), ..seen() };
    assert_eq!(known.decide(DeviceCommand::See(other)), Err(DeviceRefusal::AnotherDevice));
    let other = DeviceTrusted { user_id: UserId(Uuid::from_u128(9)), ..trusted() };
    assert_eq!(known.decide(DeviceCommand::Trust(other)), Err(DeviceRefusal::AnotherDevice));
}

#[test]
fn a_device_trusted_at_one_level_is_not_silently_trusted_at_another() {
    let known = given(&[DeviceEvent::DeviceTrusted(trusted())]);
    let higher = DeviceTrusted { trust_level: TrustLevel::Biometric, ..trusted() };
    assert_eq!(
        known.decide(DeviceCommand::Trust(higher)),
        Err(DeviceRefusal::AlreadyTrusted { level: TrustLevel::Password })
    );
}

#[test]
fn a_revoked_device_is_known_and_not_trusted() {
    let mut device = given(&[DeviceEvent::DeviceTrusted(trusted())]);
    let revoke = || DeviceCommand::Revoke { device_id: trusted().device_id, at: AT };
    let events = device.decide(revoke()).unwrap();
    let revoked = DeviceRevoked { device_id: trusted().device_id, revoked_at: AT };
    assert_eq!(events, [DeviceEvent::DeviceRevoked(revoked)]);
    device.evolve(&events[0]);
    assert_eq!((device.trust, device.known.is_some()), (None, true));
    assert_eq!(device.decide(revoke()), Ok(Vec::new()));
    assert_eq!(given(&[]).decide(revoke()), Ok(Vec::new()));
}
