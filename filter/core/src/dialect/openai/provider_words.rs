//! What the codes and the words of a provider's error mean, as far as the gateway knows them.
//!
//! Sources: the error codes in the API references of OpenAI, Azure, Anthropic, Gemini, Groq and Mistral, and the
//! messages of vLLM, SGLang, TGI, llama.cpp, Ollama, LM Studio and hosted providers as their users report them.

use crate::outcome::outcome::Outcome;

/// Codes that reach the caller as they are, because the caller can change what they speak of.
const CALLERS: &[Outcome] = &[
    Outcome::ContextLengthExceeded,
    Outcome::ContentFilter,
    Outcome::ContentPolicyViolation,
    Outcome::InvalidPrompt,
    Outcome::UnsupportedParameter,
    Outcome::UnsupportedValue,
    Outcome::UnknownParameter,
    Outcome::MissingRequiredParameter,
    Outcome::InvalidType,
    Outcome::InvalidValue,
    Outcome::EmptyArray,
    Outcome::ArrayAboveMaxLength,
    Outcome::StringAboveMaxLength,
    Outcome::IntegerBelowMinValue,
    Outcome::IntegerAboveMaxValue,
    Outcome::DecimalBelowMinValue,
    Outcome::DecimalAboveMaxValue,
    Outcome::InvalidJsonSchema,
    Outcome::InvalidFunctionParameters,
    Outcome::InvalidImage,
    Outcome::InvalidImageFormat,
    Outcome::InvalidImageUrl,
    Outcome::InvalidBase64Image,
    Outcome::InvalidImageMode,
    Outcome::ImageTooLarge,
    Outcome::ImageTooSmall,
    Outcome::ImageFileTooLarge,
    Outcome::ImageParseError,
    Outcome::ImageContentPolicyViolation,
    Outcome::UnsupportedImageMediaType,
    Outcome::EmptyImageFile,
    Outcome::FailedToDownloadImage,
    Outcome::ImageFileNotFound,
];

/// Codes of a prompt that is too long, besides OpenAI's.
const CONTEXT: &[&str] = &[
    "exceed_context_size_error",
    "context_window_exceeded",
    "context_too_long",
    "prompt_too_long",
    "tokens_limit_reached",
    "model_max_prompt_tokens_exceeded",
];

/// Codes that speak of the gateway's credential, account or model id, none of which the caller chose.
const GATEWAYS: &[&str] = &[
    "invalid_api_key",
    "incorrect_api_key",
    "api_key_invalid",
    "authentication_error",
    "unauthenticated",
    "permission_error",
    "permission_denied",
    "billing_error",
    "billing_not_active",
    "billing_hard_limit_reached",
    "insufficient_quota",
    "insufficient_balance",
    "account_deactivated",
    "organization_deactivated",
    "access_terminated",
    "unsupported_country_region_territory",
    "model_not_found",
    "model_not_exist",
    "invalid_model",
    "not_found_error",
    "deploymentnotfound",
];

/// Returns the meaning of a code.
pub fn code(code: &str) -> Option<Outcome> {
    let folded = code.to_ascii_lowercase();
    match folded.as_str() {
        code if CONTEXT.contains(&code) => Some(Outcome::ContextLengthExceeded),
        code if GATEWAYS.contains(&code) => Some(Outcome::ProviderRefusedGateway),
        "rate_limit_exceeded" => Some(Outcome::ProviderRateLimited),
        code => Outcome::of_code(CALLERS, code),
    }
}

/// Returns the meaning of a message, for providers that have no code for it.
pub fn said(message: &str) -> Option<Outcome> {
    let message = message.to_ascii_lowercase();
    // Providers repeat values of the request in the middle of a message. A caller must not make its own mistake look
    // like the gateway's.
    let begins = ["api key not valid", "invalid api key", "incorrect api key", "model not exist"];
    if is_about_the_context(&message) {
        Some(Outcome::ContextLengthExceeded)
    } else if begins.iter().any(|words| message.starts_with(words)) || message.ends_with(" is not a valid model id") {
        Some(Outcome::ProviderRefusedGateway)
    } else {
        None
    }
}

