"""The pages of a real TensorBoard with real runs, in a real browser."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

import main
from tracking.checkpoint import load_checkpoint
from tracking.metric_table import CHARTS, METRICS

T = TypeVar("T")
TAGS = [metric.tag for metric in METRICS.values() if metric.when in ("epoch", "test")]
RUNS = {
    "shared=False_LF=0.5_LR=0.5/seed=0": "--no_shared_embeddings --factorization_weight 0.5 --regression_weight 0.5",
    "shared=True_LF=0.99_LR=0.01/seed=1": "--seed 1",
}
NAMES = tuple(RUNS)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1600,3000",
    "--no-proxy-server", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-quic", "--disable-sync",
)  # fmt: skip
# The elements below an element or the page, including those in shadow roots, and the strings that they show.
SCRIPT = """
const shadows = node => [...node.childNodes, ...(node.shadowRoot ? node.shadowRoot.childNodes : [])];
const deep = (node, selector) => shadows(node).flatMap(
    child => [...(child.matches?.(selector) ? [child] : []), ...deep(child, selector)]);
const texts = node => node.nodeType === Node.TEXT_NODE ? [node.textContent.trim()].filter(text => text)
    : ['SCRIPT', 'STYLE'].includes(node.tagName) || node.checkVisibility?.() === false ? []
    : [...(node.shadowRoot ? texts(node.shadowRoot) : []), ...[...node.childNodes].flatMap(texts)];
const [selector, root] = [arguments[0], arguments[1] ?? document.body];
"""
pytestmark = pytest.mark.long


def within(look: Callable[[], T | None], seconds: float = 30.0) -> T:
    """Call a function until it returns something true, and return that."""
    until, last = time.monotonic() + seconds, object()
    while time.monotonic() < until:
        try:
            last = found = look()
        except (WebDriverException, OSError) as error:  # a page that is being redrawn, a server that has not started
            last = error
        else:
            if found:
                return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:g} s; last seen: {last}")


class Page(NamedTuple):
    """A browser that shows a TensorBoard."""

    browser: Chrome
    url: str

    def open(self, tab: str) -> None:
        self.browser.get("about:blank")  # because a change after the # alone loads nothing
        self.browser.get(f"{self.url}#{tab}")

    def find(self, selector: str, root: object = None) -> list[Any]:
        found: list[Any] = self.browser.execute_script(f"{SCRIPT} return deep(root, selector);", selector, root)
        return found

    def texts(self, root: object = None) -> list[str]:
        found: list[str] = self.browser.execute_script(f"{SCRIPT} return texts(root);", None, root)
        return found

    def table(self) -> list[list[str]]:
        """Return the strings of a grid's cells, row by row, by their place on the page."""
        cells = self.browser.execute_script(
            f"{SCRIPT} return deep(root, selector).map(each => {{ const at = each.getBoundingClientRect();"
            "return [at.top + at.height / 2, at.left, texts(each).join(' '), at.width * at.height]; });",
            "vaadin-grid-cell-content",
        )
        shown = sorted(cell for cell in cells if cell[3] > 0)
        return [[cell[2] for cell in row] for _, row in groupby(shown, key=lambda cell: cell[0])]

    def card(self, element: str, title: str) -> Any:
        """Return the card with this title."""
        return next((card for card in self.find(element) if title in "".join(self.texts(card))), None)


def program(name: str) -> str:
    """Return the path of a program; CI must have it."""
    path = shutil.which(name)
    if path is None:
        reason = f"needs {name}: apt-get install chromium chromium-driver"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("tensorboard")
    for name, flags in RUNS.items():
        arguments = ["--epochs=4", f"--data_dir={data_dir}", f"--logdir={folder / name}", *flags.split()]
        assert main.main(arguments) == 0
    return folder


