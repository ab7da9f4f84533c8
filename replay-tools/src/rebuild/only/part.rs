//! What `--only` names, and which rows of a read model that is.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use calos_domain::TenantId;
use calos_domain::operation::RebuildOnly;
use calos_domain::stream::partition_key;
use calos_projections::scope::{Owner, Rows, Scope, scope};
use calos_projections::{ColumnType, Kind};

use crate::fold::ReadModel;

/// What `--only` names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Only(pub(super) RebuildOnly);

impl Only {
    /// As it is recorded.
    #[must_use]
    pub fn fact(&self) -> &RebuildOnly {
        &self.0
    }

    /// The key of the streams it names.
    pub(super) fn key(&self) -> String {
        match &self.0 {
            RebuildOnly::Tenant(tenant) => tenant.to_string(),
            RebuildOnly::Stream(stream) => {
                let id = stream.split_once('/').map_or("", |(_, id)| id);
                partition_key(id).to_owned()
            }
        }
    }
}

impl fmt::Display for Only {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            RebuildOnly::Tenant(tenant) => write!(f, "tenant:{tenant}"),
            RebuildOnly::Stream(stream) => write!(f, "stream:{stream}"),
        }
    }
}

impl FromStr for Only {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected wallet:UUID, tenant:UUID or stream:KIND/ID".to_owned();
        let (what, name) = text.split_once(':').ok_or_else(expected)?;
        // Nobody's rows have the nil id, and are everybody's.
        let tenant = || Uuid::try_parse(name).ok().filter(|id| !id.is_nil()).ok_or_else(expected);
        match what {
            "tenant" => Ok(Self(RebuildOnly::Tenant(TenantId(tenant()?)))),
            "wallet" => Ok(Self(RebuildOnly::Stream(format!("wallet/{}", tenant()?)))),
            "stream" => {
                let (kind, id) = name.split_once('/').ok_or_else(expected)?;
                let known = Kind::of(kind).is_ok();
                if id.is_empty() || !known { Err(expected()) } else { Ok(Self(RebuildOnly::Stream(name.to_owned()))) }
            }
            _ => Err(expected()),
        }
    }
}

/// Which rows of one read model are put right, and from which streams.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Part {
    /// The aggregates whose streams are folded: all of these under the key.
    pub(super) kinds: Vec<&'static str>,
    pub(super) key: String,
    /// The rows, as a condition.
    pub(super) condition: String,
    pub(super) left_out: Option<&'static str>,
}

/// What of a read model belongs to what was named.
pub(super) fn part(model: ReadModel, only: &Only) -> Result<Part, String> {
    let rows = match scope(model.name()) {
        Scope::Whole(why) => return Err(format!("{why}; rebuild it as a whole")),
        Scope::Rows(rows) => rows,
    };
    let Rows { owner, kinds, key, own, left_out } = rows;
    let mut conditions = Vec::new();
    match &only.0 {
        RebuildOnly::Tenant(tenant) => match (owner, key) {
            (Owner::Tenant, Some(column)) => conditions.push(equals(column, &tenant.to_string())),
            (Owner::Tenant, None) | (Owner::Person | Owner::Nobody, _) => {
                let instead = own.map_or("", |own| own.kind.as_str());
                return Err(format!("its rows are no tenant's; name a stream: --only stream:{instead}/ID"));
            }
        },
        RebuildOnly::Stream(stream) => {
            let (kind, id) = stream.split_once('/').ok_or_else(|| format!("{stream} is no stream"))?;
            let Some(own) = own else {
                return Err("its rows are made of several streams of a tenant; use --only tenant:ID".to_owned());
            };
            if own.kind.as_str() != kind {
                return Err(format!("none of its rows is a {kind}'s; they are made of {} streams", own.kind.as_str()));
            }
            let (first, rest) = id.split_once('/').map_or((id, None), |(first, rest)| (first, Some(rest)));
            if let Some(column) = key {
                // What is compared with a uuid has to be one, and nobody's rows are everybody's.
                let uuid = Uuid::try_parse(first).ok().filter(|id| !id.is_nil());
                conditions.push(equals(column, &uuid.ok_or_else(|| not_an_id(id, kind))?.to_string()));
            }
            match (own.rest, rest) {
                (None, None) => {}
                (Some(column), Some(rest)) if !rest.is_empty() => {
                    if is_uuid(model, column) && Uuid::try_parse(rest).is_err() {
                        return Err(not_an_id(id, kind));
                    }
                    conditions.push(equals(column, rest));
                }
                (Some(_), _) | (None, Some(_)) => return Err(not_an_id(id, kind)),
            }
        }
    }
    let kinds = kinds.iter().map(|kind| kind.as_str()).collect();
    Ok(Part { kinds, key: only.key(), condition: conditions.join(" AND "), left_out })
}

