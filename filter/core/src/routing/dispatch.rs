//! What the gateway stage sends the model stage about a request: one record, in Envoy's filter state.
//!
//! A client can neither set nor see filter state. It survives from attempt to attempt, and makes both stages act on one
//! revision of the policy even while that is being replaced. Every field of variable length is length-prefixed.

use crate::config::Dialect;
use crate::ids::ModelId;
use crate::outcome::outcome::Outcome;
use crate::policy::resilience::Retries;
use crate::policy::{Policy, Provider};
use crate::request::facts::Target;
use crate::request::splice::Splice;
use crate::routing::in_flight::Places;
use crate::wire::bytes::{Reader, Writer};

const VERSION: u8 = 6;

/// Filter state (`wasm.NAME`) with the record of the plan. Gateway stage to model stage.
pub const STATE_DISPATCH: &str = "pointsman_dispatch";
/// Filter state that is [`ROUTED`] once the gateway stage has named the cluster of the request. In a listener that has
/// other routes too, the routes to providers ask for it: a client can set a header that names a cluster, but not this.
pub const STATE_ROUTED: &str = "pointsman_routed";
/// The value of [`STATE_ROUTED`].
pub const ROUTED: &str = "1";
/// Filter state with the provider of the attempt, by which Envoy chooses the credential.
pub const STATE_PROVIDER: &str = "pointsman_provider";
/// Filter state with the outcomes of the failed attempts. Model stage to gateway stage.
pub const STATE_FAILED: &str = "pointsman_failed";
/// Filter state with the place that the attempt takes at its model. Model stage to gateway stage.
pub const STATE_PLACE: &str = "pointsman_place";
/// Filter state with the line of the audit record.
pub const STATE_AUDIT: &str = "pointsman_audit";
/// The filter state with the model whose stream is put together to a whole answer. If it breaks off, Envoy's own reply
/// says so.
pub const STATE_MODEL: &str = "pointsman_model";
/// The filter state with what that answer costs so far, in US dollars.
pub const STATE_COST: &str = "pointsman_cost";

/// Adds a failed attempt to the record: its place in the plan (from 0) and its outcome.
pub fn push_failed(record: &mut Vec<u8>, index: usize, outcome: Outcome) {
    let mut out = Writer::to(record);
    out.u8(u8::try_from(index).unwrap_or(u8::MAX));
    out.u16(outcome.number());
}

/// Decodes the record of failed attempts.
pub fn read_failed(record: &[u8]) -> Vec<(usize, Outcome)> {
    let (mut all, mut reader) = (Vec::new(), Reader::new(record));
    while let (Some(index), Some(number)) = (reader.u8(), reader.u16()) {
        all.extend(Outcome::from_number(number).map(|outcome| (usize::from(index), outcome)));
    }
    all
}

/// One attempt of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt<'a> {
    /// Name of the provider, which the host's metadata must confirm.
    pub provider: &'a str,
    /// Name of the model in the policy.
    pub model: &'a str,
    /// `:path` of the request to the provider.
    pub path: &'a str,
    /// Header that carries the provider's credential; empty if it has none.
    pub credential_header: &'a str,
    /// Whose requests to the model are counted together ([`Places::tenant`]), if they are counted (`max_concurrent`).
    pub counted: Option<u64>,
    /// Context window of the model, in tokens.
    pub context: u64,
    /// The API that the provider speaks.
    pub dialect: Dialect,
    /// Head of the request body.
    pub head: &'a [u8],
}

/// The answer that the caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A whole one.
    Whole,
    /// A stream.
    Stream,
    /// A stream whose headers are not held until its first event.
    EarlyStream,
}

impl Wanted {
    /// Returns whether the caller wants a stream.
    pub fn is_stream(self) -> bool {
        self != Self::Whole
    }

    fn of_byte(byte: u8) -> Option<Self> {
        [Self::Whole, Self::Stream, Self::EarlyStream].into_iter().find(|wanted| *wanted as u8 == byte)
    }
}

/// The decoded record.
#[derive(Debug, PartialEq, Eq)]
pub struct Dispatch<'a> {
    /// The answer that the caller wants.
    pub wanted: Wanted,
    /// Length of the body after its head, in bytes.
    pub rest_len: usize,
    /// When Envoy makes another attempt.
    pub retries: Retries<'a>,
    /// The attempts, in order; never empty.
    pub attempts: Vec<Attempt<'a>>,
}

