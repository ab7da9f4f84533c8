//! What each command changes, once the model has judged that it changes anything.

use calos_domain::wallet::{ReleaseCause, UsageRecorded, WalletCommand};
use calos_domain::{Asset, GrantId, HoldId, Timestamp, Units, UsageId};

use super::figures::{Line, Sum, sum};
use super::judging::thaws;
use super::model::{Claim, Model, Placed, Spent, Standing, Terms, Use};
use super::recorded::wide;

impl Model {
    /// Changes what the command changes; it must have been judged to.
    ///
    /// # Errors
    /// The model contradicts itself, which would be its own fault.
    pub fn perform(&mut self, command: &WalletCommand) -> Result<(), String> {
        match command {
            WalletCommand::OpenWallet { .. } => self.open = true,
            WalletCommand::GrantCredits { .. } => self.grant(command)?,
            WalletCommand::PlaceHold { .. } => self.place(command)?,
            WalletCommand::SettleHold { hold_id, usage, amount, at } => self.settle(*hold_id, usage, *amount, *at)?,
            WalletCommand::ReleaseHold { hold_id, cause, at } => self.release(*hold_id, *cause, *at)?,
            WalletCommand::Charge { usage, asset, amount, at, .. } => {
                self.lapse(*asset, at.micros());
                let spent = self.pay(*asset, usage, Vec::new(), wide(*amount), at.micros())?;
                let standing = Standing::Spent(Box::new(spent));
                self.uses.insert(usage.usage_id, Use { hold: None, asset: *asset, standing });
            }
            WalletCommand::ReverseDeduction { usage_id, amount, at, .. } => {
                self.reverse(*usage_id, wide(*amount), at.micros())?;
            }
            WalletCommand::ExpireGrant { grant_id, at } => {
                if let Some(asset) = self.figures.lines.get(grant_id).map(|line| line.asset) {
                    self.lapse(asset, at.micros());
                }
                if let Some(terms) = self.terms.get_mut(grant_id) {
                    terms.expiry_recorded = true;
                }
            }
            WalletCommand::VoidGrant { grant_id, claimed, source_ref, at, .. } => {
                self.void(*grant_id, wide(*claimed), source_ref, at.micros())?;
            }
            WalletCommand::RestoreGrant { grant_id, source_ref, at } => {
                self.restore(*grant_id, source_ref, at.micros())?;
            }
            WalletCommand::TakeCredits { adjustment_id, asset, amount, reason, effective_at, at } => {
                self.lapse(*asset, at.micros());
                for (grant_id, part) in self.burn(*asset, at.micros(), wide(*amount)) {
                    let line = self.figures.line(grant_id)?;
                    line.available -= part;
                    line.taken += part;
                }
                let content = (*asset, wide(*amount), effective_at.micros(), reason.as_str());
                self.takings.insert(*adjustment_id, content);
            }
            WalletCommand::Freeze { cause, source_ref } => {
                self.figures.frozen.insert((*cause, source_ref.clone()));
            }
            WalletCommand::Thaw { cause, source_ref } => {
                self.figures.frozen.retain(|known| !thaws(*cause, source_ref.as_ref(), known));
            }
        }
        Ok(())
    }

    fn grant(&mut self, command: &WalletCommand) -> Result<(), String> {
        let WalletCommand::GrantCredits {
            grant_id,
            asset,
            kind,
            amount,
            priority,
            effective_at,
            expires_at,
            cost_basis,
            source_ref,
            at,
            ..
        } = command
        else {
            return Ok(());
        };
        self.lapse(*asset, at.micros());
        let terms = Terms {
            kind: *kind,
            priority: *priority,
            effective: effective_at.micros(),
            expires: expires_at.map(Timestamp::micros),
            cost: Sum::from(cost_basis.get()),
            source_ref: source_ref.clone(),
            claims: Vec::new(),
            expiry_recorded: false,
        };
        self.terms.insert(*grant_id, terms);
        self.figures.lines.insert(*grant_id, Line::new(*asset, wide(*amount)));
        self.come_back(*asset, &[(*grant_id, wide(*amount))], at.micros())
    }

    fn place(&mut self, command: &WalletCommand) -> Result<(), String> {
        let WalletCommand::PlaceHold { hold_id, asset, amount, meter, usage_id, admitted_at, expires_at, .. } = command
        else {
            return Ok(());
        };
        self.lapse(*asset, admitted_at.micros());
        let parts = self.burn(*asset, admitted_at.micros(), wide(*amount));
        self.figures.hold(*hold_id, *asset, parts)?;
        let placed = Placed { asset: *asset, amount: wide(*amount), meter: *meter, expires: expires_at.micros() };
        self.holds.insert(*hold_id, *usage_id);
        let hold = Some((*hold_id, placed));
        self.uses.insert(*usage_id, Use { hold, asset: *asset, standing: Standing::Open });
        Ok(())
    }

