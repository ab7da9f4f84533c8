//! The wire between CALOS and what it depends on, which can be cut: TCP on this side; on the other PostgreSQL's socket, or TCP.

use std::net::SocketAddr;
use std::path::PathBuf;

use calos_adapters::embedded::Cluster;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

/// What becomes of what is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wire {
    /// It arrives.
    Whole,
    /// Connections are ended, and new ones are refused: the database was stopped.
    Refusing,
    /// Nothing arrives any more and nothing comes back, and nobody says so: a cut cable, a machine without power. Connections
    /// of that time stay silent for ever, also once the wire is whole again.
    Silent,
}

/// What is at the other end.
#[derive(Clone)]
enum Far {
    Socket(PathBuf),
    Address(SocketAddr),
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Far {
    /// Nothing when nobody listens there.
    async fn connect(&self) -> Option<Box<dyn Stream>> {
        match self {
            Self::Socket(path) => Some(Box::new(UnixStream::connect(path).await.ok()?)),
            Self::Address(address) => Some(Box::new(TcpStream::connect(address).await.ok()?)),
        }
    }
}

/// A wire; cut for good when dropped.
pub struct Cable {
    address: SocketAddr,
    wire: watch::Sender<Wire>,
}

impl Cable {
    /// Lays one to a database.
    pub async fn to(cluster: &Cluster) -> Self {
        Self::lay(Far::Socket(socket_of(cluster))).await
    }

    /// Lays one to something that listens on this machine.
    pub async fn to_address(address: SocketAddr) -> Self {
        Self::lay(Far::Address(address)).await
    }

    async fn lay(far: Far) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it has an address");
        let (wire, seen) = watch::channel(Wire::Whole);
        tokio::spawn(accept(listener, address, far, seen));
        Self { address, wire }
    }

    /// This end.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of a database at this end.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://calos@{}/{database}", self.address)
    }

    /// Cuts or mends it.
    pub fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }
}

/// PostgreSQL's socket, as it stands in the addresses of an embedded cluster.
fn socket_of(cluster: &Cluster) -> PathBuf {
    let options: sqlx::postgres::PgConnectOptions = cluster.url("calos").parse().expect("an address");
    let folder = options.get_socket().expect("an embedded cluster listens on a socket").clone();
    folder.join(format!(".s.PGSQL.{}", options.get_port()))
}

async fn accept(listener: TcpListener, address: SocketAddr, far: Far, mut wire: watch::Receiver<Wire>) {
    let mut listener = Some(listener);
    loop {
        let now = *wire.borrow_and_update();
        if now == Wire::Refusing {
            listener = None;
        } else if listener.is_none() {
            listener = Some(TcpListener::bind(address).await.expect("the port is still free"));
        }
        let changed = match &listener {
            None => wire.changed().await,
            Some(listener) => tokio::select! {
                changed = wire.changed() => changed,
                accepted = listener.accept() => {
                    let (stream, _) = accepted.expect("a connection");
                    tokio::spawn(carry(stream, far.clone(), wire.clone()));
                    Ok(())
                }
            },
        };
        if changed.is_err() {
            return;
        }
    }
}

async fn carry(mut near: TcpStream, far: Far, mut wire: watch::Receiver<Wire>) {
    if *wire.borrow() == Wire::Whole {
        let Some(mut far) = far.connect().await else { return };
        tokio::select! {
            // Either side has ended it.
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
            cut = wire.wait_for(|wire| *wire != Wire::Whole) => if cut.is_err() { return },
        }
        // PostgreSQL keeps its end for as long as it takes its keep-alives to notice: here, until the wire is mended.
        if *wire.borrow() == Wire::Silent && wire.wait_for(|wire| *wire != Wire::Silent).await.is_err() {
            return;
        }
    }
    // What was open in the silence is never heard of again.
    drop(wire.wait_for(|wire| *wire == Wire::Refusing).await);
}
