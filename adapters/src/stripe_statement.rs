//! Stripe's balance transactions as Stripe's API and command line print them, handed in by an operator: one
//! `balance_transaction` list object per page (`{"object": "list", "data": […], "has_more": …}`), one after the other, or
//! the transactions themselves.

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::value::RawValue;

use calos_commands::reconciliation::{BalanceTransaction, BalanceTransactions, MOVEMENTS_MAX_COUNT, SourceError};
use calos_domain::reconciliation::REFERENCE_MAX_BYTES;
use calos_domain::{MicroUsd, Timestamp};

/// The longest statement, in bytes: twice what the most movements take with everything Stripe prints about each.
pub const STATEMENT_MAX_BYTES: usize = MOVEMENTS_MAX_COUNT * 1_024;

/// The currency the account is kept in.
const CURRENCY: &str = "usd";

/// The latest moment a transaction can carry, in seconds: the end of the year 9999.
const CREATED_MAX_SECONDS: i64 = 253_402_300_799;

/// A statement that was handed in, read whole: pages of it are given out as they stand.
#[derive(Clone, Debug)]
pub struct StripeStatement {
    pages: std::vec::IntoIter<Vec<BalanceTransaction>>,
}

/// A `balance_transaction`, as far as it says what moved. Descriptions may name people and are not read.
#[derive(Deserialize)]
struct Transaction {
    id: String,
    amount: i64,
    fee: i64,
    net: i64,
    currency: String,
    created: i64,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    source: Option<Source>,
}

/// What a transaction is about: an id, or the object itself where it was asked for.
#[derive(Deserialize)]
#[serde(untagged)]
enum Source {
    Id(String),
    Object { id: String },
}

/// What kind of object it is, and its name.
#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    object: String,
    #[serde(default)]
    id: Option<String>,
}

/// A list object. What is in it stays text until each is read: as values it would take many times its length.
#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
    #[serde(default)]
    has_more: bool,
}

impl StripeStatement {
    /// Reads a statement.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`] with the place; [`SourceError::Incomplete`] when its last page says there are more.
    pub fn read(statement: &[u8]) -> Result<Self, SourceError> {
        if statement.len() > STATEMENT_MAX_BYTES {
            let problem = format!("the statement has {} bytes, {STATEMENT_MAX_BYTES} at the most", statement.len());
            return Err(unreadable("statement".to_owned(), problem));
        }
        let mut objects = serde_json::Deserializer::from_slice(statement).into_iter::<&RawValue>();
        let (mut pages, mut alone, mut has_more) = (Vec::new(), Vec::new(), false);
        while let Some(object) = objects.next() {
            let end = objects.byte_offset();
            let wrong =
                |error: serde_json::Error| unreadable(format!("the object before byte {end}"), error.to_string());
            let text = object.map_err(wrong)?.get();
            let named: Named = serde_json::from_str(text).map_err(wrong)?;
            match named.object.as_str() {
                "list" => {
                    let list: List<'_> = serde_json::from_str(text).map_err(wrong)?;
                    has_more = list.has_more;
                    pages.push(list.data.into_iter().map(transaction).collect::<Result<Vec<_>, _>>()?);
                }
                "balance_transaction" => alone.push(read_transaction(text, named)?),
                _ => {
                    let problem = "is neither a list nor a balance_transaction".to_owned();
                    return Err(unreadable(format!("the object before byte {end}"), problem));
                }
            }
        }
        if has_more {
            return Err(SourceError::Incomplete);
        }
        if !alone.is_empty() {
            pages.push(alone);
        }
        Ok(Self { pages: pages.into_iter() })
    }
}

#[async_trait]
impl BalanceTransactions for StripeStatement {
    fn source(&self) -> &'static str {
        "stripe"
    }

    async fn next_page(&mut self) -> Result<Option<Vec<BalanceTransaction>>, SourceError> {
        Ok(self.pages.next())
    }
}

fn transaction(object: &RawValue) -> Result<BalanceTransaction, SourceError> {
    let named: Named = serde_json::from_str(object.get())
        .map_err(|error| unreadable("an entry of a page".to_owned(), error.to_string()))?;
    read_transaction(object.get(), named)
}

fn read_transaction(text: &str, named: Named) -> Result<BalanceTransaction, SourceError> {
    let id = named.id.unwrap_or_else(|| "without an id".to_owned());
    let wrong = |problem: String| unreadable(format!("transaction {id}"), problem);
    if named.object != "balance_transaction" {
        return Err(wrong("is no balance_transaction".to_owned()));
    }
    let read: Transaction = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    if read.currency != CURRENCY {
        return Err(wrong(format!("is in {}, and the books are kept in {CURRENCY}", read.currency)));
    }
    if i128::from(read.amount) - i128::from(read.fee) != i128::from(read.net) {
        return Err(wrong(format!("does not add up: {} less {} is not {}", read.amount, read.fee, read.net)));
    }
    if !(0..=CREATED_MAX_SECONDS).contains(&read.created) {
        return Err(wrong(format!("was created {} seconds after 1970", read.created)));
    }
    let cents = |amount: i64| MicroUsd::from_cents(amount).map_err(|error| wrong(error.to_string()));
    let (amount, fee, net) = (cents(read.amount)?, cents(read.fee)?, cents(read.net)?);
    let source_ref = match read.source {
        Some(Source::Id(id) | Source::Object { id }) => id,
        // What Stripe charges for itself is about nothing else.
        None => read.id.clone(),
    };
    for text in [&read.id, &source_ref, &read.kind] {
        if text.is_empty() || text.len() > REFERENCE_MAX_BYTES || text.chars().any(char::is_control) {
            return Err(wrong(format!(
                "has an id, source or type that is not 1 to {REFERENCE_MAX_BYTES} bytes of text"
            )));
        }
    }
    let created_at = Timestamp::default().plus_seconds(read.created);
    Ok(BalanceTransaction { id: read.id, source_ref, amount, fee, net, kind: read.kind, created_at })
}

