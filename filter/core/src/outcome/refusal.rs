//! Every way to refuse a request: one table from reason to status, type, code and message.

use crate::outcome::error_body::ErrorBody;
use crate::outcome::outcome::Outcome;
use crate::request::facts::{InvalidField, InvalidRequest};
use crate::request::needs::Need;
use crate::wire::header::HeaderLine;
use crate::wire::text::shorten;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The path is not one of the gateway's.
    UnknownPath,
    /// The path exists, but with another method, which is given here.
    WrongMethod(&'static str),
    /// No credential was sent.
    MissingKey,
    /// The credential is unknown.
    UnknownKey,
    /// The credential has expired.
    ExpiredKey,
    /// The trusted identity header names no tenant of the policy.
    UnknownTenant,
    /// The body has a content encoding that the gateway does not read.
    ContentEncoding,
    /// The body is larger than the limit, in bytes.
    TooLarge(u64),
    /// Too many of the tenant's bodies are arriving, or too many bytes of them.
    TooManyUploads,
    /// The body is not valid JSON, or is nested too deeply.
    InvalidJson(String),
    /// A field or a header is invalid.
    InvalidField(InvalidField),
    /// The name is neither a model nor a task.
    UnknownModel(String),
    /// No model was named and the policy has no default task.
    NoModel,
    /// The task named in a header or in metadata does not exist: its name, and where it was named.
    UnknownTask(String, &'static str),
    /// The request names two different tasks in two places.
    TaskConflict(String, String),
    /// The tenant's tier does not allow the model.
    ModelNotAllowed(String),
    /// No model may see data of this class.
    DataClass,
    /// No model can do what the request needs.
    MissingCapability(Need),
    /// A budget applies, and no model has a price for what the request needs.
    MissingPrice(Need),
    /// A budget applies, and no model may get this field, because the gateway does not know what it costs.
    UnknownField(String),
    /// No provider of a model speaks the caller's dialect.
    UnsupportedApi,
    /// No model accepts this field.
    UnsupportedParam(String),
    /// The prompt is longer than every model's context window: the largest window, and what the prompt has at least, in
    /// tokens.
    ContextTooLong {
        /// The largest window.
        context: u64,
        /// The least that the prompt can have.
        tokens: u64,
    },
    /// Every model that could serve the request is at its limit of concurrent requests.
    Overloaded,
    /// The tenant holds its share of the places of every model that could serve the request.
    ShareTaken,
    /// The prompt has more input tokens, by estimate, than the tenant may send: the estimate, and the limit.
    TooManyInputTokens(u64, u64),
    /// A quota has no room.
    Quota(Box<Exhausted>),
    /// The caller's deadline passed before its request had arrived.
    DeadlinePassed,
    /// The gateway's state is inconsistent. This is a defect and should never happen.
    Internal,
}

/// A refusal by a quota: the error and its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exhausted {
    /// Status, type, code and message.
    pub error: ErrorBody,
    /// `retry-after` and its kin.
    pub headers: Vec<HeaderLine>,
}

impl From<InvalidRequest> for Refusal {
    fn from(why: InvalidRequest) -> Self {
        match why {
            InvalidRequest::Json(error) => Self::InvalidJson(error.message()),
            InvalidRequest::Field(invalid) => Self::InvalidField(invalid),
        }
    }
}