/// Encodes the record of a tenant's plan. `target`: where its attempts go at their providers.
#[allow(clippy::too_many_arguments)]
pub fn encode(
    policy: &Policy,
    tenant: &str,
    target: Target,
    models: &[ModelId],
    splice: &Splice,
    retries: &Retries,
    wanted: Wanted,
) -> Vec<u8> {
    let mut out = Writer::with_capacity(256);
    out.u8(VERSION);
    out.u8(u8::try_from(models.len()).unwrap_or(u8::MAX));
    out.u8(wanted as u8);
    out.count(splice.rest_len());
    out.u64(retries.until_ms);
    out.text(retries.on_status);
    for (id, head) in models.iter().zip(&splice.heads) {
        let (model, provider) = (policy.model(*id), policy.provider_of(*id));
        out.text(&provider.name);
        out.text(&model.name);
        out.text(&provider.path(target.path));
        out.text(provider.credential.as_ref().map_or("", |c| &c.header));
        out.flag(model.max_concurrent.is_some());
        if let Some(limit) = model.max_concurrent {
            out.u64(Places::new(limit, model.tenant_places, tenant).tenant());
        }
        out.u64(model.context);
        out.u8(target.dialect.id());
        out.bytes(head);
    }
    out.finish()
}

/// Decodes a record. Returns `None` if it is invalid, which only another program that writes our filter state can
/// cause.
pub fn decode(bytes: &[u8]) -> Option<Dispatch<'_>> {
    let mut reader = Reader::new(bytes);
    let (version, count) = (reader.u8()?, reader.u8()?);
    if version != VERSION || count == 0 {
        return None;
    }
    let (wanted, rest_len) = (Wanted::of_byte(reader.u8()?)?, reader.count()?);
    let retries = Retries { until_ms: reader.u64()?, on_status: reader.text()? };
    let mut attempts = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        attempts.push(Attempt {
            provider: reader.text()?,
            model: reader.text()?,
            path: reader.text()?,
            credential_header: reader.text()?,
            counted: if reader.flag()? { Some(reader.u64()?) } else { None },
            context: reader.u64()?,
            dialect: Dialect::of_id(reader.u8()?)?,
            head: reader.bytes()?,
        });
    }
    reader.end()?;
    Some(Dispatch { wanted, rest_len, retries, attempts })
}

impl<'a> Dispatch<'a> {
    /// Returns the attempt that goes to `provider` as Envoy's attempt number `count` (from 1), and its place in the
    /// plan.
    ///
    /// Envoy may skip an unhealthy provider, so the result is the first attempt with this provider from place `count`
    /// on, else the last one before. Returns `None` if the plan does not have the provider: the request must not go
    /// there.
    pub fn choose(&self, provider: &str, count: usize) -> Option<(usize, &Attempt<'a>)> {
        let from = count.saturating_sub(1);
        let serves = |(_, attempt): &(usize, &Attempt)| attempt.provider == provider;
        let mut all = self.attempts.iter().enumerate();
        all.clone().skip(from).find(serves).or_else(|| all.rfind(serves))
    }

    /// Returns whether Envoy's count of attempts is needed for the first attempt that reaches the model stage with
    /// `provider`. Without it, it is attempt 1 of the plan. A plan with one attempt needs no count, nor does one whose
    /// first provider appears only once. At another provider, Envoy may have skipped the first one, or may have failed
    /// to send attempt 1.
    pub fn needs_count(&self, provider: &str) -> bool {
        let [first, others @ ..] = &*self.attempts else { return false };
        let serves = |attempt: &Attempt| attempt.provider == provider;
        !others.is_empty() && (!serves(first) || others.iter().any(serves))
    }

    /// Returns whether the attempt is at the plan's first model, which the gateway stage counts until the answer has
    /// ended. If Envoy skipped that model as unhealthy, even attempt number 1 is at another one.
    pub fn is_of_first_model(&self, attempt: &Attempt) -> bool {
        self.attempts.first().is_some_and(|first| first.model == attempt.model)
    }

    /// Returns the head that the request body arrives with: that of the first attempt.
    pub fn canonical_head(&self) -> &'a [u8] {
        self.attempts.first().map_or(&[], |attempt| attempt.head)
    }

    /// Returns the length of the whole body of `attempt`, in bytes.
    pub fn content_length(&self, attempt: &Attempt) -> usize {
        attempt.head.len() + self.rest_len
    }
}

/// Returns the name of the Envoy cluster for requests with one attempt and no stream. Nothing is left to decide
/// upstream, so the cluster has no model stage. It is the provider's own cluster, unless Envoy has to add a credential.
pub fn direct_cluster(provider: &Provider) -> String {
    match provider.credential {
        Some(_) => ["direct.", &*provider.name].concat(),
        None => provider.name.to_string(),
    }
}

/// What the names of such clusters begin with.
pub const PLAN: &str = "plan.";