fn not_an_id(id: &str, kind: &str) -> String {
    format!("{id} is no id of a {kind}")
}

fn is_uuid(model: ReadModel, column: &str) -> bool {
    let mut columns = model.tables().iter().flat_map(|table| table.columns);
    columns.any(|known| known.name == column && known.of == ColumnType::Uuid)
}

fn equals(column: &str, value: &str) -> String {
    format!("{column} = '{}'", value.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use calos_projections::registry;

    use super::*;

    const ID: &str = "0193a5c8-1111-7222-8333-444455556666";

    fn named(text: &str) -> Only {
        text.parse().unwrap()
    }

    fn part_of(projection: &str, only: &str) -> Result<String, String> {
        part(registry::find(projection).unwrap(), &named(only)).map(|part| part.condition)
    }

    #[test]
    fn a_wallet_a_tenant_or_a_stream_is_named_and_nobody_is_not() {
        assert_eq!(named(&format!("wallet:{ID}")).to_string(), format!("stream:wallet/{ID}"));
        assert_eq!(named(&format!("tenant:{ID}")).to_string(), format!("tenant:{ID}"));
        assert_eq!(named("stream:api_key/1/2").key(), "1");
        let nil = Uuid::nil();
        for wrong in [
            ID,
            "wallet:",
            "tenant:x",
            "stream:wallet",
            "stream:wallet/",
            "stream:walet/1",
            "user:1",
            &format!("tenant:{nil}"),
        ] {
            assert!(wrong.parse::<Only>().is_err(), "{wrong}");
        }
        assert!(part_of("wallet_balance", &format!("stream:wallet/{nil}")).is_err());
    }

    #[test]
    fn the_rows_of_a_stream_are_found_by_its_id_and_nothing_of_it_is_taken_as_a_statement() {
        let tenant = format!("tenant_id = '{ID}'");
        assert_eq!(part_of("wallet_ledger", &format!("wallet:{ID}")), Ok(tenant.clone()));
        assert_eq!(part_of("journal", &format!("tenant:{ID}")), Ok(tenant.clone()));
        assert_eq!(part_of("api_keys", &format!("tenant:{ID}")), Ok(tenant.clone()));
        let key = part_of("api_keys", &format!("stream:api_key/{ID}/a'b"));
        assert_eq!(key, Ok(format!("{tenant} AND key_id = 'a''b'")));
        let session = part_of("sessions", &format!("stream:session/{ID}/{ID}"));
        assert_eq!(session, Ok(format!("user_id = '{ID}' AND session_id = '{ID}'")));
        for (projection, only) in [
            ("wallet_ledger", format!("stream:wallet/{ID}/more")),
            ("sessions", format!("stream:session/{ID}")),
            ("sessions", format!("stream:session/{ID}/x")),
            ("sessions", format!("stream:account/{ID}")),
        ] {
            assert!(part_of(projection, &only).is_err(), "{projection} {only}");
        }
    }

    #[test]
    fn sums_over_tenants_are_refused_with_what_to_do_instead() {
        let why = |projection, only: String| part_of(projection, &only).unwrap_err();
        assert!(why("trial_balance", format!("tenant:{ID}")).contains("rebuild it as a whole"));
        assert!(why("journal", format!("wallet:{ID}")).contains("--only tenant:"));
        assert!(why("sessions", format!("tenant:{ID}")).contains("--only stream:session/"));
        assert!(why("periods", format!("tenant:{ID}")).contains("rebuild it as a whole"));
        let left = part(registry::find("account_balances").unwrap(), &named(&format!("tenant:{ID}"))).unwrap();
        assert!(left.left_out.unwrap().contains("every tenant"));
    }
}
