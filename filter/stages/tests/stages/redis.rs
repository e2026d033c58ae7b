//! A Redis that grants everything, as its bridge answers.

use crate::fake_host::Call;

/// Returns the arguments of a command sent to the bridge.
pub fn arguments(call: &Call) -> Vec<String> {
    let body = std::str::from_utf8(&call.call.body).unwrap().strip_suffix(".raw").unwrap();
    body.split('/').map(decode).collect()
}

fn decode(argument: &str) -> String {
    let mut out = Vec::new();
    let mut rest = argument.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            out.push(u8::from_str_radix(std::str::from_utf8(&after[..2]).unwrap(), 16).unwrap());
            rest = &after[2..];
        } else {
            out.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Returns the step of the quota script that a call requests, and its reservation.
pub fn step(call: &Call) -> (String, String) {
    let all = arguments(call);
    let keys: usize = all[2].parse().unwrap();
    (all[3 + keys].clone(), all[3].clone())
}

/// Returns the answer of Redis if nothing was used before and there is room.
pub fn done(call: &Call, now_ms: u64) -> Vec<u8> {
    let all = arguments(call);
    let scopes = all[2].parse::<usize>().unwrap() - 1;
    let (operation, key) = step(call);
    let verdict: &[u64] = match &*operation {
        "reserve" => &[1, 0, 0, 0, 0],
        "settle" => &[1],
        _ => &[],
    };
    let mut numbers = vec![now_ms];
    numbers.extend(verdict);
    // The counters of each scope, all zero.
    numbers.extend(std::iter::repeat_n(0, 18 * scopes));
    let mut out = format!("*{}\r\n", numbers.len() + 1);
    let texts = [format!("{operation} {key}")].into_iter().chain(numbers.iter().map(u64::to_string));
    texts.for_each(|text| out.push_str(&format!("${}\r\n{text}\r\n", text.len())));
    out.into_bytes()
}

/// The answer of Redis if it does not know the script.
pub const NO_SCRIPT: &[u8] = b"-NOSCRIPT No matching script. Please use EVAL.\r\n";
