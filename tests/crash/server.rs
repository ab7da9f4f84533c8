//! The built binaries as processes of their own, driven over HTTP as their users do.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::binaries::built;

/// First ready within this, in a debug build on a busy machine.
const READY_TIMEOUT: Duration = Duration::from_secs(40);

/// Where the servers of one test keep their secrets, and which database they share.
pub struct Place {
    pub data_dir: PathBuf,
    pub database_url: Option<String>,
}

impl Place {
    fn command(&self, binary: &str) -> Command {
        self.command_of(built(binary))
    }

    fn command_of(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear();
        for name in ["PATH", "HOME", "USER", "TMPDIR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("CALOS_DATA_DIR", &self.data_dir).env("RUST_BACKTRACE", "1");
        // Away from any `.env` of the checkout.
        command.current_dir(&self.data_dir);
        if let Some(url) = &self.database_url {
            command.env("DATABASE_URL", url);
        }
        command
    }

    /// Runs a binary to its end.
    pub fn run(&self, binary: &str, arguments: &[&str]) -> Output {
        self.command(binary).args(arguments).output().expect("the binary runs")
    }

    /// Runs a binary that must succeed.
    pub fn must(&self, binary: &str, arguments: &[&str]) -> String {
        let output = self.run(binary, arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{binary} {arguments:?} ended with {}:\n{out}\n{err}", output.status);
        out.into_owned()
    }
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    pub url: String,
    pub ready_after: Duration,
}

impl Server {
    /// Starts a server with simulated providers and waits until it is ready.
    pub async fn start(place: &Place) -> Self {
        Self::serve(place, &["--simulate-providers"], &[]).await
    }

    /// Starts a server with these arguments and settings, and waits until it is ready.
    pub async fn serve(place: &Place, arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        let port = free_port();
        let mut command = place.command("calos");
        command.arg("serve").args(arguments).envs(settings.iter().copied());
        command.env("PORT", port.to_string()).stdin(Stdio::null());
        Self::spawn(place, command, port).await
    }

    /// Starts a server at a socket that is handed to it as systemd does it, and waits until it is ready.
    pub async fn start_at(place: &Place, socket: &std::net::TcpListener, handed: OwnedFd) -> Self {
        // The third descriptor is where such sockets begin; a shell moves it there and says to whom it belongs.
        const HAND_OVER: &str = "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";
        let server = place.command("calos");
        let mut command = place.command_of("sh");
        command.arg("-c").arg(HAND_OVER).arg("sh").arg(server.get_program());
        command.args(["serve", "--simulate-providers"]).stdin(handed);
        Self::spawn(place, command, socket.local_addr().expect("it has an address").port()).await
    }

    async fn spawn(place: &Place, mut command: Command, port: u16) -> Self {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(place.data_dir.join("server.log"))
            .expect("a log file");
        let began = Instant::now();
        let child = command
            .stdout(log.try_clone().expect("the log file is shared"))
            .stderr(log)
            .spawn()
            .expect("the server starts");
        let mut server = Self { child, url: format!("http://127.0.0.1:{port}"), ready_after: Duration::ZERO };
        let client = client();
        loop {
            let ready = client.get(format!("{}/readyz", server.url)).send().await;
            if ready.is_ok_and(|answer| answer.status().is_success()) {
                server.ready_after = began.elapsed();
                return server;
            }
            if let Some(status) = server.child.try_wait().expect("the server can be asked") {
                panic!("the server ended with {status}:\n{}", tail(&place.data_dir));
            }
            assert!(began.elapsed() < READY_TIMEOUT, "the server is not ready:\n{}", tail(&place.data_dir));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().expect("the server can be killed");
        self.child.wait().expect("the server ends");
    }

    /// Asks it to stop as a terminal or supervisor would, and waits for its end.
    pub fn terminate(&mut self) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the server is there");
        self.child.wait().expect("the server ends")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// One tenant on the `pro` tier with a key.
#[derive(Clone)]
pub struct Tenant {
    pub id: String,
    pub token: String,
    pub key_id: String,
    pub key: String,
}

pub fn client() -> reqwest::Client {
    // The second call finds it installed, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().timeout(Duration::from_secs(20)).build().expect("a client")
}

/// Registers somebody, moves the tenant to `pro` and issues a key.
pub async fn pro_tenant(place: &Place, url: &str) -> Tenant {
    let client = client();
    let email = format!("{}@example.com", uuid::Uuid::now_v7());
    let body = json!({ "email": email, "password": "correct horse battery staple" });
    let registered = send(client.post(format!("{url}/api/auth/register")).json(&body), 201).await;
    let id = text(&registered, "tenantId");
    let token = text(&registered["session"], "token");
    place.must("calos", &["admin", "tier", &id, "pro"]);
    let (key_id, key) = issue_key(url, &id, &token).await;
    Tenant { id, token, key_id, key }
}

pub async fn issue_key(url: &str, tenant: &str, token: &str) -> (String, String) {
    // These tests are about what is written, not about how often.
    let often = json!({"limits": {"perMinute": 1_000_000, "perHour": 1_000_000, "perDay": 1_000_000}});
    let request = client().post(format!("{url}/api/tenants/{tenant}/keys")).bearer_auth(token).json(&often);
    let issued = send(request, 201).await;
    (text(&issued, "keyId"), text(&issued, "key"))
}

pub async fn send(request: reqwest::RequestBuilder, status: u16) -> Value {
    let answer = request.send().await.expect("the server answers");
    let (got, body) = (answer.status().as_u16(), answer.text().await.expect("the answer has a body"));
    assert_eq!(got, status, "{body}");
    serde_json::from_str(&body).unwrap_or(Value::Null)
}

/// One small `gpt-4` call; `None` when it was not answered with 200.
pub async fn chat(client: &reqwest::Client, url: &str, key: &str) -> Option<Value> {
    let body = json!({ "model": "gpt-4", "max_tokens": 8, "messages": [{ "role": "user", "content": "hello" }] });
    let answer = client.post(format!("{url}/v1/chat/completions")).bearer_auth(key).json(&body).send().await.ok()?;
    if !answer.status().is_success() {
        return None;
    }
    answer.json().await.ok()
}

pub fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}")).to_owned()
}

/// What an answer says it cost.
pub fn bill(answer: &Value) -> (uuid::Uuid, i64) {
    let billing = &answer["billing"];
    let usage = text(billing, "usage_id").parse().expect("a usage id is a UUID");
    (usage, billing["total_cost_micros"].as_i64().expect("a cost is a number"))
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it has an address").port()
}

fn tail(data_dir: &Path) -> String {
    let log = std::fs::read_to_string(data_dir.join("server.log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