impl Refusal {
    /// Returns the row of the table. Types and codes are those of OpenAI's API wherever it has one.
    pub fn response(&self) -> ErrorBody {
        const INVALID: &str = "invalid_request_error";
        let row = |status, kind, code, param: Option<&str>, message: String| ErrorBody {
            status,
            kind,
            code,
            param: param.map(str::to_owned),
            message,
        };
        match self {
            Self::UnknownPath => {
                let message = "Unknown request URL. This gateway serves POST /v1/chat/completions, POST /v1/messages, \
                    GET /v1/models and GET /v1/usage.";
                row(404, INVALID, Outcome::UnknownUrl, None, message.into())
            }
            Self::WrongMethod(allowed) => row(
                405,
                INVALID,
                Outcome::MethodNotAllowed,
                None,
                format!("This method is not allowed here; use {allowed}."),
            ),
            Self::MissingKey => row(
                401,
                INVALID,
                Outcome::InvalidApiKey,
                None,
                "No API key was provided. Send it as 'Authorization: Bearer KEY'.".into(),
            ),
            Self::UnknownKey => row(401, INVALID, Outcome::InvalidApiKey, None, "Incorrect API key provided.".into()),
            Self::ExpiredKey => {
                row(401, INVALID, Outcome::InvalidApiKey, None, "Incorrect API key provided: it has expired.".into())
            }
            Self::UnknownTenant => row(401, INVALID, Outcome::InvalidApiKey, None, "The tenant is unknown.".into()),
            Self::ContentEncoding => {
                let message = "Encoded request bodies are not supported; send plain JSON.";
                row(415, INVALID, Outcome::UnsupportedContentEncoding, None, message.into())
            }
            Self::TooLarge(limit) => row(
                413,
                INVALID,
                Outcome::RequestTooLarge,
                None,
                format!("The request body is larger than {limit} bytes."),
            ),
            Self::TooManyUploads => {
                let message = "Too many request bodies of this tenant are being uploaded. Try again when some of them \
                               have arrived.";
                row(429, "rate_limit_error", Outcome::TooManyUploads, None, message.into())
            }
            Self::InvalidJson(message) => row(
                400,
                INVALID,
                Outcome::InvalidJson,
                None,
                format!("We could not parse the JSON body of your request: {message}."),
            ),
            Self::InvalidField(InvalidField { param, code, message }) => {
                row(400, INVALID, *code, Some(param), message.clone())
            }
            Self::UnknownModel(model) => row(
                404,
                INVALID,
                Outcome::ModelNotFound,
                Some("model"),
                format!("The model '{}' does not exist or you do not have access to it.", shorten(model)),
            ),
            Self::NoModel => row(
                400,
                INVALID,
                Outcome::MissingModel,
                Some("model"),
                "Set 'model' to a model or a task; this gateway has no default task.".into(),
            ),
            Self::UnknownTask(task, place) => row(
                400,
                INVALID,
                Outcome::TaskNotFound,
                Some(place),
                format!("The task '{}' does not exist.", shorten(task)),
            ),
            Self::TaskConflict(one, other) => row(
                400,
                INVALID,
                Outcome::TaskConflict,
                Some("metadata.task"),
                format!("The request names two tasks, '{}' and '{}'.", shorten(one), shorten(other)),
            ),
            Self::ModelNotAllowed(model) => {
                let message = format!("The model '{}' is not available on your tier.", shorten(model));
                row(403, INVALID, Outcome::ModelNotAllowed, Some("model"), message)
            }
            Self::DeadlinePassed => {
                row(504, "server_error", Outcome::DeadlineExceeded, None, "The request exceeded its deadline.".into())
            }
            Self::DataClass => row(
                403,
                INVALID,
                Outcome::DataClassNotAllowed,
                None,
                "No model that could serve this request is allowed to process its data class.".into(),
            ),
            Self::MissingCapability(need) => {
                let (param, what) = need.named();
                let message = format!("No model that could serve this request supports {what}.");
                row(400, INVALID, Outcome::UnsupportedCapability, Some(param), message)
            }
            Self::MissingPrice(need) => {
                let (param, what) = need.named();
                let message =
                    format!("No model that could serve this request has a price for {what}, and a budget applies.");
                row(400, INVALID, Outcome::UnsupportedCapability, Some(param), message)
            }
            Self::UnknownField(param) => row(
                400,
                INVALID,
                Outcome::UnsupportedCapability,
                Some(param),
                format!("Unknown parameter: '{}'. A budget applies, and its cost is unknown.", shorten(param)),
            ),
            Self::UnsupportedApi => row(
                400,
                INVALID,
                Outcome::UnsupportedApi,
                Some("model"),
                "The providers of the models that could serve this request do not offer this API.".into(),
            ),
            Self::UnsupportedParam(param) => row(
                400,
                INVALID,
                Outcome::UnsupportedParameter,
                Some(param),
                format!("Unsupported parameter: '{}' is not supported with this model.", shorten(param)),
            ),
            // Clients such as LangChain and LiteLLM recognize a prompt that is too long by OpenAI's words.
            Self::ContextTooLong { context, tokens } => row(
                400,
                INVALID,
                Outcome::ContextLengthExceeded,
                Some("messages"),
                format!(
                    "This model's maximum context length is {context} tokens. However, your messages resulted in at \
                     least {tokens} tokens. Please reduce the length of the messages."
                ),
            ),
            Self::Overloaded => row(
                503,
                "server_error",
                Outcome::ModelOverloaded,
                None,
                "Every model that could serve this request is busy. Try again in a moment.".into(),
            ),
            Self::ShareTaken => row(
                503,
                "server_error",
                Outcome::ModelOverloaded,
                None,
                "This tenant's share of every model that could serve this request is in use. Try again when one of \
                 its requests has finished."
                    .into(),
            ),
            Self::TooManyInputTokens(tokens, most) => row(
                400,
                INVALID,
                Outcome::ContextLengthExceeded,
                Some("messages"),
                format!(
                    "This model's maximum context length is {most} tokens for your tenant. However, your messages \
                     resulted in about {tokens} tokens. Please reduce the length of the messages."
                ),
            ),
            Self::Quota(exhausted) => exhausted.error.clone(),
            Self::Internal => row(
                500,
                "server_error",
                Outcome::InternalError,
                None,
                "The gateway encountered an internal error.".into(),
            ),
        }
    }
}

/// `retry-after` if every model is busy, in seconds: short, because answers end all the time.
pub const OVERLOADED_RETRY_AFTER: &str = "1";
