//! E.3: Ollama stops under a running server, others answer in its place, and it comes back.

use std::time::{Duration, Instant};

use calos_api::simulated::SimulatedProviders;
use calos_tests::cluster::TestCluster;
use reqwest::Client;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::extent::{factor, lasting};
use crate::server::{Place, Server, Tenant, client, pro_tenant, send};
use crate::wire::{Cable, Wire};

/// A local model the simulated Ollama has.
const LOCAL: &str = "llama3.2:3b";

/// How long Ollama stays away.
const AWAY: Duration = Duration::from_secs(3);

/// The circuit tries again by itself, at the latest so long after it was opened; and the look at Ollama's models follows.
const RECOVERED_WITHIN: Duration = Duration::from_secs(75);

struct Customer<'a> {
    client: Client,
    server: &'a Server,
    tenant: &'a Tenant,
}

impl Customer<'_> {
    /// A call to the local model itself: the status and the answer.
    async fn local(&self) -> (u16, Value) {
        let body = json!({"model": LOCAL, "max_tokens": 8, "messages": [{"role": "user", "content": "hello"}]});
        let request = self.client.post(format!("{}/v1/chat/completions", self.server.url));
        let answer = request.bearer_auth(&self.tenant.key).json(&body).send().await.expect("the server answers");
        let (status, text) = (answer.status().as_u16(), answer.text().await.expect("a body"));
        (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }

    /// A question for whoever answers it for the least: the local models first.
    async fn question(&self) -> Value {
        let body = json!({"prompt": "hello", "strategy": "cheapest", "maxTokens": 8});
        // With the key, whose limits are wide: a session may ask sixty times a minute, and these are about what is answered.
        let request = self.client.post(format!("{}/api/chat/complete", self.server.url));
        send(request.bearer_auth(&self.tenant.key).json(&body), 200).await
    }

    /// `/readyz`, which must say ready: others answer.
    async fn providers(&self) -> String {
        let ready = send(self.client.get(format!("{}/readyz", self.server.url)), 200).await;
        ready["checks"]["providers"]["detail"].as_str().expect("a detail").to_owned()
    }

    /// How many circuits of Ollama are open.
    async fn open_circuits(&self) -> u64 {
        let page = self.client.get(format!("{}/metrics", self.server.url)).send().await.expect("it is answered");
        let page = page.text().await.expect("a page");
        let line = "calos_provider_circuits{provider=\"ollama\",state=\"open\"} ";
        page.lines().find_map(|found| found.strip_prefix(line)).map_or(0, |count| count.parse().expect("a count"))
    }
}

/// Uses that were charged for or answered, what was taken for them, and what is still held.
async fn charged(pool: &PgPool) -> (i64, i64) {
    sqlx::query_as(
        "SELECT count(*), coalesce(sum((payload #>> '{usage_recorded,total}')::bigint), 0)::bigint
         FROM events WHERE event_type = 'usage_recorded'",
    )
    .fetch_one(pool)
    .await
    .expect("the log is read")
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ollama_others_answer_its_circuit_opens_nothing_is_charged_and_it_is_found_again() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    drop(rustls::crypto::ring::default_provider().install_default());
    let cluster = TestCluster::private().await;
    let database_url = cluster.database("calos").await;
    let folder = calos_tests::cluster::open_folder();
    let place = Place { data_dir: folder.path().to_owned(), database_url: Some(database_url.clone()) };
    let simulated = SimulatedProviders::start().await.expect("the providers start");
    let ollama = simulated.ollama_url().trim_start_matches("http://").parse().expect("an address");
    let cable = Cable::to_address(ollama).await;
    let (openai, deepseek, ollama) =
        (simulated.openai_url(), simulated.deepseek_url(), format!("http://{}", cable.address()));
    let settings = [
        ("OPENAI_API_KEY", "sk-simulated"),
        ("OPENAI_BASE_URL", &openai),
        ("DEEPSEEK_API_KEY", "sk-simulated"),
        ("DEEPSEEK_BASE_URL", &deepseek),
        ("OLLAMA_URL", &ollama),
    ];
    let mut server = Server::serve(&place, &[], &settings).await;
    let tenant = pro_tenant(&place, &server.url).await;
    let customer = Customer { client: client(), server: &server, tenant: &tenant };
    let pool = PgPool::connect(&database_url).await.expect("the database answers");

    let (status, answer) = customer.local().await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(customer.question().await["provider"], "ollama");
    let (mut answered, mut micros) = (2, 0);
    for _ in 0..factor() {
        cable.set(Wire::Refusing);
        let away = Instant::now();
        let mut refused = 0;
        // Whoever asks for the local model is told; whoever asks for an answer gets one, and pays for that one.
        while away.elapsed() < lasting(AWAY) || customer.open_circuits().await == 0 {
            let (status, answer) = customer.local().await;
            assert_eq!((status, &answer["error"]["code"]), (503, &json!("provider_unavailable")), "{answer}");
            refused += 1;
            let instead = customer.question().await;
            assert_ne!(instead["provider"], "ollama", "{instead}");
            (answered, micros) = (answered + 1, micros + instead["cost_micros"].as_i64().expect("a cost"));
            assert!(away.elapsed() < lasting(AWAY) + Duration::from_secs(20), "its circuit does not open");
        }
        assert!(refused >= 5, "only {refused} calls were tried");
        let detail = customer.providers().await;
        assert!(detail.contains("ollama") && detail.contains(&format!("left alone for now: {LOCAL}")), "{detail}");

        cable.set(Wire::Whole);
        let returned = Instant::now();
        loop {
            let (status, answer) = customer.local().await;
            if status == 200 {
                answered += 1;
                break;
            }
            assert_eq!(status, 503, "{answer}");
            assert!(returned.elapsed() < RECOVERED_WITHIN, "not asked again {:?} after its return", returned.elapsed());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        loop {
            let detail = customer.providers().await;
            if customer.open_circuits().await == 0 && !detail.contains("does not answer") && !detail.contains("left") {
                break;
            }
            assert!(returned.elapsed() < RECOVERED_WITHIN, "{:?} after its return: {detail}", returned.elapsed());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let again = customer.question().await;
    assert_eq!(again["provider"], "ollama", "{again}");
    answered += 1;

    // Every use in the log was answered, and nothing is held for those that were not.
    assert_eq!(charged(&pool).await, (answered, micros));
    let balance = client().get(format!("{}/api/credits/balance", server.url)).bearer_auth(&tenant.token);
    calos_tests::cluster::until("nothing is held", 10, async || {
        let balance = balance.try_clone().expect("a request without a body");
        send(balance, 200).await["held_micros"] == json!(0)
    })
    .await;
    pool.close().await;
    place.must("calos-replay", &["verify"]);
    assert!(server.terminate().success(), "the server did not stop cleanly");
}
