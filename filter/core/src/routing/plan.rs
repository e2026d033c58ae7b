//! Which models may serve a request, in which order, and why the others may not.

use crate::config::DataClass;
use crate::ids::{ModelId, TaskId, TenantId};
use crate::outcome::refusal::Refusal;
use crate::policy::Policy;
use crate::policy::resilience::Resilience;
use crate::request::facts::Facts;
use crate::routing::eligibility::{Ineligible, fits, refusal};
use crate::routing::in_flight::{Full, Places};
use std::borrow::Cow;

/// The models that serve a request, in order of attempts, and why the others do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The task of the request, if it has one.
    pub task: Option<TaskId>,
    /// The models, never empty.
    pub models: Vec<ModelId>,
    /// The models that were left out, and why.
    pub ineligible: Vec<(ModelId, Ineligible)>,
    /// The data class of the request.
    pub data: DataClass,
    /// How the models were chosen, for the audit record.
    pub reason: &'static str,
}

impl Plan {
    /// Returns the timers and retries that apply.
    pub fn resilience<'p>(&self, policy: &'p Policy) -> &'p Resilience {
        self.task.map_or(&policy.resilience, |task| &policy.task(task).resilience)
    }

    /// Returns the model of the plan that has this name.
    pub fn find(&self, policy: &Policy, name: &[u8]) -> Option<ModelId> {
        self.models.iter().copied().find(|id| policy.model(*id).name.as_bytes() == name)
    }

    /// Removes models that have no place for the tenant from the plan, and counts the request with the first remaining
    /// one.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] or [`Refusal::ShareTaken`] if no model remains.
    pub fn spill_over(&mut self, policy: &Policy, tenant: TenantId, load: &mut dyn Load) -> Result<(), Refusal> {
        let (mut counted, mut why) = (false, Refusal::ShareTaken);
        let tenant = &policy.tenant(tenant).name;
        let mut kept = Vec::with_capacity(self.models.len());
        for id in std::mem::take(&mut self.models) {
            let model = policy.model(id);
            let places = model.max_concurrent.map(|limit| Places::new(limit, model.tenant_places, tenant));
            let admitted = match places {
                None => Ok(()),
                // A second attempt at a model is the same request, so it does not block itself.
                Some(_) if kept.contains(&id) => Ok(()),
                Some(places) if counted => load.check(&model.name, places),
                Some(places) => load.acquire(&model.name, places),
            };
            match admitted {
                Ok(()) => {
                    counted = true;
                    kept.push(id);
                }
                Err(Full::Share) => self.ineligible.push((id, Ineligible::Share)),
                Err(Full::Model) => {
                    why = Refusal::Overloaded;
                    self.ineligible.push((id, Ineligible::Overloaded));
                }
            }
        }
        self.models = kept;
        if self.models.is_empty() { Err(why) } else { Ok(()) }
    }
}

/// How many requests each model is serving, over all workers.
pub trait Load {
    /// Counts one more request.
    ///
    /// # Errors
    /// [`Full`] if the model has no place for it.
    fn acquire(&mut self, model: &str, places: Places) -> Result<(), Full>;
    /// Checks that the model has a place for one more request.
    ///
    /// # Errors
    /// [`Full`] if it has none.
    fn check(&mut self, model: &str, places: Places) -> Result<(), Full>;
}

/// What the request says outside its body.
#[derive(Debug, Clone, Copy)]
pub struct Hints<'a> {
    /// `x-pointsman-task`
    pub task: Option<&'a str>,
    /// `x-pointsman-data-class`: raises the class, never lowers it.
    pub data_class: Option<DataClass>,
}

