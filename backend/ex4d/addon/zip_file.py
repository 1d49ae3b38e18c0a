"""Writes the installable add-on, `ex4d-<version>.zip`, and has Blender's own extension tool validate it where one is.

The zip is `blender_addon/` with a folder of wheels, which Blender unpacks for the system and Python it runs on:
`ex4d_core` as a wheel of its own, because an extension's modules lie under a name that Blender chooses, and pyzmq and
msgpack as their makers publish them. numpy is Blender's. The same files give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import ex4d_core
from ex4d_core.durable_files import put_in_place

from . import AddonError
from .blenders import find_tool
from .published_wheels import PLATFORMS, fetch_wheels, last_line, run

_DATA = Path(__file__).resolve().parents[1] / "data"
_CHECKOUT = Path(__file__).resolve().parents[3]
CORE = Path(ex4d_core.__file__).resolve().parent

# In the wheel, and in a checkout.
_INSTALLED = (_DATA / "blender_addon").is_dir()
SOURCE = _DATA / "blender_addon" if _INSTALLED else _CHECKOUT / "blender_addon"
WHEELS_LOCK = (_DATA if _INSTALLED else _CHECKOUT / "scripts" / "locks") / "addon-wheels.txt"

# Links that a manifest may have: Blender shows the first, the add-on's preferences show both.
LINKS = ("website", "issues")
# What Blender asks of every manifest, and the only type that this is.
_REQUIRED = ("schema_version", "id", "version", "name", "tagline", "maintainer", "type", "blender_version_min")


def build(
    source: Path = SOURCE,
    output: Path | None = None,
    platforms: Sequence[str] = tuple(PLATFORMS),
    folder: Path = Path("outputs"),
    note: Callable[[str], None] = lambda text: None,
    links: Mapping[str, str] | None = None,
) -> Path:
    """Build the zip and validate it; a zip that is not valid does not replace an older one.

    Args:
        source: folder with blender_manifest.toml, which names neither wheels nor platforms: both depend on what this
            puts in.
        output: the zip to write; None for <id>-<version>.zip, with the platform in the name if it is one.
        platforms: Blender's names of the systems that it is for.
        folder: where it is written if it has no other place.
        note: called with a sentence on how the zip was validated.
        links: the project's addresses for the manifest, which Blender and the add-on's preferences show: `LINKS`.

    Raises:
        AddonError: an invalid address, no manifest, a manifest at odds with the project, wheels that cannot be had, or
            refused by Blender's tool.
    """
    manifest = read_manifest(source)
    version = ex4d_core.__version__
    if (stated := manifest_value(manifest, "version")) != version:
        raise AddonError(f"blender_manifest.toml says version {stated}, ex4d_core says {version}: make them the same.")
    if output is None:
        suffix = f"-{platforms[0]}" if len(platforms) == 1 else ""
        output = folder / f"{manifest_value(manifest, 'id')}-{version}{suffix}.zip"
    output.parent.mkdir(parents=True, exist_ok=True)
    name, core = core_wheel(version)
    wheels = {name: core, **{wheel.name: wheel.read_bytes() for wheel in fetch_wheels(WHEELS_LOCK, platforms)}}
    files = {path: content for path, content in _files_of(source) if path != "blender_manifest.toml"}
    files["blender_manifest.toml"] = complete_manifest(manifest, sorted(wheels), platforms, links or {}).encode()
    files |= {f"wheels/{name}": content for name, content in wheels.items()}
    # Beside its place, so that the finished zip is there in one step.
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".ex4d-") as staging:
        built = Path(staging) / "built.zip"
        with built.open("wb") as file:
            _write_zip(file, files)
        note(validate(built))
        put_in_place(built, output)
    return output


def validate(built: Path) -> str:
    """Have Blender's extension tool check a zip, if this machine has a Blender; returns a sentence on what was done.

    Raises:
        AddonError: Blender's tool refuses the zip.
    """
    blender = find_tool()
    if blender is None:
        return "Not validated by Blender, as no Blender was found; its manifest has the required lines."
    done = run([*blender.tool(), "validate", str(built.resolve())])
    if done.returncode:
        raise AddonError(f"Blender's extension tool refuses the add-on: {last_line(done.stdout)}")
    return f"Validated by the extension tool of {blender.program}."


def read_manifest(source: Path) -> str:
    """The text of the add-on's manifest.

    Raises:
        AddonError: there is none, it lacks a line, or it has lines that the build writes.
    """
    path = source / "blender_manifest.toml"
    try:
        manifest = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AddonError(f"{path} does not exist: --source must be the folder of an add-on.") from error
    for key in ("wheels", "platforms", *LINKS):
        if re.search(rf"^{key}\s*=", manifest, re.MULTILINE):
            raise AddonError(f"{path} has a line `{key} = ...`: remove it, building the add-on writes it.")
    for key in _REQUIRED:
        manifest_value(manifest, key)
    if (kind := manifest_value(manifest, "type")) != "add-on":
        raise AddonError(f"{path} says type {kind!r}: expected 'add-on'.")
    return manifest


def manifest_value(manifest: str, key: str) -> str:
    """A text value at the manifest's top level.

    Raises:
        AddonError: it is missing.
    """
    found = re.search(rf'^{key}\s*=\s*"([^"]*)"', manifest, re.MULTILINE)
    if not found:
        raise AddonError(f'blender_manifest.toml has no line `{key} = "..."`: add it.')
    return found.group(1)


def complete_manifest(manifest: str, wheels: Sequence[str], platforms: Sequence[str], links: Mapping[str, str]) -> str:
    """The manifest with its links, `platforms` and `wheels`, before the first table, where TOML's top level ends.

    Raises:
        AddonError: an invalid address.
    """
    lines = [""]
    for key, address in links.items():
        if not re.fullmatch(r"https?://[^\s\"\\]+", address):
            raise AddonError(f"--{key} is {address!r}: expected an address that begins with https:// or http://.")
        lines.append(f'{key} = "{address}"')
    lines += ["platforms = [", *(f'    "{name}",' for name in platforms), "]"]
    lines += ["wheels = [", *(f'    "./wheels/{name}",' for name in wheels), "]", ""]
    added = "\n".join(lines) + "\n"
    table = re.search(r"^\[", manifest, re.MULTILINE)
    at = table.start() if table else len(manifest)
    return manifest[:at].rstrip() + "\n" + added + manifest[at:]


def core_wheel(version: str) -> tuple[str, bytes]:
    """`ex4d_core` as a wheel: its file name and its content.

    Its version ends in a digest of the files: Blender unpacks a wheel only when its name and version are new to it, so
    an add-on built again must not bring another `ex4d_core` under the same version. The layout is that of PEP 427.
    """
    files = {f"ex4d_core/{path}": content for path, content in _files_of(CORE)}
    digest = hashlib.sha256()
    for path, content in files.items():
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    version = f"{version}+{digest.hexdigest()[:8]}"
    info = f"ex4d_core-{version}.dist-info"
    files[f"{info}/licenses/LICENSE"] = _licence().read_bytes()
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.4\nName: ex4d_core\nVersion: {version}\n"
        "Summary: EX-4D: cameras, trajectories, scene files, messages and the backend's client\n"
        "License-Expression: Apache-2.0\nLicense-File: LICENSE\nRequires-Python: >=3.10\n"
        "Requires-Dist: msgpack\nRequires-Dist: numpy\nRequires-Dist: pyzmq\n"
    ).encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: ex4d\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")
    with tempfile.TemporaryFile() as file:
        _write_zip(file, files)
        file.seek(0)
        return f"ex4d_core-{version}-py3-none-any.whl", file.read()


def _licence() -> Path:
    """The text of the Apache licence: beside the metadata of the installed wheel, or in the checkout."""
    return next(_DATA.parents[1].glob("ex4d-*.dist-info/licenses/LICENSE"), _CHECKOUT / "LICENSE")


def _record(files: Mapping[str, bytes], own: str) -> bytes:
    """A wheel's list of its files with their hashes, which cannot hold its own."""
    lines = []
    for path, content in sorted(files.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(content)}\n")
    return "".join([*lines, f"{own},,\n"]).encode()


def _files_of(folder: Path) -> Iterator[tuple[str, bytes]]:
    """(path with slashes, content) of the files of a folder, in order; without caches and hidden files."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
        if path.is_file() and not hidden and path.suffix not in (".pyc", ".pyo"):
            yield "/".join(parts), path.read_bytes()


def _write_zip(file, files: Mapping[str, bytes]) -> None:
    """Write a zip whose bytes depend on names and contents alone; wheels in it are not compressed again."""
    with zipfile.ZipFile(file, "w") as archive:
        for path, content in sorted(files.items()):
            entry = zipfile.ZipInfo(path)  # dated 1980
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            entry.compress_type = zipfile.ZIP_STORED if path.endswith(".whl") else zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
