//! Generated histories: wallets as the real decider moves them, and the people and keys around them.

use calos_domain::account::{
    AccountErased, AccountEvent, AccountRegistered, PasswordChanged, StaffRole, StaffRoleGranted, StaffRoleRevoked,
};
use calos_domain::api_key::{
    ApiKeyChanged, ApiKeyEvent, ApiKeyIssued, ApiKeyRevoked, ApiKeyRotated, KeyBudgets, KeyLimits, KeySettings,
};
use calos_domain::pricing::Provider;
use calos_domain::sealed::Sealed;
use calos_domain::session::{SessionEndCause, SessionEnded, SessionEvent, SessionStarted};
use calos_domain::tenant::{
    MemberAdded, MemberRemoved, MemberRole, ProviderKeyAdded, ProviderKeyRemoved, StrictModelsSet, TenantCreated,
    TenantEvent, TenantRenamed,
};
use calos_domain::wallet::{
    AdjustmentReason, CallTerms, Caller, DebtCause, FreezeCause, GrantKind, Meter, ReleaseCause, UsageOutcome,
    UsageRecorded, Wallet, WalletCommand,
};
use calos_domain::{
    AdjustmentId, Asset, Decider, DeviceId, GrantId, HoldId, KeyId, KeyringEntryId, MicroUsd, OperationId, SessionId,
    SubjectId, TenantId, Timestamp, Units, UsageId, UserId,
};
use uuid::Uuid;

use crate::raw_log::Raw;

/// Small, fast, and the same for the same seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn amount(&mut self, bound: u64) -> Units {
        Units::new(i64::try_from(self.below(bound)).expect("small"))
    }

    pub fn uuid(&mut self) -> Uuid {
        Uuid::from_u64_pair(self.next(), self.next())
    }

    pub fn uuid_v7(&mut self, at: Timestamp) -> Uuid {
        let millis = u64::try_from(at.micros() / 1_000).expect("after 1970");
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.next().to_be_bytes());
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }
}

/// A wallet while its history is being made.
pub struct Story {
    pub tenant: TenantId,
    pub wallet: Wallet,
    pub now: Timestamp,
    holds: Vec<(HoldId, UsageId)>,
    uses: Vec<UsageId>,
    grants: Vec<GrantId>,
    claims: Vec<(GrantId, Uuid)>,
}

impl Story {
    pub fn begin(dice: &mut Dice, events: &mut Vec<Raw>) -> Self {
        let mut story = Self {
            tenant: TenantId(dice.uuid()),
            wallet: Wallet::default(),
            now: Timestamp::from_micros(1_760_000_000_000_000),
            holds: Vec::new(),
            uses: Vec::new(),
            grants: Vec::new(),
            claims: Vec::new(),
        };
        story.decide(WalletCommand::OpenWallet { tenant_id: story.tenant, opened_at: story.now }, events);
        story
    }

    /// Decides one command of any kind; refused ones leave no event.
    pub fn go_on(&mut self, dice: &mut Dice, events: &mut Vec<Raw>) {
        self.now = self.now.plus_seconds(i64::try_from(dice.below(40)).expect("small"));
        let command = self.any_command(dice);
        self.decide(command, events);
    }

    fn decide(&mut self, command: WalletCommand, events: &mut Vec<Raw>) {
        let Ok(decided) = self.wallet.decide(command) else { return };
        for event in decided {
            self.wallet.evolve(&event);
            events.push(Raw::of(Wallet::KIND, &self.tenant, &event));
        }
    }

