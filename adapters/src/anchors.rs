//! Anchors: the heads of every partition, signed, kept outside the database.
//!
//! A chain alone cannot tell that its tail was cut off and the heads rewound to match. An anchor can: it says, under the
//! ledger's key, that a position once had a hash. Whoever holds one needs the log to still contain it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use calos_domain::Timestamp;

use crate::json_lines::append_line;
use crate::postgres::{self, Timestamptz};
use crate::seal::put_text;

/// The file in the anchor directory; one JSON object per line, oldest first.
pub const ANCHOR_FILE: &str = "anchors.jsonl";
/// The encoding that is signed.
const FORMAT: &str = "calos.anchor.v1";
/// How often the heads are anchored while the log grows, when `CALOS_ANCHOR_INTERVAL_SECONDS` does not say.
pub const ANCHOR_INTERVAL: Duration = Duration::from_secs(60);
/// The longest interval that may be set: what is cut off between two anchors is not found.
pub const ANCHOR_INTERVAL_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How long saying an anchor on standard output may take: whoever reads it may have stopped.
const SAY_MAX: Duration = Duration::from_secs(5);

/// Where anchors go, and how often.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnchorPlaces {
    /// The folder with [`ANCHOR_FILE`].
    pub directory: PathBuf,
    /// Whether each also goes to standard output, as one JSON object on a line: whatever collects the output of the server
    /// is a second place that whoever can write to this machine's disk cannot change.
    pub standard_output: bool,
    /// How often the heads are anchored while the log grows.
    pub interval: Duration,
}

/// One partition's head as it was anchored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AnchoredHead {
    /// The partition.
    pub partition: i32,
    /// Its last position; 0 while it is empty.
    pub position: i64,
    /// The hash of the event there, hexadecimal.
    pub hash: String,
}

/// Every partition's head at one moment, signed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Anchor {
    /// Names the encoding that was signed.
    pub format: String,
    /// Which log: its random id, so that two logs' anchors cannot be mixed up.
    pub log_id: Uuid,
    /// When.
    pub anchored_at: Timestamp,
    /// The heads, by partition.
    pub heads: Vec<AnchoredHead>,
    /// The Ed25519 public key, hexadecimal.
    pub public_key: String,
    /// The Ed25519 signature over everything above, hexadecimal.
    pub signature: String,
}

/// Why an anchor cannot be taken, kept, read or believed.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// The database.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The anchor file.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// A line or row that is no anchor.
    #[error("{place} is not an anchor: {source}")]
    Unreadable {
        /// Which line or row.
        place: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A signature that does not hold, or another key's.
    #[error("the anchor of {anchored_at} is not signed by this ledger's key")]
    Forged {
        /// The anchor's own time, in microseconds since the Unix epoch.
        anchored_at: i64,
    },
}

impl Anchor {
    /// Signs heads.
    #[must_use]
    pub fn sign(key: &SigningKey, log_id: Uuid, anchored_at: Timestamp, heads: Vec<AnchoredHead>) -> Self {
        let mut anchor = Self {
            format: FORMAT.to_owned(),
            log_id,
            anchored_at,
            heads,
            public_key: hex::encode(key.verifying_key().to_bytes()),
            signature: String::new(),
        };
        anchor.signature = hex::encode(key.sign(&anchor.signed_bytes()).to_bytes());
        anchor
    }

    /// Checks the signature against the ledger's key; the key in the anchor itself proves nothing.
    ///
    /// # Errors
    /// [`AnchorError::Forged`].
    pub fn verify(&self, key: &VerifyingKey) -> Result<(), AnchorError> {
        let forged = || AnchorError::Forged { anchored_at: self.anchored_at.micros() };
        let bytes = hex::decode(&self.signature).map_err(|_| forged())?;
        let signature = Signature::from_slice(&bytes).map_err(|_| forged())?;
        if self.format != FORMAT {
            return Err(forged());
        }
        key.verify_strict(&self.signed_bytes(), &signature).map_err(|_| forged())
    }

