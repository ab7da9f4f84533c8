//! What an event means for the book, for every read model that is made of it.
//!
//! The accounting rules are the domain's: [`calos_domain::book`] maps events to entries, checks them, and says from when
//! they count. Nothing of it is written down here a second time.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use uuid::Uuid;

use calos_domain::book::{self, Account, Entry, Posting};
use calos_domain::payment::{PaymentEvent, PayoutEvent};
use calos_domain::wallet::WalletEvent;
use calos_domain::{Record, TenantId, Timestamp};

use crate::bucket;
use crate::decode::{fact, stream_uuid, stream_uuid_and_rest};
use crate::kind::Kind;
use crate::projection::ProjectError;

/// An event that moves something in the book.
#[derive(Debug)]
pub(crate) struct Booked {
    /// Whose wallet or payment it is about; nil for nobody's.
    pub(crate) tenant: TenantId,
    /// From when it counts.
    pub(crate) effective_at: Timestamp,
    /// At most one per asset, balanced, none empty.
    pub(crate) entries: Vec<Entry>,
    /// The use behind it.
    pub(crate) usage_id: Option<Uuid>,
    /// Where it comes from.
    pub(crate) source_ref: Option<String>,
}

/// The tenant of entries that are about nobody in particular.
pub(crate) const NOBODY: TenantId = TenantId(Uuid::nil());

/// The event that was read last on this thread, and what it means for the book.
///
/// A rebuild hands each event to every read model in turn, and four of them are made of the book: so it is read once. What
/// is remembered is only taken for an event that is the same in all that it is read from, so nothing depends on it.
#[derive(Default)]
struct Last {
    known: bool,
    aggregate_type: String,
    aggregate_id: String,
    event_type: String,
    event_version: String,
    payload: String,
    recorded_at: Timestamp,
    booked: Option<Rc<Booked>>,
}

impl Last {
    fn is(&self, record: &Record<'_>) -> bool {
        self.known
            && self.payload == record.payload
            && self.aggregate_id == record.aggregate_id
            && self.event_type == record.event_type
            && self.event_version == record.event_version
            && self.aggregate_type == record.aggregate_type
            && self.recorded_at == record.recorded_at
    }

    fn remember(&mut self, record: &Record<'_>, booked: Option<Rc<Booked>>) {
        for (kept, text) in [
            (&mut self.aggregate_type, record.aggregate_type),
            (&mut self.aggregate_id, record.aggregate_id),
            (&mut self.event_type, record.event_type),
            (&mut self.event_version, record.event_version),
            (&mut self.payload, record.payload),
        ] {
            kept.clear();
            kept.push_str(text);
        }
        (self.recorded_at, self.booked, self.known) = (record.recorded_at, booked, true);
    }
}

thread_local! {
    static LAST: RefCell<Last> = RefCell::new(Last::default());
}

/// What an event means for the book; none when it moves nothing there.
///
/// # Errors
/// The event cannot be read, the book refuses it ([`ProjectError::Book`], with the accounts named), or its effective date is
/// beyond the calendar.
pub(crate) fn booked(record: &Record<'_>) -> Result<Option<Rc<Booked>>, ProjectError> {
    LAST.with_borrow_mut(|last| {
        if !last.is(record) {
            let booked = read(record)?.map(Rc::new);
            last.remember(record, booked);
        }
        Ok(last.booked.clone())
    })
}

