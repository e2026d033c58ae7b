"""The check of what Kubernetes is given, in `make check`: the Helm chart as Helm renders it and the kustomizations as
kubectl builds them are valid, say the same, and what would do harm is refused.

    python integration/manifests
"""

import base64
import copy
import sys

import chart
import kustomize
import schemas

ROOT = chart.ROOT


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


LOCAL = {"policy": read("policies/minimal.yaml"), "providers": {"vllm": read("envoy/providers/vllm.yaml")}}
SHARED = {
    "policy": LOCAL["policy"] + "\nredis: {cluster: redis}\n",
    "providers": LOCAL["providers"] | {"redis": read("envoy/providers/redis.yaml")},
}
HYBRID = {
    "policy": read("policies/hybrid.yaml"),
    "providers": {name: read(f"envoy/providers/{name}.yaml") for name in ("vllm", "ollama", "openai")},
}
SCALED = {"autoscaling": {"enabled": True}}
FROM = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
FILE_KEY = {
    "policy": """
providers:
  openai: {dialect: openai, data: internal, credential: {header: authorization, file: /etc/pointsman/keys/openai}}
""",
    "providers": {"openai": HYBRID["providers"]["openai"]},
}
# What OpenShift's `restricted-v2` assigns itself.
ASSIGNED = {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}
WATCHED = {"metrics": {"enabled": True, "from": FROM, "serviceMonitor": {"enabled": True}}}

# What is rendered and must be valid.
VALID = {
    "one replica": LOCAL,
    "with keys": HYBRID | {"keys": {"data": {"OPENAI_API_KEY": "sk-1"}, "environment": True}},
    "several replicas": SHARED | {"replicas": 3},
    "autoscaled": SHARED | SCALED,
    "metrics": LOCAL | WATCHED,
    "everything": SHARED | SCALED | WATCHED | {
        "keys": {"existingSecret": "mine", "environment": True},
        "image": {"repository": "registry.example/pointsman", "tag": "1", "digest": "sha256:" + "0" * 64},
        "imagePullSecrets": [{"name": "pull"}],
        "networkPolicy": {
            "from": [{"podSelector": {}}],
            "egress": [{"ports": [{"protocol": "TCP", "port": 443}]}],
        },
        "listenAddress": "[::]",
        "service": {
            "annotations": {"a": "b"},
            "type": "LoadBalancer",
            "ipFamilyPolicy": "PreferDualStack",
            "ipFamilies": ["IPv6", "IPv4"],
            "loadBalancerSourceRanges": ["203.0.113.0/24"],
        },
        "priorityClassName": "high",
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "serviceAccount": {"annotations": {"a": "b"}},
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "llm"},
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "llm", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
        "extraContainers": [{"name": "webdis", "image": "webdis:1"}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraArgs": ["--allow-missing-credentials"],
    },
    "users and groups that OpenShift assigns": LOCAL | ASSIGNED,
    "IPv6 only": LOCAL | {"listenAddress": "[::]", "service": {"ipFamilies": ["IPv6"]}},
    "a key in a file": FILE_KEY | {"keys": {"data": {"openai": "sk-1"}}},
    "keys in a Secret of one's own": HYBRID | {"keys": {"existingSecret": "mine", "environment": True}},
    "keys that may be missing": HYBRID | {"extraArgs": ["--allow-missing-credentials"]},
    "exactly so many replicas": SHARED | {"autoscaling": {"enabled": True, "minReplicas": 3, "maxReplicas": 3}},
    "metrics for every pod": LOCAL | {"metrics": {"enabled": True}, "networkPolicy": {"enabled": False}},
    "nothing but the gateway": LOCAL | {
        "podDisruptionBudget": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "resources": {},
    },
}