@pytest.fixture(scope="module")
def page(logdir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    driver, chromium = program("chromedriver"), program("chromium")
    folder = tmp_path_factory.mktemp("browser")
    options = ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    server = [sys.executable, "-m", "tensorboard.main", f"--logdir={logdir}", "--port=0", "--host=localhost"]
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setenv("NO_PROXY", "localhost,127.0.0.1")
        log = stack.enter_context((folder / "log").open("w+"))
        process = stack.enter_context(subprocess.Popen(server, stdout=log, stderr=log))
        stack.callback(process.terminate)
        url = within(lambda: re.search(r"http://localhost:\d+/", (folder / "log").read_text())).group()
        # The page shows only the runs that the server has read when the page is opened.
        within(lambda: all(tags(url).count(tag) == len(NAMES) for tag in TAGS))
        browser = Chrome(options, Service(driver))
        stack.callback(browser.quit)
        yield Page(browser, url)


def tags(url: str) -> list[str]:
    with urllib.request.urlopen(f"{url}data/plugin/scalars/tags", timeout=5) as answer:
        return re.findall(r'"([^"]+)": \{"displayName"', answer.read().decode())


def last(logdir: Path, name: str) -> dict[str, float]:
    checkpoint = load_checkpoint(logdir / name)
    assert checkpoint is not None
    return {METRICS[name].tag: value for name, value in zip(checkpoint.columns, checkpoint.history[-1], strict=True)}


def test_time_series_have_five_cards_that_show_every_run(page: Page, logdir: Path) -> None:
    page.open("timeseries")
    for tag in TAGS:

        def values(tag: str = tag) -> dict[str, float]:
            """Return each run's smoothed value from the table of name, smoothed value, value, step, …"""
            card = page.card("card-view", tag)
            texts = page.texts(card) if card is not None else []  # None stands for the whole page
            smoothed = dict(zip(texts, texts[2:], strict=False))
            return {name: float(smoothed[name]) for name in NAMES if re.fullmatch(r"[\d.e-]+", smoothed.get(name, ""))}

        assert within(lambda: len(values()) == len(NAMES) and values()) == {
            name: pytest.approx(last(logdir, name)[tag], rel=1e-3) for name in NAMES
        }
    assert len(page.find("card-view")) == len(TAGS)


LINES = ".line-plot:not(.ghost) path.line"


def test_scalars_have_five_charts_with_a_line_per_run(page: Page) -> None:
    page.open("scalars")

    def lines() -> dict[str, int]:
        return {tag: len(page.find(LINES, page.card("tf-scalar-card", tag))) for tag in TAGS}

    within(lambda: lines() == dict.fromkeys(TAGS, len(NAMES)))
    assert len(page.find("tf-scalar-card")) == len(TAGS)
    assert set(NAMES) <= set(page.texts())


def test_custom_scalars_put_training_and_test_mse_into_one_chart(page: Page) -> None:
    page.open("custom_scalars")

    def card() -> Any:
        return page.card("tf-custom-scalar-multi-line-chart-card", "MSE: training and test")

    within(lambda: len(page.find(LINES, card())) == 2 * len(NAMES))
    assert "Matches (4)" in page.texts(card())
    page.find(".toggle-matches-button", card())[0].click()
    expected = {f"{tag} ({name})" for name in NAMES for tag in ("training/MSE", "eval/MSE")}
    within(lambda: {page.texts(each)[-1] for each in page.find(".match-list-entry", card())} == expected)
    assert len(page.find("tf-custom-scalar-multi-line-chart-card")) == len(CHARTS)


def test_hparams_list_every_run_with_its_settings_and_metrics(page: Page, logdir: Path) -> None:
    page.open("hparams")
    within(lambda: len(page.table()) == 1 + len(NAMES))
    box = next(each for each in page.find("paper-checkbox") if page.texts(each) == ["layer_sizes"])
    box.click()  # by default only five settings are shown, those that differ before the others
    within(lambda: "layer_sizes" in page.table()[0])
    header, *rows = page.table()
    found = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert list(found) == list(NAMES)
    settings = ("shared_embeddings", "factorization_weight", "regression_weight", "seed", "layer_sizes")
    separate, shared = ([found[name][setting] for setting in settings] for name in NAMES)
    assert separate == ["false", "0.50000", "0.50000", "0.0000", "96 64"]
    assert shared == ["true", "0.99000", "0.010000", "1.0000", "96 64"]
    for name in NAMES:
        assert {tag: float(found[name][tag]) for tag in TAGS} == pytest.approx(last(logdir, name), rel=1e-3)


def test_hparams_are_sorted_by_any_setting_or_metric(page: Page, logdir: Path) -> None:
    page.open("hparams")
    within(lambda: len(page.table()) == 1 + len(NAMES))
    joint = {name: last(logdir, name)["training/Joint Loss"] for name in NAMES}
    by_joint_loss, by_seed = sorted(NAMES, key=joint.__getitem__), list(NAMES)
    assert by_joint_loss != by_seed  # so that each choice after the first changes the order
    choose(page, "Sort by", "training/Joint Loss")
    choose(page, "Direction", "Ascending")
    within(lambda: ordered(page) == by_joint_loss)
    choose(page, "Sort by", "seed")
    within(lambda: ordered(page) == by_seed)
    choose(page, "Direction", "Descending")
    within(lambda: ordered(page) == by_seed[::-1])


def ordered(page: Page) -> list[str]:
    return [row[0] for row in page.table()[1:]]


def choose(page: Page, label: str, option: str) -> None:
    """Open a menu beside the table and click one of its items."""

    def click(element: Any) -> bool:
        page.browser.execute_script("arguments[0].scrollIntoView({block: 'center'});", element)
        element.click()
        return True

    def shown(element: Any) -> bool:
        return bool(page.browser.execute_script("return arguments[0].checkVisibility();", element))

    menu = next(each for each in page.find("paper-dropdown-menu") if label in page.texts(each))
    item = next(each for each in page.find("paper-item", menu) if each.get_attribute("textContent").strip() == option)
    within(lambda: click(page.find("paper-input", menu)[0]))
    within(lambda: shown(item) and click(item))
    within(lambda: not shown(item))


def test_the_projector_shows_the_items_and_finds_them_by_title(page: Page, logdir: Path) -> None:
    """The item that is searched for is selected, and its nearest neighbours by cosine are listed."""
    titles = [line.split("\t")[0] for line in (logdir / NAMES[0] / "items.tsv").read_text().splitlines()[1:]]
    page.open("projector")
    try:
        for _ in range(2):  # the tab's frame, and the frame in it that draws
            page.browser.switch_to.frame(within(lambda: page.find("iframe"))[0])
        within(lambda: f"Points: {len(titles)} Dimension: 32" in " ".join(page.texts()))
        panel = within(lambda: page.find("vz-projector-inspector-panel"))[0]
        page.find("input", page.find("vz-projector-input", panel)[0])[0].send_keys("Toy Story")
        within(lambda: "1 matches." in page.texts(panel))
        within(lambda: "Nearest points in the original space:" in page.texts(panel))
        texts = page.texts(panel)
    finally:
        page.browser.switch_to.default_content()
    nearest = texts[texts.index("Nearest points in the original space:") + 1]
    by_run = []
    for name in NAMES:
        table = np.fromfile(logdir / name / "items.bytes", dtype="<f4").reshape(len(titles), 32).astype(float)
        cosine = table @ table[0] / np.linalg.norm(table, axis=1) / np.linalg.norm(table[0])
        by_run.append(titles[np.argsort(-cosine)[1]])
    assert nearest in by_run
