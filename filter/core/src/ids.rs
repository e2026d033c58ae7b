//! Indices by which decisions name the parts of a policy. Only the policy that an id indexes creates it.

macro_rules! index {
    ($(#[$doc:meta] $name:ident($int:ty);)*) => {$(
        #[$doc]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub(crate) $int);
    )*};
}

index! {
    /// Index of a provider in its policy.
    ProviderId(u16);
    /// Index of a model in its policy.
    ModelId(u16);
    /// Index of a task in its policy.
    TaskId(u16);
    /// Index of a tier in its policy.
    TierId(u16);
    /// Index of a tenant in its policy.
    TenantId(u32);
    /// Index of a set of limits in its policy.
    QuotaId(u32);
}