fn read(record: &Record<'_>) -> Result<Option<Booked>, ProjectError> {
    let (tenant, effective_at, entries, about) = match Kind::of(record.aggregate_type)? {
        Kind::Wallet => {
            let event: WalletEvent = fact(record)?;
            let tenant = TenantId(stream_uuid(record)?);
            let effective_at = book::effective_at(&event, record.recorded_at);
            (tenant, effective_at, book::wallet_entries(tenant, &event), of_wallet(event))
        }
        Kind::Payment => {
            let event: PaymentEvent = fact(record)?;
            let tenant = TenantId(stream_uuid_and_rest(record)?.0);
            let about = (None, Some(event.source_ref().to_owned()));
            (tenant, event.occurred_at(), book::payment_entries(&event), about)
        }
        Kind::Payout => {
            let event: PayoutEvent = fact(record)?;
            let about = (None, Some(event.source_ref().to_owned()));
            (NOBODY, event.occurred_at(), book::payout_entries(&event), about)
        }
        Kind::Tenant
        | Kind::Licence
        | Kind::ApiKey
        | Kind::Account
        | Kind::Session
        | Kind::Device
        | Kind::EmailClaim
        | Kind::Operation
        | Kind::Adjustment
        | Kind::Period
        | Kind::Reconciliation
        | Kind::LedgerAccess => return Ok(None),
    };
    let entries = entries.map_err(|error| ProjectError::Book(error.to_string()))?;
    if entries.is_empty() {
        return Ok(None);
    }
    let (usage_id, source_ref) = about;
    Ok(Some(Booked { tenant, effective_at: bucket::effective(effective_at)?, entries, usage_id, source_ref }))
}

/// A use, and a reference to what happened elsewhere.
type About = (Option<Uuid>, Option<String>);

fn of_wallet(event: WalletEvent) -> About {
    match event {
        WalletEvent::HoldPlaced(event) => (Some(event.usage_id.0), None),
        WalletEvent::UsageRecorded(event) => (Some(event.usage_id.0), None),
        WalletEvent::CreditsDeducted(event) => (Some(event.usage_id.0), None),
        WalletEvent::HoldReleased(event) => (Some(event.usage_id.0), None),
        WalletEvent::DeductionReversed(event) => (Some(event.usage_id.0), None),
        WalletEvent::CreditsGranted(event) => (None, Some(event.source_ref)),
        WalletEvent::GrantVoided(event) => (None, Some(event.source_ref)),
        WalletEvent::GrantRestored(event) => (None, Some(event.source_ref)),
        WalletEvent::DebtIncurred(event) => (None, Some(event.source_ref)),
        WalletEvent::CreditsTaken(event) => (None, Some(event.adjustment_id.to_string())),
        WalletEvent::WalletOpened(_)
        | WalletEvent::GrantExpired(_)
        | WalletEvent::DebtRepaid(_)
        | WalletEvent::WalletFrozen(_)
        | WalletEvent::WalletThawed(_) => (None, None),
    }
}

/// An amount as the tables keep it.
///
/// # Errors
/// [`ProjectError::OutOfRange`]
pub(crate) fn amount(amount: i128) -> Result<i64, ProjectError> {
    i64::try_from(amount).map_err(|_| ProjectError::OutOfRange { figure: "an amount of the book" })
}

/// What moves in a tenant's wallet in one asset, as its owner sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WalletMove {
    /// What can be held or spent.
    pub available: i64,
    /// What open holds keep.
    pub held: i64,
    /// What is owed.
    pub debt: i64,
}

impl WalletMove {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        Some(Self {
            available: self.available.checked_add(other.available)?,
            held: self.held.checked_add(other.held)?,
            debt: self.debt.checked_add(other.debt)?,
        })
    }
}

/// What an entry moves in a tenant's wallet; none when it does not touch it at all.
///
/// # Errors
/// [`ProjectError::OutOfRange`]
pub(crate) fn wallet_move(tenant: TenantId, entry: &Entry) -> Result<Option<WalletMove>, ProjectError> {
    let (mut touched, mut available, mut held, mut debt) = (false, 0, 0, 0);
    for posting in entry.postings.iter().filter(|posting| posting.account.tenant() == Some(tenant)) {
        touched = true;
        // What a tenant may spend is owed to it, and so stands in the book as a credit.
        match posting.account {
            Account::Available(..) | Account::Unallocated(_) => available -= posting.amount,
            Account::Held(..) => held -= posting.amount,
            Account::Debt(_) => debt += posting.amount,
            Account::Issued(_)
            | Account::Usage(_)
            | Account::Breakage
            | Account::Voided
            | Account::Adjustment(_)
            | Account::StripeBalance
            | Account::StripeDisputed
            | Account::Bank
            | Account::OutOfBand
            | Account::Deferred(_)
            | Account::StripeFees
            | Account::DisputeLoss
            | Account::Provider(_) => {}
        }
    }
    touched
        .then(|| Ok(WalletMove { available: amount(available)?, held: amount(held)?, debt: amount(debt)? }))
        .transpose()
}

