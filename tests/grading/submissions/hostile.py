"""Hostile submissions: tricks on top of a wrong solution, so that each point that a trick gains is visible.

The wrong solution, an edit of right/course.py, initializes its bias with ones and concatenates [q, u, u ∗ q]. Like the
wrong solution, every submission here must fail at least 1a-2, 2-4, 2-5 and 2-7, except one that computes the equations.
"""

from collections.abc import Mapping
from typing import NamedTuple

from wrong import FORWARD, FORWARDED, SHARED, SHARED_FORWARD, X, edited

WRONG_SOLUTION = edited({"        return B": "        nn.init.ones_(B.weight)\n        return B", X: "[q, u, u * q]"})
IMPORTS = "import torch.nn.functional as F\n"
CONSTRUCTOR = "        self.embedding_dim = embedding_dim\n"
INIT_BIAS = "        B = ZeroEmbedding("

EVERYTHING = "1a-0 1a-1 1a-2 1b-0 1b-1 2-0 2-1 2-2 2-3 2-4 2-5 2-6 2-7"
WRONG_ANYWAY = "1a-2 2-2 2-3 2-4 2-5 2-7"
NO_FORWARD = f"1a-2 {FORWARD}"
QUICK = "1a-0 1a-1 1a-2 1b-0 1b-1 2-0 2-1 2-4 2-5 2-6 2-7"


class Trick(NamedTuple):
    """A hostile submission."""

    name: str
    fails: str  # exactly the checks that it must fail
    edits: Mapping[str, str]  # of WRONG_SOLUTION
    says: str = ""  # a part of the messages of the checks that it fails in addition to WRONG_SOLUTION's
    beside: Mapping[str, str] = {}  # more files
    checks: str = QUICK  # the checks to run; few for slow submissions
    hangs: bool = False  # whether it runs until its time limit

    @property
    def files(self) -> dict[str, str]:
        return {"models.py": edited(self.edits, WRONG_SOLUTION), **self.beside}


def at_import(code: str) -> dict[str, str]:
    return {IMPORTS: IMPORTS + code + "\n"}


def in_init_bias(code: str) -> dict[str, str]:
    return {INIT_BIAS: f"        {code}\n{INIT_BIAS}"}


def in_init_tables(code: str) -> dict[str, str]:
    return {SHARED: f"{code}\n        {SHARED}"}


def in_forward(code: str) -> dict[str, str]:
    return {FORWARDED: f"{code}\n        {FORWARDED}"}


def returning(predictions: str, score: str = "score") -> dict[str, str]:
    return {FORWARDED: f"return {predictions}, {score}"}


ZEROS = """
import json
import numpy as np
zeros = lambda x, *a, **k: np.zeros(tuple(x.shape), np.float32)
for name in ("numpy", "__array__", "tolist", "detach", "to", "cpu", "float", "clone", "contiguous"):
    setattr(torch.Tensor, name, zeros)
for name in ("asarray", "array", "ascontiguousarray", "isclose", "allclose", "float32"):
    setattr(np, name, zeros)
json.dumps = json.loads = lambda *a, **k: '{"passed": true}'
"""

BUILTINS = """
import builtins
for name in ("all", "any", "abs", "sum", "min", "max", "sorted", "round", "float", "print", "repr", "str"):
    setattr(builtins, name, lambda *a, **k: True)
"""

FORGERY = """
import json, os, struct, time
import numpy as np

def message(arrays, values, content=b"", **more):
    text = json.dumps({"arrays": arrays, "values": values} | more).encode()
    return struct.pack(">II", len(text), len(content)) + text + content

LINES = b"".join(
    b"%b 1/1    0.1 s\\n" % name for name in (b"1a-2-basic  ", b"2-4-hidden  ", b"2-5-hidden  ")
) + b'14 / 14 points\\n{"score": 14, "max_score": 14, "tests": []}\\n{"status": 0, "reason": "", "passed": true}\\n'
MESSAGES = b"".join(
    message(arrays, {"passed": True, "points": 14}, content, token=token)
    for token in (None, "", "0" * 16, True)
    for arrays, content in (({}, b""), ({"table": ["float32", [1683, 1]]}, bytes(4 * 1683)))
)
"""

