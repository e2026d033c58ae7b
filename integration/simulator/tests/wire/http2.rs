//! HTTP/2 with prior knowledge, as Envoy speaks it to an h2c cluster.

use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

use crate::process::{Simulator, question};

async fn ask(sim: &Simulator, behavior: &Value) -> Result<(u16, String), hyper::Error> {
    let stream = tokio::net::TcpStream::connect(sim.address()).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let body = Full::new(bytes::Bytes::from(question(true, behavior).to_string()));
    let request = Request::post(format!("http://{}/v1/chat/completions", sim.address())).body(body).unwrap();
    let response = sender.send_request(request).await?;
    assert_eq!(response.version(), Version::HTTP_2);
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8(body.to_vec()).unwrap()))
}

#[tokio::test]
async fn streams_work_and_faults_cut_the_connection() {
    let sim = Simulator::start();
    let (status, text) = ask(&sim, &json!({"content": "a b"})).await.unwrap();
    assert_eq!(status, 200);
    assert!(text.ends_with("data: [DONE]\n\n"));
    assert_eq!(sim.requests()[0]["version"], "HTTP/2.0");
    for fault in [json!("reset_before_headers"), json!({"close_mid_stream": {"after_chunks": 1}})] {
        assert!(ask(&sim, &json!({"content": "a b", "fault": fault})).await.is_err(), "{fault}");
    }
}
