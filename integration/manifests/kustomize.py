"""Kustomizations, built by kubectl."""

import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
KUSTOMIZE = ROOT / "deploy" / "kustomize"
KUBECTL = Path(sys.executable).parent / "kubectl"


def build(directory):
    """Returns the resources of a kustomization, as objects."""
    output = subprocess.run([KUBECTL, "kustomize", directory], capture_output=True, text=True, check=False)
    if output.returncode:
        raise SystemExit(f"{directory}: {output.stderr}")
    return [resource for resource in yaml.safe_load_all(output.stdout) if resource]


def build_with(components):
    """Returns the resources of the base with these components, as an overlay has them."""
    # kubectl takes relative paths only.
    with tempfile.TemporaryDirectory(dir=KUSTOMIZE, prefix=".overlay-") as overlay:
        tree = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": ["../base"],
            "components": [f"../{name}" for name in components],
        }
        (Path(overlay) / "kustomization.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
        return build(overlay)
