use uuid::Uuid;

use super::*;
use crate::pricing::Provider;
use crate::{Decider, KeyringEntryId, TenantId, Timestamp, UserId};

const AT: Timestamp = Timestamp::from_micros(1_000_000);
const ANNA: UserId = UserId(Uuid::from_u128(1));
const BEN: UserId = UserId(Uuid::from_u128(2));

fn created(name: &str) -> TenantCreated {
    TenantCreated {
        tenant_id: TenantId(Uuid::from_u128(3)),
        name: name.to_owned(),
        personal: false,
        owner: ANNA,
        created_at: AT,
    }
}

fn annas() -> Tenant {
    run(Tenant::default(), TenantCommand::Create(created("Acme")))
}

fn run(mut tenant: Tenant, command: TenantCommand) -> Tenant {
    for event in tenant.decide(command).unwrap() {
        tenant.evolve(&event);
    }
    tenant
}

fn add(user_id: UserId, role: MemberRole) -> TenantCommand {
    TenantCommand::AddMember { user_id, role, at: AT }
}

#[test]
fn a_tenant_is_created_with_its_creator_as_owner() {
    let events = Tenant::default().decide(TenantCommand::Create(created("Acme"))).unwrap();
    assert_eq!(
        events,
        [
            TenantEvent::TenantCreated(created("Acme")),
            TenantEvent::MemberAdded(MemberAdded { user_id: ANNA, role: MemberRole::Owner, added_at: AT }),
        ]
    );
}

#[test]
fn a_tenant_is_created_once() {
    assert_eq!(annas().decide(TenantCommand::Create(created("Acme"))), Ok(Vec::new()));
    assert_eq!(annas().decide(TenantCommand::Create(created("Other"))), Err(TenantRefusal::AlreadyCreated));
}

#[test]
fn a_name_must_be_there_and_fit() {
    let create = |name: &str| Tenant::default().decide(TenantCommand::Create(created(name)));
    assert_eq!(create("  "), Err(TenantRefusal::NameLength { characters: 2 }));
    assert_eq!(create(&"n".repeat(201)), Err(TenantRefusal::NameLength { characters: 201 }));
    assert!(create(&"ü".repeat(200)).is_ok());
}

#[test]
fn a_member_is_added_once_and_can_change_roles() {
    let tenant = run(annas(), add(BEN, MemberRole::Member));
    assert_eq!(tenant.decide(add(BEN, MemberRole::Member)), Ok(Vec::new()));
    let tenant = run(tenant, add(BEN, MemberRole::Admin));
    assert_eq!(tenant.members[&BEN], MemberRole::Admin);
}

#[test]
fn the_last_owner_neither_leaves_nor_steps_down() {
    let remove = TenantCommand::RemoveMember { user_id: ANNA, at: AT };
    assert_eq!(annas().decide(remove.clone()), Err(TenantRefusal::LastOwner));
    assert_eq!(annas().decide(add(ANNA, MemberRole::Member)), Err(TenantRefusal::LastOwner));
    let two_owners = run(annas(), add(BEN, MemberRole::Owner));
    assert!(!run(two_owners, remove).members.contains_key(&ANNA));
}

#[test]
fn removing_somebody_who_is_not_there_changes_nothing() {
    assert_eq!(annas().decide(TenantCommand::RemoveMember { user_id: BEN, at: AT }), Ok(Vec::new()));
}

#[test]
fn a_full_tenant_takes_nobody_else() {
    let mut tenant = annas();
    for index in 0..MEMBERS_MAX - 1 {
        let user_id = UserId(Uuid::from_u128(100 + index as u128));
        tenant.evolve(&TenantEvent::MemberAdded(MemberAdded { user_id, role: MemberRole::Member, added_at: AT }));
    }
    assert_eq!(tenant.decide(add(BEN, MemberRole::Member)), Err(TenantRefusal::TooManyMembers));
}

#[test]
fn nothing_but_a_creation_is_taken_by_an_unknown_tenant() {
    let unknown = Tenant::default();
    assert_eq!(unknown.decide(add(BEN, MemberRole::Member)), Err(TenantRefusal::NotCreated));
    assert_eq!(unknown.decide(TenantCommand::SetStrictModels { strict: true, at: AT }), Err(TenantRefusal::NotCreated));
}

#[test]
fn a_role_covers_the_ones_below_it() {
    let tenant = run(annas(), add(BEN, MemberRole::Member));
    assert_eq!(tenant.authorise(ANNA, MemberRole::Admin), Ok(MemberRole::Owner));
    assert_eq!(
        tenant.authorise(BEN, MemberRole::Admin),
        Err(TenantRefusal::RoleTooLow { needs: MemberRole::Admin, has: MemberRole::Member })
    );
    let stranger = UserId(Uuid::from_u128(9));
    assert_eq!(tenant.authorise(stranger, MemberRole::Member), Err(TenantRefusal::NotAMember));
    assert_eq!(Tenant::default().authorise(ANNA, MemberRole::Member), Err(TenantRefusal::NotAMember));
}

#[test]
fn strict_models_are_set_once() {
    let strict = |strict| TenantCommand::SetStrictModels { strict, at: AT };
    assert_eq!(annas().decide(strict(false)), Ok(Vec::new()));
    let tenant = run(annas(), strict(true));
    assert!(tenant.strict_models);
    assert_eq!(tenant.decide(strict(true)), Ok(Vec::new()));
}

fn rename(name: &str) -> TenantCommand {
    TenantCommand::Rename(TenantRenamed { name: name.to_owned(), renamed_by: ANNA, renamed_at: AT })
}

