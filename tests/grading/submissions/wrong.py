"""Wrong submissions: each an edit of right/course.py, with exactly the checks that it must fail.

The rubric decides which checks a mistake fails. Any mistake that changes the outputs fails the equations, 2-4 and 2-5,
and the gradients, 2-7. It fails the training, 2-2 and 2-3, if the metrics by the equations leave the bands.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from grading.checks import Check

RIGHT = Path(__file__).parent / "right"
COURSE = (RIGHT / "course.py").read_text()


class Mistake(NamedTuple):
    """A wrong submission."""

    name: str
    fails: str  # exactly the checks that it must fail, without "-basic" and "-hidden"
    edits: Mapping[str, str]  # of right/course.py: old strings, each of which occurs once, and new ones
    says: Mapping[str, str] = {}  # patterns of messages, by check


def name_of(check: Check) -> str:
    return check.id.rpartition("-")[0]


def edited(edits: Mapping[str, str], code: str = COURSE) -> str:
    """Replace each old string in a right solution, in which it must occur exactly once."""
    for old, new in edits.items():
        assert code.count(old) == 1, f"{code.count(old)} times: {old}"
        code = code.replace(old, new)
    return code


INIT = "        self.mlp_layers = self.init_mlp_layers(layer_sizes)\n"  # the constructor's last line
SCALED = "normal_(0, 1.0 / self.embedding_dim)"
SHARED = "return U, Q"
SEPARATE = "return U_reg, Q_reg, U_fact, Q_fact"
FORWARDED = "return predictions, score"
IF_SHARED = "if self.embedding_sharing:"
BIAS = "self.B(item_ids).squeeze(1)"
P = "(u * q).sum(dim=1) + b"
X = "[u, q, u * q]"
SCORE = "self.mlp_layers(x).squeeze(1)"
LAYERS = "layers = []"
EACH_LAYER = "        for i in range(len(layer_sizes) - 1):\n"
RELU = "            layers.append(nn.ReLU())\n"
LAST = "        layers.append(nn.Linear(layer_sizes[-1], 1))\n"
SEQUENTIAL = "nn.Sequential(*layers)"
ONE_BY_ONE = (
    "x\n        for layer in self.mlp_layers:\n            score = layer(score)\n        score = score.squeeze(1)"
)

SHARED_FORWARD = "2-0 2-2 2-4 2-6 2-7"  # the checks that an exception there fails
SEPARATE_FORWARD = "2-1 2-3 2-5 2-6 2-7"
FORWARD = "2-0 2-1 2-2 2-3 2-4 2-5 2-6 2-7"  # also those that an output of another shape fails
ACROSS = "2-2 2-3 2-4 2-5 2-6 2-7"  # the checks that an operation across the batch fails
NO_MLP = "1b-0 1b-1 2-2 2-3 2-4 2-5 2-7"
CONSTANT = """
class Constant(nn.Sequential):
    def __init__(self, layers, number):
        super().__init__(*layers)
        self[-1].weight.data.zero_()
        self[-1].bias.data.fill_(number)

    def forward(self, x):
        return self[-1].bias.expand(len(x), 1)
