//! The read models and their runner against real PostgreSQL.

#![expect(clippy::expect_used, reason = "a test's helper fails the test")]

mod as_of;
mod book;
mod equality;
mod faults;
mod finance_histories;
mod fussy;
mod histories;
mod raw_log;
mod schema;
mod sharing;
mod spendable;
mod waiting;
