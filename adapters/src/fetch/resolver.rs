//! From a host to the addresses that are connected to: resolved once, checked all together, and held.
//!
//! A name that means a public address when it is checked and another one when it is connected to is the oldest way in.
//! So there is one look-up per hop, every address it gives is checked, and the connection is given these addresses and
//! no resolver of its own.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use calos_commands::log::Boxed;
use calos_commands::web::FetchRefusal;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::address::AddressPolicy;
use super::target::{Target, TargetHost};

/// How many look-ups run at a time; each holds a thread for as long as the system's resolver takes.
const LOOKUPS_MAX: usize = 32;
/// How many addresses of one host are tried. All are checked.
const ADDRESSES_MAX: usize = 8;

/// Knows which addresses a name stands for.
pub trait NameLookup: Send + Sync {
    /// All addresses of `name`, which has no trailing dot.
    ///
    /// # Errors
    /// The name is not known, or the resolver does not answer.
    fn lookup<'a>(&'a self, name: &'a str) -> Boxed<'a, io::Result<Vec<IpAddr>>>;
}

/// The system's resolver.
#[derive(Clone, Debug)]
pub struct SystemLookup {
    running: Arc<Semaphore>,
}

impl Default for SystemLookup {
    fn default() -> Self {
        Self { running: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }
}

impl NameLookup for SystemLookup {
    fn lookup<'a>(&'a self, name: &'a str) -> Boxed<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let permit = Arc::clone(&self.running).acquire_owned().await.map_err(io::Error::other)?;
            // The dot keeps the resolver from completing the name with a domain of its own network.
            let rooted = format!("{name}.");
            tokio::task::spawn_blocking(move || {
                // The system's resolver cannot be interrupted: the permit is held until it really is done.
                let _permit = permit;
                Ok((rooted.as_str(), 0).to_socket_addrs()?.map(|socket| socket.ip()).collect())
            })
            .await
            .map_err(io::Error::other)?
        })
    }
}

/// The sockets of `target`, each admitted by `policy`.
///
/// # Errors
/// `ForbiddenAddress` when any address of the host is not admitted, `Unreachable` when it has none, `Timeout`.
pub async fn checked_sockets(
    target: &Target,
    policy: &AddressPolicy,
    lookup: &dyn NameLookup,
    limit: Duration,
) -> Result<Vec<SocketAddr>, FetchRefusal> {
    let addresses = match target.host() {
        TargetHost::Literal(address) => vec![*address],
        TargetHost::Name(name) => {
            let found = timeout(limit, lookup.lookup(name)).await.map_err(|_| FetchRefusal::Timeout)?;
            found.map_err(|error| {
                tracing::debug!(%error, "a name could not be resolved for a fetch");
                FetchRefusal::Unreachable
            })?
        }
    };
    let mut sockets: Vec<SocketAddr> =
        addresses.into_iter().map(|address| SocketAddr::new(address, target.port())).collect();
    if !sockets.iter().all(|socket| policy.admits(*socket)) {
        return Err(FetchRefusal::ForbiddenAddress);
    }
    if sockets.is_empty() {
        return Err(FetchRefusal::Unreachable);
    }
    sockets.truncate(ADDRESSES_MAX);
    Ok(sockets)
}

/// A resolver that knows one name, and the sockets that were checked for it. Asked for anything else, it fails.
#[derive(Debug)]
pub struct Pinned {
    /// The name that was looked up; none when the URL held an address, which is never looked up.
    name: Option<String>,
    sockets: Vec<SocketAddr>,
}

impl Pinned {
    /// Holds what [`checked_sockets`] found for `target`.
    #[must_use]
    pub fn new(target: &Target, sockets: Vec<SocketAddr>) -> Self {
        let name = match target.host() {
            TargetHost::Literal(_) => None,
            TargetHost::Name(name) => Some(name.clone()),
        };
        Self { name, sockets }
    }
}

impl Resolve for Pinned {
    fn resolve(&self, name: Name) -> Resolving {
        let known = self.name.as_deref() == Some(name.as_str());
        let answer = if known {
            Ok(Box::new(self.sockets.clone().into_iter()) as Addrs)
        } else {
            Err(io::Error::other("only the name that was checked is resolved").into())
        };
        Box::pin(std::future::ready(answer))
    }
}