# What is refused, and what the reason must contain.
REFUSED = {
    "no policy": ({}, "no policy: set one with --set-file policy=FILE"),
    "a policy that is no YAML": (LOCAL | {"policy": "a: ["}, "policy: error converting YAML"),
    "no providers": ({"policy": LOCAL["policy"]}, "no providers: set each one's cluster"),
    "a provider without a cluster": (
        HYBRID | {"providers": LOCAL["providers"]},
        'no cluster for provider "ollama": set it with --set-file providers.ollama=FILE',
    ),
    "replicas without Redis": (
        LOCAL | {"replicas": 2},
        "2 replicas without Redis: each replica would count quotas and budgets by itself, and a tenant would get up to "
        "2 times its limits. Add the section `redis` to the policy, or set replicas to 1",
    ),
    "an autoscaler without Redis": (LOCAL | SCALED, "6 replicas without Redis"),
    "metrics for everyone": (LOCAL | {"metrics": {"enabled": True}}, "say in metrics.from who may reach"),
    "Redis without its cluster": (
        SHARED | {"providers": LOCAL["providers"]},
        'no cluster for the Redis bridge "redis", which the policy names in redis.cluster',
    ),
    "a key from an environment that is empty": (
        HYBRID | {"keys": {"existingSecret": "mine"}},
        'provider "openai" takes its key from the environment variable OPENAI_API_KEY: set keys.environment to true',
    ),
    "a key from no Secret": (
        HYBRID | {"keys": {"environment": True}},
        'provider "openai" has no key: set keys.existingSecret to a Secret with the entry OPENAI_API_KEY',
    ),
    "a key that the Secret lacks": (
        HYBRID | {"keys": {"environment": True, "data": {"OPENAI_KEY": "sk-1"}}},
        "a Secret with the entry OPENAI_API_KEY",
    ),
    "a key in a file of no Secret": (FILE_KEY, "a Secret with the entry openai"),
    "more replicas at least than at most": (
        SHARED | {"autoscaling": {"enabled": True, "minReplicas": 7}},
        "autoscaling.minReplicas is 7, above autoscaling.maxReplicas, which is 6",
    ),
    "labels that hide the pods": (
        LOCAL | {"podLabels": {"app.kubernetes.io/name": "other"}},
        "podLabels: app.kubernetes.io/name is the label by which the Deployment and the Service find their pods",
    ),
    "a flag of the chart's own": (
        LOCAL | {"extraArgs": ["--admin=0.0.0.0:9901"]},
        "extraArgs: --admin is set by the chart; use metrics.enabled",
    ),
    "a policy that is a list": (LOCAL | {"policy": "- a"}, "policy: error unmarshaling JSON"),
    "a policy that is a word": (LOCAL | {"policy": "policy.yaml"}, "policy: error unmarshaling JSON"),
    "a policy without providers": (LOCAL | {"policy": "models: {}"}, "policy: `providers` is not a mapping"),
    "providers in a list": (LOCAL | {"policy": "providers: [vllm]"}, "policy: `providers` is not a mapping"),
    "a provider that is a word": (
        LOCAL | {"policy": "providers: {vllm: local}"},
        "policy: providers.vllm is not a mapping",
    ),
    "a credential that is a word": (
        LOCAL | {"policy": "providers: {vllm: {credential: KEY}}"},
        "policy: providers.vllm.credential is not a mapping",
    ),
    "Redis that is a word": (
        LOCAL | {"policy": LOCAL["policy"] + "\nredis: redis\n"},
        "policy: `redis` is not a mapping",
    ),
    "a monitor without metrics": (
        LOCAL | {"metrics": {"serviceMonitor": {"enabled": True}}},
        "metrics.serviceMonitor.enabled needs metrics.enabled",
    ),
    "two address families, and only one listens": (
        LOCAL | {"service": {"ipFamilyPolicy": "PreferDualStack"}},
        'set listenAddress to "[::]"',
    ),
    "IPv6, and only IPv4 listens": (LOCAL | {"service": {"ipFamilies": ["IPv6"]}}, 'set listenAddress to "[::]"'),
    "an address that is none": (LOCAL | {"listenAddress": "::"}, "listenAddress"),
    "networks without a load balancer": (
        LOCAL | {"service": {"loadBalancerSourceRanges": ["203.0.113.0/24"]}},
        "service.loadBalancerSourceRanges has an effect only with service.type LoadBalancer",
    ),
    "a misspelt value": (LOCAL | {"replica": 3}, "replica"),
    "a digest that is none": (LOCAL | {"image": {"digest": "sha256:0"}}, "digest"),
}


def check_chart():
    """Yields what is wrong with the chart."""
    for name, values in VALID.items():
        resources = chart.render(values)
        for line in list(schemas.mistakes(resources)) + chart.lint(values) + list(secure(resources)):
            yield f"chart, {name}: {line}"
    for name, (values, reason) in REFUSED.items():
        try:
            chart.render(values)
            yield f"chart, {name}: is not refused"
        except chart.Refused as refused:
            if reason not in str(refused):
                yield f"chart, {name}: is refused with: {refused}"
    yield from check_names()
    yield from check_values()
    # The checks themselves can fail.
    broken = chart.render(VALID["metrics"])
    for resource in broken:
        resource["spec"] = {"replica": 1}
    found = list(schemas.mistakes(broken))
    kinds = {"Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget", "ServiceMonitor"}
    for kind in kinds - {line.split()[1] for line in found}:
        yield f"a {kind} with a wrong field is found valid"


