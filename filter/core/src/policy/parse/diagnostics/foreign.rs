//! Names that other gateways use for fields, and what Pointsman has in their place.

/// What a field of another gateway is here.
pub(super) enum Meant {
    /// This field, in the same place.
    Field(&'static str),
    /// Something elsewhere: the rest of the message.
    Elsewhere(String),
}

/// Returns what an unknown field probably means. `parents`: the names that lead to it. `known`: the fields there.
pub(super) fn meant(parents: &[&str], field: &str, known: &[String]) -> Option<Meant> {
    let plain = field.to_ascii_lowercase().replace('-', "_");
    let (section, entry) = (parents.first().copied().unwrap_or_default(), parents.get(1).copied());
    let inner = parents.get(2).copied().unwrap_or_default();
    if let Some(meant) = same_place(section, inner, &plain).filter(|meant| known.iter().any(|field| field == meant)) {
        return Some(Meant::Field(meant));
    }
    let elsewhere = match parents.len() {
        0 => of_the_policy(&plain),
        _ => None,
    };
    elsewhere
        .map(str::to_owned)
        .or_else(|| of_the_connection(section, entry, inner, &plain))
        .or_else(|| of_a_request(section, &plain).map(str::to_owned))
        .map(Meant::Elsewhere)
}

/// The field that has another name here.
fn same_place(section: &str, inner: &str, field: &str) -> Option<&'static str> {
    Some(match (section, inner, field) {
        ("providers", "", "type" | "kind" | "api" | "api_type" | "protocol" | "format" | "wire") => "dialect",
        ("providers" | "tenants", "", "data_class" | "class" | "classification" | "sensitivity") => "data",
        ("providers", "", "path" | "prefix" | "path_prefix" | "base") => "base_path",
        ("providers", "", "auth" | "authentication" | "authorization" | "credentials") => "credential",
        ("providers", "credential", "env_var" | "environment" | "variable" | "from_env" | "key_env") => "env",
        ("providers", "credential", "path" | "key_file") => "file",
        ("providers", "credential", "scheme") => "prefix",
        ("models", "", "max_tokens" | "max_output" | "output_limit" | "max_completion_tokens") => "max_output_tokens",
        (
            "models",
            "",
            "context_window" | "context_length" | "context_size" | "max_context" | "max_context_length"
            | "max_model_len" | "max_input_tokens" | "n_ctx" | "window",
        ) => "context",
        ("models", "", "model_id" | "upstream_model" | "provider_model" | "deployment" | "base_model") => "model",
        ("models", "", "cost" | "costs" | "pricing" | "rates") => "price",
        ("models", "", "features" | "supports" | "abilities") => "capabilities",
        ("models", "", "concurrency" | "concurrent" | "max_parallel_requests" | "max_concurrency") => "max_concurrent",
        ("models" | "quota", "price" | "", "prompt" | "input_price" | "input_tokens" | "input_cost") => "input",
        ("models" | "quota", "price" | "", "completion" | "output_price" | "output_tokens" | "output_cost") => "output",
        ("models" | "quota", "price" | "", "cached" | "cache_read" | "cache_hit" | "input_cached") => "cached_input",
        ("models" | "quota", "price" | "", "audio" | "audio_tokens") => "audio_input",
        ("models" | "quota", "price" | "", "speech") => "audio_output",
        ("models" | "quota", "price" | "", "search" | "web_search_options") => "web_search",
        ("tasks", "", "max_tokens" | "max_output" | "max_completion_tokens") => "max_output_tokens",
        ("tasks", "", "model" | "main" | "first" | "default") => "primary",
        ("tasks", "", "fallback_models" | "secondary" | "backup" | "backups" | "alternatives") => "fallback",
        ("tasks", "", "caching") => "cache",
        ("tasks", "", "timeouts" | "reliability") => "resilience",
        ("tasks", "cache", "max_age" | "expiry" | "expires" | "lifetime" | "duration") => "ttl",
        ("tiers", "", "allowed_models" | "allow" | "model") => "models",
        ("tenants", "", "plan" | "service_tier" | "level") => "tier",
        (
            "tenants",
            "",
            "key" | "api_key" | "api_keys" | "apikey" | "apikeys" | "token" | "tokens" | "virtual_keys",
        ) => "keys",
        ("tenants", "keys", "sha256" | "digest" | "key_hash" | "hashed_key") => "hash",
        ("tenants", "keys", "expiry" | "expires_at" | "until" | "valid_until" | "expiration") => "expires",
        ("tiers" | "tenants", "", "quota" | "quotas" | "rate_limit" | "rate_limits") => "limits",
        ("tiers" | "tenants", "limits", limit) => of_limits(limit)?,
        ("identity", "", "type" | "kind" | "method" | "by") => "source",
        ("identity", "", "tenant_header" | "header") => "tenant",
        ("identity", "", "user_header") => "user",
        ("cache", "", "backend" | "type") | ("quota", "", "backend") => "store",
        ("cache", "", "prefix" | "namespace") => "key_prefix",
        ("quota", "", "timezone" | "tz" | "zone") => "time_zone",
        ("quota", "", "on_error" | "on_failure" | "fail_open" | "failure_policy") => "failure_mode",
        ("redis", "", "service" | "upstream") => "cluster",
        ("resilience", "", "timeout" | "total_timeout" | "deadline") => "request_timeout",
        ("resilience", "", "stream_timeout" | "ttft_timeout" | "first_byte_timeout") => "first_token_timeout",
        ("resilience", "", "per_try_timeout" | "try_timeout") => "attempt_timeout",
        ("resilience", "", "idle_timeout" | "stream_idle_timeout") => "chunk_timeout",
        ("resilience", "", "retry_on" | "retry_on_codes" | "retriable_status_codes") => "retry_on_status",
        ("tasks", "resilience", "timeout" | "deadline") => "request_timeout",
        ("tasks", "resilience", "retry_on" | "retriable_status_codes") => "retry_on_status",
        ("", _, "settings" | "rate_limit" | "rate_limits" | "budgets" | "quotas") => return None,
        ("", _, "backends" | "upstreams" | "endpoints" | "vendors") => "providers",
        ("", _, "deployments") => "models",
        ("", _, "routes" | "aliases" | "use_cases") => "tasks",
        ("", _, "plans" | "service_tiers" | "levels") => "tiers",
        ("", _, "consumers" | "teams" | "customers" | "organizations" | "clients" | "apps") => "tenants",
        ("", _, "auth" | "authentication") => "identity",
        ("", _, "caching") => "cache",
        _ => return None,
    })
}