    fn any_command(&mut self, dice: &mut Dice) -> WalletCommand {
        let asset = if dice.below(4) == 0 { Asset::Credit } else { Asset::Usd };
        match dice.below(23) {
            0..=2 => self.grant(dice, asset),
            3..=8 => self.hold(dice, asset),
            9..=13 => self.settle(dice),
            14 => {
                let hold_id = pick(dice, &self.holds).map_or(HoldId(dice.uuid()), |hold| hold.0);
                let cause = if dice.below(2) == 0 { ReleaseCause::Expired } else { ReleaseCause::Voided };
                WalletCommand::ReleaseHold { hold_id, cause, at: self.now }
            }
            15 => {
                let usage_id = UsageId(dice.uuid_v7(self.now));
                self.uses.push(usage_id);
                let amount = dice.amount(300);
                WalletCommand::Charge {
                    usage: usage(dice, usage_id, amount),
                    asset,
                    amount,
                    debt_limit: Units::new(500),
                    debt_cause: DebtCause::InboundWithoutCredit,
                    at: self.now,
                }
            }
            16 => WalletCommand::ReverseDeduction {
                usage_id: pick(dice, &self.uses).unwrap_or(UsageId(dice.uuid())),
                amount: dice.amount(200),
                reason: "it \"never\" arrived, é".to_owned(),
                at: self.now,
            },
            17 => WalletCommand::ExpireGrant {
                grant_id: pick(dice, &self.grants).unwrap_or(GrantId(dice.uuid())),
                at: self.now,
            },
            18 => {
                let claim = (pick(dice, &self.grants).unwrap_or(GrantId(dice.uuid())), dice.uuid());
                self.claims.push(claim);
                WalletCommand::VoidGrant {
                    grant_id: claim.0,
                    claimed: dice.amount(1_000),
                    cause: DebtCause::Refund,
                    source_ref: claim.1.to_string(),
                    at: self.now,
                }
            }
            19 | 20 => {
                let (grant_id, claim) = pick(dice, &self.claims).unwrap_or_else(|| (GrantId(dice.uuid()), dice.uuid()));
                WalletCommand::RestoreGrant { grant_id, source_ref: claim.to_string(), at: self.now }
            }
            21 => WalletCommand::TakeCredits {
                adjustment_id: AdjustmentId(dice.uuid_v7(self.now)),
                asset,
                amount: dice.amount(200),
                reason: if dice.below(2) == 0 { AdjustmentReason::Fraud } else { AdjustmentReason::BillingError },
                effective_at: self.some_time_ago(dice),
                at: self.now,
            },
            _ if dice.below(4) == 0 => WalletCommand::Freeze { cause: FreezeCause::Fraud, source_ref: None },
            _ => WalletCommand::Thaw { cause: FreezeCause::Fraud, source_ref: None },
        }
    }

    fn grant(&mut self, dice: &mut Dice, asset: Asset) -> WalletCommand {
        let grant_id = GrantId(dice.uuid_v7(self.now));
        self.grants.push(grant_id);
        let amount = dice.amount(2_000);
        let correction = dice.below(5) == 0;
        WalletCommand::GrantCredits {
            grant_id,
            asset,
            kind: match dice.below(2) {
                _ if correction => GrantKind::Adjustment,
                0 => GrantKind::Trial,
                _ => GrantKind::Purchase,
            },
            amount,
            priority: i16::try_from(dice.below(3)).expect("small"),
            effective_at: self.some_time_ago(dice),
            expires_at: (dice.below(2) == 0).then(|| self.now.plus_seconds(300)),
            cost_basis: if dice.below(2) == 0 { MicroUsd::ZERO } else { MicroUsd::new(amount.get() / 3) },
            source_ref: if dice.below(3) == 0 { "payment:a test".to_owned() } else { "a test".to_owned() },
            reason: correction.then_some(AdjustmentReason::Goodwill),
            at: self.now,
        }
    }

    /// Now, or up to three days before, so that some things are learnt of late.
    fn some_time_ago(&self, dice: &mut Dice) -> Timestamp {
        let seconds = if dice.below(4) == 0 { dice.below(3 * 86_400) } else { 0 };
        self.now.plus_seconds(-i64::try_from(seconds).expect("small"))
    }

    fn hold(&mut self, dice: &mut Dice, asset: Asset) -> WalletCommand {
        let (hold_id, usage_id) = (HoldId(dice.uuid_v7(self.now)), UsageId(dice.uuid_v7(self.now)));
        self.holds.push((hold_id, usage_id));
        self.uses.push(usage_id);
        WalletCommand::PlaceHold {
            hold_id,
            asset,
            amount: dice.amount(400),
            meter: Meter::Chat,
            caller: (dice.below(3) > 0).then(|| Caller::Key(key_id(dice.below(2)))),
            terms: CallTerms::default(),
            usage_id,
            admitted_at: self.now,
            expires_at: self.now.plus_seconds(60),
        }
    }

    fn settle(&mut self, dice: &mut Dice) -> WalletCommand {
        let (hold_id, usage_id) =
            pick(dice, &self.holds).unwrap_or_else(|| (HoldId(dice.uuid()), UsageId(dice.uuid())));
        // Now and then far more than was held: the rest comes from available, then becomes debt.
        let bound = if dice.below(4) == 0 { 3_000 } else { 400 };
        let amount = dice.amount(bound);
        WalletCommand::SettleHold { hold_id, usage: usage(dice, usage_id, amount), amount, at: self.now }
    }
}

fn pick<T: Copy>(dice: &mut Dice, from: &[T]) -> Option<T> {
    // Mostly recent ones, which are still open.
    let recent = &from[from.len().saturating_sub(6)..];
    (!recent.is_empty()).then(|| recent[usize::try_from(dice.below(recent.len() as u64)).expect("small")])
}

fn key_id(number: u64) -> KeyId {
    format!("testkey{number}").parse().expect("a key id")
}

