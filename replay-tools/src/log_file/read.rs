//! Reading the log from a file, in a thread of its own: what it hands out is in order and bounded, and not yet proved.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Seek as _};
use std::path::Path;

use ed25519_dalek::VerifyingKey;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::{End, Header, Line, Stored, blocking, parquet};
use crate::error::ToolError;

/// The longest line; an event is bounded far below it.
const LINE_MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Events handed out at once.
const BATCH_EVENTS: usize = 2_048;

/// Batches that may wait to be taken.
const BATCHES_WAITING_MAX: usize = 4;

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
const PARQUET_MAGIC: [u8; 4] = *b"PAR1";

/// What a file has, in this order.
pub(crate) enum Item {
    /// Rows of one small table, as JSON.
    Rows {
        /// Which table.
        table: String,
        /// The rows.
        rows: Vec<String>,
    },
    /// Events that follow one another.
    Events(Vec<Stored>),
    /// The end, which fits what was read.
    End(End),
}

/// A file that is being read.
pub(crate) struct Source {
    pub(crate) header: Header,
    /// Whose signature its heads bear.
    pub(crate) key: VerifyingKey,
    name: String,
    items: mpsc::Receiver<Result<Item, ToolError>>,
}

impl Source {
    /// A file's header alone, with the key whose signature it bears; as [`Self::open`].
    pub(crate) async fn header(path: &Path, key: Option<VerifyingKey>) -> Result<(Header, VerifyingKey), ToolError> {
        let (path, name) = (path.to_owned(), path.display().to_string());
        let opened = name.clone();
        let header = blocking(move || Reader::open(&path, opened).map(|reader| reader.header)).await?;
        let key = header.check(key.as_ref()).map_err(|what| ToolError::Corrupt(format!("{name}: {what}")))?;
        Ok((header, key))
    }

    /// Opens a file and reads its header, which has to be signed by `key`; without one, by the key it names itself.
    pub(crate) async fn open(path: &Path, key: Option<VerifyingKey>) -> Result<Self, ToolError> {
        let (path, name) = (path.to_owned(), path.display().to_string());
        let opened = name.clone();
        let reader = blocking(move || Reader::open(&path, opened)).await?;
        let key = reader.header.check(key.as_ref()).map_err(|what| ToolError::Corrupt(format!("{name}: {what}")))?;
        let header = reader.header.clone();
        let (out, items) = mpsc::channel(BATCHES_WAITING_MAX);
        // It ends with the file, with the first thing wrong, or when nobody takes what it reads.
        tokio::task::spawn_blocking(move || reader.run(&out));
        Ok(Self { header, key, name, items })
    }

    /// What comes next. After [`Item::End`], which has been held against header and key, there is nothing.
    pub(crate) async fn next(&mut self) -> Result<Item, ToolError> {
        let item = self.items.recv().await;
        let item = item.ok_or_else(|| self.wrong("it was cut: its end is missing"))??;
        if let Item::End(end) = &item {
            end.verify(&self.key, self.header.log_id()).map_err(|what| self.wrong(&what))?;
        }
        Ok(item)
    }

    /// An error about this file.
    pub(crate) fn wrong(&self, what: &str) -> ToolError {
        ToolError::Corrupt(format!("{}: {what}", self.name))
    }
}

struct Reader {
    name: String,
    header: Header,
    header_line: Vec<u8>,
    body: Body,
}

enum Body {
    Lines(Lines),
    Parquet(File),
}

struct Lines {
    input: Box<dyn BufRead + Send>,
    line: Vec<u8>,
    number: u64,
}

impl Lines {
    /// The next line with its end; false at the end of the file.
    fn next(&mut self) -> Result<bool, String> {
        self.line.clear();
        self.number += 1;
        let limited = self.input.by_ref().take(LINE_MAX_BYTES).read_until(b'\n', &mut self.line);
        limited.map_err(|error| format!("line {}: {error}", self.number))?;
        if self.line.is_empty() || self.line.ends_with(b"\n") {
            return Ok(!self.line.is_empty());
        }
        Err(format!("line {} was cut, or is too long", self.number))
    }

    fn parse(&self) -> Result<Line<'_>, String> {
        serde_json::from_slice(&self.line).map_err(|error| format!("line {}: {error}", self.number))
    }
}