fn of_limits(limit: &str) -> Option<&'static str> {
    Some(match limit {
        "rpm" | "requests_per_min" | "rate" | "requests" => "requests_per_minute",
        "tpm" | "tokens_per_min" | "tokens" => "tokens_per_minute",
        "tpd" => "tokens_per_day",
        "max_parallel_requests" | "concurrency" | "max_concurrent" | "parallel" => "concurrent",
        "max_tokens" => "max_output_tokens",
        "daily_budget" | "budget_per_day" | "usd_per_day" | "max_budget_per_day" => "budget_usd_per_day",
        "budget" | "max_budget" | "monthly_budget" | "budget_per_month" | "usd_per_month" => "budget_usd_per_month",
        "dry_run" | "report_only" | "monitor" => "shadow",
        "models" => "per_model",
        "user" => "per_user",
        "alerts" | "warn_at" | "alert" => "alert_at",
        _ => return None,
    })
}

/// Sections of other gateways' configurations.
fn of_the_policy(field: &str) -> Option<&'static str> {
    Some(match field {
        "apiversion" | "kind" | "metadata" | "spec" => {
            "a policy is no Kubernetes object; its sections stand at the top level"
        }
        "version" => "a policy has no version; remove the line",
        "model_list" | "litellm_params" => {
            "a model is `models: {NAME: {provider: …, model: …}}`, and its provider an entry of `providers`"
        }
        "litellm_settings" | "router_settings" | "general_settings" | "settings" => {
            "that is LiteLLM's; timeouts are in `resilience`, fallbacks in `tasks`, limits in `tiers`"
        }
        "static_resources" | "dynamic_resources" | "listeners" | "clusters" | "admin" | "node" => {
            "that is Envoy's; a provider's cluster belongs to its file providers/NAME.yaml"
        }
        "listen" | "port" | "address" | "bind" => "set the address with `--listen` of `pointsman up` or `render`",
        "plugins" | "services" | "_format_version" => {
            "that is Kong's; servers are in `providers`, callers in `tenants`, limits in `tiers`"
        }
        "keys" | "api_keys" | "virtual_keys" => "keys belong to a tenant: `tenants.NAME.keys`",
        "users" => "callers are `tenants`; limits of single users are `tenants.NAME.limits.users`",
        "fallbacks" | "fallback" => {
            "the order of models belongs to a task: `tasks: {NAME: {primary: …, fallback: […]}}`"
        }
        "rate_limit" | "rate_limits" | "budgets" | "quotas" | "budget" => {
            "limits belong under a tier or a tenant: `tiers: {NAME: {limits: {…}}}`"
        }
        "timeout" | "timeouts" | "retries" | "retry" => "timeouts and retries are in `resilience`",
        "logging" | "log" | "log_level" | "metrics" | "telemetry" | "tracing" | "observability" => {
            "logs and metrics are Envoy's and are not set in a policy"
        }
        "guardrails" | "moderation" | "prompts" | "tools" | "embeddings" => "the gateway has nothing of the kind",
        _ => return None,
    })
}

