"""Downloads of a class from an LMS: each student's files, by the names that Canvas and Moodle give them."""

import re

from grading.archives import FILE, Listing

HANDED_IN = (".py", ".ipynb", ".zip")

# doejane_123_456_models.py or doejane_LATE_123_456_models.py: the IDs of the student and of the file
_CANVAS = re.compile(r"(?P<student>anon_(?:LATE_)?[A-Za-z0-9]{5}|[^/]+?_(?:LATE_)?\d+)_\d+_(?P<file>[^/]+)")
# Jane Doe_123_assignsubmission_file_/models.py or Jane Doe_123_assignsubmission_file_models.py
_MOODLE = re.compile(r"(?P<student>[^/]+_\d+)_assignsubmission_(?P<kind>[a-z]+)_?/?(?P<file>.*)")
_AGAIN = re.compile(r"-\d+(?=\.\w+$)")  # Canvas puts it before the extension of a file that was handed in again


def members(listing: Listing) -> dict[str, Listing]:
    """Return each student's files by a name of the student; nothing if the listing is no download of a class.

    A download of neither Canvas nor Moodle has at least two zips at its top, or two folders with one zip in each. There
    may be a folder around it.
    """
    listing = _inside_one_folder(listing)
    for pattern in (_CANVAS, _MOODLE):
        matches = {name: pattern.fullmatch(name) for name in listing}
        handed_in = [match for name, match in matches.items() if _is_handed_in(name)]
        if handed_in and all(handed_in):
            return _by_student(listing, {name: match for name, match in matches.items() if match})
    return _zips(listing)


def _is_handed_in(name: str) -> bool:
    return name.lower().endswith(HANDED_IN)


def _inside_one_folder(listing: Listing) -> Listing:
    """Leave out the folders that contain everything."""
    while True:
        tops = {name.partition("/")[0] if "/" in name else "" for name in listing}
        top = f"{tops.pop()}/" if len(tops) == 1 else "/"
        if top == "/" or _MOODLE.match(top):
            return listing
        listing = {name.removeprefix(top): entry for name, entry in listing.items()}


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
        found[whole[0] if len(whole) == 1 and "/" not in whole[0] else student] = files
    return found


def _zips(listing: Listing) -> dict[str, Listing]:
    """Collect the files and folders at the top of a download that consists of zips."""
    if FILE in listing or f"submission/{FILE}" in listing:
        return {}
    groups: dict[str, Listing] = {}
    for name, entry in listing.items():
        top, _, rest = name.partition("/")
        if rest or _is_handed_in(name):
            groups.setdefault(top, {})[rest or name] = entry
    zips = [group for group in groups.values() if sum(name.lower().endswith(".zip") for name in group) == 1]
    return groups if len(zips) >= 2 else {}
