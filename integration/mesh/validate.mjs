// Validates rendered manifests: Istio's, the Gateway API's and Kubernetes' kinds by models made from their own
// definitions, Envoy Gateway's by envoy-gateway.schema.json.
//
//   node validate.mjs DIR…        exit status 1, with a line for each mistake, if an object is not as its kind demands

import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import * as gateway from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1";
import * as networking from "@kubernetes-models/istio/networking.istio.io/v1";
import { EnvoyFilter } from "@kubernetes-models/istio/networking.istio.io/v1alpha3/EnvoyFilter";
import Ajv from "ajv";
import * as core from "kubernetes-models/v1";
import { parse } from "yaml";
import { unknownMember } from "./members.mjs";

const { definitions, kinds } = JSON.parse(readFileSync(new URL("envoy-gateway.schema.json", import.meta.url), "utf8"));
const models = {
  "v1": { ConfigMap: core.ConfigMap, Service: core.Service },
  "gateway.networking.k8s.io/v1": { HTTPRoute: gateway.HTTPRoute },
  "networking.istio.io/v1": networking,
  "networking.istio.io/v1alpha3": { EnvoyFilter },
};

/** Returns what is wrong with an object, if anything is. */
function mistake(object) {
  if (object.apiVersion === "gateway.envoyproxy.io/v1alpha1" && kinds[object.kind]) {
    const ajv = new Ajv({ allErrors: true, strict: false });
    const isValid = ajv.validate({ definitions, ...kinds[object.kind] }, object.spec);
    return isValid ? undefined : ajv.errorsText(undefined, { dataVar: "spec" });
  }
  const unknown = unknownMember(object);
  if (unknown) return `unknown member ${unknown}`;
  const Model = models[object.apiVersion]?.[object.kind];
  if (!Model) return "no model of this kind";
  try {
    new Model(object).validate();
  } catch (error) {
    return error.message;
  }
}

let count = 0;
let mistakes = 0;
for (const directory of process.argv.slice(2)) {
  for (const file of readdirSync(directory).filter((name) => name.endsWith(".yaml"))) {
    const path = join(directory, file);
    const object = parse(readFileSync(path, "utf8"));
    count += 1;
    const message = mistake(object);
    if (message) {
      console.log(`${path}: ${object.apiVersion} ${object.kind}: ${message}`);
      mistakes += 1;
    }
  }
}
if (count === 0) throw new Error("no manifests");
if (mistakes > 0) process.exit(1);
console.log(`${count} manifests are valid`);
