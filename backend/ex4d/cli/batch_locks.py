"""Keeps processes that work in one batch's folder, on one machine or on many, out of each other's way.

A whole batch holds the folder. Processes that make single shots (`ex4d batch --only`, a farm's tasks) hold these shots,
and a scene while they make it, so that two tasks of one scene make it once. Whoever comes takes its own locks first and
then looks for those of the other kind, so that of two at the same time at least one gives way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import filelock

from ex4d.cli.batch_file import STATE, BatchError, Shot, Work

_FOLDER_LOCK = ".ex4d-batch.lock"
# Others hold a lock for a moment, to see whether it is free.
LOOKING_SECONDS = 5.0


def state_name(out: Path) -> str:
    """Begins the names of what is kept about the command with an output."""
    return hashlib.sha256(str(out).encode()).hexdigest()[:24]


@contextmanager
def whole_batch(folder: Path) -> Iterator[None]:
    """Hold a batch's folder, which exists.

    Raises:
        BatchError: another batch works there, or makes one of its shots.
    """
    with _held(folder / _FOLDER_LOCK, f"another 'ex4d batch' works in {folder}; wait for it, or choose another --out"):
        for path in (folder / STATE).glob("*.lock"):
            with _held(path, f"another 'ex4d batch --only' works in {folder}; wait for it, or choose another --out"):
                pass
        yield


@contextmanager
def single_shots(
    shots: Sequence[Shot], folder: Path, is_finished: Callable[[Work], bool], note: Callable[[str], None]
) -> Iterator[Callable[[Work], None]]:
    """Hold some shots of a batch, and their scenes that are not made yet, once nobody else makes them.

    Args:
        folder: of the batch; exists.
        is_finished: whether a command is done, by anyone.
        note: called before waiting for a scene.

    Yields:
        A function that lets a scene go, for other shots of it.

    Raises:
        BatchError: another process works on one of the shots, or on the whole batch.
    """
    places = folder / STATE
    places.mkdir(exist_ok=True)
    works = [work for shot in shots for work in (shot.scene, shot.view) if work is not None]
    scenes = {work.out: work for work in works if work.verb == "reconstruct"}
    with ExitStack() as stack:
        for shot in shots:
            if shot.view.out not in scenes:
                path = places / f"{state_name(shot.view.out)}.lock"
                error = f"another 'ex4d batch' makes the shot {shot.name} in {folder}; wait for it"
                stack.enter_context(_held(path, error))
        # Others look into the locks of this folder while they hold its own, so that it is not looked at in between.
        with _held(folder / _FOLDER_LOCK, f"another 'ex4d batch' works in {folder}; wait for it, or leave --only out"):
            pass
        held: dict[Path, filelock.BaseFileLock] = {}
        # In one order, so that no two processes wait for each other.
        for out in sorted(scenes):
            if is_finished(scenes[out]):
                continue
            lock = held[out] = filelock.FileLock(places / f"{state_name(out)}.lock")
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                note(f"another process reconstructs {out}; waiting for it")
                lock.acquire()
            stack.callback(lock.release, force=True)

        def let_go(scene: Work) -> None:
            if scene.out in held:
                held.pop(scene.out).release(force=True)

        yield let_go


@contextmanager
def _held(path: Path, error: str) -> Iterator[None]:
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=LOOKING_SECONDS, poll_interval=0.02)
    except filelock.Timeout as cause:
        raise BatchError(error) from cause
    try:
        yield
    finally:
        lock.release()
