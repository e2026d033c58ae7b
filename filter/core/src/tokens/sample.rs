//! Estimates a prompt from a sample, once the prompt itself is gone.

use super::bound;
use super::scaled_tokens;
use std::sync::OnceLock;

/// Parts of a prompt, and how much of it they are.
#[derive(Debug, Default)]
pub struct Sample {
    text: Vec<u8>,
    /// Tokens × 64 of the sample and of the whole prompt, by classes of characters.
    scaled: [u64; 2],
    tokens: OnceLock<u64>,
}

impl Sample {
    /// How many parts a sample has, and their length in bytes.
    const PARTS: usize = 8;
    const PART: usize = 512;

    /// Takes parts at equal distances, the first one after `phase`, a number that the caller cannot choose. Takes all
    /// of a short prompt.
    pub fn take(prompt: &[&[u8]], phase: u64) -> Self {
        let length: usize = prompt.iter().map(|text| text.len()).sum();
        let distance = length / Self::PARTS;
        let mut text = Vec::with_capacity(length.min(Self::PARTS * Self::PART));
        match distance.checked_sub(Self::PART) {
            None => copy(prompt, 0, length, &mut text),
            Some(most) => {
                let first = usize::try_from(phase % (most as u64 + 1)).unwrap_or_default();
                (0..Self::PARTS).for_each(|part| copy(prompt, first + part * distance, Self::PART, &mut text));
            }
        }
        let all = prompt.iter().map(|text| scaled_tokens(text)).sum();
        Self { scaled: [scaled_tokens(&text), all], text, tokens: OnceLock::new() }
    }

    /// Returns the estimate: the bound of the sample without its escapes, scaled to the whole.
    pub fn tokens(&self) -> u64 {
        *self.tokens.get_or_init(|| {
            let [sample, all] = self.scaled.map(u128::from);
            let tokens = u128::from(bound::tokens(&bound::decoded(&self.text))) * all / sample.max(1);
            u64::try_from(tokens).unwrap_or(u64::MAX)
        })
    }
}

/// Appends `length` bytes of these texts from `at` on.
fn copy(texts: &[&[u8]], at: usize, length: usize, to: &mut Vec<u8>) {
    let (mut at, mut left) = (at, length);
    for text in texts {
        let part = text.get(at..).unwrap_or_default();
        let part = part.get(..left).unwrap_or(part);
        to.extend_from_slice(part);
        left -= part.len();
        at = at.saturating_sub(text.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_spread_over_the_prompt() {
        let texts: Vec<Vec<u8>> = (0..100u8).map(|n| vec![n; 997]).collect();
        let texts: Vec<&[u8]> = texts.iter().map(|text| &**text).collect();
        for phase in [0, 1, 12_345, u64::MAX] {
            let sample = Sample::take(&texts, phase).text;
            assert_eq!(sample.len(), Sample::PARTS * Sample::PART);
            let starts: Vec<u8> = sample.chunks(Sample::PART).map(|part| part[0]).collect();
            assert!(starts.windows(2).all(|pair| (12..=13).contains(&(pair[1] - pair[0]))), "{starts:?}");
        }
        assert_eq!(Sample::take(&texts[..4], 7).text, texts[..4].concat());
    }

    #[test]
    fn the_estimate_is_near_the_bound_of_the_whole() {
        let ordinary = "The train leaves at seven, and Ann waits on the platform for her friend.\n".repeat(1000);
        let random: String = (0..60_000u32)
            .map(|n| match n.wrapping_mul(2_654_435_761) >> 24 {
                letter @ 0..104 => char::from((letter % 52) as u8 + if letter < 52 { b'A' } else { b'G' }),
                _ => ' ',
            })
            .collect();
        for text in [&ordinary[..50], &ordinary, &random] {
            let (estimate, bound) = (Sample::take(&[text.as_bytes()], 99).tokens(), bound::tokens(text.as_bytes()));
            assert!(estimate.abs_diff(bound) * 20 <= bound + 20, "{estimate}, {bound}");
        }
        assert_eq!(Sample::take(&[], 0).tokens(), 0);
    }

    #[test]
    fn escapes_count_as_what_they_stand_for() {
        let text = "Поезд отправляется в семь, и Анна ждёт на платформе. 🚂 ".repeat(100);
        let escape = |unit: u16| match unit {
            0x20..0x7f => char::from(unit as u8).to_string(),
            _ => format!("\\u{unit:04x}"),
        };
        let escaped: String = text.encode_utf16().map(escape).collect();
        for phase in [0, 7, 4321] {
            let [plain, escaped] = [&text, &escaped].map(|text| Sample::take(&[text.as_bytes()], phase).tokens());
            // Up to two escapes are cut at each edge of the eight parts.
            assert!(plain.abs_diff(escaped) * 10 <= plain, "{plain}, {escaped}");
        }
    }
}
