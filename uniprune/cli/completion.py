"""`completion`: a script by which a shell completes commands, options and names."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping

from uniprune.utils.console import say

HELP = "print a shell script that completes commands, options and names"
SHELLS = ("bash", "zsh", "fish")
NAMED = {"--method": "methods", "--data": "benchmarks", "--model": "models"}
"""Options that are followed by names -> their kind."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `completion`."""
    parser.add_argument("shell", choices=SHELLS, help='as in: eval "$(uniprune completion bash)"')


def act(options: argparse.Namespace) -> int:
    """Print the script, with the names that are registered now."""
    from uniprune.modeling.catalog import catalog
    from uniprune.registry import BENCHMARKS, METHODS

    names = {
        "methods": [*METHODS.names(), *METHODS.published()],
        "benchmarks": BENCHMARKS.names(),
        "models": [*catalog()],
    }
    words = {name: sorted(set(re.findall(r"--[\w-]+", usage))) for name, usage in _usages().items()}
    say(fish(words, names) if options.shell == "fish" else bash(words, names, zsh=options.shell == "zsh"))
    return 0


def _usages() -> dict[str, str]:
    """Return the usage of every command."""
    from uniprune.cli import COMMANDS, discover
    from uniprune.cli.parser import subparsers

    return {name: parser.format_usage() for name, parser in subparsers(discover(COMMANDS)).items()}


def bash(words: Mapping[str, list[str]], names: Mapping[str, list[str]], zsh: bool = False) -> str:
    """Return a script for bash, or for zsh by its bash completion.

    Args:
        words: command -> its options.
        names: kind -> registered names.
        zsh: whether it is for zsh.
    """
    kinds = "\n".join(f'    {option}) names="{" ".join(names[kind])}" ;;' for option, kind in NAMED.items())
    commands = "\n".join(f'    {name}) words="{" ".join(options)}" ;;' for name, options in words.items())
    start = "autoload -U +X compinit && compinit; autoload -U +X bashcompinit && bashcompinit\n" if zsh else ""
    return f"""{start}_uniprune() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} option="" words="" names="" i
  for ((i = COMP_CWORD - 1; i > 0; i--)); do
    if [[ ${{COMP_WORDS[i]}} == --* ]]; then option=${{COMP_WORDS[i]}}; break; fi
  done
  case $option in
{kinds}
  esac
  case ${{COMP_WORDS[1]}} in
{commands}
    *) words="{" ".join(words["run"])}" ;;
  esac
  if ((COMP_CWORD == 1)) && [[ $current != -* ]]; then words="{" ".join(words)}"; fi
  if [[ -n $names && $current != -* ]]; then words=$names; fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _uniprune uniprune"""


def fish(words: Mapping[str, list[str]], names: Mapping[str, list[str]]) -> str:
    """Return a script for fish; arguments as for `bash`."""
    lines = [f"complete -c uniprune -n __fish_use_subcommand -a '{' '.join(words)}'"]
    for command, options in words.items():
        for option in options:
            kind = NAMED.get(option)
            more = f" -x -a '{' '.join(names[kind])}'" if kind else ""
            here = f"__fish_seen_subcommand_from {command}"
            lines.append(f"complete -c uniprune -n '{here}' -l {option.removeprefix('--')}{more}")
    return "\n".join(lines)
