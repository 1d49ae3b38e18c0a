"""Report what this machine can do: devices, rasterizers, engines, licences, disk space, and whether a backend runs."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ex4d.cli.options import add_backend_arguments, add_models_arguments, backend_client, machine_settings
from ex4d.cli.report import Report
from ex4d.config import config_file
from ex4d.installation import install_command
from ex4d.leftovers import compiled_kernels, kernel_cache_folders, size_of
from ex4d_core.sizes import size_text

if TYPE_CHECKING:
    import torch

    from ex4d.machine import MachineSettings

# Name, finding, and the problem if there is one.
Finding = tuple[str, str, str]

# Files that a finding names at most.
_NAMED = 3

SUMMARY = "report what this machine can do, and what is missing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ex4d doctor`."""
    add_backend_arguments(parser)
    add_models_arguments(parser)


def run(options: argparse.Namespace, report: Report) -> int:
    """Run `ex4d doctor`; returns 1 if something needs repair."""
    from rich.table import Table

    from ex4d_core.messages import command_in

    table = Table(box=None, show_header=False)
    rows: list[dict[str, str]] = []
    commands: dict[str, list[str]] = {}
    for name, finding, problem in _findings(options):
        rows.append({"name": name, "finding": finding, "problem": problem})
        # Print a command in one piece, so that it can be copied: a table wraps it.
        if command := command_in(finding):
            finding = finding.removesuffix(f" with: {command}") + " (see below)"
            commands.setdefault(command, []).append(name)
        table.add_row(name, finding)
    report.show(table, *(f"{', '.join(names)}: {command}" for command, names in commands.items()))
    report.add("findings", rows, "")
    problems = [row["problem"] for row in rows if row["problem"]]
    for problem in problems:
        report.say(f"! {problem}")
    return 1 if problems else 0


