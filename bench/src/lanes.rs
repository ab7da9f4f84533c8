//! A plain pool of connections: first come, first served, and nothing on the wire that the caller did not ask for.
//!
//! The usual pool of sqlx asks each connection that comes back whether it still lives. That round trip would count
//! against a baseline that has no use for it.

use std::sync::{Mutex, PoisonError};

use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::BenchError;

/// A fixed number of connections that many callers share.
pub struct Lanes {
    permits: Semaphore,
    idle: Mutex<Vec<PgConnection>>,
}

/// A connection while one caller has it.
pub struct Lane<'a> {
    connection: Option<PgConnection>,
    lanes: &'a Lanes,
    _permit: SemaphorePermit<'a>,
}

impl Lanes {
    /// Opens all of them.
    pub async fn open(options: &PgConnectOptions, connections: u32) -> Result<Self, BenchError> {
        let mut idle = Vec::new();
        for _ in 0..connections {
            idle.push(PgConnection::connect_with(options).await?);
        }
        Ok(Self { permits: Semaphore::new(idle.len()), idle: Mutex::new(idle) })
    }

    /// Waits for a turn.
    pub async fn turn(&self) -> Result<Lane<'_>, BenchError> {
        let closed = || BenchError::Check("the connections are closed".to_owned());
        let permit = self.permits.acquire().await.map_err(|_| closed())?;
        let connection = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Ok(Lane { connection: Some(connection.ok_or_else(closed)?), lanes: self, _permit: permit })
    }

    /// Closes all of them.
    pub async fn close(&self) -> Result<(), BenchError> {
        self.permits.close();
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for connection in idle {
            connection.close().await?;
        }
        Ok(())
    }
}

impl Lane<'_> {
    /// The connection.
    pub fn connection(&mut self) -> Result<&mut PgConnection, BenchError> {
        self.connection.as_mut().ok_or_else(|| BenchError::Check("the connection was taken away".to_owned()))
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        // The permit goes back after this, so whoever gets it finds the connection.
        if let Some(connection) = self.connection.take() {
            self.lanes.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }
}
