//! Audio: speech that is silent, and transcriptions of what nobody said.

use hyper::header::HeaderValue;
use serde_json::{Value, json};

use super::multipart;
use super::request::{NOT_JSON, missing};
use crate::answer::{Ask, Usage};
use crate::refusal::Refusal;

/// The number of samples of silence.
const SAMPLES: usize = 2400;

/// Reads a request for speech.
pub fn read_speech(body: &[u8]) -> Result<Ask, Refusal> {
    let document: Value = serde_json::from_slice(body).map_err(|_| Refusal::bad(NOT_JSON))?;
    let text = |name: &str| document.get(name).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| missing(name));
    let (model, input) = (text("model")?, text("input")?);
    text("voice").or_else(|refusal| document.get("voice").map(|_| String::new()).ok_or(refusal))?;
    let prompt_tokens = (input.len() as u64).div_ceil(4);
    Ok(Ask { model, last_text: input, prompt_tokens, asked: document, ..Ask::default() })
}

/// Returns a tenth of a second of silence: WAV, PCM (24 kHz, 16 bits), or else MP3.
pub fn speech(ask: &Ask) -> (HeaderValue, Vec<u8>) {
    match ask.asked.get("response_format").and_then(Value::as_str) {
        Some("wav") => (HeaderValue::from_static("audio/wav"), wav()),
        Some("pcm") => (HeaderValue::from_static("audio/pcm"), vec![0; SAMPLES * 2]),
        _ => (HeaderValue::from_static("audio/mpeg"), mp3()),
    }
}

fn wav() -> Vec<u8> {
    let length = SAMPLES as u32 * 2;
    let mut out = Vec::with_capacity(44 + SAMPLES * 2);
    out.extend_from_slice(b"RIFF");
    out.extend_from_slice(&(36 + length).to_le_bytes());
    out.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    out.extend_from_slice(&24_000_u32.to_le_bytes());
    out.extend_from_slice(&48_000_u32.to_le_bytes());
    out.extend_from_slice(b"\x02\0\x10\0data");
    out.extend_from_slice(&length.to_le_bytes());
    out.resize(out.len() + SAMPLES * 2, 0);
    out
}

/// Returns four MPEG-1 layer III frames of 128 kbit/s at 44.1 kHz, 417 bytes each, whose side information is empty.
fn mp3() -> Vec<u8> {
    let mut frame = vec![0xFF, 0xFB, 0x90, 0x00];
    frame.resize(417, 0);
    frame.repeat(4)
}

/// Reads a request to transcribe, or to translate, a recording.
pub fn read_transcription(content_type: &str, body: &[u8]) -> Result<Ask, Refusal> {
    let Some(fields) = multipart::fields(content_type, body) else {
        return Err(Refusal::bad("Invalid body: expected multipart/form-data."));
    };
    let model = fields.get("model").and_then(Value::as_str).ok_or_else(|| missing("model"))?.to_owned();
    let last_text = fields.get("prompt").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(Ask { model, last_text, asked: fields, ..Ask::default() })
}

/// Returns the transcription `text` in the format asked for.
pub fn transcription(ask: &Ask, text: &str, usage: &Usage) -> (HeaderValue, String) {
    let json_type = HeaderValue::from_static("application/json");
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    let usage = match usage {
        Usage::Tokens { .. } => json!({"type": "duration", "seconds": 1}),
        Usage::Given(value) => value.clone(),
        Usage::Omit => Value::Null,
    };
    match ask.asked.get("response_format").and_then(Value::as_str) {
        Some("text") => (plain, format!("{text}\n")),
        Some("srt") => (plain, format!("1\n00:00:00,000 --> 00:00:01,000\n{text}\n\n")),
        Some("vtt") => (plain, format!("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n{text}\n\n")),
        Some("verbose_json") => {
            let segment = json!({"id": 0, "seek": 0, "start": 0.0, "end": 1.0, "text": text, "tokens": [],
                "temperature": 0.0, "avg_logprob": 0.0, "compression_ratio": 1.0, "no_speech_prob": 0.0});
            let document = json!({"task": "transcribe", "language": "english", "duration": 1.0, "text": text,
                "segments": [segment], "usage": usage});
            (json_type, document.to_string())
        }
        _ => (json_type, json!({"text": text, "usage": usage}).to_string()),
    }
}
