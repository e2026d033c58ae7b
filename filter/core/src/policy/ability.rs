//! What a model can do, and what it may be asked for under a budget.

use crate::config::Capability;
use crate::policy::Model;
use crate::policy::price::{Asked, Price};
use crate::request::needs::{Need, Needs};
use crate::request::strange::Strange;
use crate::service_tier::ServiceTier;

impl Model {
    /// Returns whether the model has `capability`.
    pub fn can(&self, capability: Capability) -> bool {
        self.capabilities.has(capability)
    }

    /// Returns the first of these needs that the model cannot serve.
    pub fn lacks(&self, needs: Needs) -> Option<Need> {
        needs.iter().find(|need| !self.can(need.capability()))
    }

    /// Returns what the model is asked for. A field that it is not sent asks for nothing. `has_budget`: whether a
    /// budget bounds the cost.
    pub fn asked(&self, tier: Option<ServiceTier>, needs: Needs, has_budget: bool) -> Asked {
        let reaches = |need: Need| {
            need.field().is_none_or(|field| self.takes(field) && !self.drops_for_price(field, tier, needs, has_budget))
        };
        Asked {
            tier: self.asked_tier(tier, has_budget),
            needs: if needs.has_fields() { needs.keep(reaches) } else { needs },
        }
    }

    /// Returns the first need that the model's price does not cover.
    pub fn unpriced(&self, asked: Asked) -> Option<Need> {
        let price = self.price.as_ref();
        asked.needs.iter().find(|need| match need.capability() {
            Capability::Other => !self.capabilities.lists(Capability::Other) && !price.is_some_and(Price::is_free),
            _ => price.is_none_or(|price| !price.covers(*need, asked.tier)),
        })
    }

    /// Returns whether the model may not be sent a field that does not simply pass. `has_budget`: whether a budget
    /// bounds the cost.
    pub fn bars(&self, strange: Strange, has_budget: bool) -> bool {
        match strange {
            Strange::Routing => !self.capabilities.lists(Capability::Routing),
            Strange::Unknown => {
                let is_free = self.price.as_ref().is_some_and(Price::is_free);
                has_budget && !is_free && !self.capabilities.lists(Capability::Other)
            }
        }
    }

    /// Returns whether the model is not sent such a field, because it may not be.
    pub fn drops_strange(&self, strange: Option<Strange>, has_budget: bool) -> bool {
        self.drop_params && strange.is_some_and(|strange| self.bars(strange, has_budget))
    }

    /// Returns whether the model is not sent the field `name`, because a budget applies and what the field asks for has
    /// no price. `tier`, `needs`: those of the request.
    pub fn drops_for_price(&self, name: &str, tier: Option<ServiceTier>, needs: Needs, has_budget: bool) -> bool {
        if !self.drop_params || !has_budget {
            return false;
        }
        if name == "service_tier" {
            return self.has_no_price_for(tier);
        }
        let is_search = |need: &Need| need.capability() == Capability::WebSearch && needs.has(*need);
        needs.searches()
            && Need::of_field(name)
                .filter(is_search)
                .is_some_and(|need| self.price.as_ref().is_none_or(|price| !price.covers(need, None)))
    }

    /// Returns whether a request for the service tier cannot go to the model, because a budget applies and the tier has
    /// no price.
    pub fn refuses_tier(&self, tier: Option<ServiceTier>, has_budget: bool) -> bool {
        !self.drop_params && has_budget && self.has_no_price_for(tier)
    }

    fn has_no_price_for(&self, tier: Option<ServiceTier>) -> bool {
        tier.is_some_and(|tier| self.price.as_ref().is_none_or(|price| !price.has(tier)))
    }

