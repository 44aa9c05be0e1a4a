"""Compiled programs on disk: for the command and the classifiers, never by an import; bounded."""

import os
import subprocess
import sys

import pytest

from coherence.lab.training import compilation_cache


def run(code, folder, **environment):
    """What a fresh process prints, with no setting of JAX's or ours but these."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if "CACHE" not in name and not name.startswith("JAX_")
    }
    environment = {**kept, "COHERENCE_CACHE": str(folder), **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    return done.stdout.split()


SWITCH_ON = """
import jax
from coherence.lab.training import compilation_cache
SETUP
compilation_cache.switch_on()
print(jax.config.jax_compilation_cache_dir)
jax.jit(lambda x: x + 1)(1.0)
"""


def switched_on(folder, setup="", **environment):
    return run(SWITCH_ON.replace("SETUP", setup), folder, **environment)


def test_what_one_process_compiles_the_next_one_finds(tmp_path):
    assert switched_on(tmp_path) == [str(tmp_path / "compiled")]
    files = sorted((tmp_path / "compiled").iterdir())
    assert files
    switched_on(tmp_path)
    assert sorted((tmp_path / "compiled").iterdir()) == files


def test_a_folder_can_be_named_and_the_cache_switched_off(tmp_path):
    assert switched_on(tmp_path, COHERENCE_COMPILATION_CACHE="off") == ["None"]
    named = str(tmp_path / "named")
    assert switched_on(tmp_path, COHERENCE_COMPILATION_CACHE=named) == [named]
    assert not (tmp_path / "compiled").exists()


@pytest.mark.parametrize(
    ("setup", "environment"),
    [
        ("", {"JAX_COMPILATION_CACHE_DIR": "mine"}),
        ("jax.config.update('jax_compilation_cache_dir', 'mine')", {}),
    ],
)
def test_a_folder_that_jax_was_told_stays(tmp_path, setup, environment):
    environment = {name: str(tmp_path / value) for name, value in environment.items()}
    (said,) = switched_on(tmp_path, setup.replace("mine", str(tmp_path / "mine")), **environment)
    assert said == str(tmp_path / "mine")
    assert not (tmp_path / "compiled").exists()


def test_a_cache_that_was_disabled_stays_disabled(tmp_path):
    assert switched_on(tmp_path, JAX_ENABLE_COMPILATION_CACHE="0") == ["None"]
    assert not (tmp_path / "compiled").exists()


def test_a_folder_that_cannot_be_made_is_no_reason_to_stop(tmp_path):
    (tmp_path / "file").write_text("")
    assert switched_on(tmp_path / "file") == ["None"]


def test_importing_and_measuring_leave_jax_alone(tmp_path):
    code = """
import jax, jax.numpy as jnp
import coherence, coherence.lab.estimators, coherence.lab.experiment, coherence.lab.training
import coherence.lab.cli
from coherence.lab.training import Classification, loop
coherence.alpha({"w": jnp.ones((3, 2))})
Classification().build(0)
print(jax.config.jax_compilation_cache_dir)
"""
    assert run(code, tmp_path) == ["None"]
    assert not list(tmp_path.iterdir())


def test_fitting_a_classifier_keeps_what_it_compiles(tmp_path):
    code = """
import numpy as np
from coherence.lab.estimators import SoftmaxRegression
SoftmaxRegression(steps=2).fit(np.eye(4), [0, 0, 1, 1])
"""
    run(code, tmp_path)
    assert list((tmp_path / "compiled").iterdir())


def test_what_was_not_used_for_longest_goes_first(tmp_path):
    for age, name in enumerate(["new", "middle", "old"]):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    compilation_cache.prune(tmp_path, 250)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["middle", "new"]
    compilation_cache.prune(tmp_path, 200)
    assert len(list(tmp_path.iterdir())) == 2
    compilation_cache.prune(tmp_path, 0)
    assert not list(tmp_path.iterdir())