fn usage(dice: &mut Dice, usage_id: UsageId, total: Units) -> UsageRecorded {
    let markup = total.get() / 5;
    UsageRecorded {
        usage_id,
        meter: Meter::Chat,
        api_key_id: Some(key_id(0)),
        provider: "openai".to_owned(),
        model: "gpt-4 \"turbo\"".to_owned(),
        prompt_tokens: dice.below(1_000),
        completion_tokens: dice.below(1_000),
        cached_tokens: 0,
        cache_write_tokens: 0,
        cache_write_hour_tokens: 0,
        failed_attempts: Vec::new(),
        reasoning_tokens: 3,
        provider_cost: MicroUsd::new(total.get() - markup),
        markup: MicroUsd::new(markup),
        total: MicroUsd::new(total.get()),
        byok: false,
        estimated: dice.below(2) == 0,
        price_book_version: "test".to_owned(),
        latency_ms: dice.below(9_000),
        task_type: "chat".to_owned(),
        outcome: UsageOutcome::Completed,
    }
}

fn sealed(user: UserId, text: &str) -> Sealed {
    Sealed { subject: SubjectId(user.0), ciphertext: text.to_owned() }
}

/// A person, a tenant with members who come and go, and keys that are issued and revoked.
pub fn people(dice: &mut Dice, tenant: TenantId) -> Vec<Raw> {
    let user = UserId(dice.uuid());
    let guest = UserId(dice.uuid());
    let at = Timestamp::from_micros(1_760_000_000_000_000);
    let role =
        [StaffRole::Operator, StaffRole::Finance, StaffRole::Moderator][usize::try_from(dice.below(3)).expect("3")];
    let account = |event| Raw::of("account", &user, &event);
    let of_tenant = |event| Raw::of("tenant", &tenant, &event);
    let mut events = vec![
        account(AccountEvent::AccountRegistered(AccountRegistered {
            user_id: user,
            email: sealed(user, "ZW1haWw="),
            email_hash: dice.uuid().simple().to_string(),
            display_name: (dice.below(2) == 0).then(|| sealed(user, "bmFtZQ==")),
            password_hash: sealed(user, "aGFzaA=="),
            personal_tenant_id: tenant,
            referred_by: None,
            registered_at: at,
        })),
        of_tenant(TenantEvent::TenantCreated(TenantCreated {
            tenant_id: tenant,
            name: "Personal".to_owned(),
            personal: true,
            owner: user,
            created_at: at,
        })),
        of_tenant(TenantEvent::MemberAdded(MemberAdded { user_id: user, role: MemberRole::Owner, added_at: at })),
        of_tenant(TenantEvent::MemberAdded(MemberAdded { user_id: guest, role: MemberRole::Member, added_at: at })),
        of_tenant(TenantEvent::MemberAdded(MemberAdded { user_id: guest, role: MemberRole::Admin, added_at: at })),
        of_tenant(TenantEvent::StrictModelsSet(StrictModelsSet { strict: dice.below(2) == 0, set_at: at })),
        of_tenant(TenantEvent::TenantRenamed(TenantRenamed {
            name: format!("Name {}", dice.below(9)),
            renamed_by: user,
            renamed_at: at,
        })),
        account(AccountEvent::StaffRoleGranted(StaffRoleGranted { role, granted_at: at })),
        account(AccountEvent::PasswordChanged(PasswordChanged {
            password_hash: sealed(user, "aGFzaDI="),
            changed_at: at.plus_seconds(9),
        })),
    ];
    if dice.below(2) == 0 {
        events.push(account(AccountEvent::StaffRoleRevoked(StaffRoleRevoked { role, revoked_at: at })));
        events.push(of_tenant(TenantEvent::MemberRemoved(MemberRemoved { user_id: guest, removed_at: at })));
    }
    events.extend(provider_keys(dice, user, at).into_iter().map(of_tenant));
    events.extend(logins(dice, user, tenant, at));
    for number in 0..2 {
        let key_id = key_id(number);
        let stream = format!("{tenant}/{key_id}");
        events.push(Raw::of(
            "api_key",
            &stream,
            &ApiKeyEvent::ApiKeyIssued(ApiKeyIssued {
                tenant_id: tenant,
                key_id,
                secret_hash: "$2b$".to_owned(),
                last_four: "abcd".to_owned(),
                name: (number == 0).then(|| "a \"key\"".to_owned()),
                endpoints: (number == 0).then(|| vec!["/v1/models".to_owned()]),
                models: None,
                ip_allowlist: (number == 1).then(Vec::new),
                limits: KeyLimits::default(),
                budgets: KeyBudgets::default(),
                expires_at: (number == 1).then(|| at.plus_seconds(99)),
                replaces: None,
                line: None,
                issued_by: user,
                issued_at: at,
            }),
        ));
        changes_of_a_key(dice, user, at).iter().for_each(|event| events.push(Raw::of("api_key", &stream, event)));
        if dice.below(2) == 0 {
            let event = ApiKeyEvent::ApiKeyRevoked(ApiKeyRevoked { revoked_by: user, revoked_at: at.plus_seconds(5) });
            events.push(Raw::of("api_key", &stream, &event));
        }
    }
    events
}

