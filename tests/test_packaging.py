"""What is installed: the lock holds every dependency, as the constraints have it, with its hashes."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def _pins(name: str) -> dict[str, Version]:
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", (ROOT / name).read_text(), flags=re.MULTILINE)
    return {canonicalize_name(package): Version(version) for package, version in found}


def test_the_lock_holds_every_dependency_as_the_constraints_have_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *(line for name, lines in extras.items() if name != "dev" for line in lines)]
    locked, constrained = _pins("requirements.lock"), _pins("constraints.txt")
    for requirement in map(Requirement, needed):
        version = locked[canonicalize_name(requirement.name)]
        assert version in requirement.specifier, f"{requirement} is locked to {version}: make lock"
    both = locked.keys() & constrained.keys()
    assert {name: locked[name] for name in both} == {name: constrained[name] for name in both}


def test_every_line_of_the_lock_has_a_hash():
    for block in re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text().strip()):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block.partition("\n")[0]


WITHOUT_MODELS = ("accounting", "approval", "ingest", "ledger", "payments", "reporting")


def test_accounting_reports_and_payments_start_without_torch():
    """The contracts on imports miss it: to import a module runs the `__init__` of its package first."""
    files = [path for name in WITHOUT_MODELS for path in (ROOT / "credit" / name).rglob("*.py")]
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]
    program = f"import sys, {', '.join(sorted(modules))}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, text=True, capture_output=True, check=True)
    assert done.stdout == "False\n"
