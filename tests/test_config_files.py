"""Where the project's own recipes are found; the rest of config_files is tested by the commands."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import configs
from xlnet_jax import config_files

BUILDING_ON_OURS = """
from configs import pretrain

def get_config():
    config = pretrain.get_config("tiny")
    config.seed = 7
    return config
"""


def test_recipes_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = config_files.load("configs/pretrain.py:tiny", ["--config.seed=3"])
    assert (config.task, config.seed) == ("pretraining", 3)
    (tmp_path / "own.py").write_text(BUILDING_ON_OURS)
    assert config_files.load("own.py").seed == 7
    with pytest.raises(FileNotFoundError, match=r"no file 'configs/none.py', wanted FILE.py"):
        config_files.load("configs/none.py")
    with pytest.raises(FileNotFoundError, match=r"no file 'pretrain.py'"):
        config_files.load("pretrain.py")


def test_a_recipe_of_this_folder_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "pretrain.py").write_text(
        "import ml_collections as ml\ndef get_config():\n    return ml.ConfigDict({'a': 1})\n"
    )
    assert config_files.load("configs/pretrain.py").to_dict() == {"a": 1}


def test_recipes_of_an_installed_package(tmp_path, monkeypatch):
    place = "share/xlnet-jax/configs/installed.py"
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text(BUILDING_ON_OURS)

    class Listed(importlib.metadata.PackagePath):
        def locate(self):
            return Path(tmp_path / self)

    monkeypatch.setattr(importlib.metadata, "files", lambda name: [Listed(place)])
    assert config_files.load("configs/installed.py").seed == 7


def test_configs_load_neither_jax_nor_tensorflow():
    # Before a config is known, nothing is known of devices; and heavy imports start threads.
    names = [path.stem for path in Path(configs.__path__[0]).glob("*.py")]
    assert "squad" in names
    code = f"""
import importlib, sys
for name in {names}:
    importlib.import_module(f"configs.{{name}}")
print(sorted({{"jax", "flax", "tensorflow"}} & sys.modules.keys()))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