fn unreadable(place: String, problem: String) -> SourceError {
    SourceError::Unreadable { place, problem }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn charge() -> Value {
        json!({
            "id": "txn_1", "object": "balance_transaction", "amount": 2000, "available_on": 1_793_800_000,
            "created": 1_793_750_400, "currency": "usd", "description": "Ada Lovelace", "exchange_rate": null, "fee": 88,
            "fee_details": [{"amount": 88, "currency": "usd", "type": "stripe_fee"}], "net": 1912,
            "reporting_category": "charge", "source": "ch_1", "status": "available", "type": "charge"
        })
    }

    fn list(data: &[Value], has_more: bool) -> String {
        json!({"object": "list", "url": "/v1/balance_transactions", "has_more": has_more, "data": data}).to_string()
    }

    fn but(name: &str, value: Value) -> Value {
        let mut changed = charge();
        changed[name] = value;
        changed
    }

    async fn all(statement: &str) -> Result<Vec<BalanceTransaction>, SourceError> {
        let mut statement = StripeStatement::read(statement.as_bytes())?;
        let mut all = Vec::new();
        while let Some(page) = statement.next_page().await? {
            all.extend(page);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn a_transaction_is_read_as_stripe_prints_it() {
        let read = all(&list(&[charge()], false)).await.unwrap();
        let expected = BalanceTransaction {
            id: "txn_1".to_owned(),
            source_ref: "ch_1".to_owned(),
            amount: MicroUsd::new(20_000_000),
            fee: MicroUsd::new(880_000),
            net: MicroUsd::new(19_120_000),
            kind: "charge".to_owned(),
            created_at: Timestamp::from_micros(1_793_750_400_000_000),
        };
        assert_eq!(read, std::slice::from_ref(&expected));
        assert!(!format!("{read:?}").contains("Ada"), "a description was kept");
        // An expanded source is the same source, and what is about nothing else is about itself.
        let expanded = but("source", json!({"id": "ch_1", "object": "charge"}));
        assert_eq!(all(&list(&[expanded], false)).await.unwrap(), [expected]);
        assert_eq!(all(&list(&[but("source", Value::Null)], false)).await.unwrap()[0].source_ref, "txn_1");
    }

    #[tokio::test]
    async fn pages_come_one_after_the_other_and_lines_of_transactions_too() {
        let pages = format!("{}\n{}", list(&[charge()], true), list(&[but("id", json!("txn_2"))], false));
        let ids = |read: Vec<BalanceTransaction>| read.into_iter().map(|one| one.id).collect::<Vec<_>>();
        assert_eq!(ids(all(&pages).await.unwrap()), ["txn_1", "txn_2"]);
        let lines = format!("{}\n{}\n", charge(), but("id", json!("txn_2")));
        assert_eq!(ids(all(&lines).await.unwrap()), ["txn_1", "txn_2"]);
        assert_eq!(all("").await.unwrap(), []);
        assert_eq!(all(&list(&[], false)).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_statement_whose_last_page_is_missing_is_refused() {
        assert_eq!(all(&list(&[charge()], true)).await, Err(SourceError::Incomplete));
    }

    #[tokio::test]
    async fn what_is_not_what_it_should_be_is_named() {
        for (name, value, problem) in [
            ("net", json!(1913), "does not add up"),
            ("currency", json!("eur"), "is in eur"),
            ("amount", json!(20.5), "invalid type"),
            ("amount", json!(i64::MAX), "does not add up"),
            ("created", json!(-1), "was created -1 seconds"),
            ("type", json!(""), "has an id, source or type"),
            ("source", json!("x".repeat(201)), "has an id, source or type"),
            ("source", json!("ch\t1"), "has an id, source or type"),
            ("object", json!("charge"), "is no balance_transaction"),
        ] {
            let refused = all(&list(&[but(name, value)], false)).await.unwrap_err();
            let text = refused.to_string();
            assert!(text.starts_with("transaction txn_1: ") && text.contains(problem), "{name}: {text}");
        }
        let huge = json!({"amount": i64::MAX, "fee": 0, "net": i64::MAX});
        let mut out_of_range = charge();
        for (name, value) in huge.as_object().unwrap() {
            out_of_range[name] = value.clone();
        }
        let text = all(&list(&[out_of_range], false)).await.unwrap_err().to_string();
        assert!(text.contains("out of range"), "{text}");
        for broken in ["{", "[]", "17", r#"{"object":"charge"}"#, r#"{"object":"list"}"#, "{} x"] {
            assert!(matches!(all(broken).await, Err(SourceError::Unreadable { .. })), "{broken}");
        }
    }
}