/// Returns the name of the Envoy cluster that serves `providers` in this order.
pub fn plan_cluster<'a>(providers: impl Iterator<Item = &'a str>) -> String {
    let mut name = String::from(PLAN);
    for (i, provider) in providers.enumerate() {
        if i > 0 {
            name.push('+');
        }
        name.push_str(provider);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dispatch(providers: &[&'static str]) -> Dispatch<'static> {
        let attempts = providers
            .iter()
            .map(|provider| Attempt {
                provider,
                model: "m",
                path: "/v1",
                credential_header: "",
                counted: None,
                context: 1000,
                dialect: Dialect::Openai,
                head: b"{",
            })
            .collect();
        Dispatch { wanted: Wanted::Whole, rest_len: 10, retries: Retries { on_status: "", until_ms: 0 }, attempts }
    }

    #[test]
    fn the_hosts_provider_decides_and_the_attempt_count_tells_twins_apart() {
        let plan = dispatch(&["vllm", "openai", "openai"]);
        let index = |provider, count| plan.choose(provider, count).map(|(i, _)| i);
        assert_eq!(index("vllm", 1), Some(0));
        assert_eq!(index("openai", 2), Some(1));
        assert_eq!(index("openai", 3), Some(2));
        // vllm was skipped as unhealthy
        assert_eq!(index("openai", 1), Some(1));
        // more attempts than the plan has
        assert_eq!(index("openai", 9), Some(2));
        assert_eq!(index("vllm", 2), Some(0));
        // not in the plan: never sent
        assert_eq!(index("anthropic", 1), None);
    }

    #[test]
    fn the_first_attempt_needs_a_count_unless_it_is_at_the_first_provider_which_appears_once() {
        assert!(!dispatch(&["vllm"]).needs_count("vllm"));
        assert!(!dispatch(&["vllm", "openai", "openai"]).needs_count("vllm"));
        assert!(dispatch(&["vllm", "openai"]).needs_count("openai"));
        assert!(dispatch(&["vllm", "openai", "vllm"]).needs_count("vllm"));
        // The second provider is unhealthy, and Envoy has come back to the first.
        assert_eq!(dispatch(&["vllm", "openai"]).choose("vllm", 2).map(|(i, _)| i), Some(0));
    }

    #[test]
    fn only_the_first_model_is_counted_by_the_gateway_stage_its_second_try_included() {
        let mut plan = dispatch(&["vllm", "openai", "vllm"]);
        plan.attempts[1].model = "n";
        let is_of_first = |provider, count| plan.choose(provider, count).map(|(_, a)| plan.is_of_first_model(a));
        assert_eq!(is_of_first("vllm", 1), Some(true));
        assert_eq!(is_of_first("vllm", 3), Some(true));
        // vllm was skipped as unhealthy
        assert_eq!(is_of_first("openai", 1), Some(false));
    }

    #[test]
    fn damaged_records_are_refused() {
        assert!(decode(b"").is_none());
        let whole =
            [&[VERSION, 1][..], &[0; 1 + 4 + 8 + 4], &[0; 4 * 4], &[0; 1 + 8], &[Dialect::Openai.id()], &[0; 4]]
                .concat();
        assert!(decode(&whole).is_some());
        for end in 0..whole.len() {
            assert!(decode(&whole[..end]).is_none(), "{end}");
        }
        assert!(decode(&[&whole[..], &[0]].concat()).is_none());
        for wanted in [Wanted::Whole, Wanted::Stream, Wanted::EarlyStream] {
            let mut other = whole.clone();
            other[2] = wanted as u8;
            assert_eq!(decode(&other).map(|dispatch| dispatch.wanted), Some(wanted));
        }
        for (at, byte) in [(0, 9), (1, 0), (1, 2), (2, 3), (15, 255)] {
            let mut damaged = whole.clone();
            damaged[at] = byte;
            assert!(decode(&damaged).is_none(), "{at}");
        }
    }

    #[test]
    fn failed_attempts_are_read_back_in_order() {
        let mut record = Vec::new();
        push_failed(&mut record, 0, Outcome::Status(503));
        push_failed(&mut record, 1, Outcome::NoResponse);
        assert_eq!(read_failed(&record), [(0, Outcome::Status(503)), (1, Outcome::NoResponse)]);
        record.pop();
        assert_eq!(read_failed(&record), [(0, Outcome::Status(503))]);
        assert_eq!(read_failed(b""), []);
    }

    #[test]
    fn cluster_names() {
        assert_eq!(plan_cluster(["vllm", "openai"].into_iter()), "plan.vllm+openai");
    }
}
