//! Real processes, ended by `kill -9`: what was acknowledged is there, once, and the log proves it.

mod kill_postgres;
mod kill_server;
mod server;
mod two_servers;