/// What belongs to Envoy, or to the credential.
fn of_the_connection(section: &str, entry: Option<&str>, inner: &str, field: &str) -> Option<String> {
    let name = match (section, entry) {
        ("providers", Some(name)) if name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) => name,
        _ => "NAME",
    };
    let at_a_server = matches!(section, "providers" | "models" | "redis");
    Some(match field {
        "url" | "uri" | "api_base" | "base_url" | "api_url" | "endpoint" | "endpoints" | "host" | "hostname"
        | "hosts" | "address" | "port" | "server" | "target" | "scheme" | "api_version"
            if at_a_server =>
        {
            match section {
                "redis" => "the address belongs to the Envoy cluster of the bridge, in the providers directory".into(),
                "models" => {
                    "the address belongs to the Envoy cluster of the model's provider, providers/NAME.yaml".into()
                }
                _ => format!("the address belongs to the provider's Envoy cluster, providers/{name}.yaml"),
            }
        }
        "tls" | "ssl" | "verify" | "ssl_verify" | "insecure" | "validation_context" | "transport_socket" | "sni"
        | "ca" | "health_check" | "health_checks" | "outlier_detection" | "circuit_breaker" | "circuit_breakers"
        | "connect_timeout" | "proxy" | "lb_policy" | "weight" | "weights" | "load_assignment" | "keepalive"
        | "cooldown" | "cooldown_time" | "allowed_fails"
            if at_a_server =>
        {
            format!("that is set in the provider's Envoy cluster, providers/{name}.yaml")
        }
        "api_key" | "apikey" | "key" | "token" | "secret" | "value" | "password" if inner == "credential" => {
            "a policy never has the key itself; say where Envoy finds it: `env: NAME_API_KEY`, `file: /…` or `sds: /…`"
                .into()
        }
        "api_key" | "apikey" | "key" | "keys" | "token" | "api_token" | "secret" | "password" | "bearer_token"
        | "api_key_env" | "env" | "header" | "headers"
            if matches!(section, "providers" | "models") =>
        {
            "a policy never has a provider's key; the provider says where Envoy finds it: \
             `credential: {header: authorization, prefix: \"Bearer \", env: NAME_API_KEY}`"
                .into()
        }
        _ => return None,
    })
}

/// What the caller sets, or the gateway decides elsewhere.
fn of_a_request(section: &str, field: &str) -> Option<&'static str> {
    Some(match field {
        "temperature" | "top_p" | "top_k" | "stop" | "seed" | "system" | "system_prompt" | "prompt" | "messages"
        | "stream" | "presence_penalty" | "frequency_penalty" | "extra_body" | "params" => {
            "the caller sets it in the request, which passes unchanged"
        }
        "timeout"
        | "request_timeout"
        | "stream_timeout"
        | "deadline"
        | "first_token_timeout"
        | "attempt_timeout"
        | "retry_on_status"
            if matches!(section, "providers" | "models" | "tasks") =>
        {
            "timeouts and retries belong to a task, `tasks.NAME.resilience`, or to all, `resilience`"
        }
        "retries" | "num_retries" | "max_retries" | "retry" | "attempts" | "max_attempts" | "retry_policy" => {
            "the models of a task's chain are the attempts; to try one twice, list it twice in `fallback`"
        }
        "weight" | "weights" | "strategy" | "routing_strategy" | "load_balancing" | "order" | "priority" => {
            "a task tries its models in order; endpoints of one provider share load in its Envoy cluster"
        }
        "rpm"
        | "tpm"
        | "rate_limit"
        | "rate_limits"
        | "max_parallel_requests"
        | "max_budget"
        | "budget"
        | "budgets"
        | "budget_duration"
        | "requests_per_minute"
        | "tokens_per_minute"
            if !matches!(section, "tiers" | "tenants") =>
        {
            "limits belong under a tier or a tenant: `tiers.NAME.limits`; for one model, `limits.per_model`"
        }
        "rpm" => "limits belong under `limits`: `limits: {requests_per_minute: …}`",
        "tpm" => "limits belong under `limits`: `limits: {tokens_per_minute: …}`",
        "max_budget" | "budget" | "budgets" | "monthly_budget" | "budget_duration" => {
            "limits belong under `limits`: `limits: {budget_usd_per_month: …}`"
        }
        "max_parallel_requests" => "limits belong under `limits`: `limits: {concurrent: …}`",
        "input_cost_per_token" | "output_cost_per_token" | "cost_per_token" => {
            "prices are per million tokens: `price: {input: 0.4, output: 1.6}`"
        }
        "supports_vision" | "vision" | "supports_function_calling" | "tools" | "json_schema" => {
            "list it in `capabilities`, such as `capabilities: [tools, json_schema, vision]`"
        }
        "enabled" | "enable" | "active" if section == "cache" => "a task turns it on: `tasks.NAME.cache: {ttl: 1h}`",
        "enabled" | "disabled" | "active" | "enable" => {
            "there is no switch; remove the entry, or put # before its lines"
        }
        "description" | "comment" | "comments" | "note" | "notes" | "labels" | "tags" | "annotations" | "metadata"
        | "display_name" | "owner" => "write a comment: # and the text",
        "name" | "id" => "the name stands before the fields: `NAME: {…}`",
        _ => return None,
    })
}
