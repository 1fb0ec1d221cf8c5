"""What lies in launch/: scripts that shellcheck passes, settings that are all told, sound locks."""

import importlib.metadata
import re
import shlex
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"
LOCKS = ("requirements-tpu.lock", "requirements-uv.lock")


def pinned(path):
    return dict(re.findall(r"^([a-z0-9-]+)==([^\s;\\]+)", path.read_text(), flags=re.MULTILINE))


def test_shellcheck_has_nothing_to_say():
    scripts = sorted(LAUNCH.glob("*.sh"))
    assert len(scripts) == 10
    checker = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([checker, *scripts], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_scripts_are_strict_short_and_can_be_started():
    for path in LAUNCH.glob("*.sh"):
        text = path.read_text()
        assert text.count("\n") <= 220, path.name
        strict = path if path.name in ("common.sh", "worker.sh") else LAUNCH / "common.sh"
        assert "set -euo pipefail" in strict.read_text()
        if path.name != "common.sh":
            assert path.stat().st_mode & 0o111, path.name
            assert text.startswith("#!/usr/bin/env bash\n#")


def test_the_example_tells_every_key_with_its_default(cloud):
    told = dict(
        re.findall(r"^([A-Z_]+)=(.*)$", (LAUNCH / "settings.env.example").read_text(), re.M)
    )
    shown = re.findall(r"^  --([a-z-]+)=(.*)$", cloud.do("create", "--help").stdout, re.M)
    defaults = {key.upper().replace("-", "_"): value for key, value in shown}
    assert told.keys() == defaults.keys()
    without_default = {"PROJECT", "ZONE", "NAME", "ACCELERATOR"}
    assert {key: told[key] for key in told if key not in without_default} == {
        key: value for key, value in defaults.items() if key not in without_default
    }


def test_locks_hold_one_package_each_with_hashes_and_no_address():
    for name in LOCKS:
        text = (LAUNCH / name).read_text()
        assert len(pinned(LAUNCH / name)) == 1
        assert "://" not in text
        assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}", text)) > 2


def test_the_locks_together_hold_what_jax_asks_of_a_tpu():
    """`launch/requirements-tpu.lock` says how to make it anew when jax wants another libtpu."""
    both = pinned(ROOT / "requirements.lock") | pinned(LAUNCH / LOCKS[0])
    assert importlib.metadata.version("jax") == both["jax"]
    needs = [Requirement(text) for text in importlib.metadata.requires("jax") or []]
    extra = [need for need in needs if need.marker and need.marker.evaluate({"extra": "tpu"})]
    assert {"jaxlib", "libtpu"} <= {need.name for need in extra}
    for need in extra:
        assert need.specifier.contains(both[need.name]), f"{need} with {both[need.name]}"


def test_the_commands_of_the_readme_are_sound(cloud):
    text = (LAUNCH / "README.md").read_text().replace("\\\n", " ")
    commands = [
        shlex.split(line, comments=True) for line in re.findall(r"^    (launch/.*)$", text, re.M)
    ]
    assert {command[0] for command in commands} == {
        f"launch/{name}.sh"
        for name in ("create", "setup", "run", "watch", "status", "logs", "stop", "delete")
    }
    for path, *words in commands:
        shown = cloud.do(Path(path).stem, "--dry-run", *words).stdout
        assert "gcloud compute tpus " in shown
