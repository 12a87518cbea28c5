"""Search the memory of a submission's processes for strings, from inside and from outside.

python search_memory.py STRING …

Runs in a copy of the project, and prints in JSON the strings that the submission found in its own memory, those in each
process of its sandbox, and those in the grader's process.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, os.getcwd())

from sandbox_processes import processes_of

from grading.checks import import_models
from grading.sandbox import Sandbox

UNREADABLE = ("[vvar]", "[vvar_vclock]", "[vsyscall]")
PART = 2**24  # bytes

# To read a page of memory, the submission has the kernel write it into a pipe: an unmapped page is then an error, and
# does not end the process. It has each string as a pattern, "[a][b][c]", which does not contain the string itself.
SUBMISSION = """
import ctypes, json, os, re
present = "present-93ab"
PAGE = 4096
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
reader, writer = os.pipe()

def page(address):
    written = libc.write(writer, ctypes.c_void_p(address), PAGE)
    return os.read(reader, PAGE) if written == PAGE else b""

argument_count, arguments = ctypes.c_int(), ctypes.c_void_p()
ctypes.pythonapi.Py_GetArgcArgv(ctypes.byref(argument_count), ctypes.byref(arguments))
environment = ctypes.POINTER(ctypes.c_void_p).in_dll(libc, "environ")
starts = (environment[0], ctypes.addressof(environment.contents), arguments.value, libc.malloc(16), id(present))
pages = {}
for start in starts:
    for step in (PAGE, -PAGE):
        address = start - start % PAGE
        for _ in range(2**14):
            if not (content := page(address)):
                break
            pages[address] = content
            address += step
memory = b"".join(pages[address] for address in sorted(pages))
print(json.dumps([bool(re.search(pattern, memory)) for pattern in PATTERNS]))
class MultiTaskNet: pass
"""


def holds(process: str, name: bytes) -> bool:
    """Tell whether a process has a string anywhere in its memory."""
    with open(f"/proc/{process}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            addresses, rights, *_, last_word = line.split()
            if "r" not in rights or last_word in UNREADABLE:
                continue
            first, end = (int(each, 16) for each in addresses.split("-"))
            memory.seek(first)
            before = b""
            while first < end:
                part = memory.read(min(end - first, PART))
                if name in before + part:
                    return True
                first += len(part)
                before = part[-len(name) :]
    return False


def main(names: list[str]) -> None:
    patterns = ["".join(f"[{letter}]" for letter in name).encode() for name in names]
    code = f"PATTERNS = {patterns}\n{SUBMISSION}"
    with Sandbox() as sandbox, sandbox.session({"models.py": code.encode()}, 60) as session:
        import_models(session.ask)
        processes = {*processes_of(Path(os.environ["TMPDIR"]))} - {str(os.getpid())}
        outside = {process: [name for name in names if holds(process, name.encode())] for process in processes}
    inside = [name for name, found in zip(names, json.loads(session.printed), strict=True) if found]
    print(json.dumps([inside, outside, [name for name in names if holds("self", name.encode())]]))


if __name__ == "__main__":
    main(sys.argv[1:])
