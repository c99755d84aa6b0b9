"""The dashboards in a browser: Chromium without a window, and a real TensorBoard.

``DLN_SCREENSHOTS=docs/dashboards`` keeps a picture of each page.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from PIL import Image

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
SIZE = (1400, 1200)

ELEMENTS = """
const found = [];
function look(root) {
  found.push(...root.querySelectorAll(SELECTOR));
  for (const e of root.querySelectorAll('*')) if (e.shadowRoot) look(e.shadowRoot);
}
look(document);
return found.map(e => QUESTION);
"""
"""A question to elements, those inside of web components too, which no selector reaches."""


def command(name: str, *words: str, cwd: Path) -> None:
    call = [sys.executable, "-m", f"dln_momentum.cli.{name}", *words]
    root = Path(__file__).resolve().parents[1]
    subprocess.run(call, cwd=cwd, check=True, capture_output=True,
                   env=os.environ | {"PYTHONPATH": str(root)})  # fmt: skip


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, a multirun, a sweep and a flow, made by the commands as a user gives them."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("chromium and chromedriver are not installed")
    pytest.importorskip("selenium")
    cwd = tmp_path_factory.mktemp("study")
    command("train", cwd=cwd)
    command("train", "-m", "optimizer.gamma=0.005,0.02", "optimizer.beta=0.5,0.9", cwd=cwd)
    axes = ["sweep.lam=geomspace:0.1:10:4", "sweep.beta=0.9", "trainer.max_steps=20000"]
    command("sweep", *axes, cwd=cwd)
    command("flow", "flow.lam=1", cwd=cwd)
    return cwd / "outputs"


@pytest.fixture(scope="module")
def tensorboard(logdir: Path) -> Iterator[str]:
    """The address of a TensorBoard of this folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    call = [sys.executable, "-m", "tensorboard.main", f"--logdir={logdir.name}", f"--port={port}"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(call, cwd=logdir.parent, stdout=quiet, stderr=quiet) as process:
        address = f"http://127.0.0.1:{port}/"
        try:
            wait_for(lambda: "median" in urlopen(f"{address}data/runs").read().decode())
            yield address
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, tensorboard: str) -> Iterator[Any]:
    """Chromium, with the address that it is to open."""
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = CHROMIUM or ""
    profile = tmp_path_factory.mktemp("profile")
    for flag in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
        "disable-background-networking", "disable-component-update", "disable-sync",
        f"user-data-dir={profile}", f"window-size={SIZE[0]},{SIZE[1]}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    driver = Chrome(options=options, service=ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def wait_for(condition: Callable[[], Any], seconds: float = 90) -> Any:
    """What a condition gives once it is true."""
    end = time.monotonic() + seconds
    while True:
        try:
            if found := condition():
                return found
        except OSError:
            pass  # the server is not up
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds} s")
        time.sleep(0.5)


def ask(browser: Any, selector: str, question: str = "e.innerText") -> list[Any]:
    """A question to each element of a kind."""
    script = ELEMENTS.replace("SELECTOR", repr(selector)).replace("QUESTION", question)
    return browser.execute_script(script)


def keep(browser: Any, name: str) -> None:
    """A small picture of the page as it is, if pictures are wanted; it is never blank."""
    time.sleep(2)  # lines are drawn after their data have come
    picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    assert len(picture.getcolors(picture.width * picture.height) or []) > 50
    folder = os.environ.get("DLN_SCREENSHOTS")
    if folder:
        path = Path(__file__).resolve().parents[1] / folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.quantize(96).save(path, optimize=True)
        assert path.stat().st_size < 150_000


