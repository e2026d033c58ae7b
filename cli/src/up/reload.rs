//! Applies a new policy to a running Envoy file by file, so that no request sees half of it.

use super::admin::Admin;
use super::credentials;
use super::envoy::Program;
use super::retired::DrainingClusters;
use super::say::say;
use super::validation::Validation;
use crate::policy_file::Origin;
use crate::render::credential::is_sds_file;
use crate::render::files::{Files, cds, replace};
use crate::render::gateway_args::GatewayArgs;
use crate::render::inputs::{Inputs, Refused};
use crate::render::line_break::UntrimmedKeys;
use crate::render::rendering::Rendering;
use crate::render::settings::Settings;
use crate::render::{listener, route, wasm};
use pointsman_core::policy::Policy;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a client may take to send a request: the listener's `request_timeout`. The gateway stage holds the body, so
/// the request's own timer starts after it.
const UPLOAD: Duration = Duration::from_secs(300);
/// How long Envoy may take to apply one file.
const PATIENCE: Duration = Duration::from_secs(15);
/// The delay before the removal of clusters is tried again.
const NEXT_TRY: Duration = Duration::from_secs(60);

/// Prefix of the counters of `cds.yaml`.
const CDS_STATS: &str = "cluster_manager.cds.";

/// Returns the prefix of the counters of `rds.yaml`.
fn rds_stats() -> String {
    format!("http.{}.rds.{}.", listener::NAME, route::NAME)
}

/// Returns the prefix of the counters of `ecds.yaml`.
fn ecds_stats() -> String {
    format!("extension_config_discovery.http_filter.{}.", wasm::FILTER)
}

/// Makes sure that an Envoy, just started, has applied all of its files: it starts without those that it refuses.
///
/// # Errors
/// The files that it has not applied.
pub fn applied(admin: &Admin) -> Result<(), String> {
    let files = [("cds.yaml", CDS_STATS.to_owned()), ("rds.yaml", rds_stats()), ("ecds.yaml", ecds_stats())];
    let is_applied = |prefix: &str| {
        let stats = admin.stats(prefix).unwrap_or_default();
        let of = |name: &str| stats.get(name).copied().unwrap_or(0);
        of("update_success") > 0 && of("update_rejected") == 0
    };
    let refused: Vec<_> = files.iter().filter(|(_, prefix)| !is_applied(prefix)).map(|(path, _)| *path).collect();
    if refused.is_empty() {
        return Ok(());
    }
    Err(format!("Envoy rejected {}; see its messages above", refused.join(" and ")))
}

/// The configuration that Envoy runs on.
pub struct RunningConfig {
    directory: PathBuf,
    settings: Settings,
    files: Files,
    /// Every cluster that Envoy has, including those of earlier policies.
    clusters: BTreeMap<String, Value>,
    /// Names of the clusters of the current policy.
    needed: BTreeSet<String>,
    /// How long a request under the current policy can last.
    longest: Duration,
    /// Clusters that requests of earlier policies may need.
    retired: DrainingClusters,
    /// Whether the current policy or an earlier one sends settlements to Redis.
    awaits_redis: bool,
    /// Whether keys may be missing.
    allow_missing: bool,
    /// The key files of the current policy, if Envoy does not trim them.
    pub keys: UntrimmedKeys,
}

/// Why a new policy was not applied.
pub enum NotApplied {
    /// The reasons, one line each. The old policy keeps serving.
    Refused(Vec<String>),
    /// `up` was stopped meanwhile.
    Stopped,
}

impl From<Vec<String>> for NotApplied {
    fn from(lines: Vec<String>) -> Self {
        Self::Refused(lines)
    }
}

/// One file to replace.
struct Step<'a> {
    path: &'a str,
    new: &'a str,
    /// `None` if there was no file.
    old: Option<&'a str>,
    /// Prefix of the counters by which Envoy reports that it has applied the file. `None` for a secret, which is not
    /// waited for: a cluster that needs it waits for it.
    stats: Option<String>,
}

/// Returns how long a request under this policy can last, from its first byte to its last.
fn longest(policy: &Policy) -> Duration {
    UPLOAD + Duration::from_millis(policy.longest_request_ms())
}