def _findings(options: argparse.Namespace) -> Iterator[Finding]:
    import psutil
    import torch

    from ex4d.generation import PreviewEngine
    from ex4d.pipeline.scene_estimates import scene_bytes
    from ex4d.service import ServiceSettings
    from ex4d_core import __version__
    from ex4d_core.stages import PAUSED

    yield "ex4d", __version__, ""
    yield "python", f"{platform.python_version()}, {sys.executable}", ""
    path = config_file()
    yield "configuration", str(path) if path.exists() else f"none at {path}; all settings have their defaults", ""
    yield "processor", f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GB memory", ""
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            fp8 = _fp8(torch.device("cuda", index))
            yield f"cuda:{index}", f"{device.name}, {device.total_memory / 2**30:.0f} GB; precision fp8: {fp8}", ""
    else:
        yield "GPU", "none that PyTorch can use: everything runs on the CPU", ""
    yield "torch", torch.__version__, ""
    machine = machine_settings(options)
    yield from _rasterizers(machine)
    yield "engine preview", PreviewEngine.licence, ""
    yield from _wan("cuda" if torch.cuda.is_available() else "cpu", machine)
    yield from _estimators(machine)
    yield "camera solve", _camera_solve(), ""
    yield "Blender", _blender(), ""
    settings = ServiceSettings()
    existing = next(folder for folder in (settings.data, *settings.data.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    needed = scene_bytes(60 * 30, 512, 512)
    low = f"only {size_text(free)} are free in {existing}; a minute of 512x512 footage needs {size_text(needed)}"
    used = f"{size_text(size_of(settings.data))} used, {free / 2**30:.0f} GB free"
    limits = f"limits of a service: {settings.cache_gb:g} GB of footage and results, {settings.jobs_gb:g} GB of jobs"
    yield "data folder", f"{settings.data}, {used} ({limits})", low if free < needed else ""
    yield "models folder", f"{machine.models}, {size_text(size_of(machine.models))} used", ""
    yield "kernel cache", _kernel_cache("cuda" if torch.cuda.is_available() else "cpu"), ""
    backend = _backend(options)
    reason = backend.partition(PAUSED)[2].partition(PAUSED)[0]
    yield "backend", backend, f"the queue of the backend is paused: {reason}" if reason else ""


def _kernel_cache(device: str) -> str:
    """What is compiled for this machine, and what a job still has to compile."""
    from ex4d.kernels import compiled_share

    kernels = sum(one.bytes for one in compiled_kernels())
    compiled, modules = compiled_share(device)
    found = f"{size_text(kernels)} of ours in {', '.join(map(str, kernel_cache_folders())) or 'none'}"
    found += f"; {compiled} of {modules} modules are compiled for {device}"
    missing = ", the others will be, once, when ex4d serve starts or a job needs them"
    return found if compiled == modules else found + missing


def _fp8(device: torch.device) -> str:
    """What the precision fp8 is on a GPU, with attention in fp8 where the preset asks for it."""
    from ex4d.generation.wan.arithmetic import arithmetic_on
    from ex4d.generation.wan.errors import GenerationError

    try:
        return arithmetic_on(device, "fp8", fp8_attention=True).words
    except GenerationError as error:
        return str(error)


def _wan(device: str, machine: MachineSettings) -> Iterator[Finding]:
    """Whether the engine wan is available, why not, and which of its weights are here."""
    from ex4d.generation.wan import WAN_LICENCE, WanUnavailableError, why_no_wan
    from ex4d.generation.wan.enlarging import why_no_upscaler
    from ex4d.generation.wan.networks import require_diffsynth
    from ex4d.weights.catalogue import PARTS
    from ex4d.weights.inventory import files_here
    from ex4d.weights.places import found_models, list_loras, list_upscalers
    from ex4d.weights.search import UNREAD_GGUF

    reason = why_no_wan(device, machine)
    if not reason:
        try:
            require_diffsynth()  # installed, but can it be imported?
        except WanUnavailableError as error:
            reason = str(error)
    yield "engine wan", f"unavailable: {reason}" if reason else WAN_LICENCE, ""
    folder = machine.models
    complete = {
        part.name: files_here(folder, part, machine.model_path)[1] for part in PARTS if part.kind in ("wan", "lora")
    }
    here, missing = (", ".join(name for name, whole in complete.items() if whole is state) for state in (True, False))
    loras = ", ".join(path.stem for path in list_loras(folder, machine.model_path)) or "none"
    yield "weights of wan", f"in {folder}: {here or 'none'}; missing: {missing or 'none'}; LoRAs: {loras}", ""
    if unread := [one.paths[0] for one in found_models(folder, machine.model_path) if one.model.packing == UNREAD_GGUF]:
        names = ", ".join(path.name for path in unread[:_NAMED]) + (", ..." if len(unread) > _NAMED else "")
        yield "GGUF", f"not looked into: {names}; install the package gguf with: {install_command('wan')}", ""
    upscalers = ", ".join(path.stem for path in list_upscalers(folder)) or "none"
    yield "upscalers", why_no_upscaler(folder) or f"{upscalers}; the first one is used unless another is named", ""


def _estimators(machine: MachineSettings) -> Iterator[Finding]:
    """Which depth estimators can run here, and what the others lack."""
    from ex4d.depth import EstimatorSettings
    from ex4d.depth.estimator_choice import verdicts

    for verdict in verdicts(EstimatorSettings(machine=machine)):
        model, reason = verdict.model, verdict.reason
        finding = f"unavailable: {reason}" if reason else model.licence
        if verdict.command:
            finding += f"; get them ({size_text(model.part.bytes)} of weights) with: {verdict.command}"
        yield f"estimator {model.name}", finding, ""


def _camera_solve() -> str:
    """Whether moving cameras can be solved for."""
    from importlib.metadata import version

    from ex4d.depth.solver import why_no_solver

    reason = why_no_solver()
    return f"unavailable: {reason}" if reason else f"pycolmap {version('pycolmap')}; BSD-3-Clause"


def _blender() -> str:
    usual = [Path("/Applications/Blender.app/Contents/MacOS/Blender")]
    usual += Path("C:/Program Files/Blender Foundation").glob("*/blender.exe")
    found = [shutil.which("blender"), *(str(path) for path in usual if path.is_file())]
    return next((path for path in found if path), "not on PATH; only the add-on and ex4d demo need it")


def _rasterizers(machine: MachineSettings) -> Iterator[Finding]:
    """The state and speed of each rasterizer, and which of them "auto" selects."""
    from ex4d.raster import (
        RASTERIZERS,
        RasterizerUnavailableError,
        choose_rasterizer,
        create_rasterizer,
        quick_speed,
    )
    from ex4d_core.licences import LICENCE_VARIABLE

    unlimited = replace(machine, licence="research")  # what is here, for any use
    for name in RASTERIZERS:
        try:
            rasterizer = create_rasterizer(name, machine=unlimited)
            speed = f"{quick_speed(rasterizer):.2f} ms for a frame of 512x512"
            yield f"rasterizer {name}", f"on {rasterizer.device}, {speed}; {rasterizer.licence}", ""
        except RasterizerUnavailableError as error:
            # Everything needs warp, which is installed with this package; nvdiffrast is the user's choice.
            yield f"rasterizer {name}", f"unavailable: {error}", str(error) if name == "warp" else ""
    try:
        choice = choose_rasterizer(machine=machine)
        licence = f"licence: {machine.licence_for(None)}, {LICENCE_VARIABLE} changes it"
        yield "rasterizer auto", f"{choice.name}: {choice.reason} ({licence})", ""
    except RasterizerUnavailableError as error:
        yield "rasterizer auto", "none", str(error)


def _backend(options: argparse.Namespace) -> str:
    from ex4d_core.errors import Ex4dError
    from ex4d_core.messages import Hello

    try:
        client = backend_client(options)
    except Ex4dError as error:
        return str(error)
    try:
        reply = client.ask(Hello("doctor"), timeout=1.5)
    except Ex4dError as error:
        return str(error)
    finally:
        client.close()
    return f"{reply.service} {reply.version} at {options.backend}, with {', '.join(reply.devices)}"
