//! Builds a `Policy` from a `Config`: checks every reference and value, and reports each mistake at its place.

use crate::config::place::{Place, Step};
use crate::config::problem::{Problem, quoted};
use crate::config::words::is_printable;
use crate::config::{self, Config, Dialect, Identity, RequestBounds, ResponseBounds};
use crate::identity::keys::KeyTable;
use crate::ids::{ModelId, ProviderId, TaskId, TenantId, TierId};
use crate::policy::build::names::Names;
use crate::policy::cache::{Rules, TaskRules};
use crate::policy::capabilities::Capabilities;
use crate::policy::clusters::{self, MAX_ATTEMPTS};
use crate::policy::limits;
use crate::policy::price::Price;
use crate::policy::resilience::{Backoff, Resilience};
use crate::policy::share;
use crate::policy::{Model, Policy, Provider, Task, Tenant, Tier};
use crate::wire::redis::Bridge;
use std::collections::BTreeMap;

impl TryFrom<Config> for Policy {
    type Error = Vec<Problem>;

    fn try_from(config: Config) -> Result<Self, Vec<Problem>> {
        // Destructure every field: a new one does not compile until this function handles it.
        let Config {
            identity,
            request,
            response,
            resilience,
            cache,
            redis,
            quota,
            default_task,
            providers,
            models,
            tasks,
            tiers,
            tenants,
        } = config;
        let mut problems = Vec::new();
        let p = &mut problems;

        check_identity(&identity, p);
        check_request(&request, p);
        check_response(&response, p);
        let built_resilience = Resilience::from_config(&resilience, p);
        let built_redis = redis.as_ref().map(|redis| build_redis(redis, &providers, p));
        let built_cache = Rules::from_config(&cache, redis.is_some(), tenants.len(), p);
        let provider_names = Names::of(("provider", "providers"), &providers, (1, 1000), p);
        let model_names = Names::of(("model", "models"), &models, (1, 10_000), p);
        let task_names = Names::of(("task", "tasks"), &tasks, (0, 10_000), p);
        let tier_names = Names::of(("tier", "tiers"), &tiers, (1, 1000), p);
        Names::of(("tenant", "tenants"), &tenants, (1, 10_000_000), p);

        let default_task =
            default_task.and_then(|name| task_names.find(&name, || "default_task".into(), p)).map(|i| TaskId(i as u16));
        let counting = limits::counting(&quota, redis.is_some(), p);
        let default_price =
            quota.default_price.as_ref().and_then(|price| Price::from_config(price, &"quota.default_price".into(), p));
        let mut built_models: Vec<Model> =
            models.iter().map(|(name, m)| build_model(name, m, &provider_names, default_price.as_ref(), p)).collect();
        let built_tasks: Vec<Task> =
            tasks.iter().map(|(name, t)| build_task(name, t, &model_names, (&resilience, &identity), p)).collect();
        clusters::check(&built_models, &built_tasks, p);
        let mut quotas = quotas::Quotas::new(&model_names, &built_models);
        let built_tiers: Vec<Tier> =
            tiers.iter().map(|(name, t)| build_tier(name, t, &model_names, &mut quotas, p)).collect();
        let mut keys = KeyTable::default();
        let built_tenants: Vec<Tenant> = tenants
            .iter()
            .enumerate()
            .map(|(i, (name, t))| {
                let mut tenant = build_tenant(TenantId(i as u32), name, t, &tier_names, &mut keys, p);
                tenant.limits =
                    quotas.of_tenant(name, t, tiers.get(&t.tier), built_tiers.get(tenant.tier.0 as usize), p);
                tenant
            })
            .collect();
        places::give_whole(&mut built_models, &built_tiers, &built_tenants);
        for name in tasks.keys().filter(|name| models.contains_key(*name)) {
            p.push(Problem::of_name(
                Place::of(&["tasks", name]),
                "a model has the same name; models and tasks share one namespace",
            ));
        }
        let names: Vec<&str> = tenants.keys().map(String::as_str).collect();
        keys.finish(p, |tenant| names.get(tenant.0 as usize).copied().unwrap_or_default());
        // A key that was rejected above has already been reported. Its tenant still has a key.
        let keyless = keys.is_empty() && !tenants.is_empty() && tenants.values().all(|t| t.keys.is_empty());
        if identity == Identity::ApiKey && keyless {
            p.push(Problem::new(
                "tenants",
                "no tenant has a key, so every request would be rejected; add `keys` or set `identity`",
            ));
        }
        let built_providers = providers.iter().map(|(name, v)| build_provider(name, v, p)).collect();

        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            identity,
            request,
            response,
            backoff: Backoff::from(&resilience),
            resilience: built_resilience,
            has_cache: tasks.values().any(|task| task.cache.is_some()),
            cache: built_cache,
            revision: 0,
            redis: built_redis,
            default_task,
            providers: built_providers,
            models: built_models,
            tasks: built_tasks,
            tiers: built_tiers,
            tenants: built_tenants,
            counting,
            quotas: quotas.built,
            keys,
        })
    }
}

