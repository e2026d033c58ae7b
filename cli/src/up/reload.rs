//! A new policy into a running Envoy, file by file, so that no request finds half of it.

use super::admin::Admin;
use super::credentials;
use super::envoy::Program;
use crate::render::files::{Files, cds, replace};
use crate::render::inputs::Inputs;
use crate::render::rendering::Rendering;
use crate::render::settings::Settings;
use crate::render::{listener, route};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Clusters that a new policy no longer has stay so long, for the requests that are on their way to them.
const GRACE: Duration = Duration::from_secs(30);
/// How long Envoy may take over one file.
const PATIENCE: Duration = Duration::from_secs(15);

/// What Envoy runs on now.
pub struct Live {
    directory: PathBuf,
    settings: Settings,
    files: Files,
    /// Every cluster that Envoy has, those of earlier policies included.
    clusters: BTreeMap<String, Value>,
    /// When to take away what only earlier policies had.
    prune_at: Option<Instant>,
    /// Names of the clusters of the policy that serves.
    needed: BTreeSet<String>,
    /// Whether keys may be missing.
    allow_missing: bool,
}

impl Live {
    /// Writes the files of the first policy to `directory`.
    ///
    /// # Errors
    /// The file that cannot be written.
    pub fn start(directory: &Path, settings: Settings, inputs: &Inputs, allow_missing: bool) -> std::io::Result<Self> {
        let rendering = Rendering::new(&settings, inputs);
        let (files, clusters) = (rendering.files(), rendering.clusters());
        files.write(directory)?;
        let needed = clusters.keys().cloned().collect();
        Ok(Self { directory: directory.to_owned(), settings, files, clusters, prune_at: None, needed, allow_missing })
    }

    /// Puts a new policy in the place of the old one.
    ///
    /// # Errors
    /// Why not, one line per reason; the old one then keeps serving.
    pub fn reload(
        &mut self,
        envoy: &Program,
        admin: &Admin,
        policy: &Path,
        providers: &Path,
    ) -> Result<(), Vec<String>> {
        let inputs = Inputs::load(policy, providers)
            .map_err(|refused| refused.to_string().lines().map(str::to_owned).collect::<Vec<_>>())?;
        let missing = credentials::missing(&inputs.policy);
        if !self.allow_missing && !missing.is_empty() {
            return Err(missing.iter().map(|line| format!("{}: {line}", policy.display())).collect());
        }
        let (files, clusters) = {
            let rendering = Rendering::new(&self.settings, &inputs);
            (rendering.files(), rendering.clusters())
        };
        if files.get("bootstrap.yaml") != self.files.get("bootstrap.yaml") {
            return Err(vec![format!(
                "{}: limits.max_body_bytes: before Envoy 1.37 it belongs to the listener; restart to change it",
                policy.display()
            )]);
        }
        self.validate(envoy, &inputs).map_err(|lines| {
            lines.into_iter().map(|line| format!("{}: {line}", policy.display())).collect::<Vec<_>>()
        })?;

        let mut united = self.clusters.clone();
        united.extend(clusters.clone());
        self.swap(admin, &files, &united)?;
        self.prune_at = (united.len() > clusters.len()).then(|| Instant::now() + GRACE);
        self.needed = clusters.into_keys().collect();
        self.clusters = united;
        self.files = files;
        Ok(())
    }

    /// Has Envoy check a candidate: the live files' equal, but in a directory of its own and without the module.
    fn validate(&self, envoy: &Program, inputs: &Inputs) -> Result<(), Vec<String>> {
        let candidate = self.directory.join("candidate");
        let settings = Settings { prefix: candidate.display().to_string(), ..self.settings.clone() };
        let written = Rendering::new(&settings, inputs).without_module().write(&candidate);
        let result =
            written.map_err(|e| vec![e.to_string()]).and_then(|()| envoy.validate(&candidate.join("validate.yaml")));
        let _ = std::fs::remove_dir_all(&candidate);
        result
    }

    /// Secrets, then clusters, then what sends requests to them. Puts the old files back if Envoy refuses one.
    fn swap(&self, admin: &Admin, files: &Files, united: &BTreeMap<String, Value>) -> Result<(), Vec<String>> {
        for (path, text) in files.iter().filter(|(path, _)| path.starts_with("sds/")) {
            if self.files.get(path) != Some(text) {
                self.write(path, text)?;
            }
        }
        let command = &self.settings.command;
        let steps = [
            ("cds.yaml", cds(command, united), cds(command, &self.clusters), "cluster_manager.cds.".to_owned()),
            self.step(files, "rds.yaml", format!("http.{}.rds.{}.", listener::NAME, route::NAME)),
            self.step(files, "ecds.yaml", format!("extension_config_discovery.http_filter.{}.", listener::FILTER)),
        ];
        for (i, (path, new, old, stats)) in steps.iter().enumerate() {
            if new == old {
                continue;
            }
            let taken = self.replace(admin, path, new, stats);
            if let Err(why) = taken {
                for (path, _, old, _) in steps.iter().take(i + 1).rev() {
                    self.write(path, old)?;
                }
                return Err(vec![why]);
            }
        }
        Ok(())
    }

    fn step(&self, files: &Files, path: &'static str, stats: String) -> (&'static str, String, String, String) {
        let text = |files: &Files| files.get(path).unwrap_or_default().to_owned();
        (path, text(files), text(&self.files), stats)
    }

    fn write(&self, path: &str, text: &str) -> Result<(), Vec<String>> {
        replace(&self.directory.join(path), text).map_err(|e| vec![e.to_string()])
    }

    /// Replaces one file and waits until Envoy has taken or refused it.
    fn replace(&self, admin: &Admin, path: &str, text: &str, prefix: &str) -> Result<(), String> {
        let count = |name: &str| admin.stats(prefix).get(name).copied().unwrap_or(0);
        let (taken, refused) = (count("update_success"), count("update_rejected"));
        replace(&self.directory.join(path), text).map_err(|e| e.to_string())?;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
            if count("update_rejected") > refused {
                return Err(format!("envoy: it refuses {path}; its log says why"));
            }
            let warming = || admin.stats("cluster_manager.").get("warming_clusters").copied().unwrap_or(0);
            if count("update_success") > taken && warming() == 0 {
                return Ok(());
            }
        }
        Err(format!("envoy: it has not taken {path} within {} s", PATIENCE.as_secs()))
    }

    /// Takes away the clusters of earlier policies, once nothing should need them any more.
    pub fn prune(&mut self, admin: &Admin) {
        if self.prune_at.is_none_or(|at| Instant::now() < at) {
            return;
        }
        self.prune_at = None;
        if let Some(text) = self.files.get("cds.yaml")
            && let Err(why) = self.replace(admin, "cds.yaml", text, "cluster_manager.cds.")
        {
            eprintln!("{why}");
            return;
        }
        let needed = &self.needed;
        self.clusters.retain(|name, _| needed.contains(name));
    }
}
