"""A Jupyter server of this environment, and Debian's chromium driven by playwright."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test-browser installs it")
pytest.importorskip("jupyterlab", reason="JupyterLab is not installed: make test-browser installs it")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
#: where screenshots are kept, to be looked at
ARTEFACTS = Path(os.environ.get("FLOWKIT_ARTEFACTS", Path(__file__).parents[2] / "build" / "screenshots"))
IDLE = ".jp-Notebook-ExecutionIndicator[data-status=idle]"
START = "%load_ext flowkit\nimport flowkit as fk, time\nfc = fk.Context(workers=2)"


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left() -> None:
    """The browser and the server live as long as the session; kernels are killed, which is what sweeping files is for."""


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Its address, and the directory that it serves."""
    directory = tmp_path_factory.mktemp("notebooks")
    settings = tmp_path_factory.mktemp("settings")
    port = _free_port()
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--IdentityProvider.token=",
        "--allow-root", "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--ServerApp.disable_check_xsrf=True",
    ]  # fmt: skip
    environment = {**os.environ, "JUPYTER_CONFIG_DIR": str(settings), "JUPYTERLAB_SETTINGS_DIR": str(settings / "lab")}
    log = (directory / ".server.log").open("wb")
    process = subprocess.Popen(command, cwd=directory, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    pause = threading.Event()
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{address}/api/status", timeout=5) as answer:
                    json.load(answer)
                break
            except OSError:
                pause.wait(0.1)
        else:
            raise TimeoutError("the Jupyter server does not come up")
        yield address, directory
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory):
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    with playwright.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp("profile")),
            executable_path=CHROMIUM,
            args=ARGUMENTS,
            headless=True,
            viewport={"width": 1200, "height": 1400},
        )
        yield context
        context.close()


class Page:
    """One notebook in one tab."""

    def __init__(self, page, address: str, path: Path, front_end: str) -> None:
        self.page = page
        self.path = path
        self._url = f"{address}/{front_end}/{path.name}"
        self.complaints: list[str] = []
        page.on("pageerror", self._note)
        page.on("dialog", lambda dialog: (self.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))

    def _note(self, error) -> None:
        # Our code is loaded from a blob; what the front ends themselves complain of is theirs.
        if "blob:" in (error.stack or ""):
            self.complaints.append(error.stack)

    def open(self) -> None:
        # Without `reset` JupyterLab opens what the test before had open, too.
        self.page.goto(f"{self._url}?reset" if "/lab/" in self._url else self._url)
        self.page.wait_for_selector(IDLE, state="attached", timeout=60_000)
        self.page.wait_for_timeout(1_500)  # a key pressed right after is swallowed

    def cell(self, index: int):
        return self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell").nth(index)

    def begin(self, index: int) -> None:
        """Run a cell by keyboard."""
        self.cell(index).locator(".cm-content").click(position={"x": 40, "y": 8})
        self.page.wait_for_selector(".jp-Notebook.jp-mod-editMode")
        self.page.keyboard.press("Shift+Enter")

    def run(self, index: int) -> None:
        self.begin(index)
        self.wait_until_done(index)

    def wait_until_done(self, index: int, timeout_s: float = 60.0) -> None:
        prompt = self.cell(index).locator(".jp-InputPrompt")
        playwright.expect(prompt).to_have_text(__import__("re").compile(r"\[\d+\]:"), timeout=timeout_s * 1_000)

    def output(self, index: int):
        return self.cell(index).locator(".jp-Cell-outputArea")

    def keep(self, name: str) -> None:
        """A screenshot."""
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=str(ARTEFACTS / f"{name}.png"))


@pytest.fixture
def notebook(server, chromium, request):
    """Make a notebook of cells and open it."""
    address, directory = server
    pages = []

    def make(*cells: str, front_end: str = "lab/tree") -> Page:
        path = directory / f"{request.node.name[:40]}.ipynb".replace("[", "-").replace("]", "")
        content = nbformat.v4.new_notebook(
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        )
        content.cells = [nbformat.v4.new_code_cell(source) for source in (START, *cells)]
        nbformat.write(content, path)
        page = Page(chromium.new_page(), address, path, front_end)
        pages.append(page)
        page.open()
        page.run(0)
        return page

    yield make
    for page in pages:
        page.page.close()
    kernels = json.load(urllib.request.urlopen(f"{address}/api/sessions", timeout=10))
    for each in kernels:
        urllib.request.urlopen(urllib.request.Request(f"{address}/api/sessions/{each['id']}", method="DELETE"), timeout=30)
    if pages:
        assert not pages[0].complaints, pages[0].complaints
