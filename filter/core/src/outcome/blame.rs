//! Whose matter a provider's refusal is, and so whether another model may serve the request all the same.

/// Whose matter a failed attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The caller's request: another model would refuse it too.
    Request,
    /// The model's context window: a model with a larger one may serve.
    Context,
    /// The gateway's own credential, account or configuration at this provider: a model of another provider may serve.
    Gateway,
    /// The provider's state, which may pass. The policy lists the statuses that lead to the next model.
    Provider,
}

impl Blame {
    /// Judges a status. All but three of the statuses that are defined for clients speak of what the gateway chose: the
    /// provider, its credential, the path, the model id and the headers. 424 and 499 are what some proxies answer for
    /// their own upstream.
    pub fn of_status(status: u16) -> Self {
        match status {
            400 | 413 | 422 => Self::Request,
            300..=399 | 401..=407 | 410..=412 | 414..=417 | 421 | 423 | 424 | 426 | 428 | 431 | 451 | 499 => {
                Self::Gateway
            }
            _ => Self::Provider,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_of_the_request_is_the_callers() {
        for status in [400, 413, 422] {
            assert_eq!(Blame::of_status(status), Blame::Request, "{status}");
        }
        for status in [301, 302, 307, 401, 402, 403, 404, 405, 406, 407, 410, 415, 421, 424, 426, 431, 451, 499] {
            assert_eq!(Blame::of_status(status), Blame::Gateway, "{status}");
        }
        for status in [0, 200, 408, 409, 420, 425, 429, 498, 500, 503, 529, 599, 600] {
            assert_eq!(Blame::of_status(status), Blame::Provider, "{status}");
        }
    }
}
