//! The top-level fields of a chat request that the gateway knows, and what an unknown one may do.
//!
//! A known field changes neither the number of a request's tokens nor their price, or the gateway reads what it does.
//! Sources: the API references of OpenAI, vLLM, SGLang, llama.cpp, Hugging Face, Mistral, OpenRouter, DeepSeek, Qwen,
//! Groq, Together and Fireworks.

use crate::request::needs::Need;
use crate::request::strange::Strange;
use crate::wire::json::names::fold;
use std::borrow::Cow;

/// What a number in a field does to the output of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutputNumber {
    /// So many answers are generated, even if the caller gets fewer.
    Answers,
    /// An answer may have at least so many tokens, whatever its limit says.
    Raises,
    /// An answer may have so many tokens besides those that its limit covers.
    Besides,
}

/// Returns what a number in this field does.
pub(super) fn output_number(name: &str) -> Option<OutputNumber> {
    Some(match name {
        "best_of" | "num_return_sequences" => OutputNumber::Answers,
        "min_tokens" | "min_new_tokens" | "max_new_tokens" | "max_output_tokens" | "num_predict" | "n_predict" => {
            OutputNumber::Raises
        }
        "thinking_budget" | "thinking_token_budget" => OutputNumber::Besides,
        _ => return None,
    })
}

/// Returns why a field of this name does not simply pass; `None` if the gateway knows it.
pub(super) fn strange(name: &str) -> Option<Strange> {
    if is_known(name) || Need::of_field(name).is_some() || output_number(name).is_some() {
        return None;
    }
    // Servers in Go read a field whatever its case.
    let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let folded: Cow<str> = if is_plain { name.into() } else { fold(name).collect::<String>().into() };
    Some(if is_routing(&folded) { Strange::Routing } else { Strange::Unknown })
}

/// Whether the provider chooses another model or host by such a field: OpenRouter's and LiteLLM's.
fn is_routing(name: &str) -> bool {
    matches!(
        name,
        "api_base"
            | "api_key"
            | "base_url"
            | "content_policy_fallbacks"
            | "context_window_fallbacks"
            | "custom_llm_provider"
            | "deployment_id"
            | "fallbacks"
            | "model_list"
            | "models"
            | "preset"
            | "provider"
            | "providers"
            | "route"
            | "specific_deployment"
    )
}

fn is_known(name: &str) -> bool {
    matches!(
        name,
        // OpenAI.
        "frequency_penalty"
            | "function_call"
            | "functions"
            | "logit_bias"
            | "logprobs"
            | "max_completion_tokens"
            | "max_tokens"
            | "messages"
            | "metadata"
            | "modalities"
            | "model"
            | "n"
            | "parallel_tool_calls"
            | "prediction"
            | "presence_penalty"
            | "prompt_cache_key"
            | "prompt_cache_retention"
            | "reasoning_effort"
            | "response_format"
            | "safety_identifier"
            | "seed"
            | "service_tier"
            | "stop"
            | "store"
            | "stream"
            | "stream_options"
            | "temperature"
            | "tool_choice"
            | "tools"
            | "top_logprobs"
            | "top_p"
            | "user"
            | "verbosity"
            // Sampling and decoding at vLLM, SGLang, llama.cpp, Hugging Face and others.
            | "add_generation_prompt"
            | "add_special_tokens"
            | "allowed_token_ids"
            | "bad_words"
            | "cache_prompt"
            | "cache_salt"
            | "chat_template_kwargs"
            | "continue_final_message"
            | "do_sample"
            | "dynatemp_exponent"
            | "dynatemp_range"
            | "ebnf"
            | "echo"
            | "grammar"
            | "guided_choice"
            | "guided_decoding_backend"
            | "guided_grammar"
            | "guided_json"
            | "guided_regex"
            | "guided_whitespace_pattern"
            | "ignore_eos"
            | "include_reasoning"
            | "include_stop_str_in_output"
            | "json_schema"
            | "keep_alive"
            | "length_penalty"
            | "min_p"
            | "mirostat"
            | "mirostat_eta"
            | "mirostat_tau"
            | "no_stop_trim"
            | "priority"
            | "prompt_logprobs"
            | "regex"
            | "repeat_last_n"
            | "repeat_penalty"
            | "repetition_penalty"
            | "request_id"
            | "return_token_ids"
            | "return_tokens_as_token_ids"
            | "separate_reasoning"
            | "skip_special_tokens"
            | "spaces_between_special_tokens"
            | "stop_token_ids"
            | "stream_reasoning"
            | "structured_outputs"
            | "tfs_z"
            | "top_a"
            | "top_k"
            | "top_n_tokens"
            | "truncate_prompt_tokens"
            | "typical_p"
            // Reasoning, and what single vendors have. The gateway reads the budgets in `reasoning` and `thinking`.
            | "context_length_exceeded_behavior"
            | "enable_thinking"
            | "prompt_mode"
            | "random_seed"
            | "reasoning"
            | "reasoning_format"
            | "safe_prompt"
            | "session_id"
            | "thinking"
            | "tool_stream"
            | "transforms"
            | "usage"
    )
}
