//! Which requests the cache may answer, and why the others bypass it.

use crate::cache::question::Sharing;
use crate::config::{CacheRequests, CacheScope, DataClass};
use crate::policy::cache::{Rules, TaskRules};
use crate::request::cache_control::CacheControl;
use crate::request::facts::Facts;
use crate::wire::json::Span;

/// Why a request bypasses the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bypass {
    /// The caller sent `no-store`.
    NoStore,
    /// The answer may differ each time: the request has neither `temperature` 0 nor a seed.
    NotDeterministic,
    /// The data is more sensitive than the cache may store.
    DataClass,
    /// The task caches answers per user, and the request names no user.
    NoUser,
    /// The task caches answers by permission, and the request has no permissions.
    NoPermissions,
    /// The body can be read in two ways.
    Ambiguous,
    /// The body is longer than [`MAX_BODY`].
    TooLong,
}

/// Longest request that is cached, in bytes. The key is derived from the whole body in a canonical order, which takes
/// time and memory that one request must not take from all others.
pub const MAX_BODY: usize = 1 << 20;

impl Bypass {
    /// Returns the code for the audit record and the metric.
    pub fn word(self) -> &'static str {
        match self {
            Self::NoStore => "no_store",
            Self::NotDeterministic => "not_deterministic",
            Self::DataClass => "data_class",
            Self::NoUser => "no_user",
            Self::NoPermissions => "no_permissions",
            Self::Ambiguous => "ambiguous",
            Self::TooLong => "request_too_long",
        }
    }
}

/// What trusted sources say about the caller.
#[derive(Debug, Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// The end user, from a trusted header.
    pub user: Option<&'a [u8]>,
    /// Whether the policy has such a header. If so, the body cannot name the user.
    pub names_users: bool,
    /// The permissions, from a trusted header.
    pub permissions: Option<&'a [u8]>,
}

/// Returns who shares the answer of this request. `takes` returns whether the model is sent a field of this name.
///
/// # Errors
/// Why the request bypasses the cache.
pub fn sharing<'a>(
    rules: &Rules,
    task: &TaskRules,
    request: &'a Facts,
    data: DataClass,
    control: CacheControl,
    credentials: Credentials<'a>,
    takes: impl Fn(&str) -> bool,
) -> Result<Sharing<'a>, Bypass> {
    if control.no_store {
        return Err(Bypass::NoStore);
    }
    if request.body.len() > MAX_BODY {
        return Err(Bypass::TooLong);
    }
    if data > task.max_data.unwrap_or(rules.max_data) {
        return Err(Bypass::DataClass);
    }
    if task.requests == CacheRequests::Deterministic && !is_deterministic(request, takes) {
        return Err(Bypass::NotDeterministic);
    }
    match task.scope {
        CacheScope::Tenant => Ok(Sharing::Tenant),
        CacheScope::User => {
            let is_named = |user: &&[u8]| !user.is_empty();
            let sharing = match credentials.names_users {
                true => credentials.user.filter(is_named).map(Sharing::User),
                false => request.user.as_ref().map(|user| user.as_bytes()).filter(is_named).map(Sharing::NamedUser),
            };
            sharing.ok_or(Bypass::NoUser)
        }
        CacheScope::Permission => {
            let permissions = credentials.permissions.filter(|value| !value.is_empty());
            permissions.map(Sharing::Permissions).ok_or(Bypass::NoPermissions)
        }
    }
}

