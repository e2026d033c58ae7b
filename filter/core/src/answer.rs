//! The answer as it passes the gateway stage: what it is, how far it came, and what it took.

use crate::attempt::{self, Failure};
use crate::cache::transcript::Transcript;
use crate::quota::estimate::Running;
use crate::sse::{self, EventCutter};
use crate::usage::{self, Usage};

mod frame;
use frame::Frame;

/// The answer of one exchange.
#[derive(Debug)]
pub enum Answer {
    /// None yet.
    None,
    /// The module's own reply.
    Own {
        /// HTTP status.
        status: u16,
        /// The refusal's code, if it is one.
        code: Option<&'static str>,
    },
    /// A provider's failure, or Envoy's.
    Failed {
        /// The status that the caller gets.
        status: u16,
        /// What failed.
        code: Option<&'static str>,
    },
    /// A whole completion.
    Whole {
        /// HTTP status.
        status: u16,
        /// Its usage, if it has one.
        usage: Option<Usage>,
        /// Generated text, by estimate.
        text: Running,
        /// Whether the whole body came and was a completion.
        complete: bool,
        /// Why it broke off after the caller had some of it.
        error: Option<&'static str>,
    },
    /// A stream.
    Stream(Box<Stream>),
}

/// A stream's progress.
#[derive(Debug, Default)]
pub struct Stream {
    status: u16,
    hide_usage: bool,
    cutter: EventCutter,
    frame: Frame,
    usage: Option<Usage>,
    text: Running,
    /// Whether text came after the usage, which then cannot count it.
    is_usage_old: bool,
    first_token_ms: Option<u64>,
    done: bool,
    ended: bool,
    /// Whether the caller was told of the error.
    told: bool,
    error: Option<&'static str>,
    /// What has come, where the answer is to be kept.
    transcript: Option<Box<Transcript>>,
}

impl Answer {
    /// A failure with this status; `cause` is Envoy's, where it answered itself.
    pub fn failed(status: u16, cause: Option<&'static str>) -> Self {
        Self::Failed { status, code: cause }
    }

    /// Whether the answer broke off, so that only Envoy knows why.
    pub fn is_cut_off(&self) -> bool {
        match self {
            // A failure has its code once the caller has been told of it.
            Self::None | Self::Failed { code: None, .. } => true,
            Self::Own { .. } | Self::Failed { .. } => false,
            Self::Whole { complete, .. } => !complete,
            Self::Stream(stream) => !stream.ended && !stream.done && stream.error.is_none(),
        }
    }

    /// Takes over why the answer broke off, and the status that the caller got of Envoy.
    pub fn cut_off(&mut self, why: &'static str, status: u16) {
        match self {
            Self::Stream(stream) => stream.error = Some(why),
            Self::Whole { text, error, .. } if !text.is_empty() => *error = Some(why),
            // It was held, so the caller has Envoy's own reply instead.
            Self::Whole { .. } | Self::None | Self::Failed { code: None, .. } => {
                *self = Self::Failed { status, code: Some(why) };
            }
            Self::Own { .. } | Self::Failed { .. } => {}
        }
    }

    /// A whole completion, its body still to come.
    pub fn whole(status: u16) -> Self {
        Self::Whole { status, usage: None, text: Running::default(), complete: false, error: None }
    }

    /// A stream, all of it still to come. `hide_usage`: the caller did not ask for the usage chunk. `transcript`: records it.
    pub fn stream(status: u16, hide_usage: bool, transcript: Option<Box<Transcript>>) -> Self {
        Self::Stream(Box::new(Stream { status, hide_usage, transcript, ..Stream::default() }))
    }

