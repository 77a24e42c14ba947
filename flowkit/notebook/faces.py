"""Ways to draw a panel below a cell, best first: a widget with a view of its own, plain ipywidgets, HTML that is replaced.

Runs in the kernel, on the session's thread. A face gets snapshots and makes messages of them; it knows no cell and no job.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol

from flowkit.logs import is_ctrl_c, logger_of
from flowkit.observe.deltas import DeltaRing, difference, full
from flowkit.observe.snapshot import Snapshot
from flowkit.observe.static_view import render_line, render_static
from flowkit.observe.timeline import Block, Timeline

logger = logger_of(__name__)

STATIC: Final = Path(__file__).parent / "static"
WIDGET_VIEW: Final = "application/vnd.jupyter.widget-view+json"
#: a view of another size than this is not sent whole ten times a second
_HTML_EVERY_S: Final = 0.5


class Face(Protocol):
    """What draws one panel. Used by one thread at a time."""

    def bundle(self, snapshot: Snapshot, timeline: Timeline, now: float) -> dict[str, Any]:
        """What to show below the cell at first."""
        ...

    def update(self, snapshot: Snapshot, timeline: Timeline, now: float) -> dict[str, Any] | None:
        """Draw anew; what to show in place of the output, or None when the face does that itself."""
        ...

    def close(self) -> None:
        """It is not needed any more: many others came after it."""
        ...


def static_bundle(snapshot: Snapshot, timeline: Timeline, now: float) -> dict[str, Any]:
    """What stays in a notebook that is saved now."""
    blocks: tuple[Block, ...] = (*timeline.since(-1, 0).blocks, *timeline.growing())
    return {"text/html": render_static(snapshot, blocks, now), "text/plain": render_line(snapshot, now)}


class HtmlFace:
    """HTML in place of HTML; needs nothing but a front end."""

    def __init__(self) -> None:
        self._drawn_at = 0.0

    def bundle(self, snapshot: Snapshot, timeline: Timeline, now: float) -> dict[str, Any]:
        """See ``Face``."""
        self._drawn_at = now
        return static_bundle(snapshot, timeline, now)

    def update(self, snapshot: Snapshot, timeline: Timeline, now: float) -> dict[str, Any] | None:
        """See ``Face``."""
        if snapshot.state == "running" and now - self._drawn_at < _HTML_EVERY_S:
            return None
        return self.bundle(snapshot, timeline, now)

    def close(self) -> None:
        """See ``Face``."""


class IpywidgetsFace:
    """An HTML widget of ipywidgets and a button."""

    def __init__(self, cancel: Callable[[], None]) -> None:
        widgets = import_module("ipywidgets")
        self._html = widgets.HTML()
        self._button = widgets.Button(description="Cancel", layout=widgets.Layout(width="auto"))
        self._button.on_click(lambda _button: cancel())
        self._box = widgets.VBox([self._button, self._html])
        _reply_anywhere(self._button)
        self._drawn_at = 0.0

    def bundle(self, snapshot: Snapshot, timeline: Timeline, now: float) -> dict[str, Any]:
        """See ``Face``."""
        self.update(snapshot, timeline, now)
        return {**static_bundle(snapshot, timeline, now), WIDGET_VIEW: _view(self._box)}

    def update(self, snapshot: Snapshot, timeline: Timeline, now: float) -> dict[str, Any] | None:
        """See ``Face``."""
        running = snapshot.state == "running"
        if not running or now - self._drawn_at >= _HTML_EVERY_S:
            self._drawn_at = now
            self._html.value = static_bundle(snapshot, timeline, now)["text/html"]
            self._button.layout.display = None if running else "none"
        return None

    def close(self) -> None:
        """See ``Face``."""
        self._box.close()


class WidgetFace:
    """An anywidget with the view of ``extensions/view``: the whole at first, then what changed."""

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel
        self._sent: Snapshot | None = None
        self._epoch, self._blocks = -1, 0
        self._wants_whole = False
        self._ring = DeltaRing()
        #: the oldest version at which a view asked for what it missed
        self._lost_at: int | None = None
        self._latest: dict[str, Any] = {}
        self._kind = _widget_class()  # what is not installed is missed here
        self._made: Any = None

    @property
    def _widget(self) -> Any:
        """Made when there is something to show: a page draws late what comes along with it, and misses what is sent before it draws."""
        if self._made is None:
            self._made = self._kind(self._whole)
            self._made.on_msg(self._hear)
            _reply_anywhere(self._made)
        return self._made

    def bundle(self, snapshot: Snapshot, timeline: Timeline, now: float) -> dict[str, Any]:
        """See ``Face``."""
        self._send_whole(snapshot, timeline, now)
        return {**static_bundle(snapshot, timeline, now), WIDGET_VIEW: _view(self._widget)}

    def update(self, snapshot: Snapshot, timeline: Timeline, now: float) -> dict[str, Any] | None:
        """See ``Face``."""
        if self._wants_whole or self._sent is None:
            self._send_whole(snapshot, timeline, now)
            return None
        message: dict[str, Any] = {"now": now}
        if snapshot is not self._sent:
            message["delta"] = difference(self._sent, snapshot)
            self._ring.push(message["delta"])
            self._sent = snapshot
        lost_at, self._lost_at = self._lost_at, None
        if lost_at is not None:
            missed = self._ring.since(lost_at)
            if missed is None:
                self._send_whole(snapshot, timeline, now)
                return None
            # Views that have them already leave them aside.
            message.pop("delta", None)
            message["deltas"] = missed
        message["timeline"] = self._timeline_part(timeline)
        self._latest = {"now": now, "snapshot": snapshot, "timeline": timeline}
        self._widget.send(message)
        return None

    def close(self) -> None:
        """See ``Face``."""
        if self._made is not None:
            self._made.close()

    def _send_whole(self, snapshot: Snapshot, timeline: Timeline, now: float) -> None:
        self._wants_whole = False
        self._sent = snapshot
        self._epoch, self._blocks = -1, 0
        self._latest = {"now": now, "snapshot": snapshot, "timeline": timeline}
        self._widget.send({"now": now, "snapshot": full(snapshot), "timeline": self._timeline_part(timeline)})

    def _timeline_part(self, timeline: Timeline) -> dict[str, Any]:
        part = timeline.since(self._epoch, self._blocks)
        self._epoch, self._blocks = part.epoch, part.first + len(part.blocks)
        return {"epoch": part.epoch, "first": part.first, "blocks": part.blocks, "growing": timeline.growing()}

    def _whole(self) -> dict[str, Any]:
        """For a page that was loaded anew: all there is, at once."""
        if not self._latest:
            return {}
        timeline: Timeline = self._latest["timeline"]
        part = timeline.since(-1, 0)
        growing = timeline.growing()
        told = {"epoch": part.epoch, "first": 0, "blocks": part.blocks, "growing": growing}
        return {"now": self._latest["now"], "snapshot": full(self._latest["snapshot"]), "timeline": told}

    def _hear(self, _widget: Any, content: Any, _buffers: Any) -> None:
        # May be heard on any thread: nothing is sent or printed here.
        match content:
            case {"op": "cancel"}:
                self._cancel()
            case {"op": "resync", "version": int(version)} if version >= 0:
                self._lost_at = version if self._lost_at is None else min(version, self._lost_at)
            case {"op": "resync"}:
                self._wants_whole = True
            case _:
                logger.debug("a view sent %r", content)


@cache
def _widget_class() -> Any:
    anywidget, traitlets = import_module("anywidget"), import_module("traitlets")

    class FlowkitPanel(anywidget.AnyWidget):  # type: ignore[name-defined,misc]
        _esm = (STATIC / "widget.js").read_text(encoding="utf-8")
        #: what a page asks for that was loaded anew; made when it is asked for, never sent by itself
        whole = traitlets.Dict().tag(sync=True)

        def __init__(self, whole: Callable[[], dict[str, Any]]) -> None:
            self._make_whole = whole
            super().__init__()

        def get_state(self, key: Any = None, drop_defaults: bool = False) -> Any:
            state = super().get_state(key, drop_defaults)
            if "whole" in state:
                state["whole"] = self._make_whole()
            return state

    return FlowkitPanel


def _view(widget: Any) -> dict[str, Any]:
    return {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}


def _reply_anywhere(widget: Any) -> None:
    """Hear the front end while a cell runs, on ipykernel 7.2 and later too.

    The kernel handles a front end's message in whatever thread last sent on the comm; when that was no subshell, it waits until the
    cell has ended, and a Cancel button is of no use.
    """
    comm: Any = getattr(widget, "comm", None)
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda _data, default: default


def face_makers() -> dict[str, bool]:
    """Ways of drawing by the setting that asks for them, best first; and whether what they need is installed."""
    return {
        "widget": find_spec("anywidget") is not None and (STATIC / "widget.js").exists(),
        "ipywidgets": find_spec("ipywidgets") is not None,
        "html": True,
    }


def make_face(progress: str, cancel: Callable[[], None]) -> Face:
    """A face as a setting asks for it; ``auto``: the best that is installed."""
    ways = face_makers()
    chosen = progress if ways.get(progress) else next(way for way, installed in ways.items() if installed)
    try:
        match chosen:
            case "widget":
                return WidgetFace(cancel)
            case "ipywidgets":
                return IpywidgetsFace(cancel)
            case _:
                return HtmlFace()
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        # Widgets of a version that is not what we know: their trouble is no reason to show nothing.
        logger.warning("no %s can be made; progress is shown as HTML", chosen, exc_info=True)
        return HtmlFace()