fn check_identity(identity: &Identity, problems: &mut Vec<Problem>) {
    if let Identity::Header { tenant, user, permissions } = identity {
        check_header_name(&"identity.tenant".into(), tenant, problems);
        if let Some(user) = user {
            check_header_name(&"identity.user".into(), user, problems);
        }
        if let Some(permissions) = permissions {
            check_header_name(&"identity.permissions".into(), permissions, problems);
        }
    }
}

fn check_request(bounds: &RequestBounds, problems: &mut Vec<Problem>) {
    let RequestBounds { max_body_bytes, max_nesting, tenant_uploads, tenant_upload_bytes, set_output_limit: _ } =
        bounds;
    // A VM may use 1 GiB, and it holds a body and what is made from it.
    if !(1024..=1 << 27).contains(max_body_bytes) {
        problems.push(Problem::new(
            "request.max_body_bytes",
            format!("{max_body_bytes} is out of range: expected 1024 to 134217728"),
        ));
    }
    if !(4..=256).contains(max_nesting) {
        problems.push(Problem::new("request.max_nesting", format!("{max_nesting} is out of range: expected 4 to 256")));
    }
    if !(1..=1_000_000).contains(tenant_uploads) {
        let message = format!("{tenant_uploads} is out of range: expected 1 to 1000000");
        problems.push(Problem::new("request.tenant_uploads", message));
    }
    if !(1 << 20..=1 << 34).contains(tenant_upload_bytes) {
        let message = format!("{tenant_upload_bytes} is out of range: expected 1048576 to 17179869184");
        problems.push(Problem::new("request.tenant_upload_bytes", message));
    } else if tenant_upload_bytes < max_body_bytes {
        let message = format!(
            "{tenant_upload_bytes} is less than request.max_body_bytes ({max_body_bytes}), so no body of that size \
             could arrive"
        );
        problems.push(Problem::new("request.tenant_upload_bytes", message));
    }
}

fn check_response(bounds: &ResponseBounds, problems: &mut Vec<Problem>) {
    let ResponseBounds { max_event_bytes, max_share } = bounds;
    share::checked(*max_share, &"response".into(), problems);
    if !(1 << 18..=1 << 27).contains(max_event_bytes) {
        problems.push(Problem::new(
            "response.max_event_bytes",
            format!("{max_event_bytes} is out of range: expected 262144 to 134217728"),
        ));
    }
}

/// Validates the Redis bridge. Its cluster file is in the same folder as the providers' files, so its name must differ
/// from theirs.
fn build_redis(
    redis: &config::Redis,
    providers: &BTreeMap<String, config::Provider>,
    problems: &mut Vec<Problem>,
) -> Bridge {
    check_name(&"redis.cluster".into(), &redis.cluster, "_-", problems);
    if providers.contains_key(&redis.cluster) {
        problems.push(Problem::new(
            "redis.cluster",
            format!("{} is already the cluster of a provider", quoted(&redis.cluster)),
        ));
    }
    Bridge::from_config(redis, problems)
}

