//! The socket requests arrive at: one of our own, or one that was handed over by whoever started the process.
//!
//! A supervisor that keeps the socket (systemd's socket activation, `LISTEN_FDS` and `LISTEN_PID`, see sd_listen_fds(3)) can
//! replace the server without a refused connection: what arrives while nobody accepts waits in the kernel's queue.

use std::io::{Error, ErrorKind, Result};
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

/// A socket that listens.
#[derive(Debug)]
pub struct Listening {
    /// The socket, not blocking.
    pub listener: TcpListener,
    /// Whether somebody else holds it too, and so will go on listening when this process ends.
    pub handed_over: bool,
}

impl Listening {
    /// A socket of our own.
    ///
    /// # Errors
    /// The operating system's, such as a port in use.
    pub fn bind(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, handed_over: false })
    }

    /// The socket that was handed to this process, else one of its own.
    ///
    /// # Errors
    /// What was handed over is no listening TCP socket, or is more than one; otherwise as [`Self::bind`].
    pub fn handed_over_or_bind(address: SocketAddr) -> Result<Self> {
        let mut handed = ListenFd::from_env();
        match handed.len() {
            0 => Self::bind(address),
            1 => {
                let nothing =
                    || Error::new(ErrorKind::InvalidInput, "the socket handed over is no listening TCP socket");
                let listener = handed.take_tcp_listener(0)?.ok_or_else(nothing)?;
                listener.set_nonblocking(true)?;
                Ok(Self { listener, handed_over: true })
            }
            several => {
                let text = format!("{several} sockets were handed over, and CALOS listens at one");
                Err(Error::new(ErrorKind::InvalidInput, text))
            }
        }
    }
}
