"""`export`: stored runs for an experiment tracker."""

from __future__ import annotations

import argparse
from pathlib import Path

from uniprune.cli.folders import folder_argument, folders_of
from uniprune.errors import UserError
from uniprune.utils.console import say

HELP = "store the runs in Weights & Biases or MLflow"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `export`."""
    parser.set_defaults(imports_torch=False)
    folder_argument(parser)
    parser.add_argument("--wandb", metavar="PROJECT", help="a Weights & Biases project (extra: wandb)")
    parser.add_argument("--offline", action="store_true", help="write wandb's files only; `wandb sync` uploads them")
    parser.add_argument(
        "--wandb-dir", type=Path, default=Path(), metavar="DIR", help="folder of wandb's files (default: this one)"
    )
    parser.add_argument("--mlflow", metavar="EXPERIMENT", help="an MLflow experiment (extra: mlflow)")
    parser.add_argument("--mlflow-uri", metavar="URI", help="its server or folder (default: MLflow's own)")


def act(options: argparse.Namespace) -> int:
    """Store every run in the named trackers; runs that are there already are brought up to date."""
    from uniprune.reports.trackers import export_mlflow, export_wandb

    if options.wandb is None and options.mlflow is None:
        raise UserError("nothing to export to; give --wandb PROJECT or --mlflow EXPERIMENT")
    doubts: list[str] = []
    records = folders_of(options).required(doubts.append)
    if options.wandb is not None:
        export_wandb(records, options.wandb, options.offline, options.wandb_dir)
        say(f"{len(records)} runs in the wandb project {options.wandb}" + ", offline" * options.offline)
    if options.mlflow is not None:
        export_mlflow(records, options.mlflow, options.mlflow_uri)
        say(f"{len(records)} runs in the MLflow experiment {options.mlflow}")
    for doubt in doubts:
        say(doubt)
    return 0
