//! The arguments that only a mesh needs: where its gateway is, which host it serves, and where the module comes from.

use super::image::{Image, ImageDigest, ImageName};
use crate::render::object::{is_label, is_label_key, is_label_value, is_subdomain};
use clap::ValueEnum;

/// The longest `--name`: with its longest suffix, `-bootstrap`, it is the name of a volume, which has 63 characters.
const MAX_NAME: usize = 53;

/// Where in the mesh Pointsman runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum At {
    /// A gateway that callers outside the mesh reach.
    Ingress,
    /// A gateway through which workloads leave the mesh (Istio).
    Egress,
    /// The sidecar of the calling workload (Istio).
    Sidecar,
}

/// Flags for the targets `istio` and `envoy-gateway`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of --target istio and envoy-gateway")]
pub struct MeshArgs {
    /// Where in the mesh Pointsman runs (Istio). Envoy Gateway is always an ingress gateway.
    #[arg(long, value_enum, default_value = "ingress")]
    pub at: At,
    /// The host name that callers use. Repeat it for more. At an egress gateway or in a sidecar:
    /// SERVICE.NAMESPACE.svc.cluster.local of a Service that `render` writes.
    #[arg(long, value_name = "NAME", value_parser = host)]
    pub host: Vec<String>,
    /// Namespace of the gateway, or with `--at sidecar` of the calling workload.
    #[arg(long, value_name = "NAME", value_parser = label)]
    pub namespace: Option<String>,
    /// Name of the objects that `render` writes.
    #[arg(long, value_name = "NAME", value_parser = name, default_value = "pointsman")]
    pub name: String,
    /// Image with the module, such as registry.example.com/pointsman.
    #[arg(long, value_name = "IMAGE", requires = "image_digest")]
    pub image: Option<ImageName>,
    /// Digest of that image's manifest.
    #[arg(long, value_name = "sha256:…", requires = "image")]
    pub image_digest: Option<ImageDigest>,
    /// Namespace of the gateway's pods (Envoy Gateway).
    #[arg(long, value_name = "NAME", value_parser = label, default_value = "envoy-gateway-system")]
    pub proxy_namespace: String,
    /// Labels of the pods (Istio). Repeat it for more. Default: istio=ingressgateway or istio=egressgateway, and with
    /// `--gateway` the label that its pods have.
    #[arg(long, value_name = "KEY=VALUE", value_parser = selector)]
    pub selector: Vec<(String, String)>,
    /// Port at which callers reach the host (Istio). Default: 443 at an ingress gateway, else 80.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// The HTTP filter before which Pointsman goes. With an InferencePool at the gateway: envoy.filters.http.ext_proc.
    #[arg(long, value_name = "FILTER", value_parser = filter, default_value = ROUTER)]
    pub before: String,
    /// Host name of the egress gateway's Service (Istio, `--at egress`).
    #[arg(long, value_name = "NAME", value_parser = host)]
    pub egress_service: Option<String>,
    /// Domain of the cluster's Services (Istio, `--at egress` and `--at sidecar`).
    #[arg(long, value_name = "DOMAIN", value_parser = host, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Name of the Gateway of the Kubernetes Gateway API. Envoy Gateway needs it. For Istio: if the ingress gateway's
    /// pods are made from such a Gateway.
    #[arg(long, value_name = "NAME", value_parser = subdomain)]
    pub gateway: Option<String>,
    /// Name of the Gateway's listener (Envoy Gateway).
    #[arg(long, value_name = "NAME", value_parser = subdomain)]
    pub listener: Option<String>,
}

/// Name of the last HTTP filter of every connection manager.
pub const ROUTER: &str = "envoy.filters.http.router";

impl MeshArgs {
    /// Returns the image with the module.
    ///
    /// # Errors
    /// If no image is given. There is no default, because each installation has its own registry.
    pub fn image(&self) -> Result<Image, String> {
        match (&self.image, &self.image_digest) {
            (Some(name), Some(digest)) => Ok(Image::new(name.clone(), digest.clone())),
            _ => Err("no image with the module; push it to your registry, and name it with --image and --image-digest"
                .to_owned()),
        }
    }