    /// The encoding's name, then each part: numbers big-endian, texts behind their length.
    fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + self.heads.len() * 80);
        put_text(&mut bytes, &self.format);
        bytes.extend_from_slice(self.log_id.as_bytes());
        bytes.extend_from_slice(&self.anchored_at.micros().to_be_bytes());
        for head in &self.heads {
            bytes.extend_from_slice(&head.partition.to_be_bytes());
            bytes.extend_from_slice(&head.position.to_be_bytes());
            put_text(&mut bytes, &head.hash);
        }
        bytes
    }
}

/// Reads the heads as of one snapshot and signs them.
///
/// # Errors
/// The database's.
pub async fn take(pool: &PgPool, key: &SigningKey) -> Result<Anchor, AnchorError> {
    let rows: Vec<(Uuid, i32, i64, Vec<u8>, Timestamptz)> =
        sqlx::query_as("SELECT log_id, partition, last_position, head_hash, now() FROM heads, log ORDER BY partition")
            .fetch_all(pool)
            .await?;
    // What is signed must outlive a crash of the database: an event it lost would look like a tail that was cut off.
    postgres::flush_seen(pool).await?;
    let log_id = rows.first().map_or_else(Uuid::nil, |row| row.0);
    let anchored_at = rows.first().map_or_else(Timestamp::default, |row| row.4.0);
    let heads = rows
        .into_iter()
        .map(|(_, partition, position, hash, _)| AnchoredHead { partition, position, hash: hex::encode(hash) })
        .collect();
    Ok(Anchor::sign(key, log_id, anchored_at, heads))
}

/// Keeps an anchor: appended to the file and synced, and noted in the database for whoever looks there first.
///
/// # Errors
/// The file's or the database's.
pub async fn keep(pool: &PgPool, directory: &Path, anchor: &Anchor) -> Result<(), AnchorError> {
    let line = serde_json::to_string(anchor)
        .map_err(|source| AnchorError::Unreadable { place: "a new anchor".to_owned(), source })?;
    let path = directory.join(ANCHOR_FILE);
    append_line(directory, &path, &line).map_err(|source| AnchorError::File { path, source })?;
    sqlx::query("INSERT INTO anchors (anchored_at, anchor) VALUES ($1, $2::json)")
        .bind(Timestamptz(anchor.anchored_at))
        .bind(line)
        .execute(pool)
        .await?;
    Ok(())
}

/// The anchor on standard output, on a line of its own in one write, so that it lies between the lines of others.
fn say(anchor: &Anchor) -> Result<(), AnchorError> {
    let line = serde_json::to_string(&Said { calos_anchor: anchor })
        .map_err(|source| AnchorError::Unreadable { place: "a new anchor".to_owned(), source })?;
    let mut output = std::io::stdout().lock();
    let written = output.write_all(format!("{line}\n").as_bytes()).and_then(|()| output.flush());
    written.map_err(unsaid)
}

fn unsaid(source: std::io::Error) -> AnchorError {
    AnchorError::File { path: PathBuf::from("standard output"), source }
}

/// An anchor among other lines of output, told apart by its name.
#[derive(Serialize)]
struct Said<'a> {
    calos_anchor: &'a Anchor,
}

/// The anchors of one place, and what stood between them.
#[derive(Debug, Default)]
pub struct Kept {
    /// The anchors, oldest first; their signatures are not checked yet.
    pub anchors: Vec<Anchor>,
    /// Lines that end in the middle, as a crash while writing leaves them: they say nothing.
    pub torn: Vec<String>,
    /// Whatever else is no anchor.
    pub unreadable: Vec<AnchorError>,
}

impl Kept {
    fn take(&mut self, place: String, bytes: &[u8]) {
        match serde_json::from_slice(bytes) {
            Ok(anchor) => self.anchors.push(anchor),
            // A file system may have given the line its length and not its bytes, which are zero then.
            Err(error) if error.is_eof() || bytes.contains(&0) => self.torn.push(place),
            Err(source) => self.unreadable.push(AnchorError::Unreadable { place, source }),
        }
    }
}

