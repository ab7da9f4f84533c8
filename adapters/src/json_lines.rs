//! Files of JSON lines that only ever grow: what is kept outside the database, anchors and what goes with them.

use std::fs::OpenOptions;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// In one write, on a line of its own: behind a line that a crash cut short, an end of line comes first.
pub(crate) fn append_line(directory: &Path, path: &Path, line: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(0))? > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    let before = if last == [b'\n'] { "" } else { "\n" };
    file.write_all(format!("{before}{line}\n").as_bytes())?;
    file.sync_all()
}

/// Why lines cannot be read.
pub(crate) enum LinesError {
    /// The file.
    File { path: PathBuf, source: std::io::Error },
    /// A line that is none of them.
    Unreadable { place: String, source: serde_json::Error },
}

/// What a file of JSON lines holds, oldest first; nothing when there is no file. A line that a crash cut short is left out.
pub(crate) fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, LinesError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(LinesError::File { path: path.to_owned(), source }),
    };
    let mut all = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(read) => all.push(read),
            Err(error) if error.is_eof() => {}
            Err(source) => {
                let place = format!("{}:{}", path.display(), index + 1);
                return Err(LinesError::Unreadable { place, source });
            }
        }
    }
    Ok(all)
}