/// Returns whether the request asks for a deterministic answer: `temperature` 0 or a seed.
fn is_deterministic(request: &Facts, takes: impl Fn(&str) -> bool) -> bool {
    let number = |name: &str, place: &Option<Span>| {
        place.as_ref().filter(|_| takes(name)).and_then(|place| request.number(place))
    };
    number("temperature", &request.temperature) == Some(0.0) || number("seed", &request.seed).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, CacheStore};
    use crate::dialect::client::ClientDialect;

    fn rules() -> Rules {
        let config = config::Cache { store: CacheStore::Local, ..config::Cache::default() };
        Rules::from_config(&config, false, 1, &mut Vec::new())
    }

    fn task(scope: CacheScope, requests: CacheRequests) -> TaskRules {
        TaskRules { ttl_ms: 1000, scope, requests, max_data: None, revision: 0 }
    }

    fn run(task: &TaskRules, more: &str, data: DataClass, who: Credentials) -> Result<String, Bypass> {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"x"}}]{more}}}"#);
        let request = ClientDialect::OpenAi.parse(body.as_bytes(), 16).unwrap();
        sharing(&rules(), task, request.facts(), data, CacheControl::default(), who, |_| true)
            .map(|sharing| format!("{sharing:?}"))
    }

    #[test]
    fn only_requests_for_one_certain_answer_unless_the_task_says_any() {
        let task_of = |requests| task(CacheScope::Tenant, requests);
        let run = |requests, more: &str| run(&task_of(requests), more, DataClass::Internal, Credentials::default());
        for certain in
            [r#","temperature":0"#, r#","temperature":0.0"#, r#","temperature":-0"#, r#","seed":7,"temperature":1"#]
        {
            assert!(run(CacheRequests::Deterministic, certain).is_ok(), "{certain}");
        }
        for open in ["", r#","temperature":0.1"#, r#","seed":null"#, r#","temperature":"0""#, r#","top_p":0"#] {
            assert_eq!(run(CacheRequests::Deterministic, open), Err(Bypass::NotDeterministic), "{open}");
            assert!(run(CacheRequests::Any, open).is_ok());
        }
    }

    #[test]
    fn no_data_above_the_class_of_the_policy_or_the_task() {
        let mut task = task(CacheScope::Tenant, CacheRequests::Any);
        assert!(run(&task, "", DataClass::Internal, Credentials::default()).is_ok());
        assert_eq!(run(&task, "", DataClass::Confidential, Credentials::default()), Err(Bypass::DataClass));
        task.max_data = Some(DataClass::Public);
        assert_eq!(run(&task, "", DataClass::Internal, Credentials::default()), Err(Bypass::DataClass));
        task.max_data = Some(DataClass::Regulated);
        assert!(run(&task, "", DataClass::Regulated, Credentials::default()).is_ok());
    }

    #[test]
    fn a_scope_needs_its_word_and_the_trusted_one_counts() {
        let user = task(CacheScope::User, CacheRequests::Any);
        let none = Credentials::default();
        assert_eq!(run(&user, "", DataClass::Public, none), Err(Bypass::NoUser));
        assert_eq!(run(&user, r#","user":"""#, DataClass::Public, none), Err(Bypass::NoUser));
        let named = run(&user, r#","user":"u""#, DataClass::Public, none).unwrap();
        let trusted = Credentials { user: Some(b"u"), names_users: true, permissions: None };
        let by_header = run(&user, r#","user":"v""#, DataClass::Public, trusted).unwrap();
        assert!(by_header.starts_with("User(") && named.starts_with("NamedUser("), "{by_header} {named}");
        // A caller that the trusted filter does not name has no user, whatever its body says.
        let unnamed = Credentials { user: None, ..trusted };
        assert_eq!(run(&user, r#","user":"u""#, DataClass::Public, unnamed), Err(Bypass::NoUser));
        let permission = task(CacheScope::Permission, CacheRequests::Any);
        assert_eq!(run(&permission, r#","user":"u""#, DataClass::Public, trusted), Err(Bypass::NoPermissions));
        let may = Credentials { permissions: Some(b"p"), ..none };
        assert!(run(&permission, "", DataClass::Public, may).is_ok());
    }

    #[test]
    fn no_store_is_obeyed() {
        let body = br#"{"messages":[{"role":"user","content":"x"}]}"#;
        let request = ClientDialect::OpenAi.parse(body, 16).unwrap();
        let task = task(CacheScope::Tenant, CacheRequests::Any);
        let control = CacheControl { no_store: true, ..Default::default() };
        let refused =
            sharing(&rules(), &task, request.facts(), DataClass::Public, control, Credentials::default(), |_| true);
        assert_eq!(refused, Err(Bypass::NoStore));
    }
}
