"""Follows all jobs of this Blender: brings records up to date, and resumes after undo, load, revert and restart.

Only what was started on this computer is resumed by itself (see `origin`); the rest waits for the artist.

While Blender runs, `ex4d_core.remote_job.RemoteJob` has the state of a job. Each tick copies what changed into the
job's record, so that a saved file, an undo step or another Blender finds its way back; results are in the job's folder.
What a kind of job shows besides (strips, an imported scene) is up to its subclass of `FollowedJob`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import bpy

from ex4d_core.errors import is_expected, user_message
from ex4d_core.remote_job import JobState, RemoteJob

from ..blender_types import Context, Subscripted
from ..connection.session import session
from ..connection.sidebar import open_tab
from ..errors import contained
from ..paths import from_blend, to_blend
from ..scheduler import JOBS_SECONDS, scheduler
from ..undo_steps import add_undo_step
from .notices import note_end
from .origin import is_own, seal_record
from .records import SHARED, JobRecord, find_copies, home_of, records_of, set_changed

Record = TypeVar("Record", bound="JobRecord")
_OVER = tuple(state for state in JobState if state.is_over)


class FollowedJob(Subscripted, ABC, Generic[Record]):
    """A job that is being followed, or was until its end, and how it shows in the open file.

    Attributes:
        collection: name of the Blender scenes' list of such jobs.
        finished: states in which a record of this kind stays as it is.
        job: the client's side of it.
        over: nothing more will happen: on the wire, or with the results in the open file.
        here: whether it belongs to the open file.
        problem: why the results cannot be shown.
        lost_with: the .blend that lists it now, but not as it was last saved, so that reverting it loses the record; ""
            where it is saved or there is no such file.
    """

    collection: ClassVar[str]
    finished: ClassVar[tuple[JobState, ...]]

    def __init__(self, job: RemoteJob, home: bpy.types.Scene):
        """Follow a job that is listed in the Blender scene ``home``."""
        self.job = job
        self.over = False
        self.here = True
        self.problem = ""
        self.lost_with = ""
        # Of the Blender scene that lists it: the second is all that a file that is loaded again has in common.
        self._home, self._home_name = home.session_uid, home.name
        # The record as it was when it was last brought up to date.
        self._remembered: dict[str, object] = {}

    @property
    def key(self) -> str:
        """The job's key."""
        return self.job.key

    @property
    def state(self) -> JobState:
        """The job's state; as long as results are on their way into the file, they count as being fetched."""
        state = self.job.state
        return JobState.FETCHING if self.job.over and not self.over and state is not JobState.STOPPED else state

    @property
    def _knows_state(self) -> bool:
        """Whether it knows more than the record of a job that was resumed, as it does from the backend's answer on."""
        return self.job.status is not None or not self.job.job or self.state.is_over

    @classmethod
    @abstractmethod
    def resumed(cls, record: Record) -> FollowedJob[Record] | None:
        """Follow a record's job from where the record says it was; None if nothing is left to follow.

        Raises:
            Ex4dError, OSError: that is impossible.
        """

    @classmethod
    @abstractmethod
    def content(cls, record: Record) -> bytes:
        """What a record's job sends, or is computed from; it decides whether the record's seal holds.

        Raises:
            OSError: it is gone.
        """

    @classmethod
    def seal(cls, record: Record) -> None:
        """Note that the artist wants this job as it stands, so that it is resumed whenever the file is opened here."""
        with suppress(OSError):
            seal_record(record, cls.content(record))

    @classmethod
    def title(cls, record: Record) -> str:
        """What the artist calls a record's job."""
        return record.label

    @classmethod
    def open_result(cls, context: Context, record: Record) -> None:
        """Show a job's result where the artist looks, or in the sidebar's tab why it has no result."""
        open_tab(context)

    def present(self, blender_scene: bpy.types.Scene, record: Record) -> None:
        """Show results that have arrived so far; may set `problem`."""

    def settle(self) -> bool:
        """Take the results of a job that is over into the open file; returns whether they are there, or never will be.

        Called in every tick until then.
        """
        return True

    def show_again(self) -> None:
        """Note that the file is not as it was left, so that everything has to be shown again."""

    def restore(self, record: Record) -> None:
        """Continue from an older record, after an undo or a revert; what has happened since has happened anyway."""
        self.over = False
        self.show_again()
        if self._knows_state:
            record.state = self.state

    def replace(self, record: Record) -> None:
        """Note that a record of an earlier job in the same folder becomes this one's."""

    def update(self, copies: list[tuple[bpy.types.Scene, Any]]) -> None:
        """Copy what changed into the job's records, of which the first also presents the results."""
        blender_scene, record = copies[0]
        self._home, self._home_name = blender_scene.session_uid, blender_scene.name
        job, before = self.job, [getattr(record, name) for name in SHARED]
        values: dict[str, object] = {
            "job": job.job,
            "cancelling": job.cancelling and not job.over,
            "eta_seconds": -1 if (eta := job.eta_seconds()) is None else round(eta),
        }
        if self._knows_state:
            values |= {"state": self.state.value, "stage": job.stage, "progress": round(job.progress, 3)}
        if job.status is not None:
            values |= {name: getattr(job.status, name) for name in ("done", "total", "queue_position")}
        for name, value in values.items():
            set_changed(record, name, value)
        self.present(blender_scene, record)
        set_changed(record, "reason", job.reason or self.problem)
        ended = record.state in (*self.finished, JobState.STOPPED) and record.state != JobState.CANCELLED
        if ended and record.state != before[SHARED.index("state")]:
            note_end(self.collection, record, self.title(record))
        # Only now are the results up to this event in the file.
        set_changed(record, "last_event", job.last_event)
        if before != [getattr(record, name) for name in SHARED]:
            session().redraw()
        for _, copy in copies[1:]:
            for name in SHARED:
                set_changed(copy, name, getattr(record, name))
        names = self._remembered or [one.identifier for one in record.bl_rna.properties if not one.is_readonly]
        self._remembered = {name: getattr(record, name) for name in names}

    def relist(self) -> Any:
        """List the job again in its Blender scene, as it was; None if that scene is gone."""
        home = home_of(self._home)
        if home is None:
            return None
        records = getattr(home, self.collection)
        record = next((one for one in records if from_blend(one.folder) == self.job.folder), None)
        if record is not None:
            self.replace(record)
        else:
            record = records.add()
        for name, value in self._remembered.items():
            setattr(record, name, value)
        record.folder = to_blend(self.job.folder)  # the file may have been saved elsewhere since
        return record

    def find_new_home(self) -> None:
        """Belong to the open file, which is the one that listed the job, loaded as it was before."""
        home = bpy.data.scenes.get(self._home_name) or bpy.context.scene
        self.here, self._home = True, home.session_uid