def check_names():
    """Yields what is wrong with the names that come from the release's."""
    for name in ("pointsman", "llm", "a" * 53, "a" * 42 + "-b" + "c" * 9):
        for resource in chart.render(VALID["everything"], name=name):
            if len(resource["metadata"]["name"]) > 63 or resource["metadata"]["name"].endswith("-"):
                yield f"chart, release {name}: {resource['kind']} {resource['metadata']['name']}"
    for name in ("1-llm", "llm.v1"):
        try:
            chart.render(LOCAL, name=name)
            yield f"chart, release {name}: is not refused"
        except chart.Refused as refused:
            if "begins with a letter and has no dot" not in str(refused):
                yield f"chart, release {name}: is refused with: {refused}"


def check_values():
    """Yields which values do not have their effect."""
    def of(values, kind):
        return next(one for one in chart.render(values) if one["kind"] == kind)

    assigned = of(LOCAL | ASSIGNED, "Deployment")["spec"]["template"]["spec"]["securityContext"]
    if assigned != {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}:
        yield f"chart: OpenShift gets {assigned}"
    arguments = of(VALID["everything"], "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    for argument in ("--listen=[::]:8080", "--metrics=[::]:9902"):
        if argument not in arguments:
            yield f"chart: there is no {argument} in {arguments}"
    for key in ("sk-1", "sk-1\n", "sk-1\r\n"):
        data = of(FILE_KEY | {"keys": {"data": {"openai": key}}}, "Secret")["data"]["openai"]
        if base64.b64decode(data) != b"sk-1":
            yield f"chart: the key {key!r} is given as {data}"


def secure(resources):
    """Yields what a pod may do that it need not (Kubernetes' Pod Security Standard `restricted`)."""
    for resource in resources:
        if resource["kind"] != "Deployment":
            continue
        pod = resource["spec"]["template"]["spec"]
        container = next(one for one in pod["containers"] if one["name"] == "pointsman")
        wanted = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        if container["securityContext"] != wanted or not pod["securityContext"]["runAsNonRoot"]:
            yield "the pod may do more than it needs"
        if pod["automountServiceAccountToken"]:
            yield "the pod has a token of Kubernetes"
        grace = pod["terminationGracePeriodSeconds"]
        before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        drain = next(arg for arg in container["args"] if arg.startswith("--drain="))
        if grace < before + int(drain.removeprefix("--drain=").removesuffix("s")) + 10:
            yield "the pod is killed while it drains"


def check_kustomize():
    """Yields what is wrong with the kustomizations."""
    base = kustomize.build(kustomize.KUSTOMIZE / "base")
    both = kustomize.build_with(["replicas", "metrics"])
    for name, resources in (("base", base), ("with both components", both)):
        for line in list(schemas.mistakes(resources)) + list(secure(resources)):
            yield f"kustomize, {name}: {line}"
    alike = {
        "base": (base, LOCAL),
        "with both components": (both, SHARED | SCALED | WATCHED),
    }
    for name, (resources, values) in alike.items():
        rendered = chart.render(values | {"keys": {"existingSecret": "pointsman-keys"}})
        theirs, ours = essence(resources), essence(rendered)
        for key in sorted(theirs.keys() | ours.keys()):
            if theirs.get(key) != ours.get(key):
                yield f"kustomize, {name}: {' '.join(key)} is\n  {theirs.get(key)}\nand the chart's\n  {ours.get(key)}"


def essence(resources):
    """Returns what the chart and the kustomization must have in common: all but labels, and the policy."""
    found = {}
    for resource in copy.deepcopy(resources):
        if resource["kind"] == "ConfigMap":
            found[resource["kind"], resource["metadata"]["name"]] = None
            continue
        for volume in resource.get("spec", {}).get("template", {}).get("spec", {}).get("volumes", []):
            # A kustomization cannot tell whether there are keys.
            volume.get("secret", {}).pop("optional", None)
        found[resource["kind"], resource["metadata"]["name"]] = without_labels(
            {key: value for key, value in resource.items() if key not in ("apiVersion", "kind", "metadata")}
        )
    return found


def without_labels(value):
    """Returns a tree without what selects by the chart's own labels."""
    if isinstance(value, list):
        return [without_labels(item) for item in value]
    if not isinstance(value, dict):
        return value
    # The name must be in both: without it, a selector would select every pod of the namespace.
    own = ("app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "app.kubernetes.io/version")
    kept = {key: without_labels(item) for key, item in value.items() if key not in own}
    return {key: item for key, item in kept.items() if not (key in ("labels", "metadata") and not item)}


def main():
    lines = list(check_chart()) + list(check_kustomize())
    for line in lines:
        print(line, file=sys.stderr)
    if lines:
        return 1
    print(f"{len(VALID)} renderings of the chart and 2 kustomizations are valid; {len(REFUSED)} others are refused")
    return 0


if __name__ == "__main__":
    sys.exit(main())
