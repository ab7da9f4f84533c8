//! Open holds, and the last uses that ended: what makes a repetition known, and a reversal possible.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Asset, HoldId, KeyId, Timestamp, Units, UsageId};

use super::{Allocation, HoldPlaced, Meter, ReleaseCause, prints};

/// Ended uses a wallet remembers. An id whose millisecond is at or before the newest forgotten one is refused.
pub const USES_REMEMBERED_MAX_COUNT: usize = 4_096;

/// Holds a wallet may have open at once.
pub const HOLDS_OPEN_MAX_COUNT: usize = 10_000;

/// Bytes one ended use takes in memory with its two places in the index, roughly; see [`Uses::weight_bytes`].
const ENDED_WEIGHT_BYTES: usize = std::mem::size_of::<EndedUse>() + 2 * 56;

/// A reservation that has not ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpenHold {
    /// The use it is for.
    #[serde(rename = "u")]
    pub usage_id: UsageId,
    /// In which asset.
    #[serde(rename = "s")]
    pub asset: Asset,
    /// How much.
    #[serde(rename = "a")]
    pub amount: Units,
    /// From which grants, in burn order.
    #[serde(rename = "l")]
    pub allocations: Vec<Allocation>,
    /// When it returns by itself.
    #[serde(rename = "x")]
    pub expires_at: Timestamp,
    /// When it was placed.
    #[serde(rename = "p")]
    pub admitted_at: Timestamp,
    /// The key it counts under, when a key called.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyId>,
    #[serde(rename = "t")]
    pub(super) print: u64,
}

/// How much a remembered deduction took from one grant, the grant by its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Drawn(pub u32, pub Units);

/// A use that ended, in a form small enough to remember thousands of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(into = "Row", try_from = "Row")]
pub struct EndedUse {
    /// The use.
    pub usage_id: UsageId,
    /// The hold it had, if any.
    pub hold_id: Option<HoldId>,
    /// In which asset.
    pub asset: Asset,
    /// The hold's content; zero without one.
    pub(super) placed: u64,
    /// How it ended.
    pub ending: Ending,
}

/// How a use ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Unspent.
    Released(ReleaseCause),
    /// Spent.
    Deducted(Deduction),
}

/// What was spent, and how much of it is undone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Deduction {
    /// The usage record's content.
    pub(super) usage: u64,
    /// For what.
    pub meter: Meter,
    /// What the use cost: what was deducted, and the debt it led to.
    pub asked: Units,
    /// From which grants, in the order they burnt.
    pub drawn: Box<[Drawn]>,
    /// How much is undone, from the end.
    pub reversed: Units,
}

impl Deduction {
    /// What was taken from grants.
    #[must_use]
    pub fn deducted(&self) -> Units {
        self.drawn.iter().fold(Units::ZERO, |sum, drawn| sum.saturating_plus(drawn.1))
    }
}

/// Where an id stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Open(HoldId),
    /// Counted from the first use that ever ended in this process's memory of the wallet.
    Ended(u64),
}