/// Postings as the journal keeps them: a line each, and the row's own tenant as `*`, which spares a third of the text.
///
/// # Errors
/// [`ProjectError::OutOfRange`]
pub(crate) fn write_postings(tenant: TenantId, postings: &[Posting]) -> Result<String, ProjectError> {
    let own = tenant.to_string();
    let mut text = String::with_capacity(postings.len() * 80);
    for posting in postings {
        let name = posting.account.to_string();
        let is_own = tenant != NOBODY && posting.account.tenant() == Some(tenant);
        let name = if is_own { Cow::Owned(name.replacen(&own, OWN, 1)) } else { Cow::Borrowed(name.as_str()) };
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&name);
        text.push(' ');
        text.push_str(&amount(posting.amount)?.to_string());
    }
    Ok(text)
}

/// What stands for the row's own tenant in an account's name. No account is called so otherwise: providers' names stand
/// in other places of a name.
const OWN: &str = "*";
const OWN_ACCOUNTS: [&str; 2] = ["Liabilities:Wallet:*:", "Assets:Debt:*"];

/// [`write_postings`], the other way round. None when the text is not what it wrote.
pub(crate) fn read_postings(tenant: TenantId, text: &str) -> Option<Vec<Posting>> {
    let own = tenant.to_string();
    text.split('\n').map(|line| posting(&own, line)).collect()
}

/// The class and the amount of every posting in texts that [`write_postings`] wrote, one after another, each handed to
/// `each`; no account is made of them, because they may be hundreds of thousands. None when a line is not what it wrote.
pub(crate) fn each_class<'a>(text: &'a str, mut each: impl FnMut(&'a str, i64)) -> Option<()> {
    for line in text.split('\n') {
        let (name, amount) = line.rsplit_once(' ')?;
        each(class_name(name)?, amount.parse().ok()?);
    }
    Some(())
}

/// The name of the class of the account of that name.
fn class_name(name: &str) -> Option<&str> {
    if let Some(owned) = name.strip_prefix("Liabilities:Wallet:") {
        let mut parts = owned.splitn(3, ':');
        let (_, kind) = (parts.next()?, parts.next()?);
        return match kind {
            "Available" | "Unallocated" => Some("Liabilities:Wallet:Available"),
            "Held" => Some("Liabilities:Wallet:Held"),
            _ => None,
        };
    }
    if name.starts_with("Assets:Debt:") { Some("Assets:Debt") } else { Some(name) }
}

