//! Against servers of the tests' own that count who connects.

mod bodies;
mod outgoing;
mod reading;
mod rebinding;
mod redirects;
mod refused;
mod site;