    /// Returns the service tier that the model is asked for. `tier`: the one that the request asks for.
    pub fn asked_tier(&self, tier: Option<ServiceTier>, has_budget: bool) -> Option<ServiceTier> {
        let is_dropped = || self.drops_for_price("service_tier", tier, Needs::default(), has_budget);
        tier.filter(|_| self.takes("service_tier") && !is_dropped())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use serde_json::{Value, json};

    const SEARCHES: [Need; 7] = [
        Need::SearchTool,
        Need::WebSearchOptions,
        Need::SearchParameters,
        Need::EnableSearch,
        Need::Plugins,
        Need::WebSearch,
        Need::SearchMode,
    ];

    /// The model `small` with these fields, and neither capabilities nor a price otherwise.
    fn model(fields: Value) -> Model {
        let mut document = fixture::document();
        let model = document["models"]["small"].as_object_mut().unwrap();
        model.remove("capabilities");
        model.insert("price".to_owned(), json!({"input": 2, "output": 8}));
        model.extend(fields.as_object().unwrap().clone());
        let policy = crate::policy::parse::from_value(&document).unwrap().1;
        policy.model(policy.find_model("small").unwrap()).clone()
    }

    fn needs(all: &[Need]) -> Needs {
        let mut needs = Needs::default();
        all.iter().for_each(|need| needs.add(*need));
        needs
    }

    #[test]
    fn a_list_of_capabilities_is_all_that_a_model_has_and_no_list_is_everything() {
        let every = needs(&[Need::Tools, Need::Image, Need::AudioVoice, Need::Plugins, Need::OtherContent]);
        assert_eq!(model(json!({})).lacks(every), None);
        assert_eq!(model(json!({"capabilities": []})).lacks(every), Some(Need::Tools));
        assert_eq!(model(json!({"capabilities": []})).lacks(Needs::default()), None);
        let listed = ["tools", "vision", "audio", "web_search"];
        assert_eq!(model(json!({"capabilities": listed})).lacks(every), Some(Need::OtherContent));
        let all = [&listed[..], &["other"]].concat();
        assert_eq!(model(json!({"capabilities": all})).lacks(every), None);
    }

    #[test]
    fn a_field_that_a_model_is_not_sent_asks_it_for_nothing() {
        let model = model(json!({"unsupported_params": ["audio", "modalities", "plugins"], "drop_params": true}));
        let asked = |all: &[Need], has_budget| model.asked(None, needs(all), has_budget).needs;
        let all = [Need::Video, Need::AudioModality, Need::AudioVoice, Need::OtherModality, Need::Plugins];
        assert_eq!(asked(&all, false), needs(&[Need::Video]));
        // Under a budget, fields without a price are dropped too.
        assert_eq!(asked(&SEARCHES, false), needs(&SEARCHES).keep(|need| need != Need::Plugins));
        assert_eq!(asked(&SEARCHES, true), needs(&[Need::SearchTool]));
        let priced = self::model(json!({"price": {"input": 2, "output": 8, "web_search": 10}, "drop_params": true}));
        assert_eq!(priced.asked(None, needs(&SEARCHES), true).needs, needs(&SEARCHES));
    }

    #[test]
    fn only_a_field_that_asks_for_a_search_is_dropped_and_only_for_want_of_a_price() {
        let lenient = model(json!({"drop_params": true}));
        let search = needs(&[Need::WebSearchOptions, Need::AudioVoice, Need::ProcessorOptions]);
        assert!(lenient.drops_for_price("web_search_options", None, search, true));
        for kept in ["audio", "mm_processor_kwargs", "enable_search", "messages", "service_tier"] {
            assert!(!lenient.drops_for_price(kept, None, search, true), "{kept}");
        }
        assert!(!lenient.drops_for_price("web_search_options", None, search, false));
        assert!(!model(json!({})).drops_for_price("web_search_options", None, search, true));
        let free = model(json!({"drop_params": true, "price": {"input": 0, "output": 0}}));
        assert!(!free.drops_for_price("web_search_options", None, search, true));
    }

    #[test]
    fn a_field_with_which_the_provider_chooses_the_model_must_be_listed_and_an_unknown_one_where_it_may_cost() {
        let bars = |fields: Value| {
            let model = model(fields);
            [Strange::Routing, Strange::Unknown].map(|strange| [false, true].map(|budget| model.bars(strange, budget)))
        };
        assert_eq!(bars(json!({})), [[true, true], [false, true]]);
        assert_eq!(bars(json!({"capabilities": ["routing"]})), [[false, false], [false, true]]);
        assert_eq!(bars(json!({"capabilities": ["other"]})), [[true, true], [false, false]]);
        assert_eq!(bars(json!({"price": {"input": 0, "output": 0}})), [[true, true], [false, false]]);
        let lenient = model(json!({"drop_params": true}));
        assert!(lenient.drops_strange(Some(Strange::Routing), false) && !lenient.drops_strange(None, true));
        assert!(!lenient.drops_strange(Some(Strange::Unknown), false));
        assert!(!model(json!({})).drops_strange(Some(Strange::Routing), true));
    }

    #[test]
    fn what_costs_apart_needs_a_price_and_the_unknown_a_place_in_the_list() {
        let price = json!({"input": 2, "output": 8, "audio_input": 20, "web_search": 10});
        let unpriced = |model: &Model, need| model.unpriced(Asked { tier: None, needs: needs(&[need]) });
        let (text, audio) = (model(json!({})), model(json!({"price": price})));
        for need in SEARCHES.into_iter().chain([Need::AudioInput]) {
            assert_eq!([unpriced(&text, need), unpriced(&audio, need)], [Some(need), None]);
        }
        assert_eq!(unpriced(&audio, Need::AudioVoice), Some(Need::AudioVoice));
        let listing = model(json!({"capabilities": ["other"]}));
        let free = model(json!({"price": {"input": 0, "output": 0}}));
        for need in [Need::OtherContent, Need::OtherTool, Need::OtherModality] {
            assert_eq!([unpriced(&audio, need), unpriced(&listing, need)], [Some(need), None]);
            assert_eq!(unpriced(&free, need), None);
        }
        for need in [Need::Image, Need::Video, Need::File, Need::Tools, Need::JsonSchema, Need::ProcessorOptions] {
            assert_eq!(unpriced(&text, need), None);
        }
    }
}
