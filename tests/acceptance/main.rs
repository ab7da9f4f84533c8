//! CALOS as a client meets it: over HTTP, on a database of its own. And the house itself: its arrows and its tidiness.

mod architecture;
mod bad_input;
mod byok;
mod credits;
mod documentation;
mod gateway;
mod health;
mod idempotency;
mod identity;
mod keys;
mod lifecycle;
mod limits;
mod openai_client;
mod overload;
mod paces;
mod position;
mod providers;
mod router;
mod secrets;
mod tenants;
mod tidy;
mod tools;
