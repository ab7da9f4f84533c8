//! From a host to the addresses that are connected to: resolved once, checked all together, and held.
//!
//! A name that means a public address when it is checked and another one when it is connected to is the oldest way in.
//! So there is one look-up per hop, every address it gives is checked, and the connection is given these addresses and
//! no resolver of its own.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use calos_commands::log::Boxed;
use calos_commands::web::FetchRefusal;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::FetchSettings;
use super::target::{Target, TargetHost};

/// How many look-ups run at a time; each holds a thread for as long as the system's resolver takes. Those that somebody
/// waits for are bounded by the fetches; the rest of the room is for those that were given up, of which one tenant with a
/// name server that never answers can leave some thirty behind.
pub(super) const LOOKUPS_MAX: usize = 256;
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
    resolve: fn(&str) -> io::Result<Vec<IpAddr>>,
}

impl Default for SystemLookup {
    fn default() -> Self {
        Self::asking(resolve)
    }
}

impl SystemLookup {
    /// Asks `resolve`, which may take its time.
    pub(super) fn asking(resolve: fn(&str) -> io::Result<Vec<IpAddr>>) -> Self {
        Self { running: Arc::new(Semaphore::new(LOOKUPS_MAX)), resolve }
    }
}

fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|socket| socket.ip()).collect())
}

impl NameLookup for SystemLookup {
    fn lookup<'a>(&'a self, name: &'a str) -> Boxed<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let permit = Arc::clone(&self.running).acquire_owned().await.map_err(io::Error::other)?;
            // The dot keeps the resolver from completing the name with a domain of its own network.
            let rooted = format!("{name}.");
            let resolve = self.resolve;
            tokio::task::spawn_blocking(move || {
                // The system's resolver cannot be interrupted: the permit is held until it really is done.
                let _permit = permit;
                resolve(&rooted)
            })
            .await
            .map_err(io::Error::other)?
        })
    }
}

/// The sockets of `target`, each admitted by the settings' policy.
///
/// # Errors
/// `ForbiddenAddress` for an address that is not admitted, `Timeout`. A name that is not known, has no address or has one
/// that is not admitted is `Unreachable` alike: who asks about a name learns nothing of what it means in the network
/// CALOS stands in, not even whether it means something there.
pub async fn checked_sockets(
    target: &Target,
    settings: &FetchSettings,
    lookup: &dyn NameLookup,
) -> Result<Vec<SocketAddr>, FetchRefusal> {
    let (addresses, inside) = match target.host() {
        TargetHost::Literal(address) => (vec![*address], FetchRefusal::ForbiddenAddress),
        TargetHost::Name(name) => {
            let found = timeout(settings.connect, lookup.lookup(name)).await.map_err(|_| FetchRefusal::Timeout)?;
            let found = found.map_err(|error| {
                tracing::debug!(%error, "a name could not be resolved for a fetch");
                FetchRefusal::Unreachable
            })?;
            (found, FetchRefusal::Unreachable)
        }
    };
    let own = (settings.own)().map_err(|error| {
        tracing::error!(%error, "this machine's own addresses cannot be read, so no page is fetched");
        FetchRefusal::Unreachable
    })?;
    let mut sockets: Vec<SocketAddr> =
        addresses.into_iter().map(|address| SocketAddr::new(address, target.port())).collect();
    if let Some(socket) = sockets.iter().find(|socket| !settings.allow.admits(**socket, &own)) {
        tracing::debug!(%socket, "a host of a fetch has an address that is not public");
        return Err(inside);
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
