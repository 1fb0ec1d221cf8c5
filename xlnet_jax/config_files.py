"""Config files and their overrides, from the command line to a ConfigDict.

`FILE.py[:ARG]` names a Python file with `get_config()` or `get_config(arg)`. Overrides are
`--config.a.b=VALUE`, with `--config.a.b VALUE`, and `--config.a.b` or `--noconfig.a.b` for
booleans, read by `ml_collections.config_flags`. Everything a user can get wrong here ends in a
ValueError or OSError of one line that names the key or file.

The project's own recipes, configs/NAME.py, are found from any folder: beside the package, or where
its installation put them.
"""

import ast
import contextlib
import difflib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags
from etils import epath
from ml_collections import ConfigDict, config_flags

from xlnet_jax.data.storage import read_object

# Name of a value's type -> what to write on the command line.
_WANTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "tuple": "a tuple, such as (1,2)",
}


def load(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Reads the config `FILE.py[:ARG]` and applies overrides to it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file fails, or an override has an unknown key or a value of another type.
    """
    path, colon, arg = spec.partition(":")
    if not os.path.isfile(path):
        found = next(filter(os.path.isfile, _own_places(path)), None)
        if found is None:
            raise FileNotFoundError(
                f"--config={spec}: no file {path!r}, wanted FILE.py or FILE.py:ARG"
            )
        path = found
    return _finish(_call_get_config(path, arg if colon else None), overrides, spec)


def load_json(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> ConfigDict:
    """Reads the resolved config that a run has stored, and applies overrides to it.

    Lists become tuples, which is what they were before they were stored.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a JSON object, or an override is wrong.
    """
    file = epath.Path(path)
    if not file.exists():
        raise FileNotFoundError(
            f"no stored config {os.fspath(file)}: give --config=FILE.py[:ARG], or the --workdir of"
            " a run that has started"
        )
    return _finish(ConfigDict(_tuples(read_object(file))), overrides, os.fspath(file))


def leaf_keys(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    """Yields the dotted path of every value, without those of sections."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from leaf_keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _own_places(path: str) -> Iterator[str]:
    """Where "configs/NAME.py" may lie if not in this folder."""
    if os.path.dirname(path) != "configs":
        return
    yield os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), path)
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("xlnet-jax") or ():
            if file.match(f"share/xlnet-jax/{path}"):
                yield os.fspath(file.locate())


def _finish(config: ConfigDict, overrides: Sequence[str], spec: str) -> ConfigDict:
    for key, text, bare in _split_overrides(overrides):
        _check_key(config, key, spec)
        _override(config, key, text, bare)
    return config


def _call_get_config(path: str, arg: str | None) -> ConfigDict:
    """Runs a config file; whatever it raises becomes a ValueError with file and line."""
    spec = importlib.util.spec_from_file_location("xlnet_jax_config", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"--config={path}: wanted a Python file, name ending in .py")
    module = importlib.util.module_from_spec(spec)
    beside = os.path.dirname(os.path.dirname(os.path.abspath(path)))
    own = filter(os.path.isfile, _own_places(os.path.join("configs", "__init__.py")))
    # So that a config may build on another of its folder or of ours: `from configs import ...`.
    added = [beside, *(os.path.dirname(os.path.dirname(file)) for file in own)]
    sys.path[:0] = added
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise ValueError("the file defines no get_config()")
        takes_arg = len(inspect.signature(module.get_config).parameters) > 0
        if arg is not None and not takes_arg:
            raise ValueError(f"get_config() takes no argument, got {arg!r} after the colon")
        config = module.get_config() if arg is None else module.get_config(arg)
        if not isinstance(config, ConfigDict):
            raise ValueError(f"get_config() gave {type(config).__name__}, wanted a ConfigDict")
    except Exception as error:  # a user's code may raise anything
        raise ValueError(f"--config={path}{_line_of(error, path)}: {_one_line(error)}") from error
    finally:
        for folder in added:
            sys.path.remove(folder)
    return config