/// What a wallet remembers of an id.
#[derive(Clone, Copy, Debug)]
pub(super) enum Known<'a> {
    Open(HoldId, &'a OpenHold),
    Ended(&'a EndedUse),
}

/// Open and ended uses, found by hold id and by usage id alike.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
#[serde(from = "StoredUses")]
pub(super) struct Uses {
    #[serde(rename = "o")]
    open: BTreeMap<HoldId, OpenHold>,
    #[serde(rename = "e")]
    ended: VecDeque<EndedUse>,
    /// The newest millisecond among forgotten ids.
    #[serde(rename = "f")]
    forgotten_ms: u64,
    /// The place of the oldest remembered use.
    #[serde(skip)]
    first: u64,
    #[serde(skip)]
    index: HashMap<Uuid, Place>,
    #[serde(skip)]
    drawn_count: usize,
}

impl Uses {
    pub(super) fn get(&self, id: Uuid) -> Option<Known<'_>> {
        match *self.index.get(&id)? {
            Place::Open(hold_id) => self.open.get(&hold_id).map(|hold| Known::Open(hold_id, hold)),
            Place::Ended(place) => self.ended.get(self.offset(place)).map(Known::Ended),
        }
    }

    pub(super) const fn open(&self) -> &BTreeMap<HoldId, OpenHold> {
        &self.open
    }

    pub(super) fn hold(&self, hold_id: HoldId) -> Option<&OpenHold> {
        self.open.get(&hold_id)
    }

    /// The ended use of this hold.
    pub(super) fn ended_hold(&self, hold_id: HoldId) -> Option<&EndedUse> {
        self.ended_as(hold_id.0).filter(|use_| use_.hold_id == Some(hold_id))
    }

    /// The ended use of this usage id.
    pub(super) fn ended_use(&self, usage_id: UsageId) -> Option<&EndedUse> {
        self.ended_as(usage_id.0).filter(|use_| use_.usage_id == usage_id)
    }

    pub(super) const fn forgotten_ms(&self) -> u64 {
        self.forgotten_ms
    }

    pub(super) fn place(&mut self, placed: &HoldPlaced) {
        let hold = OpenHold {
            usage_id: placed.usage_id,
            asset: placed.asset,
            amount: placed.amount,
            allocations: placed.allocations.clone(),
            expires_at: placed.expires_at,
            admitted_at: placed.admitted_at,
            key: placed.line.as_ref().or(placed.api_key_id.as_ref()).cloned(),
            print: prints::of_hold(placed),
        };
        self.index.insert(placed.hold_id.0, Place::Open(placed.hold_id));
        self.index.insert(placed.usage_id.0, Place::Open(placed.hold_id));
        self.open.insert(placed.hold_id, hold);
    }

    pub(super) fn take(&mut self, hold_id: HoldId) -> Option<OpenHold> {
        self.open.remove(&hold_id)
    }

    /// Remembers a use that ended, and forgets the oldest when there are too many.
    pub(super) fn end(&mut self, ended: EndedUse) {
        // A hold that expired and was settled after all keeps its place and changes its ending.
        if let Some(Place::Ended(place)) = self.index.get(&ended.usage_id.0).copied() {
            let offset = self.offset(place);
            if let Some(known) = self.ended.get_mut(offset) {
                self.drawn_count = self.drawn_count.saturating_add(drawn(&ended)).saturating_sub(drawn(known));
                *known = ended;
                return;
            }
        }
        self.remember(ended);
        while self.ended.len() > USES_REMEMBERED_MAX_COUNT {
            self.forget_oldest();
        }
    }

    /// The deduction of a use, to be changed by what happened to it since.
    pub(super) fn deduction_mut(&mut self, usage_id: UsageId) -> Option<&mut Deduction> {
        let Place::Ended(place) = *self.index.get(&usage_id.0)? else { return None };
        let offset = self.offset(place);
        match &mut self.ended.get_mut(offset)?.ending {
            Ending::Deducted(deduction) => Some(deduction),
            Ending::Released(_) => None,
        }
    }

    /// Roughly the bytes held, without walking anything.
    pub(super) fn weight_bytes(&self) -> usize {
        let open = self.open.len() * (std::mem::size_of::<OpenHold>() + 3 * 56);
        open + self.ended.len() * ENDED_WEIGHT_BYTES + self.drawn_count * std::mem::size_of::<Drawn>()
    }

    fn ended_as(&self, id: Uuid) -> Option<&EndedUse> {
        match self.get(id)? {
            Known::Ended(ended) => Some(ended),
            Known::Open(..) => None,
        }
    }

    fn offset(&self, place: u64) -> usize {
        usize::try_from(place.saturating_sub(self.first)).unwrap_or(usize::MAX)
    }

    fn remember(&mut self, ended: EndedUse) {
        let place = Place::Ended(self.first + self.ended.len() as u64);
        self.index.insert(ended.usage_id.0, place);
        if let Some(hold_id) = ended.hold_id {
            self.index.insert(hold_id.0, place);
        }
        self.drawn_count += drawn(&ended);
        self.ended.push_back(ended);
    }

    fn forget_oldest(&mut self) {
        let Some(forgotten) = self.ended.pop_front() else { return };
        let ids = [Some(forgotten.usage_id.0), forgotten.hold_id.map(|hold| hold.0)];
        for id in ids.into_iter().flatten() {
            self.index.remove(&id);
            self.forgotten_ms = self.forgotten_ms.max(id_millis(id));
        }
        self.drawn_count = self.drawn_count.saturating_sub(drawn(&forgotten));
        self.first += 1;
    }
}