    /// The status that the caller gets.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::None => None,
            Self::Own { status, .. } | Self::Failed { status, .. } | Self::Whole { status, .. } => Some(*status),
            Self::Stream(stream) => Some(stream.status),
        }
    }

    /// What went wrong, if anything did.
    pub fn error_code(&self) -> Option<&'static str> {
        match self {
            Self::None => Some("no_response"),
            Self::Own { code, .. } => *code,
            Self::Failed { code, .. } => code.or(Some("provider_error")),
            Self::Whole { complete, error, .. } => error.or((!complete).then_some("invalid_response")),
            Self::Stream(stream) => match stream.error {
                Some(error) => Some(error),
                // Whatever becomes of the connection after the end marker.
                None if stream.done => None,
                None if !stream.ended => Some("stream_aborted"),
                None => Some("stream_truncated"),
            },
        }
    }

    /// Whether a stream has come to its end marker.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Stream(stream) if stream.done && stream.error.is_none())
    }

    /// Milliseconds from the start of the exchange to the first event of the stream.
    pub fn time_to_first_token_ms(&self) -> Option<u64> {
        match self {
            Self::Stream(stream) => stream.first_token_ms,
            _ => None,
        }
    }

    /// What the answer took, and whether that is an estimate; `input_bytes` are those of the prompt.
    pub fn usage(&self, input_bytes: usize) -> Option<(Usage, bool)> {
        let (usage, text, any) = match self {
            Self::None | Self::Own { .. } | Self::Failed { .. } => return None,
            Self::Whole { usage, text, complete, .. } => (usage, *text, *complete || !text.is_empty()),
            Self::Stream(stream) => (&stream.usage, stream.text, stream.first_token_ms.is_some()),
        };
        let is_old = matches!(self, Self::Stream(stream) if stream.is_usage_old);
        match usage {
            Some(usage) if is_old && text.tokens() > usage.output => {
                Some((Usage { output: text.tokens(), ..*usage }, true))
            }
            // What was seen cannot have taken nothing.
            Some(usage) if usage.output == 0 && !text.is_empty() => {
                Some((Usage { output: text.tokens(), ..*usage }, true))
            }
            Some(usage) => Some((*usage, false)),
            None => any.then(|| (Usage::estimate(input_bytes, text), true)),
        }
    }

    /// The whole body of a completion has come.
    ///
    /// # Errors
    /// Why it is none.
    pub fn whole_body(&mut self, body: &[u8]) -> Result<(), Failure> {
        if let Self::Whole { usage, text, complete, .. } = self {
            let completion = attempt::completion(body, usage::read_whole(body))?;
            *usage = completion.usage;
            *text = completion.generated;
            *complete = true;
        }
        Ok(())
    }

    /// A completion that the caller had begun to receive has broken off, after this part of its body.
    pub fn whole_cut(&mut self, body: &[u8]) {
        if let Self::Whole { text, complete: false, .. } = self {
            *text = Running::default();
            text.push(body);
        }
    }

    /// So many bytes of the body of a completion have passed unread; `is_whole`: that was all of it.
    pub fn whole_uncopied(&mut self, bytes: usize, is_whole: bool) {
        if let Self::Whole { text, complete, .. } = self {
            *text = Running::default();
            text.push_unseen(bytes);
            *complete |= is_whole;
        }
    }

    /// The end of the stream did not reach the caller.
    pub fn truncated(&mut self) {
        if let Self::Stream(stream) = self {
            stream.error.get_or_insert("stream_truncated");
        }
    }

    /// A chunk of the stream has come; `Some` replaces it. `elapsed_ms`: milliseconds from the start of the exchange, asked
    /// for only where it matters.
    pub fn stream_chunk(&mut self, chunk: &[u8], end_of_stream: bool, elapsed_ms: impl Fn() -> u64) -> Option<Vec<u8>> {
        let Self::Stream(stream) = self else { return None };
        stream.ended |= end_of_stream;
        stream.push(chunk, end_of_stream, elapsed_ms)
    }
}

impl Stream {
    /// Takes what was recorded.
    pub fn take_transcript(&mut self) -> Option<Transcript> {
        self.transcript.take().map(|transcript| *transcript)
    }