/// Logins of a person, some of which end; and every other person is erased in the end.
fn logins(dice: &mut Dice, user: UserId, tenant: TenantId, at: Timestamp) -> Vec<Raw> {
    let mut events = Vec::new();
    let erased = dice.below(2) == 0;
    let mut ends = 0;
    for number in 0..dice.below(4) {
        let session_id = SessionId(dice.uuid());
        let stream = format!("{user}/{session_id}");
        let started = SessionStarted {
            session_id,
            user_id: user,
            tenant_id: tenant,
            device_id: DeviceId(dice.uuid()),
            started_at: at,
            expires_at: at.plus_seconds(600),
            address: Some(sealed(user, "YWRkcmVzcw==")),
            user_agent: (number > 0).then(|| sealed(user, "YWdlbnQ=")),
        };
        events.push(Raw::of("session", &stream, &SessionEvent::SessionStarted(started)));
        ends = dice.below(2);
        if ends == 1 {
            let cause = if erased { SessionEndCause::Erased } else { SessionEndCause::LoggedOut };
            let ended = SessionEnded { cause, ended_at: at.plus_seconds(60) };
            events.push(Raw::of("session", &stream, &SessionEvent::SessionEnded(ended)));
        }
    }
    if erased {
        let gone = AccountErased {
            subject: SubjectId(user.0),
            operation_id: OperationId(dice.uuid()),
            erased_at: at.plus_seconds(90),
        };
        // The end of a session may stand behind it, never a beginning.
        let place = events.len() - usize::try_from(ends).expect("one at the most");
        events.insert(place, Raw::of("account", &user, &AccountEvent::AccountErased(gone)));
    }
    events
}

/// Keys a tenant brought for its providers: added, replaced, removed and brought again.
fn provider_keys(dice: &mut Dice, user: UserId, at: Timestamp) -> Vec<TenantEvent> {
    let mut events = Vec::new();
    for provider in [Provider::OpenAi, Provider::Anthropic, Provider::DeepSeek] {
        for round in 0..dice.below(3) {
            let entry_id = KeyringEntryId(dice.uuid());
            let last_four = format!("{:04}", dice.below(10_000));
            let added = ProviderKeyAdded { provider, entry_id, last_four, added_by: user, added_at: at };
            events.push(TenantEvent::ProviderKeyAdded(added));
            if round == 1 || dice.below(2) == 0 {
                let removed =
                    ProviderKeyRemoved { provider, entry_id, removed_by: user, removed_at: at.plus_seconds(1) };
                events.push(TenantEvent::ProviderKeyRemoved(removed));
            }
        }
    }
    events
}

/// A change, a rotation and another change of a key, or some of them.
fn changes_of_a_key(dice: &mut Dice, user: UserId, at: Timestamp) -> Vec<ApiKeyEvent> {
    let change = |settings| {
        ApiKeyEvent::ApiKeyChanged(ApiKeyChanged { settings, changed_by: user, changed_at: at.plus_seconds(2) })
    };
    let first = KeySettings {
        models: Some(vec!["gpt-4".to_owned()]),
        budgets: KeyBudgets { per_day: Some(MicroUsd::new(7)), per_month: None },
        expires_at: (dice.below(2) == 0).then(|| at.plus_seconds(500)),
        ..KeySettings::default()
    };
    let rotated = ApiKeyEvent::ApiKeyRotated(ApiKeyRotated {
        replaced_by: key_id(7),
        ends_at: at.plus_seconds(60),
        rotated_by: user,
        rotated_at: at.plus_seconds(3),
    });
    let last = KeySettings { expires_at: Some(at.plus_seconds(30)), ..first.clone() };
    let mut all = vec![change(first), rotated, change(last)];
    all.retain(|_| dice.below(3) > 0);
    all
}

/// Merges streams as a log would see them: each in its order, otherwise mixed.
pub fn mixed(dice: &mut Dice, mut streams: Vec<Vec<Raw>>) -> Vec<Raw> {
    streams.iter_mut().for_each(|stream| stream.reverse());
    let mut all = Vec::new();
    while !streams.is_empty() {
        let index = usize::try_from(dice.below(streams.len() as u64)).expect("small");
        match streams[index].pop() {
            Some(event) => all.push(event),
            None => drop(streams.swap_remove(index)),
        }
    }
    all
}
