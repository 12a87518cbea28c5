"""Pages for students: everything is said, a submission's text is shown as text, and no two share a file."""

import random
import re
import unicodedata
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

from grading.checks import Check
from grading.feedback import file_names, markdown, web_page
from grading.results import Grade, Result, ungraded
from grading.table import label

CHECKS = [Check(name, 2, f"title of {name}", lambda ask, split: None) for name in ("1-basic", "2-basic", "3-hidden")]
HOSTILE = "<script>alert(1)</script> &amp; ``` </pre> ````` # [x](http://x) ![y](z)\n```\n<img src=x onerror=y>\n~~~"
GRADED = Grade(
    "class/<b>al*ce`.zip",
    (
        Result(CHECKS[0], True, 1.0, printed="not shown"),
        Result(CHECKS[1], False, 1.0, "0.65 for a pair, expected 1.12. Likely cause: no bias", HOSTILE),
        Result(CHECKS[2], False, 1.0, HOSTILE),
    ),
    note="the code cells of <i>hw</i>_1_.ipynb are graded",
)


class Page(HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attributes]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_web_page_says_everything_and_shows_hostile_text_as_text() -> None:
    page = Page(web_page(GRADED))
    used = {"html", "meta", "title", "style", "h1", "p", "table", "tr", "th", "td", "h2", "pre"}
    assert set(page.tags) == used
    assert set(page.attributes) == {"lang", "charset"}
    text = "".join(page.texts)
    for said in ("<b>al*ce`.zip", GRADED.note, "2 / 6 points", "title of 3-hidden", "expected 1.12. Likely cause"):
        assert said in text
    assert HOSTILE in page.texts
    assert "\n".join(f"| {line}" for line in HOSTILE.splitlines()) in text
    assert "not shown" not in text


def outside_fences(page: str) -> str:
    """Remove the blocks between fences, as CommonMark defines them."""
    lines: list[str] = []
    fence = ""
    for line in page.splitlines():
        opened = re.match("`{3,}", line)
        if fence:
            closes = opened and len(opened[0]) >= len(fence) and line.strip("`") == ""
            fence = "" if closes else fence
        elif opened:
            fence = opened[0]
        else:
            lines.append(line)
    assert not fence
    return "\n".join(lines)


def test_the_markdown_page_says_everything_and_shows_hostile_text_as_text() -> None:
    page = markdown(GRADED)
    assert HOSTILE in page
    plain = outside_fences(page)
    assert "## Failed: 2-basic\n" in plain
    assert "## Failed: 3-hidden" in plain
    assert "| 2-basic | 0 / 2 | title of 2-basic |" in plain
    assert "2 / 6 points" in plain
    for mark in ("<", "`", "*", "_", "[", "!"):
        assert not re.search(rf"(?<!\\){re.escape(mark)}", plain), mark
    assert "not shown" not in page


@pytest.mark.parametrize("write", [markdown, web_page])
def test_the_same_reason_is_said_once(write: Callable[[Grade], str]) -> None:
    page = write(ungraded("a.py", CHECKS, "there is none: expected one models.py", problem="walls"))
    assert page.count("there is none: expected one models.py") == 1
    assert "Failed: 1-basic, 2-basic, 3-hidden" in page
    assert "walls" not in page


def as_disks_compare(name: str) -> str:
    """Compare names as disks do that ignore case and the composition of accents."""
    return unicodedata.normalize("NFD", name).casefold()


def test_files_have_readable_names_with_folders_where_they_are_needed() -> None:
    names = {
        "class/alice.zip": "alice.zip",
        "class/bob smith.py": "class~bob smith.py",
        "late/bob smith.py": "late~bob smith.py",
        "موسی.zip": "موسی.zip",
        "download.zip/x_1.py": "x_1.py",
    }
    assert file_names(names) == names


def test_no_two_submissions_share_a_file_on_any_disk() -> None:
    draw = random.Random(22)
    pieces = [*"aAb//~%\\.é -?ß½\u0301\u200c", "%2F", "con", "x" * 90, "ss"]
    names = {"".join(draw.choices(pieces, k=draw.randint(1, 7))) for _ in range(3000)}
    labels = [label(name) for name in sorted(names)]
    found = file_names(labels)
    assert set(found) == set(labels)
    assert len({as_disks_compare(name) for name in found.values()}) == len(labels)
    for name in found.values():
        assert len(name.encode()) <= 200
        assert name[0] not in "-. "
        assert not set(name) & set('<>:"/\\|?*\0')
        assert not re.match(r"(?i)(con|nul|aux)(\.|$)", name)
