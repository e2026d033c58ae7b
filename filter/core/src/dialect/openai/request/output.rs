//! Fields besides the output limit by which a request can have more output, and fields that the gateway does not know.

use crate::dialect::openai::request::ChatRequest;
use crate::dialect::openai::request::fields::{self, OutputNumber};
use crate::request::facts::InvalidRequest;
use crate::request::integer::{self, Number};
use crate::request::needs::Need;
use crate::request::strange::{Strange, StrangeField};
use crate::wire::json::{Kind, Scanned, Scanner};

impl<'a> ChatRequest<'a> {
    /// Notes a field that no other part of the gateway reads.
    pub(super) fn other_field(&mut self, name: &str, value: &Scanned, bytes: &[u8]) {
        if let Some(need) = Need::of_field(name) {
            return self.facts.needs.add(need);
        }
        let strange = match fields::output_number(name) {
            // A server may read a number in another form, which the gateway does not.
            Some(effect) => (!self.note_number(effect, value, bytes)).then_some(Strange::Unknown),
            None => fields::strange(name),
        };
        if let Some(strange) = strange {
            self.facts.strange.push(StrangeField { member: self.facts.members.len(), strange });
        }
    }

    /// Reads an object whose member `budget` is a number of tokens for thinking. Providers count them beside the output
    /// limit, or as a part of it.
    pub(super) fn thinking(&mut self, s: &mut Scanner<'a>, budget: &[u8]) -> Result<Scanned, InvalidRequest> {
        if s.peek()? != Kind::Object {
            return Ok(s.value()?);
        }
        let start = s.position();
        let mut is_clear = true;
        s.object(|s, key| {
            let name = s.folded_name(&key)?;
            let value = s.value()?;
            if &*name == budget && value.kind != Kind::Null {
                is_clear &= self.note_number(OutputNumber::Besides, &value, s.bytes(&value.span));
            }
            Ok::<_, InvalidRequest>(())
        })?;
        if !is_clear {
            self.facts.strange.push(StrangeField { member: self.facts.members.len(), strange: Strange::Unknown });
        }
        Ok(Scanned { kind: Kind::Object, span: start..s.position() })
    }

    /// Returns whether the value is a number that can be read.
    fn note_number(&mut self, effect: OutputNumber, value: &Scanned, bytes: &[u8]) -> bool {
        let number = match integer::read(bytes) {
            _ if value.kind != Kind::Number => return false,
            Number::Whole { negative: false, value } => value,
            // No limit.
            Number::Whole { negative: true, .. } | Number::TooLarge { .. } => u64::MAX,
            Number::Fraction => return false,
        };
        let facts = &mut self.facts;
        match effect {
            OutputNumber::Answers => facts.generated = facts.generated.max(number),
            OutputNumber::Raises => facts.output.raised = facts.output.raised.max(number),
            OutputNumber::Besides => facts.output.beside = facts.output.beside.saturating_add(number),
        }
        true
    }
}
