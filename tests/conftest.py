"""What holds for every test: where compiled programs go, and how property tests draw.

Most of the suite's time is compilation. How machine code is made changes neither what a program
computes nor the memory XLA plans for it, so tests use what makes it soonest: LLVM without its
expensive passes, XLA's plain emitter of loops, a program in one piece: a fourth of the time.
`JAX_DISABLE_MOST_OPTIMIZATIONS=0` runs them with the code that users get. What is compiled is kept
on disk, for the other workers and the next time (`COHERENCE_COMPILATION_CACHE=off`: it is not), and
dropped from memory when it takes too much.

What `thorough.txt` lists gets the marker `thorough`.

Property tests are not timed, since the machine may be busy, and draw the same examples every time.
"""

import ctypes
import functools
import gc
import os
import pathlib
import sys

import hypothesis
import pytest

from coherence.lab.training import compilation_cache
from coherence.lab.training.programs import PROGRAMS

compilation_cache.compile_quickly()  # workers inherit it
if (folder := compilation_cache.folder()) is not None:
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

MOST_RESIDENT = 650 * 2**20  # bytes; a single test adds up to 300 MB

hypothesis.settings.register_profile("house", deadline=None, derandomize=True)
hypothesis.settings.load_profile("house")


def pytest_collection_modifyitems(items):
    """Mark what `thorough.txt` names: a test, or a parametrized one of it."""
    listed = set((pathlib.Path(__file__).parent / "thorough.txt").read_text().splitlines())
    for item in items:
        named = {item.nodeid, item.nodeid.partition("[")[0]} & listed
        if named and not item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.thorough)


def pytest_collection_finish(session):
    """Garbage is looked for seldom, and not among what was imported: a twentieth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def pytest_sessionstart(session):
    if folder is not None and folder.is_dir() and not hasattr(session.config, "workerinput"):
        compilation_cache.prune(folder, compilation_cache.MOST_BYTES)


@pytest.fixture(scope="session", autouse=True)
def one_context():
    """JAX writes all programs in one MLIR context; one for each is 1 MB and a third of the time.

    But for a program that is met while another is being written: it would be written into that.
    """
    from jax._src.interpreters import mlir

    make_own = mlir.make_ir_context
    shared = functools.cache(make_own)
    with pytest.MonkeyPatch.context() as patch:
        make = lambda: make_own() if mlir.ir.Context.current else shared()
        patch.setattr(mlir, "make_ir_context", make)
        yield shared


@pytest.fixture(autouse=True)
def programs_leave_memory(one_context):
    """Drop compiled programs where the worker has grown: it would need several GB in the end."""
    yield
    if resident_bytes() > MOST_RESIDENT:
        PROGRAMS.clear()
        sys.modules["jax"].clear_caches()
        one_context.cache_clear()
        gc.collect()
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)


def resident_bytes():
    """What the process has in memory, on Linux; 0 elsewhere."""
    try:
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
