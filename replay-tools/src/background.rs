//! Long work that waits for everybody else: on threads of its own, and, where the system lets us, at a lower priority, its part of
//! a database on the same machine included.
//!
//! A server that folds the log on its own threads would keep requests waiting behind each stretch of it; and on few cores
//! whoever reads a whole log takes as much of them as everybody who waits for an answer. Nothing depends on it: where
//! priorities cannot be changed, all is done as before.

use std::fs;
use std::thread;

use rustix::process::{Pid, getpriority_process, setpriority_process};
use sqlx::PgConnection;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::error::ToolError;

/// A third of everybody else's share of a processor. Lower ones cost more than they give: who is put aside while he holds a lock of
/// the write-ahead log, or of the memory he shares with the server, keeps everybody waiting, for half a second at 19.
const BACKGROUND_NICE: i32 = 5;

/// Does work on so many threads of its own and waits for it. It ends when the waiting does.
///
/// # Errors
/// No threads, or the work panicked.
pub(crate) async fn apart<T, F, W>(threads: usize, work: W) -> Result<T, ToolError>
where
    T: Send + 'static,
    F: Future<Output = T>,
    W: FnOnce() -> F + Send + 'static,
{
    let (done, outcome) = oneshot::channel();
    // Dropped with whoever waits.
    let (waiting, gone) = oneshot::channel::<()>();
    let doing = move || {
        lower(None);
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(threads.max(1)).on_thread_start(|| lower(None)).enable_all();
        let ended = builder.build().map(|runtime| {
            let outcome = runtime.block_on(async {
                tokio::select! {
                    outcome = work() => Some(outcome),
                    _ = gone => None,
                }
            });
            runtime.shutdown_background();
            outcome
        });
        // Nobody listens when nobody waits any more.
        let _ = done.send(ended);
    };
    let unfit = |error: std::io::Error| ToolError::Environment(format!("no threads could be started: {error}"));
    thread::Builder::new().name("calos-replay".to_owned()).spawn(doing).map_err(unfit)?;
    let ended = outcome.await;
    drop(waiting);
    match ended {
        Ok(Ok(Some(outcome))) => Ok(outcome),
        Ok(Err(error)) => Err(unfit(error)),
        Ok(Ok(None)) | Err(_) => Err(ToolError::Corrupt("a worker ended abnormally".to_owned())),
    }
}

/// Lowers the priority of the database's process behind a connection, if it is one of this machine and we may.
pub(crate) async fn lower_backend(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let (backend, database, local): (i32, String, bool) = sqlx::query_as(
        "SELECT pg_backend_pid(), current_database()::text,
             coalesce(inet_server_addr() << '127.0.0.0/8' OR inet_server_addr() = '::1', true)",
    )
    .fetch_one(connection)
    .await?;
    if local && is_backend(backend, &database) {
        lower(Pid::from_raw(backend));
    }
    Ok(())
}

/// Whether a process of this machine is a backend on that database: the number alone may be another's, in a container.
fn is_backend(process: i32, database: &str) -> bool {
    let title = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let title = String::from_utf8_lossy(&title);
    title.starts_with("postgres: ") && title.split_ascii_whitespace().any(|word| word == database)
}

/// Lowers a process's priority, or the calling thread's. Elsewhere than on Linux that would be the whole program's.
fn lower(process: Option<Pid>) {
    if !cfg!(target_os = "linux") {
        return;
    }
    let lowered = match getpriority_process(process) {
        Ok(nice) if nice >= BACKGROUND_NICE => Ok(()),
        Ok(_) => setpriority_process(process, BACKGROUND_NICE),
        Err(error) => Err(error),
    };
    if let Err(error) = lowered {
        tracing::debug!(%error, ?process, "a priority stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    struct Says(Arc<AtomicBool>);

    impl Drop for Says {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn work_is_done_elsewhere_at_a_lower_priority_and_ours_stays() {
        let before = getpriority_process(None).unwrap();
        let here = thread::current().id();
        let (there, nice) = apart(1, move || async move {
            let inner = tokio::spawn(async { getpriority_process(None).unwrap() }).await.unwrap();
            (thread::current().id(), inner)
        })
        .await
        .unwrap();
        assert_ne!(here, there);
        assert_eq!(getpriority_process(None).unwrap(), before);
        if cfg!(target_os = "linux") {
            assert_eq!(nice, before.max(BACKGROUND_NICE));
        }
    }

    #[tokio::test]
    async fn work_nobody_waits_for_any_more_ends_and_one_that_panics_is_told() {
        let ended = Arc::new(AtomicBool::new(false));
        let says = Says(Arc::clone(&ended));
        let work = apart(1, move || async move {
            let _says = says;
            std::future::pending::<()>().await;
        });
        assert!(tokio::time::timeout(Duration::from_millis(50), work).await.is_err());
        for _ in 0..100 {
            if ended.load(Ordering::SeqCst) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(ended.load(Ordering::SeqCst), "it is dropped");
        let panicked = apart(1, || async { assert_eq!(1, 2, "on purpose") }).await;
        assert!(matches!(panicked, Err(ToolError::Corrupt(_))));
    }

    #[test]
    fn another_process_is_not_taken_for_a_backend() {
        let this = i32::try_from(std::process::id()).unwrap();
        assert!(!is_backend(this, "calos") && !is_backend(i32::MAX, "calos"));
    }
}
