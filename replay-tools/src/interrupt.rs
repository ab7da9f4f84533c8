//! How an operator, or the system, asks a tool to stop.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Waits for an interruption from the keyboard or a request to end.
pub(crate) async fn interrupted() -> io::Result<()> {
    let mut end = signal(SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed,
        _ = end.recv() => Ok(()),
    }
}
