//! TLS beside plain connections, on the same port.

use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::process::{Simulator, question};
use crate::raw::{exchange, get, post};

async fn ask(sim: &Simulator, tls: &TlsConnector, fault: &str) -> (String, bool) {
    let stream = tokio::net::TcpStream::connect(sim.address()).await.unwrap();
    let mut stream = tls.connect("sim.test".try_into().unwrap(), stream).await.unwrap();
    let body = question(false, &json!({"content": "safe", "fault": {fault: {}}})).to_string();
    stream.write_all(&post("/v1/chat/completions", &body)).await.unwrap();
    let mut bytes = Vec::new();
    let clean = stream.read_to_end(&mut bytes).await.is_ok();
    (String::from_utf8(bytes).unwrap(), clean)
}

#[tokio::test]
async fn one_port_takes_tls_and_plain_and_resets_both() {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["sim.test".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    std::fs::write(&certificate, cert.pem()).unwrap();
    std::fs::write(&key, signing_key.serialize_pem()).unwrap();
    let sim = Simulator::with(1, &["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()]);
    directory.close().unwrap();

    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = TlsConnector::from(Arc::new(config));

    let (whole, clean) = ask(&sim, &tls, "error_event").await;
    assert!(whole.starts_with("HTTP/1.1 200") && whole.contains("server_error") && clean, "{whole}");
    let (half, clean) = ask(&sim, &tls, "reset_mid_stream").await;
    assert!(half.starts_with("HTTP/1.1 200") && !clean, "{half}");
    assert_eq!(exchange(sim.address(), &get("/health")).status, 200);
}
