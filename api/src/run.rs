//! `calos serve`: from the settings to a listening server, and back down in order.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use calos_adapters::config::Config;
use calos_adapters::database::Database;

use crate::cli::{CliError, ServeArgs, say};
use crate::listening::Listening;
use crate::logging;
use crate::routes;
use crate::serve::{GRACE_MAX_SECONDS, Server, asked_to_stop};
use crate::simulated::SimulatedProviders;
use crate::wiring::{App, Background, StartError, close};

/// A running CALOS: the server, what it serves, and everything that works behind it.
pub struct Running {
    server: Server,
    app: App,
    background: Background,
    simulated: Option<SimulatedProviders>,
}

impl Running {
    /// Starts over an open database, whose end it takes care of.
    ///
    /// # Errors
    /// [`StartError`]; the database is closed again.
    pub async fn start(config: Config, database: Database, simulate: bool) -> Result<Self, StartError> {
        Self::start_at(config, database, simulate, Listening::bind).await
    }

    /// The same, at whatever socket `listen` gives for the configured address.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_at(
        mut config: Config,
        database: Database,
        simulate: bool,
        listen: impl FnOnce(SocketAddr) -> std::io::Result<Listening>,
    ) -> Result<Self, StartError> {
        let simulated = if simulate {
            match SimulatedProviders::start().await {
                Ok(simulated) => {
                    simulated.take_the_place_of(&mut config.providers);
                    Some(simulated)
                }
                Err(error) => {
                    close(database).await;
                    return Err(StartError::Listen {
                        address: "the simulated providers' port".to_owned(),
                        source: error,
                    });
                }
            }
        } else {
            None
        };
        let address = SocketAddr::new(config.server.bind, config.server.port);
        let (app, background) = App::start(config, database, simulate).await?;
        let connections = app.metrics.connections.clone();
        match listen(address).and_then(|listening| Server::start(routes::service(&app), listening, connections)) {
            Ok(server) => Ok(Self { server, app, background, simulated }),
            Err(source) => {
                background.stop(app).await;
                Err(StartError::Listen { address: address.to_string(), source })
            }
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// What it serves.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.app
    }

    /// The simulated providers, when there are any.
    #[must_use]
    pub fn simulated(&self) -> Option<&SimulatedProviders> {
        self.simulated.as_ref()
    }

    /// Answers `/readyz` with 503 from now on, and goes on serving for `delay`, so that whoever distributes the traffic can
    /// turn to other servers before this one stops listening. Nothing ends for it: what is under way goes on.
    pub async fn say_not_ready(&self, delay: Duration) {
        self.app.leaving.cancel();
        tokio::time::sleep(delay).await;
    }

    /// Stops: no new calls, calls in flight finish, workers stop, the log closes, the database is released.
    pub async fn stop(self, grace: Duration) {
        self.app.stopping.cancel();
        if !self.server.stop(grace).await {
            tracing::warn!("calls were still in flight after {} s and are cut off", grace.as_secs());
        }
        self.background.stop(self.app).await;
        if let Some(simulated) = self.simulated {
            simulated.stop().await;
        }
    }
}

/// Serves until asked to stop.
///
/// # Errors
/// [`CliError`] when it cannot start.
pub async fn serve(config: Config, args: ServeArgs) -> Result<(), CliError> {
    // First of all, so that a signal during the start stops it in order too.
    let mut asked = std::pin::pin!(asked_to_stop());
    let simulate = args.simulate_providers || !config.providers.any_configured();
    let stop_delay = config.server.stop_delay;
    logging::keep_out_secrets_of(&config);
    say(config.summary().trim_end())?;
    let starting = async {
        let database = Database::open(&config).await?;
        Ok::<_, CliError>(Running::start_at(config, database, simulate, Listening::handed_over_or_bind).await?)
    };
    let running = tokio::select! {
        started = starting => started?,
        signal = asked.as_mut() => return Err(CliError::Refused(format!("asked to stop by {} while starting", signal?))),
    };
    say(&banner(&running))?;
    let signal = asked.as_mut().await?;
    tracing::info!(signal, "stopping; calls in flight may finish, a second signal ends them");
    let stop = async {
        running.say_not_ready(stop_delay).await;
        running.stop(Duration::from_secs(GRACE_MAX_SECONDS)).await;
    };
    tokio::select! {
        () = stop => say("stopped"),
        again = asked_to_stop() => {
            tracing::warn!(signal = again?, "asked twice; ending now");
            Err(CliError::Refused("ended before every call in flight had finished".to_owned()))
        }
    }
}

fn banner(running: &Running) -> String {
    let mut text = String::new();
    if let Some(simulated) = running.simulated() {
        let _ =
            writeln!(text, "simulated providers: {simulated} (no real model is called, nothing is charged to anybody)");
    }
    let _ = write!(text, "CALOS listens on http://{}", running.address());
    text
}