    fn push(&mut self, chunk: &[u8], end_of_stream: bool, elapsed_ms: impl Fn() -> u64) -> Option<Vec<u8>> {
        if self.has_nothing_to_do(end_of_stream)
            && let Some(text) = self.frame.text(chunk)
        {
            self.is_usage_old = self.usage.is_some();
            self.text.push(text);
            return None;
        }
        let mut cutter = std::mem::take(&mut self.cutter);
        let mut pass =
            Pass { chunk, whole: 0, out: (!cutter.is_empty()).then(|| Vec::with_capacity(chunk.len() + 256)) };
        cutter.push(chunk, |event| match self.event(event, &elapsed_ms) {
            true => pass.keep(event),
            false => {
                pass.leave_out();
            }
        });
        if cutter.is_too_long() && !self.done {
            self.error.get_or_insert("stream_malformed");
        }
        if end_of_stream || self.error.is_some() {
            // An event that is not closed by an empty line is not to be dispatched (WHATWG HTML): it was cut off. But
            // the end marker is as good without it.
            let rest = cutter.take_rest();
            if sse::data(&rest).trim_ascii() == b"[DONE]" && self.event(&rest, &elapsed_ms) {
                pass.keep(&rest);
            } else if !rest.is_empty() {
                pass.leave_out();
            }
        }
        if end_of_stream && !self.done {
            self.error.get_or_insert("stream_truncated");
        }
        if let (Some(code), false) = (self.error, self.told) {
            self.told = true;
            pass.leave_out().extend_from_slice(&error_event(code));
        }
        self.cutter = cutter;
        pass.finish()
    }

    /// Whether all that a chunk of one more event of text changes is how much of it there was.
    fn has_nothing_to_do(&self, end_of_stream: bool) -> bool {
        !end_of_stream && self.cutter.is_empty() && self.error.is_none() && !self.done && self.transcript.is_none()
    }

    /// One event has come; whether it goes on to the caller. After an error, and after the end marker, nothing does.
    fn event(&mut self, event: &[u8], elapsed_ms: &impl Fn() -> u64) -> bool {
        if self.error.is_some() || self.done {
            return false;
        }
        let data = sse::data(event);
        if data.is_empty() {
            return true;
        }
        if sse::is_error(event) {
            self.error = Some("stream_error");
            return false;
        }
        if data.trim_ascii() == b"[DONE]" {
            self.done = true;
            return true;
        }
        self.first_token_ms.get_or_insert_with(elapsed_ms);
        let Ok(completion) = usage::read(&data) else {
            self.error = Some("stream_malformed");
            return false;
        };
        if completion.is_error || completion.has_words {
            self.error = Some("stream_error");
            return false;
        }
        self.text.add(completion.generated);
        if let Some(transcript) = &mut self.transcript {
            transcript.event(&data);
        }
        self.is_usage_old |= completion.texts > 0;
        if let Some(usage) = completion.usage {
            self.usage = Some(usage);
            self.is_usage_old = false;
            return !(self.hide_usage && completion.choices_empty);
        }
        if completion.texts == 1 {
            self.frame.learn(event, &completion.text, completion.filler.as_ref());
        }
        true
    }
}

/// What of a chunk goes on: the chunk itself as long as nothing of it is left out or added.
struct Pass<'a> {
    chunk: &'a [u8],
    whole: usize,
    out: Option<Vec<u8>>,
}

impl Pass<'_> {
    fn keep(&mut self, event: &[u8]) {
        match &mut self.out {
            Some(out) => out.extend_from_slice(event),
            None => self.whole += event.len(),
        }
    }

    fn leave_out(&mut self) -> &mut Vec<u8> {
        let so_far = self.chunk.get(..self.whole).unwrap_or_default();
        self.out.get_or_insert_with(|| so_far.to_vec())
    }

    fn finish(self) -> Option<Vec<u8>> {
        match self.out {
            Some(out) => Some(out),
            None if self.whole == self.chunk.len() => None,
            None => Some(self.chunk.get(..self.whole).unwrap_or_default().to_vec()),
        }
    }
}