impl Reader {
    fn open(path: &Path, name: String) -> Result<Self, ToolError> {
        let unreadable = |error: std::io::Error| ToolError::Usage(format!("{name} cannot be read: {error}"));
        let mut file = File::open(path).map_err(unreadable)?;
        let mut magic = [0; 4];
        let whole = file.read_exact(&mut magic).is_ok();
        file.rewind().map_err(unreadable)?;
        let wrong = |what: String| ToolError::Corrupt(format!("{name}: {what}"));
        if whole && magic == PARQUET_MAGIC {
            let header_line = parquet::header_line(&file).map_err(wrong)?;
            let header = header(&header_line).map_err(wrong)?;
            return Ok(Self { name, header, header_line, body: Body::Parquet(file) });
        }
        if !whole || magic != ZSTD_MAGIC {
            return Err(wrong("it is neither JSON lines compressed with zstd nor Parquet".to_owned()));
        }
        let input = BufReader::new(zstd::Decoder::new(file).map_err(unreadable)?);
        let mut lines = Lines { input: Box::new(input), line: Vec::new(), number: 0 };
        if !lines.next().map_err(wrong)? {
            return Err(wrong("it is empty".to_owned()));
        }
        let header_line = lines.line.clone();
        let header = header(&header_line).map_err(wrong)?;
        Ok(Self { name, header, header_line, body: Body::Lines(lines) })
    }

    fn run(self, out: &mpsc::Sender<Result<Item, ToolError>>) {
        let Self { name, header_line, body, .. } = self;
        let mut hand = |item| out.blocking_send(Ok(item)).map_err(|_| Stopped::Unwanted);
        let ended = match body {
            Body::Lines(lines) => read_lines(lines, &header_line, &mut hand),
            Body::Parquet(file) => read_parquet(file, &header_line, &mut hand),
        };
        if let Err(Stopped::Wrong(what)) = ended {
            // Nobody who waits for it is left when this fails.
            drop(out.blocking_send(Err(ToolError::Corrupt(format!("{name}: {what}")))));
        }
    }
}

/// Why reading stopped.
enum Stopped {
    Wrong(String),
    Unwanted,
}

impl From<String> for Stopped {
    fn from(what: String) -> Self {
        Self::Wrong(what)
    }
}

fn header(line: &[u8]) -> Result<Header, String> {
    match serde_json::from_slice(line) {
        Ok(Line::Log(header)) => Ok(*header),
        Ok(Line::Row { .. } | Line::Event(_) | Line::End(_)) => Err("it has no header".to_owned()),
        Err(error) => Err(format!("its header cannot be read: {error}")),
    }
}

fn read_lines(
    mut lines: Lines,
    header_line: &[u8],
    hand: &mut impl FnMut(Item) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    let mut digest = Sha256::new_with_prefix(header_line);
    let (mut events, mut rows) = (0_u64, 0_u64);
    let mut batch = Vec::new();
    let mut of_table: (String, Vec<String>) = Default::default();
    while lines.next()? {
        match lines.parse()? {
            Line::Event(line) => {
                hand_rows(&mut of_table, hand)?;
                let number = lines.number;
                batch.push(Stored::try_from(line).map_err(|what| format!("line {number}: {what}"))?);
                events += 1;
                if batch.len() >= BATCH_EVENTS {
                    hand(Item::Events(std::mem::take(&mut batch)))?;
                }
            }
            Line::Row { table, row } if events == 0 => {
                if of_table.0 != table || of_table.1.len() >= BATCH_EVENTS {
                    hand_rows(&mut of_table, hand)?;
                    of_table.0 = table.into_owned();
                }
                of_table.1.push(row.get().to_owned());
                rows += 1;
                digest.update(&lines.line);
            }
            Line::End(end) => {
                hand_rows(&mut of_table, hand)?;
                if !batch.is_empty() {
                    hand(Item::Events(batch))?;
                }
                fits(&end, events, rows, digest)?;
                let behind = lines.next()?;
                return if behind { Err("it goes on behind its end".to_owned())? } else { hand(Item::End(end)) };
            }
            Line::Log(_) | Line::Row { .. } => return Err(format!("line {} does not belong there", lines.number))?,
        }
    }
    Err("it was cut: its end is missing".to_owned())?
}

fn hand_rows(
    of_table: &mut (String, Vec<String>),
    hand: &mut impl FnMut(Item) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    if of_table.1.is_empty() {
        return Ok(());
    }
    hand(Item::Rows { table: of_table.0.clone(), rows: std::mem::take(&mut of_table.1) })
}

fn read_parquet(
    file: File,
    header_line: &[u8],
    hand: &mut impl FnMut(Item) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    let mut events = 0_u64;
    let end_line = parquet::read(file, |batch| {
        events += u64::try_from(batch.len()).unwrap_or(u64::MAX);
        hand(Item::Events(batch))
    })?;
    let end = match serde_json::from_slice(&end_line) {
        Ok(Line::End(end)) => end,
        Ok(_) | Err(_) => return Err("its end cannot be read".to_owned())?,
    };
    fits(&end, events, 0, Sha256::new_with_prefix(header_line))?;
    hand(Item::End(end))
}

fn fits(end: &End, events: u64, rows: u64, digest: Sha256) -> Result<(), String> {
    if end.events != events || end.rows != rows {
        let (of_events, of_rows) = (end.events, end.rows);
        return Err(format!("it has {events} events and {rows} rows instead of {of_events} and {of_rows}"));
    }
    if end.digest != hex::encode(digest.finalize()) {
        return Err("its header or a row of it was changed".to_owned());
    }
    Ok(())
}