class Tracker:
    """All jobs that this Blender follows.

    Attributes:
        kinds: the kinds of jobs.
        followed: all that are, or were until their end, by key.
        paused: keys of unfinished jobs in the open file that were not started on this computer.
    """

    def __init__(self) -> None:
        """Follow nothing yet."""
        self.reset()

    def reset(self) -> None:
        """Follow nothing."""
        self.kinds: list[type[FollowedJob[Any]]] = []
        self.followed: dict[str, FollowedJob[Any]] = {}
        self.paused: set[str] = set()

    def is_followed(self, record: JobRecord) -> bool:
        """Whether a record's job is under way in this Blender."""
        known = self.followed.get(record.key)
        return known is not None and not known.over

    def folders(self) -> set[Path]:
        """Folders that jobs under way write into, those of other files too."""
        return {one.job.folder for one in self.followed.values() if not one.over}

    def send(self, followed: FollowedJob[Any]) -> None:
        """Follow a new job, which is sent as soon as a backend answers."""
        self._follow(followed)
        followed.lost_with = bpy.data.filepath

    def renew(self, record: JobRecord, key: str) -> None:
        """Make a record that of another job, which is sent next; the one that it was of is followed no more."""
        self.abandon(record.key)
        record.key = key
        self._kind_of(record).seal(record)

    def is_known(self, record: JobRecord) -> bool:
        """Whether the artist started or resumed a record's job, on this computer."""
        known = self.followed.get(record.key)
        if known is not None and known.job.folder == from_blend(record.folder):
            return True
        return is_own(record, partial(self._kind_of(record).content, record))

    def resume(self, record: JobRecord) -> None:
        """Continue a record's job, since the artist wants it; the record says why, if that is impossible."""
        kind = self._kind_of(record)
        for _, copy in find_copies(kind.collection, record.key):
            kind.seal(copy)
        self._continue(record)

    def _kind_of(self, record: JobRecord) -> type[FollowedJob[Any]]:
        return next(kind for kind in self.kinds if find_copies(kind.collection, record.key))

    def _continue(self, record: JobRecord) -> None:
        self.paused.discard(record.key)
        known = self.followed.get(record.key)
        if known is not None and not known.over:
            if known.job.folder == from_blend(record.folder):
                return
            self.abandon(known.key)
        kind = self._kind_of(record)
        try:
            followed = kind.resumed(record)
        except Exception as error:
            if not is_expected(error):
                raise
            record.state, record.reason = JobState.STOPPED, user_message(error)
            return
        if followed is None:
            return
        if record.state == JobState.STOPPED:
            record.state = JobState.RUNNING if record.job else JobState.SENDING
        self._follow(followed)

    def resume_all(self) -> None:
        """Continue every job of the open file that is not over and not being followed, and that is known."""
        self.paused.clear()
        for kind in self.kinds:
            for _, record in records_of(kind.collection):
                if record.cancelling or record.state not in (*kind.finished, JobState.STOPPED):
                    with contained():
                        if self.is_known(record):
                            self._continue(record)
                        else:
                            self.paused.add(record.key)

    def cancel(self, record: JobRecord) -> None:
        """Cancel a record's job: the backend's work, or the sending of it."""
        known = self.followed.get(record.key)
        if known is not None and not known.over:
            known.job.cancel(session().connect())
            self._step(known)

    def abandon(self, key: str) -> None:
        """Stop following a job; the backend continues it."""
        known = self.followed.pop(key, None)
        if known is not None:
            known.job.abandon(session().client)

    def forget(self, blender_scene: bpy.types.Scene, record: JobRecord) -> None:
        """Remove a record from its Blender scene's list; results stay where they are."""
        kind = next(kind for kind in self.kinds if record in list(getattr(blender_scene, kind.collection)))
        if len(find_copies(kind.collection, record.key)) == 1:
            self.abandon(record.key)
        records = getattr(blender_scene, kind.collection)
        records.remove(list(records).index(record))

    def step_all(self) -> None:
        """Bring every followed job and its records up to date; the scheduler calls it in every tick."""
        for followed in list(self.followed.values()):
            if not followed.over:
                with contained():
                    self._step(followed)

    def restore_all(self) -> None:
        """Bring the open file up to date after an undo, or when the add-on was enabled."""
        for followed in list(self.followed.values()):
            with contained():
                self._restore(followed)
        self.resume_all()  # those whose removal from the list was undone, and those under way since before

    def file_loaded(self) -> None:
        """Find out what belongs to the file that is open now, and continue its jobs."""
        for key, followed in list(self.followed.items()):
            followed.here = bool(find_copies(followed.collection, key))
            if not followed.here and followed.lost_with and followed.lost_with == bpy.data.filepath:
                with contained():
                    followed.find_new_home()
                    self._restore(followed)
                    scheduler.run_when_idle(partial(add_undo_step, "EX-4D Job Found Again"))
            elif not followed.over:
                followed.show_again()
            elif not followed.lost_with:
                del self.followed[key]
        self.resume_all()

    def file_saved(self) -> None:
        """Note that the open file's records are saved."""
        for followed in self.followed.values():
            if followed.here:
                followed.lost_with = ""

    def _follow(self, followed: FollowedJob[Any]) -> None:
        self.followed[followed.key] = followed
        self._step(followed)

    def _step(self, followed: FollowedJob[Any]) -> None:
        followed.job.advance(session().connect())
        followed.over = followed.job.over and followed.settle()
        copies = find_copies(followed.collection, followed.key)
        if copies:  # or another file is open, and the job continues into its folder
            followed.update(copies)

    def _restore(self, followed: FollowedJob[Any]) -> None:
        if not followed.here:
            return
        found = find_copies(followed.collection, followed.key)
        if found and found[0][1].state in followed.finished:
            return  # as it was; a strip that is not there was removed on purpose
        record = found[0][1] if found else followed.relist()
        if record is not None:
            followed.restore(record)


