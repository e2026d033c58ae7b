"""The Helm chart, rendered by Helm itself.

    python integration/manifests/chart.py < VALUES

Reads values as JSON and prints the resources as a JSON list. Exit status 1, and Helm's reason, if it refuses them.
"""

import json
import sys
from pathlib import Path

import helm_python
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "pointsman"


class Refused(Exception):
    """Why Helm does not render the chart."""


def render(values, name="pointsman", namespace="llm"):
    """Returns the resources, as objects."""
    with helm_python.Chart.load(CHART) as chart:
        try:
            chart.validate_schema(values)
            files = chart.render(values, name=name, namespace=namespace)
        except helm_python.HelmError as error:
            raise Refused(str(error)) from error
    texts = [text for file, text in sorted(files.items()) if file.endswith(".yaml")]
    return [resource for text in texts for resource in yaml.safe_load_all(text) if resource]


def lint(values):
    """Returns what `helm lint --strict` finds."""
    report = helm_python.lint(CHART, values, strict=True)
    # An icon is only recommended.
    serious = [f"{found['path']}: {found['error']}" for found in report["messages"] if found["severity"] > 1]
    return serious + report["errors"]


if __name__ == "__main__":
    try:
        json.dump(render(json.load(sys.stdin)), sys.stdout)
    except Refused as refused:
        sys.exit(str(refused))