impl RunningConfig {
    /// Writes the files of the first policy to `directory`.
    ///
    /// # Errors
    /// The file that cannot be written.
    pub fn start(directory: &Path, settings: Settings, inputs: &Inputs, allow_missing: bool) -> std::io::Result<Self> {
        let rendering = Rendering::new(&settings, inputs);
        let (files, clusters) = (rendering.files(), rendering.clusters());
        let keys = UntrimmedKeys::of(&inputs.policy, settings.version);
        files.write(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
            settings,
            files,
            needed: clusters.keys().cloned().collect(),
            clusters,
            longest: longest(&inputs.policy),
            retired: DrainingClusters::default(),
            awaits_redis: inputs.policy.redis.is_some(),
            allow_missing,
            keys,
        })
    }

    /// Replaces the old policy with a new one.
    ///
    /// # Errors
    /// Why it was not applied. The old policy then keeps serving, unless `stopped`.
    pub fn reload(
        &mut self,
        envoy: &Program,
        admin: &Admin,
        from: &GatewayArgs,
        stopped: &dyn Fn() -> bool,
    ) -> Result<(), NotApplied> {
        let lines = |refused: Refused| refused.to_string().lines().map(str::to_owned).collect::<Vec<_>>();
        let inputs = from.inputs(Origin::RegularFile).map_err(lines)?;
        let named = |line: &String| format!("{}: {line}", from.policy.display());
        let mut missing = credentials::missing(&inputs.policy);
        let keys = UntrimmedKeys::of(&inputs.policy, self.settings.version);
        missing.extend(keys.faults());
        if !self.allow_missing && !missing.is_empty() {
            return Err(NotApplied::Refused(missing.iter().map(named).collect()));
        }
        let (files, clusters) = {
            let rendering = Rendering::new(&self.settings, &inputs);
            (rendering.files(), rendering.clusters())
        };
        if files.get("bootstrap.yaml") != self.files.get("bootstrap.yaml") {
            let line = "request.max_body_bytes: before Envoy 1.37 this is a listener setting; restart to change it";
            return Err(NotApplied::Refused(vec![named(&line.to_owned())]));
        }
        let validation =
            Validation { envoy, settings: &self.settings, directory: &self.directory, policy: &from.policy };
        let validated = validation.run(&inputs, stopped);
        if stopped() {
            return Err(NotApplied::Stopped);
        }
        validated?;

        let mut united = self.clusters.clone();
        united.extend(clusters.clone());
        self.swap(admin, &files, &united, stopped)?;
        self.retired.replaced(self.needed.iter(), self.longest, Instant::now());
        self.longest = longest(&inputs.policy);
        self.needed = clusters.into_keys().collect();
        self.clusters = united;
        self.files = files;
        self.keys = keys;
        self.awaits_redis |= inputs.policy.redis.is_some();
        inputs.warnings.iter().for_each(say);
        credentials::suspicious(&inputs.policy).iter().for_each(|line| say(format_args!("warning: {line}")));
        Ok(())
    }

    /// Returns whether what requests have used may still be on its way to Redis when they end.
    pub fn awaits_redis(&self) -> bool {
        self.awaits_redis
    }

    /// Replaces secrets, then clusters, then what sends requests to the clusters. Restores all old files if one cannot
    /// be written or Envoy refuses it.
    fn swap(
        &self,
        admin: &Admin,
        files: &Files,
        united: &BTreeMap<String, Value>,
        stopped: &dyn Fn() -> bool,
    ) -> Result<(), NotApplied> {
        let command = &self.settings.command;
        let (new_cds, old_cds) = (cds(command, united), cds(command, &self.clusters));
        let step = |path, new, stats| Step { path, new, old: self.files.get(path), stats };
        let discovery = |path, stats| step(path, files.get(path).unwrap_or_default(), Some(stats));
        let secrets = files.iter().filter(|(path, _)| is_sds_file(path));
        let mut steps: Vec<_> = secrets.map(|(path, text)| step(path, text, None)).collect();
        steps.extend([
            Step { path: "cds.yaml", new: &new_cds, old: Some(&old_cds), stats: Some(CDS_STATS.to_owned()) },
            discovery("rds.yaml", rds_stats()),
            discovery("ecds.yaml", ecds_stats()),
        ]);
        steps.retain(|step| step.old != Some(step.new));
        for (i, Step { path, new, stats, .. }) in steps.iter().enumerate() {
            let taken = match stats {
                Some(stats) => self.replace(admin, path, new, stats, stopped),
                None => self.write(path, new).map_err(|line| NotApplied::Refused(vec![line])),
            };
            if let Err(NotApplied::Refused(mut why)) = taken {
                why.extend(steps.iter().take(i + 1).rev().filter_map(|step| self.put_back(step).err()));
                return Err(NotApplied::Refused(why));
            }
            taken?;
        }
        Ok(())
    }

    fn put_back(&self, step: &Step) -> Result<(), String> {
        match step.old {
            Some(old) => self.write(step.path, old),
            // No resource refers to the file.
            None => std::fs::remove_file(self.directory.join(step.path)).map_err(|e| format!("{}: {e}", step.path)),
        }
    }

    /// Puts back the files that are missing: Envoy reads a secret's again for each new cluster. Returns what to say.
    pub fn put_back_missing(&self) -> Vec<String> {
        let watched = |path: &str| is_sds_file(path) || ["cds.yaml", "rds.yaml", "ecds.yaml"].contains(&path);
        let missing = |path: &str| std::fs::metadata(self.directory.join(path)).is_err_and(|e| e.kind() == NotFound);
        let put_back = |(path, text): (&str, &str)| {
            let written = match path {
                "cds.yaml" => self.write(path, &cds(&self.settings.command, &self.clusters)),
                _ => self.write(path, text),
            };
            let file = self.directory.join(path);
            written.map_or_else(|e| e, |()| format!("warning: {} was removed; put back", file.display()))
        };
        self.files.iter().filter(|(path, _)| watched(path) && missing(path)).map(put_back).collect()
    }

    fn write(&self, path: &str, text: &str) -> Result<(), String> {
        replace(&self.directory.join(path), text).map_err(|e| e.to_string())
    }

    /// Replaces one file and waits until Envoy has applied or refused it.
    fn replace(
        &self,
        admin: &Admin,
        path: &str,
        text: &str,
        prefix: &str,
        stopped: &dyn Fn() -> bool,
    ) -> Result<(), NotApplied> {
        let refused = |line: String| NotApplied::Refused(vec![line]);
        let counts = || {
            let (own, all) = (admin.stats(prefix)?, admin.stats("cluster_manager.")?);
            let of = |stats: &BTreeMap<String, u64>, name: &str| stats.get(name).copied().unwrap_or(0);
            Some((of(&own, "update_success"), of(&own, "update_rejected"), of(&all, "warming_clusters")))
        };
        let start = Instant::now();
        // A failure to read the counters is not read as 0: without a baseline, no change can be detected.
        let (taken_before, refused_before, _) = loop {
            if let Some(before) = counts() {
                break before;
            }
            if stopped() {
                return Err(NotApplied::Stopped);
            }
            if start.elapsed() >= PATIENCE {
                return Err(refused("envoy: the admin interface does not respond".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        self.write(path, text).map_err(refused)?;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
            if stopped() {
                return Err(NotApplied::Stopped);
            }
            let Some((taken, rejected, warming)) = counts() else { continue };
            if rejected > refused_before {
                return Err(refused(format!("envoy: rejected {path}; see the Envoy log for the reason")));
            }
            if taken > taken_before && warming == 0 {
                return Ok(());
            }
        }
        Err(refused(format!("envoy: did not load {path} within {} s", PATIENCE.as_secs())))
    }

    /// Removes the clusters of earlier policies once no request can need them.
    pub fn prune(&mut self, admin: &Admin, stopped: &dyn Fn() -> bool) {
        let now = Instant::now();
        let is_kept = |name: &String| self.needed.contains(name) || self.retired.may_be_needed(name, now);
        if self.clusters.keys().all(is_kept) {
            return;
        }
        let (rest, over): (BTreeMap<_, _>, BTreeMap<_, _>) =
            self.clusters.clone().into_iter().partition(|(name, _)| is_kept(name));
        let text = cds(&self.settings.command, &rest);
        match self.replace(admin, "cds.yaml", &text, CDS_STATS, stopped) {
            Ok(()) => self.clusters = rest,
            Err(NotApplied::Stopped) => {}
            Err(NotApplied::Refused(lines)) => {
                lines.iter().for_each(say);
                if let Err(line) = self.write("cds.yaml", &cds(&self.settings.command, &self.clusters)) {
                    say(line);
                }
                self.retired.replaced(over.keys(), NEXT_TRY, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(resilience: &str, task: &str) -> Policy {
        let text = format!(
            r#"{{"providers": {{"a": {{"dialect": "openai", "data": "internal"}}}},
            "models": {{"m": {{"provider": "a", "model": "x", "level": "mid", "context": 100,
            "max_output_tokens": 10}}}},
            "resilience": {{{resilience}}}, "tasks": {{"t": {{"primary": "m"{task}}}}},
            "tiers": {{"pro": {{"models": ["m"]}}}},
            "tenants": {{"acme": {{"tier": "pro", "keys": ["sha256:{}"]}}}}}}"#,
            "0".repeat(64)
        );
        pointsman_core::policy::parse::from_json(text.as_bytes()).unwrap()
    }

    #[test]
    fn clusters_are_kept_for_as_long_as_the_policys_longest_request() {
        let at_least = |policy: &Policy, request| {
            let (longest, least) = (longest(policy), UPLOAD + Duration::from_secs(request));
            assert!((least..least + Duration::from_secs(120)).contains(&longest), "{longest:?}");
        };
        at_least(&policy("", ""), 600);
        at_least(&policy(r#""request_timeout": "2s""#, ""), 2);
        at_least(&policy(r#""request_timeout": "2s""#, r#", "resilience": {"request_timeout": "3h"}"#), 10_800);
        // A client may wait this long for another request's answer before its own request is sent.
        at_least(&policy(r#""request_timeout": "2s""#, r#", "cache": {"ttl": "1h"}"#), 2 + 30);
    }

    #[test]
    fn an_upload_may_take_as_long_as_the_listener_says() {
        let rendered = include_str!("../../../envoy/rendered/minimal/bootstrap.yaml");
        let value = rendered.lines().find_map(|line| line.trim().strip_prefix("request_timeout: "));
        assert_eq!(value.map(|value| value.trim_matches('"')), Some(&*format!("{}s", UPLOAD.as_secs())));
    }
}
