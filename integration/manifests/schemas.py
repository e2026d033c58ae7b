"""What the API server would say of resources."""

import json
import subprocess
from pathlib import Path

import kubernetes_validate

HERE = Path(__file__).resolve().parent

# The oldest that the chart supports, and the newest that there are schemas of.
VERSIONS = ("1.30.0", "1.37.0")


def mistakes(resources):
    """Yields a line for each resource that is not as its kind demands."""
    custom = []
    for resource in resources:
        kind = f"{resource['apiVersion']} {resource['kind']}"
        if "." in resource["apiVersion"] and not is_of_kubernetes(resource["apiVersion"]):
            custom.append(resource)
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(resource, version, strict=True)
            except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
                message = getattr(error, "message", None) or str(error)
                yield f"{kind} {resource['metadata']['name']}: Kubernetes {version}: {message}"
    if custom:
        script = ["node", str(HERE / "models.mjs")]
        output = subprocess.run(script, input=json.dumps(custom), capture_output=True, text=True, check=False)
        if output.returncode:
            raise SystemExit(output.stderr)
        yield from output.stdout.splitlines()


def is_of_kubernetes(version):
    """Whether an API group is one of Kubernetes' own, such as `networking.k8s.io/v1`."""
    return version.split("/")[0].endswith(".k8s.io")