    fn settle(&mut self, hold_id: HoldId, usage: &UsageRecorded, amount: Units, at: Timestamp) -> Result<(), String> {
        let Some(known) = self.use_of(&hold_id) else { return Err(format!("the model settles no hold {hold_id}")) };
        let (asset, open) = (known.asset, matches!(known.standing, Standing::Open));
        let at = at.micros();
        self.lapse(asset, at);
        let mut returned = Vec::new();
        let spent = if open {
            // What is beyond the hold burns while the hold still keeps its own.
            let held = self.figures.holds.get(&hold_id).map(|kept| sum(&kept.parts)).unwrap_or_default();
            let beyond = self.burn(asset, at, (wide(amount) - held).max(0));
            let mut left = wide(amount).min(held);
            let mut drawn = Vec::new();
            for (grant_id, part) in self.figures.unhold(hold_id)?.parts {
                let used = part.min(left);
                left -= used;
                drawn.extend((used > 0).then_some((grant_id, used)));
                returned.extend((part > used).then_some((grant_id, part - used)));
            }
            drawn.extend(beyond);
            let owed = wide(amount) - sum(&drawn);
            self.figures.spend(&drawn)?;
            *self.figures.debt_mut(asset) += owed;
            Spent { usage: usage.clone(), asked: wide(amount), drawn, reversed: 0 }
        } else {
            self.pay(asset, usage, Vec::new(), wide(amount), at)?
        };
        if let Some(known) = self.uses.get_mut(&usage.usage_id) {
            known.standing = Standing::Spent(Box::new(spent));
        }
        self.come_back(asset, &returned, at)
    }

    /// Pays from what is free; what that does not cover is owed.
    fn pay(
        &mut self,
        asset: Asset,
        usage: &UsageRecorded,
        mut drawn: Vec<(GrantId, Sum)>,
        amount: Sum,
        at: i64,
    ) -> Result<Spent, String> {
        drawn.extend(self.burn(asset, at, amount));
        self.figures.spend(&drawn)?;
        *self.figures.debt_mut(asset) += amount - sum(&drawn);
        Ok(Spent { usage: usage.clone(), asked: amount, drawn, reversed: 0 })
    }

    fn release(&mut self, hold_id: HoldId, cause: ReleaseCause, at: Timestamp) -> Result<(), String> {
        let kept = self.figures.holds.get(&hold_id).cloned();
        let Some(kept) = kept else { return Err(format!("the model releases no hold {hold_id}")) };
        self.lapse(kept.asset, at.micros());
        self.figures.unhold(hold_id)?;
        let usage_id = self.holds.get(&hold_id).copied();
        if let Some(known) = usage_id.and_then(|usage_id| self.uses.get_mut(&usage_id)) {
            known.standing = Standing::Released(cause);
        }
        self.come_back(kept.asset, &kept.parts, at.micros())
    }

    fn reverse(&mut self, usage_id: UsageId, amount: Sum, at: i64) -> Result<(), String> {
        let Some(Use { asset, standing: Standing::Spent(spent), .. }) = self.uses.get_mut(&usage_id) else {
            return Err(format!("the model reverses no use {usage_id}"));
        };
        let (asset, before) = (*asset, spent.reversed);
        spent.reversed = amount;
        // What stands is a prefix of what was drawn: what comes back lies between two cuts of it, from its end.
        let whole = sum(&spent.drawn);
        let (from, to) = (whole - amount, whole - before);
        let mut start = 0;
        let mut parts = Vec::new();
        for (grant_id, part) in &spent.drawn {
            let back = (start + part).min(to) - start.max(from);
            parts.extend((back > 0).then_some((*grant_id, back)));
            start += part;
        }
        parts.reverse();
        self.lapse(asset, at);
        for (grant_id, part) in &parts {
            let line = self.figures.line(*grant_id)?;
            line.spent -= part;
            line.available += part;
        }
        self.come_back(asset, &parts, at)
    }

    fn void(&mut self, grant_id: GrantId, claimed: Sum, source_ref: &str, at: i64) -> Result<(), String> {
        let asset = self.figures.line(grant_id)?.asset;
        self.lapse(asset, at);
        let Some(terms) = self.terms.get_mut(&grant_id) else { return Err(format!("no terms of {grant_id}")) };
        let line = self.figures.line(grant_id)?;
        let voided = line.available.min(claimed);
        line.available -= voided;
        line.voided += voided;
        // What expired unspent was never used and is not asked for; everything else that is gone is owed, but only once.
        let standing: Sum = terms.claims.iter().filter(|claim| !claim.undone).map(|claim| claim.owed).sum();
        let owed = (terms.claimed() + claimed - line.voided - line.expired - standing).max(0);
        terms.claims.push(Claim { source_ref: source_ref.to_owned(), claimed, voided, owed, undone: false });
        *self.figures.debt_mut(asset) += owed;
        self.repay(asset, at)
    }

    fn restore(&mut self, grant_id: GrantId, source_ref: &str, at: i64) -> Result<(), String> {
        let asset = self.figures.line(grant_id)?.asset;
        self.lapse(asset, at);
        let debt = self.figures.debt(asset);
        let Some(terms) = self.terms.get_mut(&grant_id) else { return Err(format!("no terms of {grant_id}")) };
        let Some(claim) = terms.claims.iter_mut().find(|claim| claim.source_ref == source_ref) else {
            return Err(format!("the model restores no claim {source_ref}"));
        };
        claim.undone = true;
        let cancelled = claim.owed.min(debt);
        let (voided, repaid) = (claim.voided, claim.owed - cancelled);
        let line = self.figures.line(grant_id)?;
        line.voided -= voided;
        line.restored += repaid;
        line.available += voided + repaid;
        *self.figures.debt_mut(asset) -= cancelled;
        self.come_back(asset, &[(grant_id, voided + repaid)], at)
    }
}