    /// Returns the host names.
    ///
    /// # Errors
    /// If no host name is given, or one twice: Envoy refuses routes with a duplicate domain.
    pub fn hosts(&self) -> Result<&[String], String> {
        match self.host.iter().enumerate().find(|(i, host)| self.host.iter().take(*i).any(|before| before == *host)) {
            Some((_, twice)) => Err(format!("--host {twice} is given twice")),
            None if self.host.is_empty() => Err(missing("--host", "the name that callers use")),
            None => Ok(&self.host),
        }
    }

    /// Returns the namespace.
    ///
    /// # Errors
    /// If no namespace is given.
    pub fn namespace(&self) -> Result<&str, String> {
        self.namespace.as_deref().ok_or_else(|| missing("--namespace", "where the gateway's pods are"))
    }
}

/// Says which flag is missing.
pub fn missing(flag: &str, meaning: &str) -> String {
    format!("{flag} is required with this target: {meaning}")
}

/// Parses a host name. A wildcard would take over the other hosts of a listener.
fn host(text: &str) -> Result<String, String> {
    if is_subdomain(text) {
        Ok(text.to_owned())
    } else {
        Err("expected a host name in lowercase letters, such as llm.example.com".to_owned())
    }
}

/// Parses the name that every object's name begins with.
fn name(text: &str) -> Result<String, String> {
    match text.len() {
        ..=MAX_NAME => label(text),
        _ => Err(format!("expected at most {MAX_NAME} characters: suffixes make it the names of volumes")),
    }
}

/// Parses the name of an object whose kind allows dots.
fn subdomain(text: &str) -> Result<String, String> {
    let expected = "expected lowercase letters, digits, - and .";
    if is_subdomain(text) { Ok(text.to_owned()) } else { Err(expected.to_owned()) }
}

/// Parses the name of an object.
fn label(text: &str) -> Result<String, String> {
    if is_label(text) { Ok(text.to_owned()) } else { Err("expected lowercase letters, digits and -".to_owned()) }
}

/// Parses the name of an HTTP filter. Envoy takes any text; control planes use these characters, as in
/// `envoy.filters.http.ext_proc/envoyextensionpolicy/ai/pool/extproc/0`. In a JSONPath, a quotation mark would end it.
fn filter(text: &str) -> Result<String, String> {
    let is_inner = |b: u8| b.is_ascii_alphanumeric() || b"._/:-".contains(&b);
    match text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.len() <= 512
        && text.bytes().all(is_inner)
    {
        true => Ok(text.to_owned()),
        false => Err("expected the name of an HTTP filter, such as envoy.filters.http.ext_proc".to_owned()),
    }
}

/// Parses a label and its value.
fn selector(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if is_label_key(key) && is_label_value(value) => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected the KEY=VALUE of one label, such as istio=ingressgateway".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for right in ["llm.example.com", "localhost", "a-1.b"] {
            assert_eq!(host(right).as_deref(), Ok(right));
        }
        for wrong in ["*", "*.example.com", "https://a.b", "a.b:80", "A.b", "a..b", "-a", ""] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn filters() {
        let long = "envoy.filters.http.ext_proc/envoyextensionpolicy/ai/pool/extproc/0";
        for right in [ROUTER, long, "istio.stats", "ns.plugin-1"] {
            assert_eq!(filter(right).as_deref(), Ok(right));
        }
        for wrong in ["", "a b", "a'", "x')]", "\"", "a\nb", "a\u{2028}b", ".a", "$", "a*"] {
            assert!(filter(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_and_labels() {
        assert!(name(&"a".repeat(53)).is_ok() && name(&"a".repeat(54)).is_err() && name("a.b").is_err());
        assert!(subdomain("eg.example.com").is_ok() && subdomain("eg_1").is_err());
        assert_eq!(selector("a.b/c=d"), Ok(("a.b/c".to_owned(), "d".to_owned())));
        for wrong in ["a", "a=", "=b", "a=b=c", "a b=c", "a=b,c=d", "-a=b", "a=b-"] {
            assert!(selector(wrong).is_err(), "{wrong}");
        }
    }
}
