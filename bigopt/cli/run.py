"""Runs and sweeps through Hydra, with one clear line and the right exit code for everything that is wrong."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bigopt.cli.job import Job, attempt, prepare, say
from bigopt.cli.outcome import DONE, WRONG, Outcome, exit_code, outcomes
from bigopt.vocabulary.errors import RequestError

CONFIG = "config"
VERSION_BASE = "1.3"


def run(words: Sequence[str], execute: Callable[..., dict[str, Any]] | None = None) -> int:
    """Composes, checks and runs a command line.

    Args:
        words: overrides and Hydra's flags.
        execute: runs a checked configuration; None means ``bigopt.pipeline.execute``.
    """
    from hydra._internal.utils import get_args_parser

    from bigopt.config._references import hide_in_overrides

    parser = get_args_parser()
    try:
        args = parser.parse_intermixed_args(list(words))
    except SystemExit as stop:
        return int(stop.code or 0)
    args.overrides = hide_in_overrides(args.overrides)
    return guarded(lambda: _with_hydra(args, parser, execute))


def guarded(work: Callable[[], int]) -> int:
    """The exit code of some work; errors are said in one line each, except the unforeseen."""
    try:
        return attempt(lambda: Outcome(work(), "finished")).code
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else WRONG if stop.code else DONE


def _with_hydra(args: argparse.Namespace, parser: argparse.ArgumentParser, execute: Any) -> int:
    from hydra import __version__ as hydra_version
    from hydra import version
    from hydra._internal.hydra import Hydra
    from hydra.core.global_hydra import GlobalHydra

    _refuse_flags(args)
    if not hydra_version.startswith("1.4"):  # which has these defaults itself, and warns of asking for them
        version.setbase(VERSION_BASE)
    GlobalHydra.instance().clear()
    hydra = Hydra.create_main_hydra2("bigopt", _search_path(args))
    try:
        return _command(hydra, args, parser, execute)
    finally:
        GlobalHydra.instance().clear()


def _search_path(args: argparse.Namespace) -> Any:
    """The search path in which the user's folders come before bigopt's own, completed like these."""
    from hydra._internal.utils import create_config_search_path

    from hydra_plugins.bigopt_sweeper.search_path import install

    install()
    search = create_config_search_path(None)
    for folder in (args.config_dir, args.config_path):  # the last one prepended wins
        if folder is None:
            continue
        if not Path(folder).is_dir():
            raise RequestError(f"--config-dir: got {folder!r}, expected a folder; there is no such folder")
        search.prepend("command-line", f"bigopt://{Path(folder).resolve()}", anchor="bigopt")
    return search


def _refuse_flags(args: argparse.Namespace) -> None:
    if args.experimental_rerun is not None:
        raise RequestError("--experimental-rerun: refused, it loads a pickle, which can run any code; use resume=")
    commands = [args.run, args.multirun, args.cfg is not None, args.info is not None, args.shell_completion]
    if sum(map(bool, commands)) > 1:
        raise RequestError("only one of --run, --multirun, --cfg, --info and --shell-completion can be given")
    if args.resolve and args.cfg is None:
        raise RequestError("--resolve: only together with --cfg")


def _command(hydra: Any, args: argparse.Namespace, parser: argparse.ArgumentParser, execute: Any) -> int:
    from bigopt.config.command_line import CommandLine

    name, lines = args.config_name or CONFIG, args.overrides
    if args.shell_completion:
        hydra.shell_completion(config_name=name, overrides=lines)
        return DONE
    if args.hydra_help:
        hydra.hydra_help(config_name=name, args_parser=parser, args=args)
        return DONE
    command = CommandLine(hydra.config_loader, name, lines)
    cfg = command.check(sweep=args.multirun)
    _refuse_targets(cfg)
    if args.cfg is not None:
        hydra.show_cfg(name, lines, args.cfg, args.package, args.resolve)
        return DONE
    if args.info is not None:
        hydra.show_info(args.info, config_name=name, overrides=lines)
        return DONE
    return _execute(hydra, command, cfg, args, execute)


def _refuse_targets(cfg: Any) -> None:
    from omegaconf import OmegaConf

    from bigopt.config._references import register_references
    from bigopt.config._targets import refused_by_hydra

    settings = OmegaConf.to_container(cfg.hydra, resolve=False)
    assert isinstance(settings, dict)
    register_references(settings)
    problems = refused_by_hydra({str(key): value for key, value in settings.items()})
    if problems:
        raise RequestError(problems)


def _execute(hydra: Any, command: Any, cfg: Any, args: argparse.Namespace, execute: Any) -> int:
    """Runs the job or the sweep; Hydra's own errors become requests that are wrong."""
    from hydra.errors import HydraException
    from hydra.types import RunMode

    from bigopt.config._job import job_config, preview, task_lines
    from bigopt.config._messages import one_line
    from bigopt.config._resolvers import fixed_sweep_dir
    from bigopt.config.command_line import searches

    sweep = args.multirun or ((cfg.hydra.mode == RunMode.MULTIRUN or searches(cfg)) and not args.run)
    lines = [*command.lines, f"hydra.mode={'MULTIRUN' if sweep else 'RUN'}"]
    plain = job_config(command.compose([])) if cfg.get("resume") else None
    job = Job(execute, plain)
    try:
        if sweep:
            lines += fixed_sweep_dir(cfg)
            found = list(outcomes(hydra.multirun(args.config_name or CONFIG, job, lines)))
        else:
            # before Hydra makes the run's folder, so that a wrong request leaves nothing behind
            prepare(preview(cfg), task_lines(cfg.hydra), plain)
            found = list(outcomes(hydra.run(args.config_name or CONFIG, job, lines)))
    except HydraException as error:
        raise RequestError(one_line(error)) from error
    code = exit_code(found)
    wrong = sum(outcome.status in ("failed", "refused") for outcome in found)
    if sweep and wrong:
        say([f"{wrong} of {len(found)} jobs did not complete"])
    return code