/// The anchors in the file, line by line; none when there is no file.
///
/// # Errors
/// The file's. A line that is no anchor spoils none of the others: it is named among them.
pub fn read_file(directory: &Path) -> Result<Kept, AnchorError> {
    let path = directory.join(ANCHOR_FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Kept::default()),
        Err(source) => return Err(AnchorError::File { path, source }),
    };
    let mut kept = Kept::default();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
        kept.take(format!("{}:{}", path.display(), index + 1), line);
    }
    Ok(kept)
}

/// The anchors noted in the database, oldest first.
///
/// # Errors
/// The database's. A row that is no anchor is named among the others.
pub async fn read_table(pool: &PgPool) -> Result<Kept, sqlx::Error> {
    let rows: Vec<(i64, String)> =
        sqlx::query_as("SELECT id, anchor::text FROM anchors ORDER BY id").fetch_all(pool).await?;
    let mut kept = Kept::default();
    for (id, text) in rows {
        kept.take(format!("anchors row {id}"), text.as_bytes());
    }
    Ok(kept)
}

/// The task that anchors a growing log; [`Self::stop`] anchors once more.
pub struct Anchoring {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Anchoring {
    /// Anchors at once and then at every interval in which the log has grown.
    pub fn start(pool: PgPool, key: Arc<SigningKey>, places: AnchorPlaces) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut turns = Turns::default();
            let say = places.standard_output.then_some(say as Say);
            loop {
                // Looked at first: a stop that comes while this anchor is taken gets one more turn, and a closing anchor.
                let closing = *stopped.borrow_and_update();
                match turns.anchor_growth(&pool, &key, &places.directory).await {
                    Ok(None) => {}
                    Ok(Some(anchor)) => {
                        if let Some(say) = say
                            && let Err(error) = turns.say(say, anchor, SAY_MAX).await
                        {
                            tracing::error!(%error, "an anchor is kept, but could not be said on standard output");
                        }
                    }
                    Err(error) => tracing::error!(%error, "the heads could not be anchored"),
                }
                if closing {
                    return;
                }
                drop(tokio::time::timeout(places.interval, stopped.changed()).await);
            }
        });
        Self { stop, task }
    }

    /// Takes a last anchor and ends.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the anchoring task ended badly");
        }
    }
}

/// Says an anchor; it may block.
type Say = fn(&Anchor) -> Result<(), AnchorError>;

/// What one turn leaves to the next.
#[derive(Default)]
struct Turns {
    /// The heads that were kept last.
    last: Option<Vec<AnchoredHead>>,
    /// An anchor that is still being said, because nobody reads standard output.
    saying: Option<JoinHandle<Result<(), AnchorError>>>,
}

impl Turns {
    /// Takes and keeps an anchor where the log has grown, and answers it. It is kept once, whatever becomes of saying it.
    async fn anchor_growth(
        &mut self,
        pool: &PgPool,
        key: &SigningKey,
        directory: &Path,
    ) -> Result<Option<Anchor>, AnchorError> {
        let anchor = take(pool, key).await?;
        if self.last.as_ref() == Some(&anchor.heads) {
            return Ok(None);
        }
        keep(pool, directory, &anchor).await?;
        self.last = Some(anchor.heads.clone());
        Ok(Some(anchor))
    }

