"""Defines the licence setting, and the one rule that says which engines, rasterizers, estimators and weights it allows.

Some parts may be used for research only. The default, `DEFAULT_LICENCE`, is "commercial", so that nobody uses such a
part without asking for research: in the request (``--licence research``, the add-on's preferences) or for a machine
(``EX4D_LICENCE=research``). Where the machine's setting is "commercial", no request overrides it. A user who holds
another licence of a part names it with ``--accept-licence`` in the command that runs the part (`ex4d serve` for a
service); a request over the wire cannot.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, cast, get_args

from ex4d_core.errors import Ex4dError

Licence = Literal["research", "commercial"]
LICENCES: tuple[Licence, ...] = get_args(Licence)
LICENCE_VARIABLE = "EX4D_LICENCE"
DEFAULT_LICENCE: Licence = "commercial"


class LicenceError(Ex4dError):
    """A part whose licence does not allow the use of its results, or an invalid licence setting."""


def as_licence(value: str, what: str = "licence") -> Licence:
    """Raises LicenceError for a value, of ``what``, that is not one of `LICENCES`."""
    if value not in LICENCES:
        raise LicenceError(f"invalid {what} {value!r}: expected one of {', '.join(LICENCES)}")
    return cast(Licence, value)


def effective_licence(requested: str | None, machine: str | None) -> Licence:
    """What a result is for, by the request's setting and the machine's; None where one is not set.

    Raises:
        LicenceError: a setting is not one of `LICENCES`.
    """
    settings: list[Licence] = [as_licence(one) for one in (requested, machine) if one is not None]
    if "commercial" in settings:
        return "commercial"
    return settings[0] if settings else DEFAULT_LICENCE


def is_allowed(name: str, commercial: bool, licence: Licence, accepted: Collection[str] = ()) -> bool:
    """Whether a part may be used; arguments as of `require_allowed`."""
    return commercial or licence == "research" or name in accepted


def require_allowed(
    name: str, commercial: bool, licence: Licence, accepted: Collection[str] = (), *, terms: str, instead: str = ""
) -> None:
    """Check that a part may be used.

    Args:
        name: as the command line takes it.
        commercial: whether the part's own licence allows commercial work.
        licence: what the result is for; see `effective_licence`.
        accepted: names of parts for which the user holds another licence.
        terms, instead: the part's licence, and what to use in its place, for the error.

    Raises:
        LicenceError: it may not be used; says what to do.
    """
    if not is_allowed(name, commercial, licence, accepted):
        others = f"use {instead}; or, " if instead else ""
        raise LicenceError(
            f"{name} may not be used for commercial work ({terms}): {others}for research, set the licence to research "
            f"(--licence research; not where {LICENCE_VARIABLE} is commercial); or, if you hold a licence of your own, "
            f"add --accept-licence {name} to the command that runs it"
        )