#[test]
fn a_tenant_is_renamed_within_the_bounds_of_a_name() {
    assert_eq!(annas().decide(rename("Acme")), Ok(Vec::new()));
    assert_eq!(annas().decide(rename(" ")), Err(TenantRefusal::NameLength { characters: 1 }));
    assert_eq!(annas().decide(rename(&"n".repeat(201))), Err(TenantRefusal::NameLength { characters: 201 }));
    assert_eq!(run(annas(), rename("Other")).name.as_deref(), Some("Other"));
    assert_eq!(Tenant::default().decide(rename("Other")), Err(TenantRefusal::NotCreated));
}

#[test]
fn no_persons_name_gets_into_the_log_by_way_of_their_tenant() {
    let personal =
        run(Tenant::default(), TenantCommand::Create(TenantCreated { personal: true, ..created("Personal") }));
    assert_eq!(personal.decide(rename("Anna's")), Err(TenantRefusal::PersonalKeepsName));
}

fn key(provider: Provider, entry: u128) -> ProviderKeyAdded {
    ProviderKeyAdded {
        provider,
        entry_id: KeyringEntryId(Uuid::from_u128(entry)),
        last_four: "wxyz".to_owned(),
        added_by: ANNA,
        added_at: AT,
    }
}

fn remove_key(provider: Provider) -> TenantCommand {
    TenantCommand::RemoveProviderKey { provider, by: BEN, at: AT }
}

#[test]
fn a_tenant_brings_a_key_for_each_provider_and_a_later_one_takes_its_place() {
    let add = |provider, entry| TenantCommand::AddProviderKey(key(provider, entry));
    let tenant = run(annas(), add(Provider::OpenAi, 1));
    assert_eq!(tenant.decide(add(Provider::OpenAi, 1)), Ok(Vec::new()));
    let tenant = run(run(tenant, add(Provider::Anthropic, 2)), add(Provider::OpenAi, 3));
    let entries: Vec<_> = Provider::ALL.into_iter().map(|provider| tenant.provider_key(provider)).collect();
    assert_eq!(entries, [3, 2, 0, 0].map(|entry| (entry > 0).then(|| KeyringEntryId(Uuid::from_u128(entry)))));
}

#[test]
fn a_removed_key_is_gone_and_names_the_entry_that_is_to_go() {
    let tenant = run(annas(), TenantCommand::AddProviderKey(key(Provider::OpenAi, 1)));
    let removed = ProviderKeyRemoved {
        provider: Provider::OpenAi,
        entry_id: KeyringEntryId(Uuid::from_u128(1)),
        removed_by: BEN,
        removed_at: AT,
    };
    assert_eq!(tenant.decide(remove_key(Provider::OpenAi)), Ok(vec![TenantEvent::ProviderKeyRemoved(removed)]));
    let tenant = run(tenant, remove_key(Provider::OpenAi));
    assert_eq!(tenant.provider_key(Provider::OpenAi), None);
    let refused = Err(TenantRefusal::NoProviderKey { provider: Provider::OpenAi });
    assert_eq!(tenant.decide(remove_key(Provider::OpenAi)), refused);
}

#[test]
fn the_platforms_own_machines_take_no_key() {
    let refused = annas().decide(TenantCommand::AddProviderKey(key(Provider::Ollama, 1)));
    assert_eq!(refused, Err(TenantRefusal::TakesNoKey { provider: Provider::Ollama }));
    let unknown = Tenant::default().decide(TenantCommand::AddProviderKey(key(Provider::OpenAi, 1)));
    assert_eq!(unknown, Err(TenantRefusal::NotCreated));
}

#[test]
fn no_more_of_a_key_than_its_end_is_ever_recorded() {
    let whole = ProviderKeyAdded { last_four: "sk-a-whole-key-wxyü".to_owned(), ..key(Provider::OpenAi, 1) };
    let tenant = run(annas(), TenantCommand::AddProviderKey(whole));
    assert_eq!(tenant.provider_keys[&Provider::OpenAi].last_four, "wxyü");
}

fn count(number: usize, ends_at: Option<Timestamp>, at: Timestamp) -> TenantCommand {
    TenantCommand::CountApiKey { key_id: format!("key{number:05}").parse().unwrap(), ends_at, at }
}

#[test]
fn a_tenant_has_a_bounded_number_of_live_keys() {
    let mut tenant = annas();
    for number in 0..API_KEYS_LIVE_MAX {
        tenant = run(tenant, count(number, (number == 0).then(|| AT.plus_seconds(60)), AT));
    }
    assert_eq!(tenant.decide(count(5_000, None, AT)), Err(TenantRefusal::TooManyApiKeys));
    assert_eq!(tenant.decide(count(7, None, AT)), Ok(Vec::new()), "one that counts already");
    // An end makes room at once, one that comes by itself once it has come.
    let later = AT.plus_seconds(60);
    assert!(tenant.decide(count(5_000, None, later)).is_ok());
    tenant = run(tenant, count(7, Some(AT), AT));
    tenant = run(tenant, count(5_000, None, AT));
    assert_eq!(tenant.decide(count(5_001, None, AT)), Err(TenantRefusal::TooManyApiKeys));
    tenant = run(tenant, count(5_001, None, later));
    assert_eq!(tenant.api_keys.len(), API_KEYS_LIVE_MAX);
    assert_eq!(tenant.decide(count(9_000, Some(AT), AT)), Ok(Vec::new()), "what never counted need not end");
}