/// The event that ends a stream which broke: OpenAI's error object, and no `[DONE]`.
fn error_event(code: &str) -> Vec<u8> {
    let message = match code {
        "stream_error" => "The model's provider reported an error in the middle of the stream.",
        "stream_malformed" => "The model's provider sent an event that could not be read.",
        _ => "The model's provider ended the stream before it was complete.",
    };
    let error = serde_json::json!({"error": {"message": message, "type": "server_error", "param": null, "code": code}});
    format!("data: {error}\n\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = concat!(
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"Hél\"}}],\"usage\":null}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"lo\"}}],\"usage\":null}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\n",
        "data: [DONE]\n\n"
    );

    fn run(chunks: &[&[u8]], hide_usage: bool) -> (Answer, Vec<u8>) {
        let mut answer = Answer::stream(200, hide_usage, None);
        let mut out = Vec::new();
        for (i, chunk) in chunks.iter().enumerate() {
            let replaced = answer.stream_chunk(chunk, i + 1 == chunks.len(), || 5);
            out.extend(replaced.unwrap_or_else(|| chunk.to_vec()));
        }
        (answer, out)
    }

    #[test]
    fn every_split_gives_the_same_usage_and_the_same_bytes() {
        let text = STREAM.as_bytes();
        let without =
            STREAM.replace("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\n", "");
        for i in 0..text.len() {
            for j in i..text.len() {
                for (hide, expected) in [(false, STREAM), (true, without.as_str())] {
                    let (answer, out) = run(&[&text[..i], &text[i..j], &text[j..]], hide);
                    assert_eq!(String::from_utf8(out).unwrap(), expected);
                    assert_eq!(answer.usage(0), Some((Usage { input: 7, cached_input: 0, output: 2 }, false)));
                    assert_eq!(answer.error_code(), None);
                }
            }
        }
    }

    #[test]
    fn a_whole_chunk_is_passed_without_a_copy() {
        let mut answer = Answer::stream(200, false, None);
        assert_eq!(answer.stream_chunk(STREAM.as_bytes(), false, || 1), None);
        assert_eq!(answer.stream_chunk(b"", true, || 2), None);
    }

    #[test]
    fn an_aborted_stream_is_charged_for_what_was_seen() {
        let mut answer = Answer::stream(200, true, None);
        answer.stream_chunk(STREAM.split_inclusive("\n\n").next().unwrap().as_bytes(), false, || 3);
        let (usage, estimated) = answer.usage(400).unwrap();
        assert!(estimated);
        assert_eq!(usage, Usage { input: 100, cached_input: 0, output: 3 });
        assert_eq!(answer.error_code(), Some("stream_aborted"));
        assert_eq!(answer.time_to_first_token_ms(), Some(3));
    }

    #[test]
    fn a_stream_is_whole_at_its_end_marker_and_no_sooner() {
        let mut answer = Answer::stream(200, true, None);
        for (event, is_done) in STREAM.split_inclusive("\n\n").zip([false, false, false, true]) {
            answer.stream_chunk(event.as_bytes(), false, || 3);
            assert_eq!(
                (answer.is_done(), answer.is_cut_off(), answer.error_code().is_none()),
                (is_done, !is_done, is_done)
            );
        }
        answer.cut_off("client_disconnected", 200);
        assert_eq!(answer.usage(0), Some((Usage { input: 7, cached_input: 0, output: 2 }, false)));
    }

    #[test]
    fn a_usage_that_came_before_the_text_does_not_count_it() {
        let chunk = |text: &str, usage: &str| {
            format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]{usage}}}\n\n")
        };
        let early = ",\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":1}";
        let mut answer = Answer::stream(200, true, None);
        answer.stream_chunk(chunk("Ten", early).as_bytes(), false, || 1);
        assert_eq!(answer.usage(0), Some((Usage { input: 7, cached_input: 0, output: 1 }, false)));
        for _ in 0..20 {
            answer.stream_chunk(chunk("words of a text that goes on and on", "").as_bytes(), false, || 1);
        }
        let (usage, estimated) = answer.usage(0).unwrap();
        assert!(estimated && usage.input == 7 && usage.output > 100, "{usage:?}");
        let last = early.replace(":1}", ":181}");
        answer.stream_chunk(chunk("", &last).as_bytes(), false, || 1);
        assert_eq!(answer.usage(0), Some((Usage { input: 7, cached_input: 0, output: 181 }, false)));
    }

    #[test]
    fn what_was_seen_is_counted_by_its_language_however_it_was_cut_into_chunks() {
        let seen = |text: &str, size: usize| {
            let mut answer = Answer::stream(200, false, None);
            for piece in text.chars().collect::<Vec<_>>().chunks(size) {
                let piece: String = piece.iter().collect();
                let event = serde_json::json!({"choices": [{"delta": {"content": piece}}]});
                answer.stream_chunk(format!("data: {event}\n\n").as_bytes(), false, || 1);
            }
            answer.usage(0).unwrap().0.output
        };
        let (chinese, english) = ("春天来了，河边的柳树发芽了。".repeat(20), "The gate is open. ".repeat(20));
        // By characters, not by bytes: 280 of the one are 840 bytes, 360 of the other are 360.
        assert!((280..=400).contains(&seen(&chinese, 1000)), "{}", seen(&chinese, 1000));
        assert!((80..=140).contains(&seen(&english, 1000)), "{}", seen(&english, 1000));
        for text in [&chinese, &english] {
            let whole = seen(text, 1000);
            for size in 1..40 {
                // A word that is cut counts as two.
                assert!((whole..=whole * 4).contains(&seen(text, size)), "{size}: {} of {whole}", seen(text, size));
            }
        }
    }

    #[test]
    fn a_whole_answer_that_breaks_off_is_charged_for_what_had_passed_and_for_nothing_where_it_was_held() {
        let mut passed = Answer::whole(200);
        passed.whole_uncopied(600, false);
        passed.cut_off("client_disconnected", 200);
        assert_eq!(passed.usage(400), Some((Usage { input: 100, cached_input: 0, output: 150 }, true)));
        assert_eq!((passed.status(), passed.error_code()), (Some(200), Some("client_disconnected")));
        let mut held = Answer::whole(200);
        held.cut_off("provider_unreachable", 503);
        assert_eq!((held.usage(400), held.status()), (None, Some(503)));
    }

    #[test]
    fn text_that_a_provider_counts_as_nothing_is_estimated() {
        let mut answer = Answer::whole(200);
        let body = br#"{"choices":[{"message":{"role":"assistant","content":"eight by"}}],"usage":{"prompt_tokens":7,"completion_tokens":0}}"#;
        answer.whole_body(body).unwrap();
        assert_eq!(answer.usage(0), Some((Usage { input: 7, cached_input: 0, output: 3 }, true)));
        let mut answer = Answer::whole(200);
        answer.whole_body(br#"{"choices":[{"message":{"content":"eight by"}}],"usage":{}}"#).unwrap();
        assert_eq!(answer.usage(40), Some((Usage { input: 10, cached_input: 0, output: 3 }, true)));
    }

    #[test]
    fn a_stream_whose_end_could_not_be_sent_is_no_success() {
        let mut answer = Answer::stream(200, false, None);
        assert_eq!(answer.stream_chunk(STREAM.as_bytes(), true, || 1), None);
        assert_eq!(answer.error_code(), None);
        answer.truncated();
        assert_eq!(answer.error_code(), Some("stream_truncated"));
    }

    #[test]
    fn a_stream_without_its_end_or_with_an_error_is_no_success() {
        let done = STREAM.len() - "data: [DONE]\n\n".len();
        let broken: [(&[u8], &str, usize); 5] = [
            (&STREAM.as_bytes()[..done], "stream_truncated", done),
            (&STREAM.as_bytes()[..done - 9], "stream_truncated", STREAM.find("data: {\"choices\":[],").unwrap()),
            (b"data: {\"error\":{\"message\":\"org-x\"}}\n\ndata: [DONE]\n\n", "stream_error", 0),
            (b"data: {oops\n\ndata: [DONE]\n\n", "stream_malformed", 0),
            (b"", "stream_truncated", 0),
        ];
        for (text, code, kept) in broken {
            for at in 0..=text.len() {
                let (answer, out) = run(&[&text[..at], &text[at..], b""], false);
                assert_eq!(answer.error_code(), Some(code));
                assert_eq!(&out[..kept], &text[..kept]);
                assert_eq!(out[kept..], error_event(code));
            }
        }
        // What follows the end marker does not go on, and changes nothing.
        let more = format!("{STREAM}data: {{oops\n\ndata: {{\"error\":{{\"message\":\"org-x\"}}}}\n\n\n");
        for at in 0..=more.len() {
            let (answer, out) = run(&[&more.as_bytes()[..at], &more.as_bytes()[at..], b""], false);
            assert_eq!((answer.error_code(), String::from_utf8(out).unwrap().as_str()), (None, STREAM));
        }
        // The end marker needs no empty line after it.
        assert_eq!(run(&[&STREAM.as_bytes()[..STREAM.len() - 1]], false).0.error_code(), None);
    }
}