/// Chooses the plan.
///
/// # Errors
/// The refusal for an unknown or contradictory task or model, or the one that fits best if no model is left.
pub fn plan(policy: &Policy, tenant: TenantId, request: &Facts, hints: Hints) -> Result<Plan, Refusal> {
    let (has_budget, tenant) = (policy.has_budget(tenant), policy.tenant(tenant));
    let tier = policy.tier(tenant.tier);
    let data = hints.data_class.map_or(tenant.data, |class| class.max(tenant.data));
    let (task, chain, reason) = target(policy, request, hints.task)?;

    let mut models = Vec::with_capacity(chain.len());
    let mut ineligible = Vec::new();
    for &model in chain.iter() {
        let verdict = match tier.allows(model) {
            true => fits(policy, model, request, data, has_budget),
            false => Err(Ineligible::Tier),
        };
        match verdict {
            Ok(()) => models.push(model),
            Err(reason) => ineligible.push((model, reason)),
        }
    }
    if models.is_empty() {
        return Err(refusal(policy, request, &ineligible));
    }
    Ok(Plan { task, models, ineligible, data, reason })
}

/// Returns the plan with which `to` serves because a quota is used up, or `None` if that model cannot or may not.
/// `has_budget`: whether a budget of the tenant bounds the request's cost.
pub fn degraded(policy: &Policy, plan: &Plan, request: &Facts, to: ModelId, has_budget: bool) -> Option<Plan> {
    fits(policy, to, request, plan.data, has_budget).ok()?;
    let mut ineligible = plan.ineligible.clone();
    ineligible.extend(plan.models.iter().filter(|id| **id != to).map(|id| (*id, Ineligible::Quota)));
    Some(Plan { task: plan.task, models: vec![to], ineligible, data: plan.data, reason: "degraded" })
}

/// The task of a request, its chain of models, and how that was found.
type Target<'p> = (Option<TaskId>, Cow<'p, [ModelId]>, &'static str);

/// Returns the chain that the request asks for.
fn target<'p>(policy: &'p Policy, request: &Facts, header: Option<&str>) -> Result<Target<'p>, Refusal> {
    // `metadata` is the caller's own: beside a model, what it calls a task is a task only if it is one of ours.
    let needs_task = request.model.as_deref().is_none_or(|model| model == "auto" || policy.find_task(model).is_some());
    if let Some(invalid) = request.invalid_task.as_deref().filter(|_| needs_task) {
        return Err(Refusal::InvalidField(invalid.clone()));
    }
    let mut named = None;
    for (name, place) in [(header, "x-pointsman-task"), (request.task.as_deref(), "metadata.task")] {
        let Some(name) = name else { continue };
        let task = match policy.find_task(name) {
            Some(task) => task,
            None if place == "metadata.task" && !needs_task => continue,
            None => return Err(Refusal::UnknownTask(name.to_owned(), place)),
        };
        match named {
            Some((other, other_name)) if other != task => return conflict(other_name, name),
            _ => named = Some((task, name)),
        }
    }
    let chain = |task: TaskId| Cow::Borrowed(policy.task(task).chain.as_slice());
    match request.model.as_deref() {
        None | Some("auto") => match named {
            Some((task, _)) => Ok((Some(task), chain(task), "task")),
            None => {
                let task = policy.default_task.ok_or(Refusal::NoModel)?;
                Ok((Some(task), chain(task), "default_task"))
            }
        },
        Some(model) => match (policy.find_task(model), policy.find_model(model)) {
            (Some(task), _) => match named {
                Some((other, other_name)) if other != task => conflict(model, other_name),
                _ => Ok((Some(task), chain(task), "task")),
            },
            // A model named in the request serves it alone. The task then describes the work but chooses no model.
            (None, Some(id)) => Ok((named.map(|(task, _)| task), Cow::Owned(vec![id]), "model")),
            (None, None) => Err(Refusal::UnknownModel(model.to_owned())),
        },
    }
}

