"""Downloads of a class from an LMS: each student's files, by the names that Canvas and Moodle give them."""

import re
from collections import Counter

from grading.archives import FILE, LONGEST_PATH, Listing, is_passed_over, without_passed_over

HANDED_IN = (".py", ".ipynb", ".zip")
NOT_HANDED_IN = (".csv", ".html", ".json", ".md")  # an LMS and the grader write them

# doejane_123_456_models.py or doejane_LATE_123_456_models.py: the IDs of the student and of the file
_CANVAS = re.compile(r"(?P<student>anon_(?:LATE_)?[A-Za-z0-9]{5}|[^/]+?_(?:LATE_)?\d+)_\d+_(?P<file>[^/]+)")
# Jane Doe_123_assignsubmission_file_/models.py or Jane Doe_123_assignsubmission_file_models.py
_MOODLE = re.compile(r"(?P<student>[^/]+_\d+)_assignsubmission_(?P<kind>[a-z]+)_?/?(?P<file>.*)", re.DOTALL)
_AGAIN = re.compile(r"-\d+(?=\.\w+$)")  # Canvas puts it before the extension of a file that was handed in again


def members(listing: Listing) -> dict[str, Listing]:
    """Return each student's files by a name of the student; nothing if the listing is no download of a class.

    A download of neither Canvas nor Moodle has at least two zips at its top, or two folders with one zip in each. There
    may be a folder around it.
    """
    listing = _inside_one_folder(_tops_read(listing))
    for pattern in (_CANVAS, _MOODLE):
        matches = {name: pattern.fullmatch(name) if len(name) <= LONGEST_PATH else None for name in listing}
        handed_in = [match for name, match in matches.items() if _is_handed_in(name)]
        if handed_in and all(handed_in):
            return _by_student(listing, {name: match for name, match in matches.items() if match})
    return _zips(listing)


def _tops_read(listing: Listing) -> Listing:
    """Leave out files and folders at the top that are no part of any submission."""
    return {name: entry for name, entry in listing.items() if not is_passed_over(name.partition("/")[0])}


def _is_handed_in(name: str) -> bool:
    return name.lower().endswith(HANDED_IN)


def _inside_one_folder(listing: Listing) -> Listing:
    """Leave out the folders that contain everything."""
    while True:
        tops = {name.partition("/")[0] if "/" in name else "" for name in listing}
        top = f"{tops.pop()}/" if len(tops) == 1 else "/"
        if top == "/" or _MOODLE.match(top):
            return listing
        listing = _tops_read({name.removeprefix(top): entry for name, entry in listing.items()})


def _by_student(listing: Listing, matches: dict[str, re.Match[str]]) -> dict[str, Listing]:
    """Collect each student's files by their original names. A text that was typed into Moodle is no file."""
    names: dict[str, list[str]] = {}
    for name, match in matches.items():
        student = match["student"].replace("_LATE_", "_")
        whole = names.setdefault(student, [])
        if match.groupdict().get("kind", "file") == "file":
            whole.append(name)
    found: dict[str, Listing] = {}
    for student, whole in names.items():
        files: Listing = {}
        for name in whole:
            original = matches[name]["file"]
            files[name if original in files else original] = listing[name]
        for name in [*files]:
            first = _AGAIN.sub("", name)
            if first not in files:
                files[first] = files.pop(name)
        found[student] = files
    return found


def _zips(listing: Listing) -> dict[str, Listing]:
    """Collect all files and folders at the top of a download that consists of zips."""
    own = without_passed_over(listing)
    zips = Counter(name.partition("/")[0] for name in own if name.lower().endswith(".zip"))
    if FILE in own or f"submission/{FILE}" in own or [*zips.values()].count(1) < 2:
        return {}
    groups: dict[str, Listing] = {}
    for name, entry in listing.items():
        top, _, rest = name.partition("/")
        if rest or not name.lower().endswith(NOT_HANDED_IN):
            groups.setdefault(top, {})[rest or name] = entry
    return groups
