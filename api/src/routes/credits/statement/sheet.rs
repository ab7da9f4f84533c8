//! A statement as figures: what a wallet had when a month began, each movement, and what it had when the month ended.
//!
//! A balance here is everything that is the tenant's: what is available and what open holds keep. Holds are therefore no
//! movements. What is owed runs beside it.

use calos_domain::period::Month;
use calos_domain::{Asset, TenantId, Timestamp};
use calos_projections::statement::Movement;

/// Micro-dollars in a dollar.
const MICROS_PER_DOLLAR: u64 = 1_000_000;

/// Whose statement, of which month, and as of when it is known.
#[derive(Clone, Debug)]
pub struct Head {
    /// Whose wallet.
    pub tenant_id: TenantId,
    /// What people call the tenant, where it has a name.
    pub name: Option<String>,
    /// Which month.
    pub month: Month,
    /// What was recorded later is not in it.
    pub as_known_at: Timestamp,
    /// When the month was closed; from then on its statement does not change any more.
    pub closed_at: Option<Timestamp>,
    /// Per asset, in the order of [`Asset::ALL`].
    pub sections: [Section; 2],
}

impl Head {
    /// The figures of one asset.
    #[must_use]
    pub fn section(&self, asset: Asset) -> &Section {
        &self.sections[index(asset)]
    }

    /// What the wallet had when the month began.
    #[must_use]
    pub fn opening(&self) -> Running {
        let of = |pick: fn(&Section) -> i64| [pick(&self.sections[0]), pick(&self.sections[1])];
        Running { balance: of(|section| section.opening), debt: of(|section| section.debt_opening) }
    }

    /// What the wallet had when the month ended.
    #[must_use]
    pub fn closing(&self) -> Running {
        let of = |pick: fn(&Section) -> i64| [pick(&self.sections[0]), pick(&self.sections[1])];
        Running { balance: of(|section| section.closing), debt: of(|section| section.debt_closing) }
    }
}

/// The frame around one asset's movements. Micro-dollars for `USD`, whole credits for `CREDIT`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Section {
    /// Which asset.
    pub asset: Asset,
    /// The balance when the month began.
    pub opening: i64,
    /// The balance when the month ended, or now while it has not.
    pub closing: i64,
    /// Of the closing balance: kept by open holds.
    pub held: i64,
    /// Owed when the month began.
    pub debt_opening: i64,
    /// Owed when the month ended, or now while it has not.
    pub debt_closing: i64,
}

/// Whether a movement counts from an earlier month, which was closed when it was recorded.
#[must_use]
pub fn is_late(line: &Movement, month: Month) -> bool {
    line.effective_at < month.starts_at()
}

/// The balance and the debt of each asset, as they run down the lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Running {
    /// Per asset.
    pub balance: [i64; 2],
    /// Per asset.
    pub debt: [i64; 2],
}

impl Running {
    /// Takes a line in and answers its asset's balance and debt after it.
    pub fn take(&mut self, line: &Movement) -> (i64, i64) {
        let at = index(line.asset);
        // A sum beyond the range cannot come from a wallet, whose own arithmetic refuses it.
        self.balance[at] = self.balance[at].saturating_add(line.amount);
        self.debt[at] = self.debt[at].saturating_add(line.debt);
        (self.balance[at], self.debt[at])
    }

    /// The balance and the debt of an asset.
    #[must_use]
    pub fn of(&self, asset: Asset) -> (i64, i64) {
        (self.balance[index(asset)], self.debt[index(asset)])
    }
}

const fn index(asset: Asset) -> usize {
    match asset {
        Asset::Usd => 0,
        Asset::Credit => 1,
    }
}

/// An amount exactly, as a decimal number: dollars with six places, credits whole.
#[must_use]
pub fn decimal(asset: Asset, amount: i64) -> String {
    match asset {
        Asset::Credit => amount.to_string(),
        Asset::Usd => {
            let (sign, size) = (if amount < 0 { "-" } else { "" }, amount.unsigned_abs());
            format!("{sign}{}.{:06}", size / MICROS_PER_DOLLAR, size % MICROS_PER_DOLLAR)
        }
    }
}

#[cfg(test)]
pub(super) mod samples {
    use uuid::Uuid;

    use super::*;

    /// A month with two assets, a late movement and texts that mean harm.
    pub(in super::super) fn head() -> Head {
        let usd = Section {
            asset: Asset::Usd,
            opening: 10_000_000,
            closing: 9_498_050,
            held: 0,
            debt_opening: 0,
            debt_closing: 0,
        };
        let credit =
            Section { asset: Asset::Credit, opening: 0, closing: 100, held: 0, debt_opening: 3, debt_closing: 0 };
        Head {
            tenant_id: TenantId(Uuid::from_u128(7)),
            name: Some("Ada & <Sons>".to_owned()),
            month: "2026-10".parse().unwrap(),
            as_known_at: Timestamp::from_micros(1_793_923_200_000_000),
            closed_at: None,
            sections: [usd, credit],
        }
    }

    pub(in super::super) fn lines() -> Vec<Movement> {
        let month: Month = "2026-10".parse().unwrap();
        let line = |position: i64, asset: Asset, event: &str, amount: i64, reason: &str| Movement {
            partition: 3,
            position,
            recorded_at: month.starts_at().plus_seconds(position),
            effective_at: month.starts_at().plus_seconds(position),
            event: event.to_owned(),
            asset,
            amount,
            debt: 0,
            usage_id: None,
            reason: reason.to_owned(),
        };
        let mut used = line(2, Asset::Usd, "credits_deducted", -1_950, "usage");
        used.usage_id = Some(Uuid::from_u128(9));
        let mut late = line(3, Asset::Usd, "credits_taken", -500_000, "=HYPERLINK(\"x\", <b>now</b>)");
        late.effective_at = Timestamp::from_micros(month.starts_at().micros() - 1);
        let mut repaid = line(5, Asset::Credit, "debt_repaid", -3, "debt");
        repaid.debt = -3;
        vec![used, late, line(4, Asset::Credit, "credits_granted", 103, "subscription"), repaid]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_exactly() {
        for (amount, text) in [
            (0, "0.000000"),
            (1_950, "0.001950"),
            (-1, "-0.000001"),
            (-12_345_678, "-12.345678"),
            (i64::MIN, "-9223372036854.775808"),
        ] {
            assert_eq!(decimal(Asset::Usd, amount), text);
        }
        assert_eq!(decimal(Asset::Credit, -7), "-7");
    }

    #[test]
    fn the_balances_run_from_the_opening_to_the_closing_each_in_its_asset() {
        let head = samples::head();
        let mut running = head.opening();
        let after: Vec<_> = samples::lines().iter().map(|line| running.take(line)).collect();
        assert_eq!(after, [(9_998_050, 0), (9_498_050, 0), (103, 3), (100, 0)]);
        assert_eq!(running, head.closing());
    }

    #[test]
    fn a_movement_is_late_when_it_counts_from_an_earlier_month() {
        let month = samples::head().month;
        let late: Vec<bool> = samples::lines().iter().map(|line| is_late(line, month)).collect();
        assert_eq!(late, [false, true, false, false]);
    }
}