fn conflict<T>(one: &str, other: &str) -> Result<T, Refusal> {
    Err(Refusal::TaskConflict(one.to_owned(), other.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::client::ClientDialect;
    use crate::fixture;
    use crate::request::needs::Need;

    const M: &str = r#""messages":[{"role":"user","content":"x"}]"#;

    fn run(tenant: &str, rest: &str, hints: Hints) -> Result<(Vec<String>, &'static str), Refusal> {
        let policy = fixture::policy();
        let body = format!("{{{M}{rest}}}");
        let request = ClientDialect::OpenAi.parse(body.as_bytes(), 16).unwrap();
        let plan = plan(&policy, policy.find_tenant(tenant).unwrap(), request.facts(), hints)?;
        Ok((plan.models.iter().map(|id| policy.model(*id).name.to_string()).collect(), plan.reason))
    }

    const NO: Hints = Hints { task: None, data_class: None };

    fn models(tenant: &str, rest: &str) -> Vec<String> {
        run(tenant, rest, NO).unwrap().0
    }

    #[test]
    fn a_model_a_task_or_auto() {
        assert_eq!(run("acme", "", NO).unwrap(), (vec!["small".into(), "big".into()], "default_task"));
        assert_eq!(run("acme", r#","model":"auto""#, NO).unwrap().1, "default_task");
        assert_eq!(models("acme", r#","model":"code""#), ["big", "small"]);
        assert_eq!(run("acme", r#","model":"big""#, NO).unwrap(), (vec!["big".into()], "model"));
        assert_eq!(models("acme", r#","metadata":{"task":"code"}"#), ["big", "small"]);
        let header = Hints { task: Some("code"), ..NO };
        assert_eq!(run("acme", "", header).unwrap().0, ["big", "small"]);
        assert_eq!(run("acme", r#","model":"small""#, header).unwrap().0, ["small"]);
    }

    #[test]
    fn contradictions_and_strangers_are_refused() {
        let header = Hints { task: Some("code"), ..NO };
        assert!(matches!(run("acme", r#","model":"chat""#, header), Err(Refusal::TaskConflict(..))));
        assert!(matches!(run("acme", r#","metadata":{"task":"chat"}"#, header), Err(Refusal::TaskConflict(..))));
        assert_eq!(run("acme", r#","model":"gpt-9""#, NO), Err(Refusal::UnknownModel("gpt-9".into())));
        assert_eq!(
            run("acme", r#","metadata":{"task":"nope"}"#, NO),
            Err(Refusal::UnknownTask("nope".into(), "metadata.task"))
        );
    }

    #[test]
    fn metadata_may_have_a_task_of_the_callers_own_beside_a_model() {
        let task = r#","metadata":{"task":"summarise invoices"}"#;
        assert_eq!(run("acme", &format!(r#","model":"big"{task}"#), NO).unwrap(), (vec!["big".into()], "model"));
        // Where the task chooses the model, or might, it must exist.
        for model in ["", r#","model":"auto""#, r#","model":"chat""#] {
            let unknown = Refusal::UnknownTask("summarise invoices".into(), "metadata.task");
            assert_eq!(run("acme", &format!("{model}{task}"), NO), Err(unknown), "{model}");
        }
        assert_eq!(run("acme", &format!(r#","model":"gpt-9"{task}"#), NO), Err(Refusal::UnknownModel("gpt-9".into())));
        // Nor need it be a string.
        for task in ["7", r#"{"id":"x"}"#] {
            let task = format!(r#","metadata":{{"task":{task}}}"#);
            assert_eq!(run("acme", &format!(r#","model":"big"{task}"#), NO).unwrap().0, ["big"]);
            assert!(matches!(run("acme", &task, NO), Err(Refusal::InvalidField(_))));
        }
        // The header is ours.
        let header = Hints { task: Some("summarise invoices"), ..NO };
        let unknown = Refusal::UnknownTask("summarise invoices".into(), "x-pointsman-task");
        assert_eq!(run("acme", r#","model":"big""#, header), Err(unknown));
        // A task of ours still describes the work.
        let policy = fixture::policy();
        let body = format!(r#"{{"model":"big",{M},"metadata":{{"task":"code"}}}}"#);
        let request = ClientDialect::OpenAi.parse(body.as_bytes(), 16).unwrap();
        let plan = plan(&policy, policy.find_tenant("acme").unwrap(), request.facts(), NO).unwrap();
        assert_eq!(plan.task, policy.find_task("code"));
    }

    #[test]
    fn a_tier_binds_every_model_of_the_chain() {
        assert_eq!(models("guest", r#","model":"code""#), ["small"]);
        assert_eq!(run("guest", r#","model":"big""#, NO), Err(Refusal::ModelNotAllowed("big".into())));
    }

    #[test]
    fn a_data_class_binds_every_model_and_a_hint_only_raises_it() {
        assert_eq!(models("clinic", ""), ["small"]);
        assert_eq!(run("clinic", r#","model":"big""#, NO), Err(Refusal::DataClass));
        let class = |class| Hints { data_class: Some(class), ..NO };
        assert_eq!(run("acme", "", class(DataClass::Confidential)).unwrap().0, ["small"]);
        assert_eq!(run("clinic", "", class(DataClass::Public)).unwrap().0, ["small"]);
    }

    #[test]
    fn what_a_model_cannot_do_drops_it() {
        let schema = r#","response_format":{"type":"json_schema"}"#;
        assert_eq!(models("acme", schema), ["big"]);
        assert_eq!(run("guest", schema, NO), Err(Refusal::MissingCapability(Need::JsonSchema)));
        assert_eq!(run("acme", r#","model":"strict","seed":1"#, NO), Err(Refusal::UnsupportedParam("seed".into())));
        assert_eq!(models("acme", r#","tools":[{"type":"function"}]"#), ["small", "big"]);
    }

    #[test]
    fn a_prompt_that_cannot_fit_drops_the_model() {
        let policy = fixture::policy();
        let tenant = policy.find_tenant("acme").unwrap();
        let run = |bytes: usize| {
            let body = format!(r#"{{"messages":[{{"role":"user","content":"{}"}}]}}"#, "x".repeat(bytes));
            let request = ClientDialect::OpenAi.parse(body.as_bytes(), 16).unwrap();
            plan(&policy, tenant, request.facts(), NO).map(|plan| (plan.models.len(), plan.ineligible.len()))
        };
        assert_eq!(run(4_000), Ok((2, 0)));
        assert_eq!(run(20_000), Ok((1, 1)));
        assert_eq!(run(2_000_000), Err(Refusal::ContextTooLong { context: 100_000, tokens: 125_000 }));
    }

    #[test]
    fn what_is_long_without_being_many_tokens_fits() {
        let mut document = fixture::document();
        document["models"]["small"].as_object_mut().unwrap().remove("capabilities");
        let policy = crate::policy::parse::from_value(&document).unwrap().1;
        let fits = |messages: &str| {
            let body = format!(r#"{{"model":"small","messages":[{{"role":"user","content":{messages}}}]}}"#);
            let request = ClientDialect::OpenAi.parse(body.as_bytes(), 16).unwrap();
            plan(&policy, policy.find_tenant("acme").unwrap(), request.facts(), NO).is_ok()
        };
        let context = policy.model(policy.find_model("small").unwrap()).context as usize;
        let (long, room) = (context * 16 + 100, " ".repeat(context * 16 + 100));
        assert!(!fits(&format!("\"{}\"", "x".repeat(long))));
        assert!(fits(&format!("\"{}\"", "\\u0434".repeat(long / 6))));
        assert!(!fits(&format!("\"{}\"", "\\u0434".repeat(long))));
        assert!(fits(&format!("{room}\"x\"")));
        for kind in ["input_audio", "file", "video_url", "image", "hologram"] {
            assert!(fits(&format!(r#"[{{"type":"{kind}","{kind}":{{"data":"{}"}}}}]"#, "A".repeat(long))), "{kind}");
        }
    }

    struct Busy<'a>(&'a [&'a str], Vec<String>, Full);

    impl Load for Busy<'_> {
        fn acquire(&mut self, model: &str, places: Places) -> Result<(), Full> {
            self.check(model, places).inspect(|()| self.1.push(model.to_owned()))
        }
        fn check(&mut self, model: &str, _: Places) -> Result<(), Full> {
            if self.0.contains(&model) { Err(self.2) } else { Ok(()) }
        }
    }

    #[test]
    fn a_full_model_is_left_out_and_only_the_first_is_counted() {
        let mut document = fixture::document();
        for model in ["small", "big"] {
            document["models"][model]["max_concurrent"] = serde_json::json!(1);
        }
        let policy = crate::policy::parse::from_value(&document).unwrap().1;
        let body = format!("{{{M}}}");
        let request = ClientDialect::OpenAi.parse(body.as_bytes(), 16).unwrap();
        let tenant = policy.find_tenant("acme").unwrap();
        let run = |full: &[&str], why| {
            let mut plan = plan(&policy, tenant, request.facts(), NO).unwrap();
            let mut load = Busy(full, Vec::new(), why);
            let names =
                |plan: &Plan| plan.models.iter().map(|id| policy.model(*id).name.to_string()).collect::<Vec<_>>();
            plan.spill_over(&policy, tenant, &mut load).map(|()| (names(&plan), load.1))
        };
        for why in [Full::Model, Full::Share] {
            assert_eq!(run(&[], why), Ok((vec!["small".into(), "big".into()], vec!["small".into()])));
            assert_eq!(run(&["small"], why), Ok((vec!["big".into()], vec!["big".into()])));
            assert_eq!(run(&["big"], why), Ok((vec!["small".into()], vec!["small".into()])));
        }
        assert_eq!(run(&["small", "big"], Full::Model), Err(Refusal::Overloaded));
        assert_eq!(run(&["small", "big"], Full::Share), Err(Refusal::ShareTaken));
    }

    #[test]
    fn a_second_try_of_a_model_is_not_in_its_own_way() {
        struct One(u32);
        impl Load for One {
            fn acquire(&mut self, model: &str, places: Places) -> Result<(), Full> {
                self.check(model, places).inspect(|()| self.0 += 1)
            }
            fn check(&mut self, _: &str, places: Places) -> Result<(), Full> {
                if self.0 < places.limit { Ok(()) } else { Err(Full::Model) }
            }
        }
        let mut document = fixture::document();
        document["models"]["small"]["max_concurrent"] = serde_json::json!(1);
        let policy = crate::policy::parse::from_value(&document).unwrap().1;
        let (small, tenant) = (policy.find_model("small").unwrap(), policy.find_tenant("acme").unwrap());
        let plan = |models| Plan { task: None, models, ineligible: vec![], data: DataClass::Public, reason: "task" };
        let mut twice = plan(vec![small, small]);
        assert_eq!((twice.spill_over(&policy, tenant, &mut One(0)), twice.models.len()), (Ok(()), 2));
        assert_eq!(plan(vec![small, small]).spill_over(&policy, tenant, &mut One(1)), Err(Refusal::Overloaded));
    }

    #[test]
    fn a_field_that_may_cost_anything_goes_to_no_model_under_a_budget_and_one_that_chooses_a_model_to_none_at_all() {
        let run = |model: serde_json::Value, budget: bool, field: &str| {
            let mut document = fixture::document();
            document["models"]["big"].as_object_mut().unwrap().extend(model.as_object().unwrap().clone());
            document["quota"] = serde_json::json!({"default_price": {"input": 1, "output": 1}});
            if budget {
                document["tiers"]["pro"]["limits"] = serde_json::json!({"budget_usd_per_day": 1});
            }
            let policy = crate::policy::parse::from_value(&document).unwrap().1;
            let body = format!(r#"{{"model":"big",{M},"{field}":{{"a":1}}}}"#);
            let request = ClientDialect::OpenAi.parse(body.as_bytes(), 16).unwrap();
            plan(&policy, policy.find_tenant("acme").unwrap(), request.facts(), NO).map(|plan| plan.models.len())
        };
        let none = serde_json::json!({});
        assert_eq!(run(none.clone(), false, "extra_body"), Ok(1));
        assert_eq!(run(none.clone(), true, "extra_body"), Err(Refusal::UnknownField("extra_body".into())));
        assert_eq!(run(none.clone(), true, "top_k"), Ok(1));
        for field in ["models", "route", "provider", "preset", "fallbacks"] {
            for budget in [false, true] {
                assert_eq!(run(none.clone(), budget, field), Err(Refusal::UnsupportedParam(field.into())));
            }
        }
        let lists = serde_json::json!({"capabilities": ["other", "routing"]});
        let drops = serde_json::json!({"drop_params": true});
        let unsupported = serde_json::json!({"unsupported_params": ["extra_body", "models"], "drop_params": true});
        for model in [lists, drops, unsupported] {
            assert_eq!([run(model.clone(), true, "extra_body"), run(model, true, "models")], [Ok(1), Ok(1)]);
        }
    }
}
