//! CPU time from `/proc`: what this process spent, and what all of PostgreSQL's processes spent together.
//!
//! PostgreSQL's share is the postmaster's own time, the time of its children that have ended (which the kernel adds up
//! at their parent) and the time of its living children; so a backend that ends in the middle is not lost.

use std::fs;
use std::time::Duration;

use sqlx::PgConnection;

use crate::stats::Cpu;

/// Where CPU time is read.
#[derive(Clone, Debug)]
pub struct CpuMeter {
    postmaster: Option<u32>,
    ticks_per_second: u64,
}

/// CPU time spent so far.
#[derive(Clone, Copy, Debug)]
pub struct CpuReading {
    client: Duration,
    postgres: Option<Duration>,
}

struct ProcessTimes {
    parent: u32,
    own_ticks: u64,
    ended_children_ticks: u64,
}

impl CpuMeter {
    /// Finds the postmaster behind a connection, when it runs on this machine.
    ///
    /// # Errors
    /// Database errors.
    pub async fn find(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let (backend, local): (i32, bool) = sqlx::query_as(
            "SELECT pg_backend_pid(), inet_server_addr() IS NULL OR inet_server_addr() << '127.0.0.0/8'",
        )
        .fetch_one(connection)
        .await?;
        let postmaster = u32::try_from(backend)
            .ok()
            .filter(|_| local)
            .and_then(|backend| times_of(backend).map(|times| times.parent))
            .filter(|parent| is_postgres(*parent));
        Ok(Self { postmaster, ticks_per_second: rustix::param::clock_ticks_per_second() })
    }

    /// Whether PostgreSQL's share can be told.
    pub fn sees_postgres(&self) -> bool {
        self.postmaster.is_some()
    }

    /// What a process has spent so far; none when it is gone, or where there is no `/proc`.
    pub fn of_process(&self, pid: u32) -> Option<Duration> {
        times_of(pid).map(|times| self.duration(times.own_ticks))
    }

    /// What all of PostgreSQL's processes have spent so far.
    pub fn of_postgres(&self) -> Option<Duration> {
        self.postgres_ticks().map(|ticks| self.duration(ticks))
    }

    /// Reads now; none where there is no `/proc`.
    pub fn read(&self) -> Option<CpuReading> {
        let client = self.duration(times_of(std::process::id())?.own_ticks);
        Some(CpuReading { client, postgres: self.postgres_ticks().map(|ticks| self.duration(ticks)) })
    }

    /// What was spent since an earlier reading.
    pub fn since(&self, earlier: Option<CpuReading>) -> Option<Cpu> {
        let (earlier, now) = (earlier?, self.read()?);
        Some(Cpu {
            client: now.client.saturating_sub(earlier.client),
            postgres: now.postgres.zip(earlier.postgres).map(|(now, earlier)| now.saturating_sub(earlier)),
        })
    }

    fn postgres_ticks(&self) -> Option<u64> {
        let postmaster = self.postmaster?;
        let parent = times_of(postmaster)?;
        let mut ticks = parent.own_ticks.saturating_add(parent.ended_children_ticks);
        for entry in fs::read_dir("/proc").ok()?.flatten() {
            let pid: Option<u32> = entry.file_name().to_str().and_then(|name| name.parse().ok());
            // A process may end between the listing and the reading; then its time stands at the postmaster next time.
            if let Some(times) = pid.and_then(times_of).filter(|times| times.parent == postmaster) {
                ticks = ticks.saturating_add(times.own_ticks);
            }
        }
        Some(ticks)
    }

    fn duration(&self, ticks: u64) -> Duration {
        const NANOS_PER_SECOND: u64 = 1_000_000_000;
        Duration::from_nanos(ticks.saturating_mul(NANOS_PER_SECOND / self.ticks_per_second.max(1)))
    }
}

fn is_postgres(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("post"))
}

fn times_of(pid: u32) -> Option<ProcessTimes> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads `/proc/<pid>/stat`. The name in parentheses may itself hold spaces and parentheses, so fields count from the last `)`.
fn parse_stat(stat: &str) -> Option<ProcessTimes> {
    const PARENT: usize = 1;
    const USER: usize = 11;
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
    Some(ProcessTimes {
        parent: fields.get(PARENT)?.parse().ok()?,
        own_ticks: ticks(USER)?.saturating_add(ticks(USER + 1)?),
        ended_children_ticks: ticks(USER + 2)?.saturating_add(ticks(USER + 3)?),
    })
}

#[cfg(test)]
mod tests {
    use super::parse_stat;

    #[test]
    fn a_process_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "42 (postgres: a) b) S 7 42 42 0 -1 4194560 100 0 0 0 30 12 5 4 20 0 1 0 100 1 1";
        let times = parse_stat(stat).unwrap();
        assert_eq!(times.parent, 7);
        assert_eq!(times.own_ticks, 42);
        assert_eq!(times.ended_children_ticks, 9);
    }
}
