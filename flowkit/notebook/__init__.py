"""The face in a notebook: live progress below the cell that runs, magics, rich displays.

Comes by itself with the first Context that is made in IPython, or with ``%load_ext flowkit``. Runs in the kernel; every part of it is over
``Context`` and ``observe``, and nothing there knows of it.
"""

from __future__ import annotations

from typing import Any

__all__ = ["disable", "enable"]


def enable(shell: Any = None) -> None:
    """Show jobs below their cells from now on, and add the magics.

    Parameters
    ----------
    shell
        The IPython shell; None: the running one.

    Raises
    ------
    RuntimeError
        There is no IPython.

    Notes
    -----
    In a plain IPython terminal, progress is drawn by the terminal as in any script; only the magics are added. Idempotent.
    """
    from flowkit.notebook.session import NotebookSession

    NotebookSession.of(_shell(shell)).enable()


def enable_by_itself(shell: Any) -> None:
    """As ``enable``, for a Context that is made in a shell; not where ``disable`` was called there."""
    from flowkit.notebook.session import NotebookSession

    NotebookSession.of(shell).enable_unless_unwanted()


def disable(shell: Any = None) -> None:
    """Take back what ``enable`` did; what is below cells stays, and Contexts made later bring nothing back. Idempotent."""
    from flowkit.notebook.session import NotebookSession

    NotebookSession.of(_shell(shell)).disable()


def _shell(shell: Any) -> Any:
    if shell is not None:
        return shell
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        found = None
    else:
        found = get_ipython()
    if found is None:
        raise RuntimeError("flowkit.notebook is for IPython and notebooks; in a script progress is drawn by the terminal")
    return found