fn build_provider(name: &str, provider: &config::Provider, problems: &mut Vec<Problem>) -> Provider {
    let config::Provider { dialect, dialects, local, data, region: _, base_path, credential } = provider;
    let place = Place::of(&["providers", name]);
    check_name(&place, name, "_-", problems);
    if !base_path.is_empty()
        && (!base_path.starts_with('/')
            || base_path.ends_with('/')
            || !base_path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%".contains(&b)))
    {
        problems.push(Problem::new(
            place.name("base_path"),
            format!("{} must start with \"/\" and must not end with \"/\"", quoted(base_path)),
        ));
    }
    let listed = dialects.as_deref().unwrap_or_default();
    let repeats = |(at, dialect): (usize, &Dialect)| listed.iter().take(at).any(|other| other == dialect);
    if dialect.is_some() == dialects.is_some() {
        problems.push(Problem::new(&place, "set exactly one of dialect and dialects"));
    } else if dialects.as_ref().is_some_and(Vec::is_empty) {
        problems.push(Problem::new(place.name("dialects"), "a provider needs at least one dialect"));
    } else if let Some(at) = listed.iter().enumerate().position(repeats) {
        problems.push(Problem::new(place.name("dialects").index(at), "listed twice"));
    }
    if let Some(credential) = credential {
        check_credential(&place.name("credential"), credential, problems);
    }
    Provider {
        name: name.into(),
        dialects: dialect.iter().chain(listed).copied().collect(),
        local: *local,
        data: *data,
        base_path: base_path.as_str().into(),
        credential: credential.clone(),
    }
}

/// Checks a credential. No message repeats a value: it may be a key in the wrong place.
fn check_credential(place: &Place, credential: &config::Credential, problems: &mut Vec<Problem>) {
    let config::Credential { header, prefix, env, file, sds } = credential;
    if !is_header_name(header) {
        problems.push(Problem::new(place.name("header"), format!("not a valid header name: {HEADER_NAME}")));
    }
    if !prefix.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'%') {
        problems.push(Problem::new(place.name("prefix"), "must be printable ASCII without %"));
    }
    if [env, file, sds].iter().filter(|source| source.is_some()).count() != 1 {
        problems.push(Problem::new(place, "set exactly one of env, file and sds"));
    }
    if let Some(env) = env
        && (env.bytes().next().is_none_or(|b| b.is_ascii_digit())
            || !env.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
    {
        problems.push(Problem::new(
            place.name("env"),
            "expected the name of an environment variable, like OPENAI_API_KEY; never put the key itself in a policy",
        ));
    }
    for (field, path) in [("file", file), ("sds", sds)] {
        if path.as_ref().is_some_and(|path| !path.starts_with('/') || !path.chars().all(is_printable)) {
            problems.push(Problem::new(
                place.name(field),
                "expected an absolute path, like /etc/envoy/openai.key; never put the key itself in a policy",
            ));
        }
    }
}

fn build_model(
    name: &str,
    model: &config::Model,
    providers: &Names,
    default_price: Option<&Price>,
    problems: &mut Vec<Problem>,
) -> Model {
    let config::Model {
        provider,
        model: upstream_id,
        level,
        tier: former_level,
        context,
        max_output_tokens,
        price,
        max_concurrent,
        max_share,
        capabilities,
        output_param,
        unsupported_params,
        drop_params,
    } = model;
    let place = Place::of(&["models", name]);
    check_name(&place, name, "._:/-", problems);
    if name == "auto" {
        problems.push(Problem::of_name(&place, "\"auto\" is reserved: it selects the default task"));
    }
    if level.is_some() && former_level.is_some() {
        let message = "a former name of `level`, which is set too; remove `tier`";
        problems.push(Problem::new(place.name("tier"), message));
    }
    let provider = providers.find(provider, || place.name("provider"), problems).unwrap_or(0);
    if upstream_id.is_empty() || upstream_id.len() > 256 || !upstream_id.chars().all(is_printable) {
        problems.push(Problem::new(place.name("model"), "must be 1 to 256 printable characters"));
    }
    check_range(&place, "context", *context, 1..=100_000_000, problems);
    check_range(&place, "max_output_tokens", *max_output_tokens, 1..=100_000_000, problems);
    if *max_concurrent == Some(0) {
        let message = "0 would block every request; omit the field for no limit";
        problems.push(Problem::new(place.name("max_concurrent"), message));
    }
    let max_share = share::checked(*max_share, &place, problems);
    if model.max_share.is_some() && max_concurrent.is_none() {
        problems.push(Problem::new(place.name("max_share"), "a share of `max_concurrent`, which is not set"));
    }
    for (i, param) in unsupported_params.iter().enumerate() {
        let message = match param.as_str() {
            "" => "expected the name of a request field",
            "model" | "messages" | "stream" => "every model must accept this field",
            "max_tokens" | "max_completion_tokens" => "set `output_param` to the output limit that the model accepts",
            _ => continue,
        };
        problems.push(Problem::new(place.name("unsupported_params").index(i), message));
    }
    let mut unsupported: Vec<Box<str>> = unsupported_params.iter().map(|p| p.as_str().into()).collect();
    unsupported.sort_unstable();
    unsupported.dedup();
    Model {
        name: name.into(),
        provider: ProviderId(provider as u16),
        upstream_id: upstream_id.as_str().into(),
        context: *context,
        max_output_tokens: *max_output_tokens,
        price: match price {
            Some(price) => Price::from_config(price, &place.name("price"), problems),
            None => default_price.cloned(),
        },
        max_concurrent: *max_concurrent,
        tenant_places: max_concurrent.map_or(u32::MAX, |limit| share::of(u64::from(limit), max_share) as u32),
        capabilities: Capabilities::from_config(capabilities.as_deref()),
        output_param: *output_param,
        unsupported_params: unsupported,
        drop_params: *drop_params,
    }
}

fn build_task(
    name: &str,
    task: &config::Task,
    models: &Names,
    (general, identity): (&config::Resilience, &Identity),
    problems: &mut Vec<Problem>,
) -> Task {
    let config::Task { primary, fallback, max_output_tokens, cache, stream_upstream, resilience } = task;
    let place = Place::of(&["tasks", name]);
    check_name(&place, name, "._:/-", problems);
    if name == "auto" {
        problems.push(Problem::of_name(&place, "\"auto\" is reserved: it selects the default task"));
    }
    if let Some(limit) = max_output_tokens {
        check_range(&place, "max_output_tokens", *limit, 1..=100_000_000, problems);
    }
    if fallback.len() >= MAX_ATTEMPTS {
        let message = format!("at most {} fallbacks are supported", MAX_ATTEMPTS - 1);
        problems.push(Problem::new(place.name("fallback"), message));
    }
    let mut chain = Vec::with_capacity(1 + fallback.len());
    chain.extend(models.find(primary, || place.name("primary"), problems));
    for (i, model) in fallback.iter().enumerate() {
        chain.extend(models.find(model, || place.name("fallback").index(i), problems));
    }
    let chain = chain.into_iter().map(|i| ModelId(i as u16)).collect();
    let resilience = Resilience::of_task(general, resilience, &place, problems);
    let cache = cache.as_ref().map(|cache| TaskRules::from_config(cache, identity, &place.name("cache"), problems));
    Task {
        name: name.into(),
        chain,
        max_output_tokens: *max_output_tokens,
        stream_upstream: *stream_upstream,
        resilience,
        cache,
    }
}

fn build_tier(
    name: &str,
    tier: &config::Tier,
    models: &Names,
    quotas: &mut quotas::Quotas,
    problems: &mut Vec<Problem>,
) -> Tier {
    let config::Tier { models: listed, limits: _ } = tier;
    let place = Place::of(&["tiers", name]);
    check_name(&place, name, "_-", problems);
    let mut allowed = vec![false; models.sorted.len()];
    for (i, model) in listed.iter().enumerate() {
        if let Some(slot) =
            models.find(model, || place.name("models").index(i), problems).and_then(|index| allowed.get_mut(index))
        {
            *slot = true;
        }
    }
    if listed.is_empty() {
        problems.push(Problem::new(place.name("models"), "a tier needs at least one model"));
    }
    let mut built = Tier { name: name.into(), allowed, limits: None };
    built.limits = quotas.of_tier(name, tier, &built, problems);
    built
}

fn build_tenant(
    id: TenantId,
    name: &str,
    tenant: &config::Tenant,
    tiers: &Names,
    table: &mut KeyTable,
    problems: &mut Vec<Problem>,
) -> Tenant {
    let config::Tenant { tier, keys, data, cache_revision, limits: _ } = tenant;
    if !is_name(name, "._:/@-") {
        check_name(&Place::of(&["tenants", name]), name, "._:/@-", problems);
    }
    let tier = tiers.find(tier, || Place::of(&["tenants", name, "tier"]), problems).unwrap_or(0);
    for (i, key) in keys.iter().enumerate() {
        // Check this here, because the message must not repeat the value: hash, time and key are easily confused.
        if key.expires.as_ref().is_some_and(|time| humantime::parse_rfc3339(time).is_err()) {
            let place = Place::of(&["tenants", name, "keys"]).index(i).name("expires");
            problems.push(Problem::new(place, "expected a UTC time like 2027-01-31T00:00:00Z"));
        } else if let Err(message) = table.add(id, i, key) {
            problems.push(Problem::new(Place::of(&["tenants", name, "keys"]).index(i), message));
        }
    }
    Tenant { name: name.into(), tier: TierId(tier as u16), data: *data, cache_revision: *cache_revision, limits: None }
}

fn check_range(
    place: &Place,
    field: &str,
    value: u64,
    range: std::ops::RangeInclusive<u64>,
    problems: &mut Vec<Problem>,
) {
    if !range.contains(&value) {
        let message = format!("{value} is out of range: expected {} to {}", range.start(), range.end());
        problems.push(Problem::new(place.name(field), message));
    }
}

fn is_name(name: &str, punctuation: &str) -> bool {
    name.len() <= 64
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || punctuation.as_bytes().contains(&b))
}

