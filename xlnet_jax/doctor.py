"""Is this machine ready: versions, devices, and a try of what every job needs."""

import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

import xlnet_jax

GIB = 2**30
LEAST_MEMORY = 4 * GIB  # a tiny run with TensorFlow and JAX loaded takes about 2 GiB
LEAST_DISK = 2 * GIB


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report; `problem` and `remedy` are empty where all is well."""

    name: str
    value: str
    problem: str = ""
    remedy: str = ""
    note: str = ""


def examine() -> list[Finding]:
    """Runs every check; a check that raises is a finding, never the end of the report."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python,
        _packages,
        _machine,
        _devices,
        _products,
        _tensorflow,
        _sentencepiece,
        _temporary_folder,
    ]
    findings: list[Finding] = []
    for check in checks:
        try:
            findings.extend(check())
        except Exception as error:  # noqa: BLE001 - whatever fails here is what we report
            findings.append(
                Finding(
                    name=check.__name__.strip("_").replace("_", " "),
                    value="failed",
                    problem=f"{type(error).__name__}: {error}",
                    remedy="make the environment anew: make clean setup",
                )
            )
    return findings


def as_text(findings: list[Finding]) -> str:
    """The report as aligned lines, then the problems with their remedies."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        mark = "!!" if finding.problem else "ok"
        note = f"  ({finding.note})" if finding.note else ""
        lines.append(f"{mark}  {finding.name:<{width}}  {finding.value}{note}")
    problems = [finding for finding in findings if finding.problem]
    lines += [f"problem: {f.name}: {f.problem}; remedy: {f.remedy}" for f in problems]
    lines.append(f"{len(problems)} problem(s) found" if problems else "all is well")
    return "\n".join(lines)


def as_json(findings: list[Finding]) -> str:
    """The report as one JSON object: `ok` and `findings`."""
    ok = not any(finding.problem for finding in findings)
    return json.dumps({"ok": ok, "findings": [dataclasses.asdict(f) for f in findings]}, indent=1)


def _python() -> Iterator[Finding]:
    good = (3, 11) <= sys.version_info[:2] < (3, 14)
    yield Finding(
        "python",
        platform.python_version(),
        "" if good else "not a supported version, wanted 3.11, 3.12 or 3.13",
        "" if good else "make clean setup PYTHON=python3.12",
    )
    yield Finding("xlnet_jax", xlnet_jax.__version__)


def _packages() -> Iterator[Finding]:
    """Compares each direct requirement with its lower bound and with the tested version."""
    tested = _locked_versions()
    for text in importlib.metadata.requires("xlnet-jax") or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _package(requirement, tested.get(_canonical(requirement.name)))


def _package(requirement: Requirement, tested: str | None) -> Finding:
    remedy = "make setup (or pip install --upgrade xlnet-jax)"
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(requirement.name, "missing", f"wanted {requirement.specifier}", remedy)
    if not requirement.specifier.contains(Version(version), prereleases=True):
        problem = f"version {version}, wanted {requirement.specifier}"
        return Finding(requirement.name, version, problem, remedy)
    note = f"tested with {tested}" if tested and tested != version else ""
    return Finding(requirement.name, version, note=note)


def _locked_versions() -> dict[str, str]:
    """Tested versions by canonical name; empty where the package is installed without its lock."""
    lock = Path(__file__).resolve().parents[1] / "requirements.lock"
    if not lock.is_file():
        return {}
    pinned = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock.read_text(), flags=re.MULTILINE)
    return {_canonical(name): version for name, version in pinned}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _machine() -> Iterator[Finding]:
    usable = getattr(os, "process_cpu_count", os.cpu_count)() or 1
    if hasattr(os, "sched_getaffinity"):
        usable = len(os.sched_getaffinity(0))
    yield Finding("processors", f"{usable} usable of {os.cpu_count()}, {platform.machine()}")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    small = total < LEAST_MEMORY
    yield Finding(
        "memory",
        f"{total / GIB:.1f} GiB",
        f"less than {LEAST_MEMORY / GIB:.0f} GiB" if small else "",
        "take a machine with more memory" if small else "",
    )


def _devices() -> Iterator[Finding]:
    import jax

    devices = jax.devices()
    kinds = sorted({device.device_kind for device in devices})
    value = f"{len(devices)} x {', '.join(kinds)} ({jax.default_backend()})"
    accelerator = shutil.which("nvidia-smi") is not None or os.path.exists("/dev/accel0")
    idle = accelerator and jax.default_backend() == "cpu" and not os.environ.get("JAX_PLATFORMS")
    yield Finding(
        "jax devices",
        value,
        "an accelerator is in this machine and JAX does not use it" if idle else "",
        "pip install 'xlnet-jax[cuda]' or 'xlnet-jax[tpu]'" if idle else "",
    )


def _products() -> Iterator[Finding]:
    """Compiles small matrix products and compares them with numpy's."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    rows = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST))
    wanted = rows.astype(np.float64) @ rows
    remedy = "update the driver and jaxlib together"
    # Rounding of the inputs alone costs 2^-9 relative in bfloat16.
    for dtype, tolerance in (("float32", 1e-5), ("bfloat16", 2e-2)):
        got = np.asarray(product(rows.astype(dtype), rows.astype(dtype)), np.float64)
        error = float(np.abs(got - wanted).max() / np.abs(wanted).max())
        bad = not error <= tolerance
        yield Finding(
            f"{dtype} product",
            f"error {error:.1e}, allowed {tolerance:.0e}",
            "the compiled product is wrong" if bad else "",
            remedy if bad else "",
        )


def _tensorflow() -> Iterator[Finding]:
    import tensorflow as tf

    total = sum(int(item) for item in tf.data.Dataset.range(5))
    bad = total != 10
    yield Finding(
        "tf.data",
        "works" if not bad else f"sum of 0..4 came out as {total}",
        "the input pipeline is broken" if bad else "",
        "make clean setup" if bad else "",
    )


def _sentencepiece() -> Iterator[Finding]:
    """Trains a tiny vocabulary in memory and encodes with it."""
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(["a small text to learn from", "and another small text"] * 10),
        model_writer=model,
        vocab_size=30,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    bad = processor.Decode(processor.Encode("a small text")) != "a small text"
    yield Finding(
        "SentencePiece",
        "trains and encodes" if not bad else "decoded text differs from what was encoded",
        "encoding is broken" if bad else "",
        "make clean setup" if bad else "",
    )


def _temporary_folder() -> Iterator[Finding]:
    folder = tempfile.gettempdir()
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write(b"x" * 4096)
        file.flush()
    free = shutil.disk_usage(folder).free
    small = free < LEAST_DISK
    yield Finding(
        "temporary folder",
        f"{folder}, {free / GIB:.1f} GiB free",
        f"less than {LEAST_DISK / GIB:.0f} GiB free" if small else "",
        "free some space, or set TMPDIR to a larger disk" if small else "",
    )
