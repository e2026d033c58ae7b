//! Tasks whose whole responses are assembled from streams, at models whose streams have no usage.

use crate::config::place::Place;
use crate::config::problem::Problem;
use crate::policy::Policy;

/// Reports a task once, for the first such model.
pub(super) fn check(policy: &Policy, warnings: &mut Vec<Problem>) {
    for task in policy.tasks.iter().filter(|task| task.stream_upstream) {
        let mut models = task.chain.iter().map(|id| policy.model(*id));
        if let Some(model) = models.find(|model| !model.takes("stream_options")) {
            let message = format!(
                "has no effect with the model \"{}\", which does not accept `stream_options`: its streams have no \
                 usage",
                model.name
            );
            warnings.push(Problem::new(Place::of(&["tasks", &task.name, "stream_upstream"]), message));
        }
    }
}