/// Checks a name. Names go into headers, metric labels and cluster names, so few characters are allowed.
fn check_name(place: &Place, name: &str, punctuation: &str, problems: &mut Vec<Problem>) {
    if !is_name(name, punctuation) {
        let message =
            format!("a name must be 1 to 64 letters, digits or any of {punctuation}, and start with a letter or digit");
        // The name of a section's entry is the place itself; a name in a field is a value.
        let is_entry = place.steps().last().and_then(Step::as_name) == Some(name);
        problems.push(if is_entry { Problem::of_name(place, message) } else { Problem::new(place, message) });
    }
}

const HEADER_NAME: &str = "use lowercase letters, digits, - and _, and no name reserved by the proxy";

fn check_header_name(place: &Place, name: &str, problems: &mut Vec<Problem>) {
    if !is_header_name(name) {
        problems.push(Problem::new(place, format!("{} is not a valid header name: {HEADER_NAME}", quoted(name))));
    }
}

fn is_header_name(name: &str) -> bool {
    // These headers describe the message, or Envoy removes or sets them before any filter runs.
    let taken = [
        "host",
        "content-length",
        "content-type",
        "transfer-encoding",
        "connection",
        "accept-encoding",
        "user-agent",
        "x-request-id",
    ];
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        && !taken.contains(&name)
        && !["x-pointsman-", "x-envoy-", "x-stainless-"].iter().any(|own| name.starts_with(own))
}

mod names;
mod places;
mod quotas;
#[cfg(test)]
mod tests;