/// The millisecond a UUIDv7 carries in its first 48 bits.
pub(super) const fn id_millis(id: Uuid) -> u64 {
    id.as_u64_pair().0 >> 16
}

/// The moment of that millisecond.
pub(super) fn id_moment(id: Uuid) -> Timestamp {
    Timestamp::from_micros(i64::try_from(id_millis(id)).unwrap_or(i64::MAX).saturating_mul(1_000))
}

fn drawn(ended: &EndedUse) -> usize {
    match &ended.ending {
        Ending::Released(_) => 0,
        Ending::Deducted(deduction) => deduction.drawn.len(),
    }
}

/// [`Uses`] as a snapshot holds it: without what can be built again.
#[derive(Deserialize)]
struct StoredUses {
    #[serde(rename = "o")]
    open: BTreeMap<HoldId, OpenHold>,
    #[serde(rename = "e")]
    ended: VecDeque<EndedUse>,
    #[serde(rename = "f")]
    forgotten_ms: u64,
}

impl From<StoredUses> for Uses {
    fn from(stored: StoredUses) -> Self {
        let mut uses = Self { forgotten_ms: stored.forgotten_ms, ..Self::default() };
        for ended in stored.ended {
            uses.remember(ended);
        }
        for (hold_id, hold) in stored.open {
            uses.index.insert(hold_id.0, Place::Open(hold_id));
            uses.index.insert(hold.usage_id.0, Place::Open(hold_id));
            uses.open.insert(hold_id, hold);
        }
        uses
    }
}

/// An [`EndedUse`] as a JSON array, since a snapshot holds thousands: usage id, hold id (`""` for none, `"="` for the
/// same), asset, placement, then either the cause of a release or the deduction, with its meter unless that is chat.
#[derive(Serialize, Deserialize)]
struct Row(#[serde(with = "uuid::serde::simple")] Uuid, String, Asset, u64, RowEnding);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum RowEnding {
    Released(ReleaseCause),
    Deducted(u64, Units, Units, Box<[Drawn]>),
    Metered(u64, Units, Units, Box<[Drawn]>, Meter),
}

impl From<EndedUse> for Row {
    fn from(ended: EndedUse) -> Self {
        let hold = match ended.hold_id {
            None => String::new(),
            Some(hold) if hold.0 == ended.usage_id.0 => "=".to_owned(),
            Some(hold) => hold.0.simple().to_string(),
        };
        let ending = match ended.ending {
            Ending::Released(cause) => RowEnding::Released(cause),
            Ending::Deducted(Deduction { usage, meter: Meter::Chat, asked, drawn, reversed }) => {
                RowEnding::Deducted(usage, asked, reversed, drawn)
            }
            Ending::Deducted(Deduction { usage, meter, asked, drawn, reversed }) => {
                RowEnding::Metered(usage, asked, reversed, drawn, meter)
            }
        };
        Self(ended.usage_id.0, hold, ended.asset, ended.placed, ending)
    }
}

impl TryFrom<Row> for EndedUse {
    type Error = uuid::Error;

    fn try_from(Row(usage_id, hold, asset, placed, ending): Row) -> Result<Self, uuid::Error> {
        let hold_id = match hold.as_str() {
            "" => None,
            "=" => Some(HoldId(usage_id)),
            text => Some(text.parse()?),
        };
        let ending = match ending {
            RowEnding::Released(cause) => Ending::Released(cause),
            RowEnding::Deducted(usage, asked, reversed, drawn) => {
                Ending::Deducted(Deduction { usage, meter: Meter::Chat, asked, drawn, reversed })
            }
            RowEnding::Metered(usage, asked, reversed, drawn, meter) => {
                Ending::Deducted(Deduction { usage, meter, asked, drawn, reversed })
            }
        };
        Ok(Self { usage_id: UsageId(usage_id), hold_id, asset, placed, ending })
    }
}