/// Returns whether a message, in lower case, says that the prompt does not fit the model's context window.
fn is_about_the_context(message: &str) -> bool {
    let has = |words: &&str| message.contains(words);
    let names_it = ["context length", "context window", "context size", "context limit", "maximum context"];
    let exceeds = ["exceed", "maximum", "too long", "longer than", "larger than", "not enough", "overflow"];
    names_it.iter().any(has) && exceeds.iter().any(has)
        || [
            "prompt is too long",
            "prompt too long",
            "input is too long",
            "reduce the length of the messages",
            "reduce the length of your prompt",
            "maximum prompt length",
            "maximum model length",
            "prompt exceeds max length",
            "exceeded model token limit",
            "range of input length should be",
            "`max_new_tokens` must be <=",
            "number of tokens in the prompt cannot exceed",
        ]
        .iter()
        .any(has)
        || message.contains("input token count") && message.contains("exceeds the maximum")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_that_is_too_long_is_recognized_by_what_many_servers_say() {
        for message in [
            // OpenAI, vLLM, DeepSeek
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens. \
             Please reduce the length of the messages.",
            "'max_tokens' is too large: 5000. This model's maximum context length is 4096 tokens and your request has \
             10 input tokens (5000 > 4096 - 10).",
            "You passed 5000 input tokens and requested 100 output tokens. However, the model's context length is only \
             4096 tokens, resulting in a maximum input length of 3996 tokens.",
            "The decoder prompt (length 9000) is longer than the maximum model length of 8192.",
            "Your input exceeds the context window of this model. Please adjust your input and try again.",
            // Anthropic
            "prompt is too long: 205000 tokens > 200000 maximum",
            "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease input length",
            // llama.cpp, Ollama, LM Studio
            "the request exceeds the available context size, try increasing it",
            "request (9001 tokens) exceeds the available context size (8192 tokens), try increasing it",
            "the input length exceeds the context length",
            "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with \
             context length of only 4096 tokens, which is not enough.",
            // SGLang, TGI
            "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens",
            // Hosted
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
            "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
            "Please reduce the length of the messages or completion. Current length is 9000 while limit is 8192",
            "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
            "Invalid request: Your request exceeded model token limit: 8192",
            "Range of input length should be [1, 30720]",
            "Input is too long for requested model.",
            "too many tokens: total number of tokens in the prompt cannot exceed 4081",
            "invalid params, context window exceeds limit",
        ] {
            assert_eq!(said(message), Some(Outcome::ContextLengthExceeded), "{message}");
        }
    }

    #[test]
    fn other_refusals_are_not_about_the_context() {
        for message in [
            "max_tokens is too large: 100000. This model supports at most 16384 completion tokens",
            "Unsupported parameter: 'context' is not supported with this model.",
            "Invalid 'messages[0].content': string too long. Expected a string with maximum length 10485760",
            "maximum number of tools is 128",
            "Maximum content size limit (26214400) exceeded.",
            "The context window is set with num_ctx.",
            "Invalid image: too large",
            "Invalid value: 'api key not valid'. Supported values are: 'auto'",
        ] {
            assert_eq!(said(message), None, "{message}");
        }
    }

    #[test]
    fn the_gateways_credential_and_model_are_not_the_callers() {
        for message in
            ["API key not valid. Please pass a valid API key.", "Model Not Exist", "x is not a valid model ID"]
        {
            assert_eq!(said(message), Some(Outcome::ProviderRefusedGateway), "{message}");
        }
        for name in ["API_KEY_INVALID", "model_not_found", "insufficient_quota", "authentication_error"] {
            assert_eq!(code(name), Some(Outcome::ProviderRefusedGateway), "{name}");
        }
    }

    #[test]
    fn no_code_of_the_gateways_own_can_be_said_by_a_provider() {
        for name in
            ["invalid_request_error", "400", "", "client_disconnected", "quota_unavailable", "model_not_allowed"]
        {
            assert_eq!(code(name), None, "{name}");
        }
        for outcome in CALLERS {
            assert_eq!(code(outcome.code()), Some(*outcome));
        }
    }
}