    /// Says an anchor, beside everything else, and gives up waiting after `most`. One at a time: a thread that nobody reads
    /// from is enough.
    async fn say(&mut self, say: Say, anchor: Anchor, most: Duration) -> Result<(), AnchorError> {
        if self.saying.as_ref().is_some_and(|saying| !saying.is_finished()) {
            return Err(unsaid(std::io::Error::other("an earlier anchor is still being written")));
        }
        let mut saying = tokio::task::spawn_blocking(move || say(&anchor));
        match tokio::time::timeout(most, &mut saying).await {
            Ok(Ok(said)) => said,
            Ok(Err(error)) => Err(unsaid(std::io::Error::other(error))),
            Err(_) => {
                self.saying = Some(saying);
                Err(unsaid(std::io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ANCHOR_FILE, Anchor, AnchorError, AnchoredHead, Say, Turns, append_line, read_file, unsaid};
    use std::time::{Duration, Instant};

    use calos_domain::Timestamp;
    use ed25519_dalek::SigningKey;
    use uuid::Uuid;

    fn anchor(key: &SigningKey) -> Anchor {
        let heads = vec![AnchoredHead { partition: 0, position: 7, hash: "ab".repeat(32) }];
        Anchor::sign(key, Uuid::nil(), Timestamp::from_micros(5), heads)
    }

    #[test]
    fn an_anchor_holds_under_its_own_key_only() {
        let (ours, theirs) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        assert!(anchor(&ours).verify(&ours.verifying_key()).is_ok());
        assert!(anchor(&theirs).verify(&ours.verifying_key()).is_err());
    }

    #[test]
    fn a_changed_anchor_does_not_hold() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let original = anchor(&key);
        let mut rewound = original.clone();
        rewound.heads[0].position = 6;
        let mut rehashed = original.clone();
        rehashed.heads[0].hash = "ac".repeat(32);
        let mut shortened = original.clone();
        shortened.heads.clear();
        let mut moved = original.clone();
        moved.log_id = Uuid::max();
        let mut later = original;
        later.anchored_at = Timestamp::from_micros(6);
        for changed in [rewound, rehashed, shortened, moved, later] {
            assert!(changed.verify(&key.verifying_key()).is_err(), "{changed:?}");
        }
    }

    #[tokio::test]
    async fn an_output_nobody_reads_is_given_up_and_waited_for_by_one_thread_alone() {
        fn blocked(_: &Anchor) -> Result<(), AnchorError> {
            std::thread::sleep(Duration::from_secs(1));
            Ok(())
        }
        let (mut turns, key) = (Turns::default(), SigningKey::from_bytes(&[1; 32]));
        let mut say = async |say: Say, most: u64| turns.say(say, anchor(&key), Duration::from_millis(most)).await;
        assert!(say(|_| Err(unsaid(std::io::ErrorKind::StorageFull.into())), 10_000).await.is_err());
        let began = Instant::now();
        assert!(say(blocked, 20).await.is_err(), "it is not waited for");
        assert!(say(|_| Ok(()), 10_000).await.is_err(), "the first still blocks");
        assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        say(|_| Ok(()), 10_000).await.unwrap();
    }

    #[test]
    fn a_line_cut_short_by_a_crash_spoils_neither_the_next_one_nor_those_before() {
        let (folder, key) = (tempfile::tempdir().unwrap(), SigningKey::from_bytes(&[1; 32]));
        let (path, line) = (folder.path().join(ANCHOR_FILE), serde_json::to_string(&anchor(&key)).unwrap());
        append_line(folder.path(), &path, &line).unwrap();
        append_line(folder.path(), &path, &line).unwrap();
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(whole.len(), 2 * (line.len() + 1), "whole lines need no line between them");
        std::fs::write(&path, &whole[..whole.len() - 20]).unwrap();
        append_line(folder.path(), &path, &line).unwrap();
        let kept = read_file(folder.path()).unwrap();
        assert_eq!(kept.anchors, [anchor(&key), anchor(&key)]);
        assert!(kept.torn.len() == 1 && kept.torn[0].ends_with(":2"), "{:?}", kept.torn);
        assert!(kept.unreadable.is_empty());

        append_line(folder.path(), &path, "{\"heads\": 7}").unwrap();
        let kept = read_file(folder.path()).unwrap();
        assert_eq!((kept.anchors.len(), kept.torn.len(), kept.unreadable.len()), (2, 1, 1));
    }
}