def _one_line(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else ""
    if isinstance(error, ValueError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _line_of(error: Exception, path: str) -> str:
    """`:LINE` of the last line of the file at `path` that took part in the error, or nothing."""
    if isinstance(error, SyntaxError):
        return f":{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = os.path.abspath(path)
    lines = [frame.lineno for frame in frames if os.path.abspath(frame.filename) == own]
    return f":{lines[-1]}" if lines else ""


def _split_overrides(tokens: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yields (dotted key, text of the value, flag if it stands without a value) of each override.

    Raises:
        ValueError: something is not an override.
    """
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        name, equals, text = token.partition("=")
        name = "--" + name.lstrip("-") if name.startswith("-") else name
        if name.startswith("--noconfig.") and not equals:
            yield name.removeprefix("--noconfig."), "false", name
        elif name.startswith("--config.") and name != "--config.":
            bare = not equals and (not rest or rest[0].startswith("--"))
            if not equals:
                text = "true" if bare else rest.pop(0)
            yield name.removeprefix("--config."), text, name if bare else ""
        else:
            raise ValueError(
                f"unrecognized argument {token!r}; a config key is set by --config.KEY=VALUE"
            )


def _check_key(config: ConfigDict, key: str, spec: str) -> None:
    """Refuses a key that is no value of the config, with the nearest one that is."""
    known = list(leaf_keys(config))
    if key in known:
        return
    inside = [name for name in known if name.startswith(key + ".")]
    if inside:
        listed = ", ".join(name.removeprefix(key + ".") for name in inside)
        raise ValueError(f"--config.{key} is a section of {spec}; set one of its keys: {listed}")
    raise ValueError(f"unknown config key --config.{key} for {spec}; {_suggest(key, known)}")


def _suggest(key: str, known: Sequence[str]) -> str:
    """Names the nearest key.

    First the same without its section's name (train.train_steps), then the same name in another
    section, then by likeness.
    """
    section, _, last = key.rpartition(".")
    short = f"{section}.{last.removeprefix(section + '_')}"
    same = [short] if short in known else [n for n in known if n.rpartition(".")[2] == last]
    near = same or difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not near:
        names = {name.rpartition(".")[2]: name for name in known}
        near = [names[name] for name in difflib.get_close_matches(last, names, n=1, cutoff=0.6)]
    if near:
        return "nearest: " + " or ".join(f"--config.{name}" for name in near)
    sections = sorted({name.partition(".")[0] for name in known})
    return f"nothing near it; top keys: {', '.join(sections)}"


def _override(config: ConfigDict, key: str, text: str, bare: str) -> None:
    """Sets one value, read as the type that the config gives it; `bare` is a flag without a value.

    `None` empties any key; a key that is None without a declared type takes any Python literal.
    """
    section, last = config, key
    while "." in last:
        name, _, last = last.partition(".")
        section = section[name]
    kind, before = section.get_type(last), section[last]
    if bare and kind is not bool:
        raise ValueError(f"{bare} is for true or false; wanted --config.{key}=VALUE")
    try:
        if text == "None":
            section[last] = None
        elif kind is type(None):
            section[last] = _literal(text)
        else:
            flag_values = flags.FlagValues()
            argv = ["xlnet-jax", f"--config.{key}={text}"]
            config_flags.DEFINE_config_dict(
                "config", config, flag_values=flag_values, sys_argv=argv
            )
            flag_values(argv)
            _check_items(before, section[last])
    except (flags.Error, TypeError, ValueError) as error:
        wanted = _WANTED.get(kind.__name__, f"a value of type {kind.__name__}")
        if isinstance(before, tuple) and before:
            wanted = f"a tuple like {before}"
        raise ValueError(f"--config.{key}: wanted {wanted}, got {text!r}") from error


def _check_items(before: Any, after: Any) -> None:
    """Refuses a tuple whose items are of another type than those it replaces.

    Raises:
        TypeError: they are.
    """
    if isinstance(before, tuple) and before:
        allowed = {type(item) for item in before} | ({int} if float in map(type, before) else set())
        if not all(type(item) in allowed for item in after):
            raise TypeError(f"items of {after} are not of type {allowed}")


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    return value
