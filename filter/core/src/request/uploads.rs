//! The request bodies that are still arriving, by tenant: how many, and how many bytes of them a worker holds.
//!
//! Envoy keeps what has arrived of a body until the request goes on. Without a bound, a tenant could fill Envoy's
//! memory with uploads that it never ends.

use crate::config::RequestBounds;
use crate::ids::TenantId;

/// The unfinished uploads at one worker.
#[derive(Debug, Default)]
pub struct Uploads(Vec<OfTenant>);

/// Those of one tenant.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct OfTenant {
    count: u64,
    bytes: u64,
}

/// One unfinished upload, for [`Uploads::end`].
#[derive(Debug)]
pub struct Upload {
    tenant: TenantId,
    bytes: u64,
}

impl Uploads {
    /// Counts an upload of which `bytes` bytes have arrived. `upload`: what this returned for it before. Returns
    /// `None`, with the upload no longer counted, if the tenant holds more than `bounds` allow.
    pub fn grow(
        &mut self,
        upload: Option<Upload>,
        tenant: TenantId,
        bytes: u64,
        bounds: &RequestBounds,
    ) -> Option<Upload> {
        upload.into_iter().for_each(|upload| self.end(upload));
        let index = tenant.0 as usize;
        if self.0.len() <= index {
            self.0.resize(index + 1, OfTenant::default());
        }
        let of = self.0.get_mut(index)?;
        let grown = OfTenant { count: of.count + 1, bytes: of.bytes.saturating_add(bytes) };
        if grown.count > u64::from(bounds.tenant_uploads) || grown.bytes > bounds.tenant_upload_bytes {
            return None;
        }
        *of = grown;
        Some(Upload { tenant, bytes })
    }

    /// The upload has ended, in one way or another.
    pub fn end(&mut self, upload: Upload) {
        if let Some(of) = self.0.get_mut(upload.tenant.0 as usize) {
            of.count = of.count.saturating_sub(1);
            of.bytes = of.bytes.saturating_sub(upload.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_holds_no_more_than_it_may_and_what_ends_is_free_again() {
        let bounds = RequestBounds { tenant_uploads: 2, tenant_upload_bytes: 100, ..RequestBounds::default() };
        let mut uploads = Uploads::default();
        let (one, other) = (TenantId(0), TenantId(7));
        let first = uploads.grow(None, one, 40, &bounds);
        let second = uploads.grow(None, one, 40, &bounds);
        assert!(first.is_some() && second.is_some() && uploads.grow(None, one, 1, &bounds).is_none());
        assert!(uploads.grow(None, other, 100, &bounds).is_some(), "each tenant has its own");
        let first = uploads.grow(first, one, 60, &bounds);
        assert!(first.is_some());
        assert!(uploads.grow(first, one, 61, &bounds).is_none());
        assert_eq!(uploads.0[0], OfTenant { count: 1, bytes: 40 }, "an upload that is refused is not held");
        uploads.end(second.unwrap());
        assert_eq!(uploads.0[0], OfTenant::default());
    }
}