tracker = Tracker()


def can_cancel(record: JobRecord) -> bool:
    """Whether a job is under way, so that it can be cancelled."""
    return tracker.is_followed(record) and record.state not in _OVER


def can_resume(record: JobRecord) -> bool:
    """Whether the add-on does not follow an unfinished job, and can do so when the artist wants it."""
    return record.state == JobState.STOPPED or is_paused(record)


def is_paused(record: JobRecord) -> bool:
    """Whether a job waits for the artist, because it was not started on this computer."""
    return record.key in tracker.paused


def can_retry(record: JobRecord) -> bool:
    """Whether a job ended without a result, so that another one can be sent for it."""
    return record.state in (JobState.FAILED, JobState.CANCELLED, JobState.STOPPED)


@bpy.app.handlers.persistent
def _after_load(*_: object) -> None:
    tracker.file_loaded()


@bpy.app.handlers.persistent
def _after_save(target: str, *_: object) -> None:
    if target == bpy.data.filepath:  # and not a copy
        tracker.file_saved()


HANDLERS = (("load_post", _after_load), ("save_post", _after_save))


def register() -> None:
    """Follow jobs in every tick; kinds are added by their own modules."""
    tracker.reset()
    scheduler.every_tick(tracker.step_all, JOBS_SECONDS)
    scheduler.after_undo(tracker.restore_all)
