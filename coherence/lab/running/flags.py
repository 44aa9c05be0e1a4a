"""The flags of `coherence run` that are no settings; light, for completion and help."""

from __future__ import annotations

import argparse
from pathlib import Path

DEFAULT_PRESET = "cpu"


def add_flags(parser: argparse.ArgumentParser) -> argparse.Action:
    """Add them to a parser; returns that of the preset.

    >>> add_flags(argparse.ArgumentParser()).default
    'cpu'
    """
    preset = parser.add_argument(
        "--preset", default=DEFAULT_PRESET, help=f"sizes that belong together ({DEFAULT_PRESET})"
    )
    parser.add_argument("--record", action="store_true", help="keep the arrays of the figure")
    parser.add_argument("--share", metavar="K/N", help="train one of N shares of the runs")
    parser.add_argument("--workers", metavar="N", default="1", help="processes that train")
    parser.add_argument(
        "--devices", metavar="N", help="GPUs among which a batch is divided, or all"
    )
    parser.add_argument(
        "--divide-above", metavar="N", help="divide parameters of more numbers, too"
    )
    parser.add_argument("--hosts", metavar="K/N@HOST:PORT", help="this of N hosts, or auto")
    parser.add_argument("--submit", metavar="WHERE", help="slurm or local")
    parser.add_argument("--shares", metavar="N", help="how many jobs are submitted")
    parser.add_argument(
        "--option", metavar="NAME=VALUE", action="append", default=[], help="any of sbatch's"
    )
    return preset


def add_audit_flags(parser: argparse.ArgumentParser) -> None:
    """Add those that say which run `coherence audit` looks at, and how.

    >>> parser = argparse.ArgumentParser()
    >>> add_audit_flags(parser)
    >>> parser.parse_args([]).seed
    0
    """
    parser.add_argument("--arm", metavar="ARM", help="which arm, where there are several")
    parser.add_argument("--seed", metavar="K", type=int, default=0, help="which seed (0)")
    parser.add_argument(
        "--of", choices=("train", "test"), default="train", help="which examples (train)"
    )
    parser.add_argument("--by", metavar="SCORE", help="the score that orders them (margin)")
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        default=Path("audit.html"),
        help="the page (audit.html); a CSV file is written beside it",
    )
