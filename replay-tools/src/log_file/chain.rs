//! The chain of every partition, checked event by event.

use calos_adapters::anchors::AnchoredHead;
use calos_adapters::postgres::partitioning::partition_of;
use calos_adapters::seal::{HASH_BYTES, chain};
use calos_domain::Timestamp;

use super::Stored;

/// Where a partition ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tail {
    pub(crate) position: i64,
    pub(crate) hash: [u8; HASH_BYTES],
    /// The last event's; 1970 where there is none.
    pub(crate) recorded_at: Timestamp,
}

/// Where every partition ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Tails(pub(crate) Vec<Tail>);

impl Tails {
    /// From heads; none when a hash is none.
    pub(crate) fn at(heads: &[AnchoredHead]) -> Option<Self> {
        let tail = |head: &AnchoredHead| {
            let hash = hex::decode(&head.hash).ok()?.try_into().ok()?;
            Some(Tail { position: head.position, hash, recorded_at: Timestamp::default() })
        };
        heads.iter().map(tail).collect::<Option<Vec<_>>>().map(Self)
    }

    /// As heads.
    pub(crate) fn heads(&self) -> Vec<AnchoredHead> {
        let numbered = (0..).zip(&self.0);
        let head = |(partition, tail): (i32, &Tail)| AnchoredHead {
            partition,
            position: tail.position,
            hash: hex::encode(tail.hash),
        };
        numbered.map(head).collect()
    }

    /// Whether they end at just these heads; else what is wrong, in words.
    pub(crate) fn end_at(&self, heads: &[AnchoredHead]) -> Result<(), String> {
        let ours = self.heads();
        let other = ours
            .iter()
            .zip(heads)
            .find(|(ours, theirs)| ours.position != theirs.position || !ours.hash.eq_ignore_ascii_case(&theirs.hash));
        match other {
            None if ours.len() == heads.len() => Ok(()),
            None => Err(format!("{} partitions instead of {}", ours.len(), heads.len())),
            Some((ours, theirs)) if ours.position == theirs.position => {
                Err(format!("partition {}: another event at its end, {}", ours.partition, ours.position))
            }
            Some((ours, theirs)) => {
                let (partition, found, expected) = (ours.partition, ours.position, theirs.position);
                Err(format!("partition {partition} ends at {found} instead of {expected}"))
            }
        }
    }

    /// Takes the event that comes next in its partition; else what is wrong with it, in words.
    pub(crate) fn take(&mut self, event: &Stored) -> Result<(), String> {
        let Stored { partition, position, .. } = *event;
        let count = u16::try_from(self.0.len()).unwrap_or(u16::MAX);
        let tail = usize::try_from(partition).ok().and_then(|index| self.0.get_mut(index));
        let tail = tail.ok_or_else(|| format!("{partition}:{position}: there is no such partition"))?;
        if position != tail.position + 1 {
            return Err(format!("{partition}:{position}: {partition}:{} had to come", tail.position + 1));
        }
        if chain(&tail.hash, &event.record()) != event.hash {
            return Err(format!("{partition}:{position}: it is not the event that was sealed"));
        }
        if event.recorded_at < tail.recorded_at || partition_of(&event.aggregate_id, count) != partition {
            return Err(format!("{partition}:{position}: it does not belong there"));
        }
        *tail = Tail { position, hash: event.hash, recorded_at: event.recorded_at };
        Ok(())
    }
}
