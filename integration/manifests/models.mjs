// Validates resources of which Kubernetes itself has no schema. Reads a JSON list from standard input and prints a
// mistake a line.

import { readFileSync } from "node:fs";
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor";

const models = { "monitoring.coreos.com/v1 ServiceMonitor": ServiceMonitor };

for (const resource of JSON.parse(readFileSync(0, "utf8"))) {
  const kind = `${resource.apiVersion} ${resource.kind}`;
  const Model = models[kind];
  try {
    if (!Model) throw new Error("no model of this kind");
    new Model(resource).validate();
  } catch (error) {
    console.log(`${kind} ${resource.metadata?.name}: ${error.message}`);
  }
}