"""

WRONG = [
    # The tables.
    Mistake(
        "tables of the tasks swapped",
        "2-3 2-5 2-7",
        {"interaction(u_fact, q_fact,": "interaction(u_reg, q_reg,", "rating(u_reg, q_reg,": "rating(u_fact, q_fact,"},
        {"2-5": "the regression tables in place of the factorization tables", "2-7": "U_reg.*learn from the other"},
    ),
    Mistake(
        "item tables of the tasks swapped",
        "2-3 2-5 2-7",
        {"q_fact = self.Q_fact(": "q_fact = self.Q_reg(", "q_reg = self.Q_reg(": "q_reg = self.Q_fact("},
    ),
    Mistake(
        "score from the factorization tables",
        "2-3 2-5 2-7",
        {"self.rating(u_reg, q_reg,": "self.rating(u_fact, q_fact,"},
        {"2-5": "the MLP reads the factorization tables"},
    ),
    Mistake(
        "sharing that is not shared",
        "2-2 2-4 2-7",
        {
            INIT: f"{INIT}        self.U2, self.Q2 = ScaledEmbedding(num_users, 32), ScaledEmbedding(num_items, 32)\n",
            "self.rating(u, q,": "self.rating(self.U2(user_ids), self.Q2(item_ids),",
        },
        {"2-7": "U learns nothing from the MSE"},
    ),
    Mistake(
        "separate tables that alias",
        "1a-1 2-3 2-7",
        {SEPARATE: "return U_reg, Q_reg, U_reg, Q_reg"},
        {"1a-1": "U_reg and U_fact are the same embedding", "2-7": "the BPR loss changes U_reg"},
    ),
    Mistake(
        "separate tables that alias by their weights",
        "1a-1 2-3 2-7",
        {SEPARATE: f"U_fact.weight, Q_fact.weight = U_reg.weight, Q_reg.weight\n        {SEPARATE}"},
    ),
    Mistake(
        "separate tables that alias from the constructor on",
        "2-3 2-7",
        {INIT: f"{INIT}        if not embedding_sharing: self.U_reg, self.Q_reg = self.U_fact, self.Q_fact\n"},
    ),
    Mistake(
        "shared tables swapped", f"1a-0 {SHARED_FORWARD}", {SHARED: "return Q, U"}, {"1a-0": "another order than U, Q"}
    ),
    Mistake(
        "separate tables in another order",
        f"1a-1 {SEPARATE_FORWARD}",
        {SEPARATE: "return U_reg, U_fact, Q_reg, Q_fact"},
        {"1a-1": "Q_reg has shape .*another order than U_reg, Q_reg, U_fact, Q_fact"},
    ),
    Mistake(
        "a user too many",
        "1a-0",
        {" U = ScaledEmbedding(num_users,": " U = ScaledEmbedding(num_users + 1,"},
        {"1a-0": r"U has shape \(945, 32\): expected \(944, 32\)"},
    ),
    Mistake(
        "a transposed table",
        f"1a-0 {SHARED_FORWARD}",
        {" Q = ScaledEmbedding(num_items, embedding_dim)": " Q = ScaledEmbedding(embedding_dim, num_items)"},
        {"1a-0": "Likely cause: transposed"},
    ),
    Mistake(
        "plain nn.Embeddings",
        "1a-0 2-2",
        {"U = Scaled": "U = nn.", "Q = Scaled": "Q = nn."},
        {"1a-0": "U is of class Emb"},
    ),
    Mistake(
        "tables that are not scaled", "1a-0 1a-1 2-2 2-3", {SCALED: "normal_(0, 1)"}, {"1a-0": "expected 0 and 1/32"}
    ),
    Mistake("tables of zeros", "1a-0 1a-1 2-3", {SCALED: "zero_()"}, {"1a-1": "U_reg has mean 0.0000 and standard"}),
    Mistake(
        "three separate tables",
        f"1a-1 {SEPARATE_FORWARD}",
        {SEPARATE: "return U_reg, Q_reg, U_fact"},
        {"1a-1": "3 embeddings: expected 4", "2-1": "not enough values to unpack"},
    ),
    Mistake(
        "a frozen table", "2-2 2-7", {SHARED: f"U.requires_grad_(False)\n        {SHARED}"}, {"2-7": "U learns nothing"}
    ),
    Mistake(
        "never shared",
        "2-2 2-4 2-7",
        {"= embedding_sharing\n": "= embedding_sharing = False\n"},
        {"2-4": "no attribute U"},
    ),
    Mistake(
        "embedding_sharing ignored by forward", SEPARATE_FORWARD, {IF_SHARED: "if True:"}, {"2-1": "no attribute 'U'"}
    ),
    # The item bias.
    Mistake(
        "a bias of the users",
        f"1a-2 {FORWARD}",
        {"(num_items, 1)": "(num_users, 1)"},
        {"1a-2": "one bias for each user"},
    ),
    Mistake("a plain nn.Embedding as bias", "1a-2 2-2", {"B = Zero": "B = nn."}, {"1a-2": "not a ZeroEmbedding"}),
    Mistake("no bias", "2-2 2-4 2-5 2-7", {P: "(u * q).sum(dim=1)"}, {"2-4": "the item bias is missing"}),
    Mistake(
        "the bias subtracted", "2-2 2-4 2-5 2-7", {P: "(u * q).sum(dim=1) - b"}, {"2-4": "the item bias is subtracted"}
    ),
    Mistake(
        "the bias by user ID",
        "2-2 2-4 2-5 2-7",
        {BIAS: "self.B(user_ids).squeeze(1)"},
        {"2-5": "looked up with the user's ID"},
    ),
    Mistake(
        "the bias used by the score",
        "2-4 2-5 2-7",
        {SCORE: f"{SCORE} + {BIAS}"},
        {"2-4": "the item bias is added to the score", "2-7": "the MSE changes B"},
    ),
    Mistake(
        "a detached bias",
        "2-2 2-7",
        {BIAS: f"{BIAS}.detach()"},
        {"2-7": "B (does not learn|learns nothing) from the BPR"},
    ),
    Mistake(
        "the bias under another name",
        "2-2 2-3 2-4 2-5 2-7",
        {"self.B =": "self.b =", "self.B(": "self.b("},
        {"2-4": "no attribute B"},
    ),
    Mistake(
        "a user bias added to p",
        "2-4 2-5 2-7",
        {INIT: f"{INIT}        self.A = ZeroEmbedding(num_users, 1)\n", P: f"{P} + self.A(user_ids).squeeze(1)"},
        {"2-4": "a user bias, A.weight, is added"},
    ),
    # Equation 1.
    Mistake("every user with every item", FORWARD, {P: "u @ q.T + b"}, {"2-0": r"\(256, 256\).*row by row"}),
    Mistake(
        "a bias that broadcasts",
        FORWARD,
        {BIAS: "self.B(item_ids)"},
        {"2-1": r"predictions of shape \(256, 256\)", "2-2": r"predictions of shape \(256, 256\)"},
    ),
    Mistake(
        "p not squeezed",
        FORWARD,
        {P: "(u * q).sum(dim=1, keepdim=True) + self.B(item_ids)"},
        {"2-0": r"predictions of shape \(256, 1\).*squeeze", "2-3": r"predictions of shape \(256, 1\)"},
    ),
    Mistake("p not summed", FORWARD, {P: "u * q + b[:, None]"}, {"2-0": r"\(256, 32\).*without its sum"}),
    Mistake(
        "p squeezed without a dimension",
        "2-6",
        {P: "((u * q).sum(dim=1, keepdim=True) + self.B(item_ids)).squeeze()"},
        {"2-6": r"in a batch of 1: predictions of shape \(\).*squeeze\(\) without a dimension"},
    ),
    Mistake(
        "the product averaged", "2-3 2-4 2-5 2-7", {P: "(u * q).mean(dim=1) + b"}, {"2-4": "averaged instead of summed"}
    ),
    Mistake("a sigmoid on p", "2-4 2-5 2-7", {P: f"torch.sigmoid({P})"}, {"2-4": "a sigmoid on the predictions"}),
    Mistake("p scaled", "2-4 2-5 2-7", {P: f"({P}) / 32**0.5"}, {"2-4": "scaled by 0.1768"}),
    Mistake(
        "p without the mean of its batch", ACROSS, {P: f"{P}\n        p = p - p.mean()"}, {"2-6": "across the batch"}
    ),
    Mistake("p detached", "2-2 2-3 2-7", {P: f"({P}).detach()"}, {"2-7": "learns nothing from the BPR loss"}),
    Mistake("the items detached in p", "2-3 2-7", {P: "(u * q.detach()).sum(dim=1) + b"}),
    Mistake("p in double precision", FORWARD, {P: f"({P}).double()"}, {"2-0": "torch.float64; expected torch.float32"}),
    # Equation 4.
    Mistake(
        "no product in the concatenation",
        "2-2 2-3 2-4 2-5 2-7",
        {X: "[u, q]", INIT: INIT.replace("layer_sizes", "[2 * embedding_dim, *layer_sizes[1:]]")},
        {"2-4": "the product u ∗ q is missing"},
    ),
    Mistake("no product, and an MLP that expects it", FORWARD, {X: "[u, q]"}, {"2-0": "mat1 and mat2 shapes"}),
    Mistake(
        "concatenation [q, u, u ∗ q]",
        "2-2 2-3 2-4 2-5 2-7",
        {X: "[q, u, u * q]"},
        {"2-4": r"the MLP reads \[q, u, u ∗ q\]"},
    ),
    Mistake("score not squeezed", FORWARD, {SCORE: "self.mlp_layers(x)"}, {"2-0": r"score of shape \(256, 1\)"}),
    Mistake(
        "score squeezed without a dimension",
        "2-6",
        {"(x).squeeze(1)": "(x).squeeze()"},
        {"2-6": r"score of shape \(\)"},
    ),
    Mistake(
        "a sigmoid on the score",
        "2-2 2-3 2-4 2-5 2-7",
        {SCORE: f"{SCORE}.sigmoid()"},
        {"2-4": "a sigmoid on the score", "2-2": "the MSE comes from the score"},
    ),
    Mistake(
        "a ReLU on the score", "2-2 2-4 2-5 2-7", {SCORE: f"{SCORE}.relu()"}, {"2-4": "a ReLU after the last layer"}
    ),
    Mistake("dropout that is always active", "2-4 2-5 2-6 2-7", {"(x)": "(F.dropout(x, 0.3))"}, {"2-6": "dropout"}),
    Mistake("inputs of the MLP detached", "2-2 2-3 2-7", {"(x)": "(x.detach())"}, {"2-7": "U learns nothing from"}),
    Mistake("the product detached", "2-7", {X: "[u, q, (u * q).detach()]"}, {"2-7": "a detach or no_grad on the way"}),
    Mistake(
        "score without gradients",
        "2-2 2-3 2-7",
        {"    def rating(": "    @torch.no_grad()\n    def rating("},
        {"2-7": "learns nothing from the MSE", "2-2": "one number for all ratings would do as well"},
    ),
    # The MLP.
    Mistake(
        "no ReLU", "1b-0 1b-1 2-2 2-3 2-4 2-5 2-7", {RELU: ""}, dict.fromkeys(("1b-0", "2-4"), "the ReLUs are missing")
    ),
    Mistake("score cut to −5 to 5", "2-4 2-5", {SCORE: f"{SCORE}.clamp(-5, 5)"}),
    Mistake("ReLUs doubled", "1b-0 1b-1", {RELU: RELU + RELU}, {"1b-0": "has the layers Linear, ReLU, ReLU, Linear"}),
    Mistake(
        "a ReLU after the last layer",
        "1b-0 1b-1 2-2 2-4 2-5 2-7",
        {LAST: LAST + RELU[4:]},
        {"1b-0": "a ReLU after the last layer too", "2-4": "a ReLU after the last layer"},
    ),
    Mistake(
        "tanh for ReLU",
        "1b-0 1b-1 2-2 2-3 2-4 2-5 2-7",
        {"nn.ReLU": "nn.Tanh"},
        {"1b-0": "Linear, Tanh, Linear: expected"},
    ),
    Mistake("ReLU before the linear layer", "1b-0 1b-1 2-2 2-3 2-4 2-5 2-7", {RELU: "", EACH_LAYER: EACH_LAYER + RELU}),
    Mistake(
        "ReLUs in forward instead of layers",
        "1b-0 1b-1",
        {
            RELU: "",
            SEQUENTIAL: "nn.ModuleList(layers)",
            SCORE: "self.mlp_layers[1](F.relu(self.mlp_layers[0](x))).squeeze(1)",
        },
        {"1b-0": "applied in forward instead of being layers"},
    ),
    Mistake("no last layer", f"1b-0 1b-1 {FORWARD}", {LAST: ""}, {"1b-0": "the last layer, of output width 1, is"}),
    Mistake(
        "a hidden layer too many",
        "1b-0 1b-1 2-2 2-3 2-4 2-5 2-7",
        {LAYERS: "layers, layer_sizes = [], [layer_sizes[0], *layer_sizes]"},
        {"1b-0": "has the layers Linear, ReLU, Linear, ReLU, Linear"},
    ),
    Mistake(
        "another hidden width",
        "1b-0 1b-1 2-2 2-3 2-4 2-5 2-7",
        {LAYERS: "layers, layer_sizes = [], [layer_sizes[0], *(48 for _ in layer_sizes[1:])]"},
        {"1b-0": "expected .*96, 64.*64, 1"},
    ),
    Mistake("layer_sizes ignored", "1b-1", {LAYERS: "layers, layer_sizes = [], [96, 64]"}),
    Mistake("one ReLU only", "1b-1", {RELU: f"            if i == 0:\n    {RELU}"}, {"1b-1": "ReLU, Linear, Linear"}),
    Mistake(
        "dropout in the MLP",
        "1b-0 1b-1 2-4 2-5 2-6 2-7",
        {RELU: f"{RELU}            layers.append(nn.Dropout(0.3))\n"},
        {"1b-0": "Linear, ReLU, Dropout, Linear"},
    ),
    Mistake(
        "no hidden layer in the network",
        "2-2 2-3 2-4 2-5 2-7",
        {INIT: f"{INIT}        self.mlp_layers = nn.Sequential(nn.Linear(96, 1))\n"},
        {"2-4": r"the network's mlp_layers has linear layers .*\[\(96, 1\)\]: expected"},
    ),
    Mistake(
        "other widths in the network",
        "2-2 2-3 2-4 2-5 2-7",
        {INIT: INIT.replace("layer_sizes", "[96, 7, 5]")},
    ),
    Mistake(
        "hidden layers of width 0",
        "2-2 2-3 2-4 2-5 2-7",
        {INIT: f"{INIT}        self.mlp_layers = nn.Sequential(nn.Linear(96, 0), nn.ReLU(), nn.Linear(0, 1))\n"},
        {"2-5": r"\(96, 0\), \(0, 1\)"},
    ),
    Mistake(
        "an MLP that computes nothing, with weights of 0",
        NO_MLP,
        {"class MultiTaskNet(": f"{CONSTANT}\n\nclass MultiTaskNet(", SEQUENTIAL: "Constant(layers, 0)"},
        {"1b-0": "computes other outputs"},
    ),
    Mistake(
        "an MLP with an infinite bias",
        f"{NO_MLP} 2-0 2-1",
        {"class MultiTaskNet(": f"{CONSTANT}\n\nclass MultiTaskNet(", SEQUENTIAL: "Constant(layers, float('inf'))"},
    ),
    Mistake(
        "a class ReLU that is the identity, with weights of 0",
        NO_MLP,
        {
            "class MultiTaskNet(": "class ReLU(nn.Identity):\n    pass\n\n\nclass MultiTaskNet(",
            "nn.ReLU()": "ReLU()",
            SEQUENTIAL: "nn.Sequential(*layers).apply(lambda each: [p.data.zero_() for p in each.parameters()])",
        },
    ),
    Mistake(
        "layers in a list", "1b-0 1b-1 2-2 2-3", {SEQUENTIAL: "layers", SCORE: ONE_BY_ONE}, {"1b-0": "a list of 3"}
    ),
    # forward as a whole.
    Mistake("outputs in the other order", "2-2 2-3 2-4 2-5 2-7", {FORWARDED: "return score, predictions"}),
    Mistake("predictions alone", FORWARD, {FORWARDED: "return predictions"}, {"2-0": "expected two tensors"}),
    Mistake("users sorted", ACROSS, {IF_SHARED: f"user_ids, _ = user_ids.sort()\n        {IF_SHARED}"}),
]
