"""How programs are compiled: quickly where they run once, and kept on disk between processes.

Nothing here happens on import. The command and the classifiers switch on JAX's persistent cache,
bounded, unless JAX was told otherwise already.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
from pathlib import Path

MOST_BYTES = 2**30


def compile_quickly() -> None:
    """Make machine code in a fourth of the time: for runs that mostly compile, such as tests.

    LLVM leaves out its expensive passes, XLA takes its plain emitter of loops and leaves a program
    in one piece. That changes neither what a program computes nor the memory XLA plans for it. JAX
    must not have been used before; `JAX_DISABLE_MOST_OPTIMIZATIONS=0` forbids it.
    """
    if os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") != "1":
        return
    wanted = ["--xla_cpu_parallel_codegen_split_count=1"]
    if importlib.metadata.version("jaxlib").startswith("0.10."):  # later ones have one emitter
        wanted.append("--xla_cpu_use_fusion_emitters=false")
    flags = os.environ.get("XLA_FLAGS", "").split()
    os.environ["XLA_FLAGS"] = " ".join([*(flag for flag in wanted if flag not in flags), *flags])


def folder() -> Path | None:
    """Where compiled programs are kept: in the folder of downloads; `None` for nowhere.

    `COHERENCE_COMPILATION_CACHE` names another folder, or says `off`.
    """
    wish = os.environ.get("COHERENCE_COMPILATION_CACHE", "")
    if wish.lower() == "off":
        return None
    if wish:
        return Path(wish).expanduser()
    from coherence.lab.data.fetching import cache

    return cache() / "compiled"


def switch_on(most_bytes: int = MOST_BYTES) -> Path | None:
    """Keep what JAX compiles in `folder()`; the folder, or `None` where nothing was changed.

    JAX's own settings win: a cache folder that was set, or a cache that was disabled, stays so. A
    folder that cannot be written to is not used. Of what earlier processes left, what was used last
    is kept, up to `most_bytes`.
    """
    import jax

    path, config = folder(), jax.config.values
    if path is None or config["jax_compilation_cache_dir"] is not None:
        return None
    if not config["jax_enable_compilation_cache"]:
        return None
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(path, os.W_OK | os.X_OK):
        return None
    prune(path, most_bytes)
    jax.config.update("jax_compilation_cache_dir", str(path))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # small ones add up
    return path


def prune(path: Path, most_bytes: int) -> None:
    """Delete the files not used for longest until the others have at most `most_bytes`."""
    used = []
    with os.scandir(path) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # another process prunes, too
                status = entry.stat()
                used.append((max(status.st_atime, status.st_mtime), status.st_size, entry.path))
    total = sum(size for _, size, _ in used)
    for _, size, file in sorted(used):
        if total <= most_bytes:
            break
        with contextlib.suppress(OSError):
            os.unlink(file)
        total -= size