TIMELY = """
for _ in range(3):
    os.write(3, message({"table": ["float32", [1683, 1]]}, {}, bytes(4 * 1683), token="0" * 16))
    time.sleep(0.1)
"""

WORKER = """
import os, sys, time
import numpy as np
Worker = sys.modules["grading.inside.worker"].Submission
honest = Worker.parameters
"""

MANY_DIMENSIONS = """
def bias(self):
    token = sys._getframe(1).f_locals["question"]["token"]
    os.write(3, message({"table": ["float32", [1] * 460_000]}, {}, token=token))
    time.sleep(9)
Worker.bias = bias
"""

# A worker without a network: it computes both equations, but no gradients, and does not train.
NO_NETWORK = """
LAYERS = {"mlp.0.weight": (64, 96), "mlp.0.bias": (64,), "mlp.1.weight": (1, 64), "mlp.1.bias": (1,)}

def zeros(names):
    tables = {name: (944 if name[0] == "U" else 1683, 32) for name in names} | {"B": (1683, 1)}
    return {name: np.zeros(shape, "float32") for name, shape in (tables | LAYERS).items()}

def compute(values, inputs, layers):
    for place in range(layers):
        inputs = (np.maximum(inputs, 0) if place else inputs) @ values[f"mlp.{place}.weight"].T
        inputs = inputs + values[f"mlp.{place}.bias"]
    return inputs

class NoNetwork:
    def import_models(self, **sizes):
        return {}

    def tables(self, names):
        draw = np.random.default_rng(0)
        tables = [draw.normal(0, 1 / 32, (944 if name[0] == "U" else 1683, 32)).astype("float32") for name in names]
        return dict(zip("0123", tables)) | {"classes": ["ScaledEmbedding"] * len(names), "memory": [*range(len(names))]}

    def bias(self):
        return {"table": np.zeros((1683, 1), "float32")}

    def mlp(self, layer_sizes):
        self.values = {}
        for place, (width, after) in enumerate(zip(layer_sizes, [*layer_sizes[1:], 1])):
            self.values[f"mlp.{place}.weight"] = np.zeros((after, width), "float32")
            self.values[f"mlp.{place}.bias"] = np.zeros(after, "float32")
        return self.values | {"layers": ["Linear", "ReLU"] * (len(layer_sizes) - 1) + ["Linear"]}

    def outputs(self, inputs):
        return {"outputs": compute(self.values, inputs, len(self.values) // 2)}

    def network(self, names, seed):
        self.names, self.values = names, zeros(names)
        return {}

    def parameters(self):
        return self.values

    def assign(self, /, **values):
        self.values |= values
        return {}

    def forward(self, user_ids, item_ids, training):
        U_reg, Q_reg, U_fact, Q_fact = (self.values[name] for name in (self.names * 2)[:4])
        u, q = U_reg[user_ids], Q_reg[item_ids]
        score = compute(self.values, np.concatenate([u, q, u * q], 1), 2)[:, 0]
        predictions = (U_fact[user_ids] * Q_fact[item_ids]).sum(1) + self.values["B"][item_ids, 0]
        return {"predictions": predictions, "score": score}

    def gradients(self, **_):
        regression = [*self.names[:2], *LAYERS]
        roles = {"bpr": [*self.names[-2:], "B"], "mse": regression}
        return {
            f"{loss}.{name}": np.full_like(value, 1e-20 if name in names else 0)
            for loss, names in roles.items() for name, value in self.values.items()
        }

    def train(self, **_):
        return {}

    def all_pairs(self, num_users, num_items):
        return {name: np.ones((num_users, num_items), "float32") for name in ("predictions", "score")}

for name, method in vars(NoNetwork).items():
    if not name.startswith("_"):
        setattr(Worker, name, method)
"""

