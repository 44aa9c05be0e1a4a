"""Shell completion: a script for the shell, and the names that it asks the command for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

KINDS = ("experiments", "figures", "presets")
"""What `coherence complete` lists: the shell calls it."""
SHELLS = ("bash", "zsh", "tcsh")

_BASH = """
_coherence_names() { compgen -W "$(coherence complete "$1" -- "${COMP_WORDS[@]:1}" 2>/dev/null)" -- "$2"; }
_coherence_experiments() { _coherence_names experiments "$1"; }
_coherence_figures() { _coherence_names figures "$1"; }
_coherence_presets() { _coherence_names presets "$1"; }
_coherence_runs() {
  local root="${COHERENCE_RUNS:-runs}"
  compgen -d -- "$1"
  [[ "$1" == "$root"* ]] || compgen -d -- "$root/$1"
}
"""  # noqa: E501
_ZSH = """
_coherence_names() { compadd -- ${(f)"$(coherence complete $1 -- ${words[@]} 2>/dev/null)"} }
_coherence_experiments() { _coherence_names experiments }
_coherence_figures() { _coherence_names figures }
_coherence_presets() { _coherence_names presets }
_coherence_runs() {
  local root=${COHERENCE_RUNS:-runs}
  compadd -U -- ${root}/${PREFIX}*(N/)
  _files -/
}
"""


def complete_by(action: argparse.Action, kind: str) -> None:
    """Let shells complete an argument: with names of a kind of `KINDS`, or with `runs`."""
    function = f"_coherence_{kind}"
    action.complete = {"bash": function, "zsh": function}  # type: ignore[attr-defined]


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The completion script of a shell; tcsh's knows the words of the command alone."""
    import shtab

    preamble: Any = {"bash": _BASH, "zsh": _ZSH}
    return shtab.complete(parser, shell, preamble=preamble)


def names(kind: str, words: Sequence[str] = ()) -> list[str]:
    """The names of a kind, in the working folder.

    Args:
        kind: one of `KINDS`.
        words: those of the command line so far; presets are of the experiment among them.
    """
    from .experiment import collect, load
    from .report import findings, gallery

    home = gallery.checkout()
    files: dict[str, Path] = findings.files(home)
    if kind == "experiments":
        return list(files)
    if kind == "figures":
        return sorted({*files, *gallery.names(home)})
    named = [files[word] for word in words if word in files]
    return list(collect(load(named[0])).presets) if named else []