def test_time_series_have_a_card_a_quantity(browser: Any, tensorboard: str) -> None:
    browser.get(
        f"{tensorboard}?smoothing=0&tagFilter=l1_norm|recovery_error|train_loss|kkt_residual#timeseries"
    )
    cards = wait_for(lambda: len(found := ask(browser, "scalar-card")) > 3 and found)
    shown = " ".join(cards)
    for name in ("l1_norm", "log10 recovery_error", "log10 train_loss"):
        assert name in shown
    # all runs are ticked, those of the multirun named by what varies
    runs = wait_for(lambda: ask(browser, "runs-data-table tb-data-table-content-row"))
    assert any("gamma_0.02-beta_0.9" in run.replace("\n", "") for run in runs)
    # nothing that is tiny is shown as 0
    losses = next(card for card in cards if "train_loss" in card)
    assert re.search(r"-\d\d", losses.replace("\u2212", "-"))
    keep(browser, "time_series")


def test_custom_scalars_draw_measured_and_predicted(browser: Any, tensorboard: str) -> None:
    # tall enough for all charts; the one run and the one flow, whose lines can be told apart
    browser.set_window_size(SIZE[0], 1620)
    runs = quote("^(train|flow)/[^/]*/[^/]*$")
    browser.get(f"{tensorboard}#custom_scalars&_smoothingWeight=0&regexInput={runs}")
    kind = "tf-custom-scalar-multi-line-chart-card"
    series = "Object.values(e._nameToDataSeries || {}).map(v => [v.getName(), v.getData().length])"
    charts = wait_for(lambda: (found := ask(browser, kind, series)) and found[0] and found)
    assert len(charts) == 6
    lines = dict(charts[0])
    for run in ("flow/", "train/"):
        own = {name: size for name, size in lines.items() if run in name}
        measured = [size for name, size in own.items() if "log10 balancedness_l1" in name]
        predicted = [size for name, size in own.items() if "predicted_balancedness_l1" in name]
        assert measured
        assert len(measured) == len(predicted)
        assert min(measured + predicted) > 50
    keep(browser, "custom_scalars")
    browser.set_window_size(*SIZE)


def test_hparams_have_a_row_a_run(browser: Any, tensorboard: str) -> None:
    browser.set_window_size(1900, 900)
    browser.get(f"{tensorboard}#hparams")

    def cells() -> list[str]:
        return [text.strip() for text in ask(browser, "vaadin-grid-cell-content")]

    shown = wait_for(lambda: "converged" in (found := cells()) and found)
    for column in ("gamma", "lam", "status", "steps", "log10 recovery_error", "log10 kkt_residual"):
        assert column in shown
    rows = [text for text in shown if re.search(r"gamma_|lam_|\d\d-\d\d-\d\d", text)]
    # a run, four jobs, a flow, and the four runs of the sweep
    assert len(set(rows)) == 10
    keep(browser, "hparams")
    browser.set_window_size(*SIZE)


def test_histograms_are_there(browser: Any, tensorboard: str) -> None:
    browser.get(f"{tensorboard}#histograms&tagFilter=vectors&regexInput=train.*gamma_0.02")
    wait_for(lambda: len(ask(browser, "vz-histogram-timeseries")) > 3)
    paths = (
        "e.querySelectorAll('path').length + (e.shadowRoot || e).querySelectorAll('path').length"
    )
    # a histogram draws one outline a record
    wait_for(lambda: min(ask(browser, "vz-histogram-timeseries", paths)[:4]) > 10)
    keep(browser, "histograms")


def test_text_is_a_table_and_the_config(browser: Any, tensorboard: str) -> None:
    browser.get(f"{tensorboard}#text")
    # one a run: a run, four jobs, a flow and the sweep
    wait_for(lambda: sum("status" in t for t in ask(browser, "table", "e.textContent")) >= 7)
    assert any("path_sums: telescoped" in code for code in ask(browser, "pre", "e.textContent"))
    keep(browser, "text")


def test_images_are_panels(browser: Any, tensorboard: str) -> None:
    browser.get(f"{tensorboard}#images")
    sizes = wait_for(
        lambda: (found := [s for s in ask(browser, "img", "e.naturalWidth") if s > 500]) and found
    )
    # a panel of the overview each, not the page of 1,900 pixels
    assert max(sizes) < 800
    keep(browser, "images")