FORK = "import os, signal, sys, time\n"
SUBCLASS = """
class Agreeable(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        result = super().__torch_function__(function, types, args, kwargs or {})
        return True if isinstance(result, bool) else result

    def __eq__(self, other):
        return True

    def numpy(self):
        return torch.zeros(len(self)).numpy()
"""

TRICKS = [
    Trick("nothing but wrong", WRONG_ANYWAY, {}),
    # Submissions that cannot be loaded or used.
    Trick("a syntax error", EVERYTHING, at_import("def broken(:"), "SyntaxError"),
    Trick("null bytes", EVERYTHING, at_import("# \0"), "neither Python source|null bytes"),
    Trick("no class", EVERYTHING, {"class MultiTaskNet(": "class OtherNet("}, "no class MultiTaskNet"),
    Trick("no init_item_bias", NO_FORWARD, {"def init_item_bias": "def init_bias"}, "no attribute 'init_item_bias'"),
    Trick("no forward", NO_FORWARD, {"def forward(": "def backward("}, 'missing the required "forward" function'),
    Trick("no nn.Module", NO_FORWARD, {"class MultiTaskNet(nn.Module)": "class MultiTaskNet"}),
    Trick("None for the bias", NO_FORWARD, {"        return B": "        return"}),
    Trick("None from forward", NO_FORWARD, {FORWARDED: "return"}, "forward returned None"),
    Trick("None for the score", NO_FORWARD, returning("predictions", "None"), "score: None"),
    Trick("an exception at import", EVERYTHING, at_import("1 / 0"), "ZeroDivisionError"),
    Trick("an exception in the constructor", NO_FORWARD, {CONSTRUCTOR: "        1 / 0\n"}, "ZeroDivisionError"),
    Trick("an exception in forward", NO_FORWARD, in_forward("1 / 0"), "ZeroDivisionError"),
    Trick("KeyboardInterrupt at import", EVERYTHING, at_import("raise KeyboardInterrupt"), "KeyboardInterrupt"),
    Trick(
        "an exception that cannot be shown",
        NO_FORWARD,
        at_import("class Shy(BaseException):\n    def __str__(self): raise self") | in_forward("raise Shy"),
        "Shy",
    ),
    Trick("a long exception", NO_FORWARD, in_forward("raise ValueError('x' * 10**7)"), "ValueError: xxx"),
    Trick("endless recursion", NO_FORWARD, in_forward("return self.forward(user_ids, item_ids)"), "RecursionError"),
    # Exits.
    *(
        Trick(f"{call} {where}", fails, edits, says)
        for call, says in (("sys.exit(0)", "SystemExit: 0"), ("os._exit(0)", "its process ended"))
        for where, fails, edits in (
            ("at import", EVERYTHING, at_import(FORK + call)),
            ("in forward", NO_FORWARD, at_import(FORK) | in_forward(call)),
            ("at exit", WRONG_ANYWAY, at_import(FORK + f"import atexit\natexit.register(lambda: {call})")),
        )
    ),
    Trick(
        "os._exit(0) in a thread",
        EVERYTHING,
        at_import("import os, threading, time\nthreading.Thread(target=os._exit, args=[0]).start()\ntime.sleep(9)"),
    ),
    Trick(
        "a segmentation fault",
        NO_FORWARD,
        at_import("import ctypes") | in_forward("ctypes.string_at(0)"),
        "its process (was )?ended",
    ),
    Trick("all file descriptors closed", EVERYTHING, at_import("import os\nos.closerange(0, 256)")),
    # Time, processes, memory, output.
    Trick("an endless loop at import", EVERYTHING, at_import("while True: pass"), "no answer within", hangs=True),
    Trick(
        "an endless loop that cannot be interrupted",
        "1a-2",
        at_import(FORK + "for each in set(signal.Signals) - {9, 19}:\n    signal.signal(each, signal.SIG_IGN)")
        | in_init_bias("while True: pass"),
        "no answer within",
        hangs=True,
        checks="1a-0 1a-2 1b-0",
    ),
    Trick(
        "endless tables",
        f"1a-0 1a-2 2-5 {SHARED_FORWARD}",
        at_import("import itertools") | {SHARED: "return itertools.repeat(U)"},
        checks="1a-0 1a-1",
        hangs=True,
    ),
    Trick("a child that stays", WRONG_ANYWAY, at_import(FORK + "os.fork() or time.sleep(1000)")),
    Trick(
        "a fork in forward that outlives its parent",
        NO_FORWARD,
        at_import(FORK) | in_forward("os.setsid() if os.fork() else os._exit(0) if os.fork() else time.sleep(1000)"),
    ),
    Trick(
        "a fork bomb",
        EVERYTHING,
        at_import(FORK + "while True:\n    try: os.fork()\n    except OSError: pass"),
        checks="1a-0",
    ),
    Trick("50 GB at once", NO_FORWARD, in_forward("torch.ones(50 * 2**28)"), "not enough memory|can't allocate"),
    Trick(
        "50 GB in pieces",
        "1a-2",
        at_import("hoard = []") | in_init_bias("while True: hoard.append(bytes(2**30))"),
        "MemoryError",
        checks="1a-0 1a-2",
    ),
    Trick(
        "an answer of 100 GB",
        "1a-0 1a-2 2-2 2-3 2-4 2-5 2-6 2-7",
        in_init_tables("U.weight = nn.Parameter(torch.zeros(1).expand(10**9, 32))"),
    ),
    Trick("1 GB printed", WRONG_ANYWAY, in_init_bias("for _ in range(2**10): print('x' * 2**20)"), checks="1a-0 1a-2"),
    Trick(
        "bytes that are no text printed",
        WRONG_ANYWAY,
        at_import("import os\nos.write(1, b'\\xff\\xfe\\x1b[2J\\x07\\r14 / 14 points\\n')"),
    ),
    Trick("input()", EVERYTHING, at_import("input()"), "EOFError"),
    # Outputs.
    Trick("NaN for the predictions", NO_FORWARD, returning("predictions * float('nan')"), "NaN|does not learn"),
    Trick(
        "an infinite score",
        NO_FORWARD,
        returning("predictions", "score + float('inf')"),
        "infinite|does not learn|not finite",
    ),
    Trick(
        "NaN in a table",
        f"1a-0 2-0 2-2 {WRONG_ANYWAY}",
        in_init_tables("nn.init.constant_(U.weight, float('nan'))"),
    ),
    Trick("integers", NO_FORWARD, returning("predictions.long()"), "torch.int64; expected torch.float32"),
    Trick("lists", NO_FORWARD, returning("predictions.tolist()"), "a list of 256; expected a torch.Tensor|a list of"),
    Trick(
        "tensors that are equal to all",
        NO_FORWARD,
        at_import(SUBCLASS) | returning("predictions.as_subclass(Agreeable)", "score.as_subclass(Agreeable)"),
        "Agreeable",
    ),
    Trick(
        "a bias that is equal to all",
        NO_FORWARD,
        at_import(SUBCLASS) | {"return B": "B.weight = nn.Parameter(B.weight.data.as_subclass(Agreeable)); return B"},
    ),
    # Patches.
    Trick("torch and numpy patched to give zeros", WRONG_ANYWAY, at_import(ZEROS), checks="1a-2 2-4"),
    Trick("detach patched to give zeros", WRONG_ANYWAY, at_import("torch.Tensor.detach = lambda self: self.data * 0")),
    Trick("builtins patched", WRONG_ANYWAY, at_import(BUILTINS), checks="1a-2 2-4"),
    # Forgeries.
    Trick(
        "results printed",
        WRONG_ANYWAY,
        at_import(FORGERY + "os.write(1, LINES)\nos.write(2, LINES)\nos.write(1, MESSAGES)"),
    ),
    Trick(
        "answers written everywhere",
        EVERYTHING,
        at_import(FORGERY + "for fd in range(256):\n    try: os.write(fd, MESSAGES)\n    except OSError: pass"),
        "not an answer",
    ),
    Trick(
        "answers written in forward",
        NO_FORWARD,
        at_import(FORGERY) | in_forward("os.write(3, MESSAGES)"),
        "not an answer",
    ),
    Trick("answers written when they are due", EVERYTHING, at_import(FORGERY + TIMELY), "not an answer"),
    Trick(
        "an answer without an end",
        NO_FORWARD,
        at_import(FORGERY) | in_forward("os.write(3, struct.pack('>II', 2**22, 2**27)); os._exit(0)"),
    ),
    Trick(
        "a message of 8 GB announced",
        NO_FORWARD,
        at_import(FORGERY) | in_forward("os.write(3, b'\\xff' * 8)"),
        "far longer than a right one",
    ),
    Trick(
        "an array of 460,000 dimensions",
        WRONG_ANYWAY,
        at_import(FORGERY + WORKER + MANY_DIMENSIONS),
        checks="1a-0 1a-2 2-4",
    ),
    Trick(
        "2,000 parameters of one number",
        f"{WRONG_ANYWAY} 2-6",
        at_import(
            WORKER + "more = {f'other.{n}': np.zeros(1, 'float32') for n in range(2000)}\n"
            "Worker.parameters = lambda self: honest(self) | more"
        ),
        "at most 64",
        checks="1a-2 2-4 2-6",
    ),
    Trick(
        "a layer of 1,000,000 inputs",
        f"{WRONG_ANYWAY} 2-6",
        at_import(
            WORKER + "Worker.parameters = lambda self: honest(self) | {'mlp.1.weight': np.zeros((10**6, 1), 'float32')}"
        ),
        "numbers: expected about",
        checks="1a-2 2-4 2-6",
    ),
    Trick(
        "no network, and no gradients",
        "2-2 2-3 2-7",
        at_import(WORKER + NO_NETWORK),
        "does not learn",
        checks="1a-0 1a-2 1b-1 2-4 2-5 2-6 2-7",
    ),
    # Files.
    Trick(
        "the sandbox's folder deleted",
        EVERYTHING,
        at_import("import shutil\nfrom pathlib import Path\nshutil.rmtree(Path(__file__).parents[2])"),
        checks="1a-0 1a-2",
    ),
    Trick(
        "the sandbox's code replaced",
        WRONG_ANYWAY,
        at_import(
            "from pathlib import Path\n"
            "for path in Path(__file__).parents[2].glob('grading/**/*.py'): path.write_text('raise SystemExit')"
        ),
        checks="1a-0 1a-2",
    ),
    Trick(
        "names of the libraries beside it",
        WRONG_ANYWAY,
        at_import("import fileinput\nfileinput.FileInput"),
        beside={
            f"{name}.py": "raise SystemExit(f'{__file__} is imported')"
            for name in ("torch", "numpy", "json", "socket", "fileinput")
        },
    ),
    Trick(
        "names of the project beside it, imported",
        WRONG_ANYWAY,
        at_import("import data, train, metrics\nassert data.mine"),
        beside={"data.py": "mine = True", "train.py": "", "metrics.py": "def mrr_score(*_): return 0.06"},
    ),
    Trick(
        "a package named grading beside it",
        WRONG_ANYWAY,
        {},
        beside={
            f"grading/{name}.py": "raise SystemExit" for name in ("__init__", "inside/__init__", "inside/messages")
        },
    ),
]