fn posting(own: &str, line: &str) -> Option<Posting> {
    // An account's name may hold spaces, a number does not.
    let (name, amount) = line.rsplit_once(' ')?;
    let is_own = OWN_ACCOUNTS.iter().any(|prefix| name.starts_with(prefix));
    let account: Account = if is_own { name.replacen(OWN, own, 1).parse() } else { name.parse() }.ok()?;
    Some(Posting { account, amount: amount.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use calos_domain::wallet::GrantKind;
    use calos_domain::{GrantId, HoldId};

    #[test]
    fn postings_are_read_back_as_they_were_written_and_spare_the_rows_own_tenant() {
        let (own, other) = (TenantId(Uuid::from_u128(5)), TenantId(Uuid::from_u128(6)));
        let id = Uuid::from_u128(9);
        let accounts = [
            Account::Available(own, GrantId(id)),
            Account::Unallocated(own),
            Account::Held(own, HoldId(id)),
            Account::Debt(own),
            Account::Debt(other),
            Account::Issued(GrantKind::Trial),
            Account::provider("*"),
        ];
        let postings: Vec<Posting> =
            (1..).zip(accounts).map(|(amount, account)| Posting { account, amount: amount - 4 }).collect();
        let text = write_postings(own, &postings).unwrap();
        assert!(text.starts_with("Liabilities:Wallet:*:Available:") && !text.contains(&own.to_string()), "{text}");
        assert_eq!(read_postings(own, &text), Some(postings.clone()));
        assert_eq!(read_postings(other, &text).unwrap()[0].account, Account::Available(other, GrantId(id)));
        let nobodys = write_postings(NOBODY, &postings[5..]).unwrap();
        assert_eq!(read_postings(NOBODY, &nobodys).as_deref(), Some(&postings[5..]));
        let mut classes = Vec::new();
        each_class(&format!("{text}\n{nobodys}"), |class, amount| classes.push((class.to_owned(), amount))).unwrap();
        let expected = postings.iter().chain(&postings[5..]);
        let expected = expected.map(|posting| (posting.account.class().to_string(), posting.amount as i64));
        assert_eq!(classes, expected.collect::<Vec<_>>());
        for wrong in ["", "Income:Breakage", "Income:Breakage x", "Nowhere 1", "Assets:Debt:* 1\n"] {
            assert_eq!(read_postings(own, wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn an_event_is_read_once_and_one_that_differs_in_anything_anew() {
        let payload = r#"{"payout_sent":{"payout_ref":"po_1","amount":5,"occurred_at":7}}"#;
        let other = payload.replace('5', "6");
        let record = Record {
            partition: 0,
            position: 1,
            aggregate_type: "payout",
            aggregate_id: "payout/po_1",
            sequence: 1,
            event_type: "payout_sent",
            event_version: "1",
            payload,
            metadata: "",
            recorded_at: Timestamp::from_micros(9),
        };
        let first = booked(&record).unwrap().unwrap();
        assert!(Rc::ptr_eq(&first, &booked(&record).unwrap().unwrap()));
        let changed = booked(&Record { payload: &other, ..record }).unwrap().unwrap();
        assert_eq!((first.entries[0].amount(), changed.entries[0].amount()), (5, 6));
        assert!(booked(&Record { event_type: "payout_gone", ..record }).is_err());
        assert!(booked(&Record { aggregate_type: "tenant", ..record }).unwrap().is_none());
        assert_eq!(booked(&record).unwrap().unwrap().entries[0].amount(), 5);
    }

    #[test]
    fn a_wallet_sees_the_other_side_of_what_the_book_owes_it() {
        let own = TenantId(Uuid::from_u128(5));
        let id = Uuid::from_u128(9);
        let entry = |postings: &[(Account, i128)]| Entry {
            asset: calos_domain::Asset::Usd,
            postings: postings
                .iter()
                .map(|(account, amount)| Posting { account: account.clone(), amount: *amount })
                .collect(),
        };
        let settled = entry(&[
            (Account::Held(own, HoldId(id)), 70),
            (Account::Available(own, GrantId(id)), -20),
            (Account::Breakage, -50),
        ]);
        let moved = WalletMove { available: 20, held: -70, debt: 0 };
        assert_eq!(wallet_move(own, &settled), Ok(Some(moved)));
        let owed = entry(&[(Account::Debt(own), 5), (Account::Voided, -5)]);
        assert_eq!(wallet_move(own, &owed), Ok(Some(WalletMove { debt: 5, ..WalletMove::default() })));
        assert_eq!(wallet_move(own, &entry(&[(Account::Bank, 5), (Account::StripeBalance, -5)])), Ok(None));
        let beyond = entry(&[(Account::Debt(own), i128::from(i64::MAX) + 1)]);
        assert!(wallet_move(own, &beyond).is_err());
    }
}
