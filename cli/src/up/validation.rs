//! Has Envoy check a policy and its providers before they are used, and names the operator's file that it objects to.

use super::envoy::{Program, Verdict};
use super::objection::Objection;
use crate::render::files::Files;
use crate::render::inputs::Inputs;
use crate::render::rendering::{Rendering, cluster_alone};
use crate::render::settings::Settings;
use std::path::Path;

/// What is checked, and where.
pub struct Validation<'a> {
    /// The Envoy to ask.
    pub envoy: &'a Program,
    /// The settings of the running Envoy.
    pub settings: &'a Settings,
    /// A directory for the candidate's files.
    pub directory: &'a Path,
    /// The policy file, for messages.
    pub policy: &'a Path,
}

impl Validation<'_> {
    /// Has Envoy validate the inputs, without the module: its code has already checked the policy.
    ///
    /// # Errors
    /// One line per file that Envoy refuses, beginning with its name; no line if `stopped`.
    pub fn run(&self, inputs: &Inputs, stopped: &dyn Fn() -> bool) -> Result<(), Vec<String>> {
        let candidate = self.directory.join("candidate");
        let settings = Settings { prefix: candidate.display().to_string(), ..self.settings.clone() };
        let ask = |files: &Files| {
            files.write(&candidate).map_err(|e| vec![e.to_string()])?;
            let (file, log) = (candidate.join("validate.yaml"), candidate.join("validate.log"));
            self.envoy.validate(&file, &log, stopped).map_err(|line| vec![line])
        };
        let result = match ask(&Rendering::new(&settings, inputs).without_module()) {
            Ok(Verdict::Accepted) => Ok(()),
            Ok(Verdict::Stopped) => Err(Vec::new()),
            Ok(Verdict::Refused(output)) => Err(self.blame(inputs, &output, ask)),
            Err(lines) => Err(lines),
        };
        let _ = std::fs::remove_dir_all(&candidate);
        result
    }

    /// Returns one line for each provider's file that Envoy refuses by itself, or else one for the policy.
    fn blame(
        &self,
        inputs: &Inputs,
        output: &str,
        ask: impl Fn(&Files) -> Result<Verdict, Vec<String>>,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        for (file, cluster) in inputs.providers.values().map(|own| (&own.file, &own.cluster)) {
            match ask(&cluster_alone(&self.settings.command, cluster)) {
                Ok(Verdict::Accepted) => {}
                Ok(Verdict::Refused(output)) => lines.push(line(file, &output)),
                Ok(Verdict::Stopped) => return Vec::new(),
                Err(why) => return why,
            }
        }
        if lines.is_empty() { vec![line(self.policy, output)] } else { lines }
    }
}

/// Returns `FILE:LINE:COLUMN: PLACE: REASON`, as far as they are known.
fn line(file: &Path, output: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let file = file.display();
    match Objection::read(output) {
        Some(objection) => format!("{file}:{} (reported by Envoy)", objection.in_file(&text)),
        None => {
            // Envoy has crashed, or could not begin.
            let last = output.lines().last().unwrap_or("no reason given");
            format!("{file}: rejected by Envoy: {}", last.chars().take(300).collect::<String>())
        }
    }
}
