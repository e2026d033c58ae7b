//! Tests of the estimate against plain counting, and of the learned correction.

use super::*;

#[test]
fn a_sum_is_of_all_sixteen_bytes() {
    for bytes in [[255; 16], [0; 16], std::array::from_fn(|i| 1 << (i % 8)), std::array::from_fn(|i| 17 * i as u8)] {
        assert_eq!(total(u8x16::new(bytes)), bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>());
    }
    for i in 0..16 {
        let mut bytes = [0; 16];
        bytes[i] = 200;
        assert_eq!(total(u8x16::new(bytes)), 200, "{i}");
    }
}

/// Counts the same, byte by byte.
fn plainly(text: &[u8]) -> u64 {
    let (mut sum, mut inside) = (0, false);
    for block in text.as_chunks::<16>().0 {
        let letters = block.iter().filter(|byte| byte.is_ascii_alphabetic()).count() as u64;
        let breaks = block.iter().filter(|byte| !byte.is_ascii_alphanumeric()).count();
        if breaks <= 1 && !block.contains(&b' ') && block.is_ascii() {
            sum += letters * (weight::UNBROKEN - weight::LETTER);
        }
    }
    for byte in text {
        let letter = byte.is_ascii_alphabetic();
        sum += match byte {
            b'A'..=b'Z' | b'a'..=b'z' => weight::LETTER,
            b' ' => weight::SPACE,
            b'\\' => weight::ESCAPE,
            0..0x80 => weight::SIGN,
            0x80..0xc0 => 0,
            0xc0..0xca => weight::MARKED,
            0xca..0xe0 => weight::TWO_BYTES,
            0xe1 => weight::TWICE_MARKED,
            0xe0..0xf0 => weight::THREE_BYTES,
            0xf0..=0xff => weight::FOUR_BYTES,
        };
        if letter && !inside {
            sum += weight::WORD;
        }
        inside = letter || *byte >= 0x80;
    }
    sum
}

#[test]
fn sixteen_bytes_at_a_time_count_as_one_by_one() {
    let text = "Hello \\n World, çé 123 đường 中文 😀 {\"a\":[1,2]}\n\
        \t ÀB aGVsbG8gd29ybGQ+aGVsbG8gd29ybGQ/aGVsbG8gd29ybGQ abcdefghijklmnopqrstuvwxyzabcdefghijkl"
        .repeat(300);
    let bytes = text.as_bytes();
    for start in 0..40 {
        for len in (0..120).chain([4079, 4080, 4081, 8160, 9000]) {
            let piece = &bytes[start..(start + len).min(bytes.len())];
            assert_eq!(scaled_tokens(piece), plainly(piece), "{start}..{len}");
        }
    }
    // Much of this is counted four blocks at a time, alternating with text that is not.
    let prose = "The train leaves at 7 in the \\nmorning and Ann waits on platform B2 for it to come in. ";
    let odd = ["", "\u{e9}", "antidisestablishmentarianism", "\u{4e2d}\u{6587}"];
    let text: String = (0..400).map(|n| format!("{}{prose}", if n % 7 == 0 { odd[n / 7 % 4] } else { "" })).collect();
    let windows = |text: &[u8]| {
        let (patterns, sums, high) = (Patterns::new(), Sums::NONE, HighSums::NONE);
        let mut piece = Piece { patterns, sums, high, letters: 0, spaces: 0, words: 0, unbroken: 0, inside: false };
        text.as_chunks::<64>().0.iter().filter(|window| piece.window(window)).count()
    };
    for start in 0..200 {
        let piece = &text.as_bytes()[start..];
        assert_eq!(scaled_tokens(piece), plainly(piece), "{start}");
        let (at_once, all) = (windows(piece), piece.len() / 64);
        assert!(at_once > all / 4 && at_once < all, "{at_once} of {all}");
    }
    let all: Vec<u8> = (0..=255u8).cycle().take(20_000).collect();
    assert_eq!(scaled_tokens(&all), plainly(&all));
    assert_eq!(tokens(b""), 0);
}

#[test]
fn a_correction_follows_the_provider_up_and_down_again() {
    let learn = |from: Correction, counted, times| (0..times).fold(from, |known, _| known.learn(1000, counted));
    let start = Correction::default();
    assert_eq!(start.apply(100), 100);
    let risen = learn(start, 1500, 20);
    assert!((1485..=1500).contains(&risen.apply(1000)), "{risen:?}");
    let fallen = learn(risen, 1000, 80);
    assert!((1000..=1012).contains(&fallen.apply(1000)), "{fallen:?}");
    // It stays within its bounds, whatever the usage.
    assert_eq!(learn(start, u64::MAX, 1000).apply(1000), 2000);
    assert!(learn(risen, 1, 1000).apply(1024) - 1024 < 8);
    assert_eq!(learn(start, 1, 1000), start);
    assert_eq!((start.learn(63, 1000), start.learn(1000, 0)), (start, start));
    assert_eq!(Correction::decode(&risen.encode()), risen);
    assert_eq!(Correction::decode(b"").apply(7), 7);
    assert_eq!(Correction::decode(&[255; 4]).apply(10), 20);
    assert_eq!(Correction::decode(&[0; 4]), start);
}

#[test]
fn one_answer_moves_little_and_few_odd_ones_move_nothing_for_good() {
    let start = Correction::default();
    assert_eq!(start.learn(1000, 1_000_000).apply(1024), 1024 + 32);
    assert_eq!(start.learn(1000, 1_000_000).learn(1_000_000, 1).apply(1024), 1024 + 32 - 8);
    // One tenant's prompts are only white space, or only rare characters. It sends one request in ten.
    for (odd, most_off) in [(30, 20), (9000, 70)] {
        let mut correction = start;
        for round in 0..10_000 {
            correction = correction.learn(1000, if round % 10 == 0 { odd } else { 1000 });
            assert!(correction.apply(1000).abs_diff(1000) <= most_off, "{odd}: {correction:?}");
        }
    }
}
