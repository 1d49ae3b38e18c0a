"""Reports the errors that an artist can act on in one sentence; anything else is a bug and keeps its traceback."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import bpy

from ex4d_core.errors import is_expected, user_message

Execute = Callable[[bpy.types.Operator, bpy.types.Context], set[str]]


def reports_errors(execute: Execute) -> Execute:
    """Let an operator's ``execute`` tell the artist what was wrong and what to do, and end as cancelled."""

    @wraps(execute)
    def reporting(self: bpy.types.Operator, context: bpy.types.Context) -> set[str]:
        try:
            return execute(self, context)
        except Exception as error:
            if not is_expected(error):
                raise
            self.report({"ERROR"}, user_message(error))
            return {"CANCELLED"}

    return reporting
