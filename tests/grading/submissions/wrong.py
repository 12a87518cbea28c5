"""Wrong submissions: each an edit of right/course.py, with exactly the checks that it must fail.

The rubric decides which checks a mistake fails. Any mistake that changes the outputs fails the equations, 2-4 and 2-5,
even if training (2-2, 2-3) still reaches the bands. A mistake in a shape fails all checks that compare outputs, but not
the gradients, 2-7, which do not depend on the shape.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

RIGHT = Path(__file__).parent / "right"
COURSE = (RIGHT / "course.py").read_text()


@dataclass(frozen=True)
class Mistake:
    """A wrong submission.

    Attributes:
        name: the mistake.
        fails: exactly the checks that it must fail, without "-basic" and "-hidden".
        edits: of right/course.py: old strings, each of which occurs once, and new ones.
        says: patterns of messages, by check.
    """

    name: str
    fails: str
    edits: Mapping[str, str]
    says: Mapping[str, str] = field(default_factory=dict)


def edited(edits: Mapping[str, str], code: str = COURSE) -> str:
    """Replace each old string in a right solution, in which it must occur exactly once."""
    for old, new in edits.items():
        assert code.count(old) == 1, f"{code.count(old)} times: {old}"
        code = code.replace(old, new)
    return code


INIT = "        self.mlp_layers = self.init_mlp_layers(layer_sizes)\n"  # the constructor's last line
SHARED_RETURN = "return self.interaction(u, q, user_ids, item_ids), self.rating(u, q, item_ids)"
SEPARATE_RETURN = "return self.interaction(u_fact, q_fact, user_ids, item_ids), self.rating(u_reg, q_reg, item_ids)"
BIAS = "b = self.B(item_ids).squeeze(1)"
P = "p = (u * q).sum(dim=1) + b"
X = "x = torch.cat([u, q, u * q], dim=1)"
SCORE = "score = self.mlp_layers(x).squeeze(1)"
RELU = "            layers.append(nn.ReLU())\n"
LAST = "        layers.append(nn.Linear(layer_sizes[-1], 1))\n"
SEQUENTIAL = "        return nn.Sequential(*layers)\n"

SHARED_FORWARD = "2-0 2-2 2-4 2-6 2-7"  # the checks that an exception there fails
SEPARATE_FORWARD = "2-1 2-3 2-5 2-6 2-7"
FORWARD = "2-0 2-1 2-2 2-3 2-4 2-5 2-6 2-7"
SHAPES = "2-0 2-1 2-2 2-3 2-4 2-5 2-6"

WRONG = [
    # The tables.
    Mistake(
        "tables of the tasks swapped",
        "2-5 2-7",
        {SEPARATE_RETURN: "return self.interaction(u_reg, q_reg, user_ids, item_ids), self.rating(u_fact, q_fact, 0)"},
        {"2-5": "the regression tables in place of the factorization tables", "2-7": "U_reg.*learn from the other"},
    ),
    Mistake(
        "item tables of the tasks swapped",
        "2-5 2-7",
        {
            "q_fact = self.Q_fact(item_ids)": "q_fact = self.Q_reg(item_ids)",
            "self.Q_reg(item_ids)\n        return": "self.Q_fact(item_ids)\n        return",
        },
    ),
    Mistake(
        "score from the factorization tables",
        "2-3 2-5 2-7",
        {"self.rating(u_reg, q_reg, item_ids)": "self.rating(u_fact, q_fact, item_ids)"},
        {"2-5": "the MLP reads the factorization tables"},
    ),
    Mistake(
        "sharing that is not shared",
        "2-2 2-4 2-7",
        {
            "            self.U, self.Q =": "            self.U2 = ScaledEmbedding(num_users, embedding_dim)\n"
            "            self.Q2 = ScaledEmbedding(num_items, embedding_dim)\n"
            "            self.U, self.Q =",
            "self.rating(u, q, item_ids)\n\n": "self.rating(self.U2(user_ids), self.Q2(item_ids), item_ids)\n\n",
        },
        {"2-7": "U learns nothing from the MSE"},
    ),
    Mistake(
        "separate tables that alias",
        "1a-1 2-3 2-7",
        {"return U_reg, Q_reg, U_fact, Q_fact": "return U_reg, Q_reg, U_reg, Q_reg"},
        {"1a-1": "U_reg and U_fact are the same embedding", "2-7": "the BPR loss changes U_reg"},
    ),
    Mistake(
        "separate item tables that alias",
        "1a-1 2-3 2-7",
        {"return U_reg, Q_reg, U_fact, Q_fact": "return U_reg, Q_fact, U_fact, Q_fact"},
        {"1a-1": "Q_reg and Q_fact are the same embedding"},
    ),
    Mistake(
        "separate tables that alias by their weights",
        "1a-1 2-3 2-7",
        {
            "        return U_reg, Q_reg, U_fact": "        U_fact.weight, Q_fact.weight = U_reg.weight, Q_reg.weight\n"
            "        return U_reg, Q_reg, U_fact"
        },
    ),
    Mistake(
        "separate tables that alias from the constructor on",
        "2-3 2-7",
        {
            INIT: INIT
            + "        if not embedding_sharing:\n            self.U_reg, self.Q_reg = self.U_fact, self.Q_fact\n"
        },
    ),
    Mistake(
        "shared tables in the other order",
        f"1a-0 {SHARED_FORWARD}",
        {"return U, Q": "return Q, U"},
        {"1a-0": "another order than U, Q"},
    ),
    Mistake(
        "separate tables in another order",
        f"1a-1 {SEPARATE_FORWARD}",
        {"return U_reg, Q_reg, U_fact, Q_fact": "return U_reg, U_fact, Q_reg, Q_fact"},
        {"1a-1": "Q_reg has shape .*another order than U_reg, Q_reg, U_fact, Q_fact"},
    ),
    Mistake(
        "a user too many",
        "1a-0",
        {"        U = ScaledEmbedding(num_users,": "        U = ScaledEmbedding(num_users + 1,"},
        {"1a-0": r"U has shape \(945, 32\): expected \(944, 32\)"},
    ),
    Mistake(
        "a transposed table",
        f"1a-0 {SHARED_FORWARD}",
        {
            "        Q = ScaledEmbedding(num_items, embedding_dim)": "        Q = "
            "ScaledEmbedding(embedding_dim, num_items)"
        },
        {"1a-0": "Likely cause: transposed"},
    ),
    Mistake(
        "plain nn.Embeddings, shared",
        "1a-0 2-2",
        {
            "        U = ScaledEmbedding(": "        U = nn.Embedding(",
            "        Q = ScaledEmbedding(": "        Q = nn.Embedding(",
        },
        {"1a-0": "U is of class Embedding: expected a ScaledEmbedding"},
    ),
    Mistake(
        "plain nn.Embeddings, separate",
        "1a-1 2-3",
        {
            f"        {name} = ScaledEmbedding(": f"        {name} = nn.Embedding("
            for name in ("U_reg", "Q_reg", "U_fact", "Q_fact")
        },
        {"1a-1": "U_reg is of class Embedding"},
    ),
    Mistake(
        "a ScaledEmbedding that is not scaled",
        "1a-0 1a-1 2-2 2-3",
        {"normal_(0, 1.0 / self.embedding_dim)": "normal_(0, 1.0)"},
        {"1a-0": "expected 0 and 1/32"},
    ),
    Mistake(
        "tables of zeros",
        "1a-0 1a-1 2-3",
        {"normal_(0, 1.0 / self.embedding_dim)": "zero_()"},
        {"1a-1": "U_reg has mean 0.0000 and standard deviation 0.0000"},
    ),
    Mistake(
        "three separate tables",
        f"1a-1 {SEPARATE_FORWARD}",
        {"return U_reg, Q_reg, U_fact, Q_fact": "return U_reg, Q_reg, U_fact"},
        {"1a-1": "3 embeddings: expected 4", "2-1": "not enough values to unpack"},
    ),
    Mistake(
        "a frozen table",
        "2-2 2-7",
        {"        return U, Q": "        U.weight.requires_grad = False\n        return U, Q"},
        {"2-7": "U learns nothing from the BPR"},
    ),
    Mistake(
        "embedding_sharing ignored: always separate",
        "2-2 2-4 2-7",
        {"self.embedding_sharing = embedding_sharing": "self.embedding_sharing = embedding_sharing = False"},
        {"2-4": "no attribute U"},
    ),
    Mistake(
        "embedding_sharing ignored by forward",
        SEPARATE_FORWARD,
        {"        if self.embedding_sharing:": "        if True:"},
        {"2-1": "no attribute 'U'"},
    ),
    # The item bias.
    Mistake(
        "a bias of the users",
        f"1a-2 {FORWARD}",
        {"ZeroEmbedding(num_items, 1)": "ZeroEmbedding(num_users, 1)"},
        {"1a-2": "one bias for each user", "2-0": "IndexError"},
    ),
    Mistake(
        "a bias of ones",
        "1a-2",
        {"        return B": "        nn.init.ones_(B.weight)\n        return B"},
        {"1a-2": "not a ZeroEmbedding"},
    ),
    Mistake(
        "a plain nn.Embedding as bias",
        "1a-2 2-2",
        {"B = ZeroEmbedding(": "B = nn.Embedding("},
        {"1a-2": "not a ZeroEmbedding"},
    ),
    Mistake(
        "no bias",
        "2-2 2-4 2-5",
        {P: "p = (u * q).sum(dim=1)"},
        {"2-4": "the item bias is missing"},
    ),
    Mistake(
        "the bias subtracted", "2-4 2-5", {P: "p = (u * q).sum(dim=1) - b"}, {"2-4": "the item bias is subtracted"}
    ),
    Mistake("the bias twice", "2-4 2-5", {P: "p = (u * q).sum(dim=1) + b + b"}),
    Mistake(
        "the bias by the user's ID",
        "2-2 2-4 2-5",
        {BIAS: "b = self.B(user_ids).squeeze(1)"},
        {"2-5": "the item bias is looked up with the user's ID"},
    ),
    Mistake(
        "the bias used by the score",
        "2-4 2-5 2-7",
        {SCORE: SCORE + " + self.B(item_ids).squeeze(1)"},
        {"2-4": "the item bias is added to the score", "2-7": "the MSE changes B"},
    ),
    Mistake(
        "a detached bias",
        "2-2 2-7",
        {BIAS: BIAS + ".detach()"},
        {"2-7": "B does not learn from the BPR loss|B learns nothing from the BPR loss"},
    ),
    Mistake(
        "the bias under another name",
        "2-4 2-5 2-7",
        {"self.B = self.init": "self.b = self.init", BIAS: "b = self.b(item_ids).squeeze(1)"},
        {"2-4": "no attribute B"},
    ),
    Mistake(
        "a user bias added to p",
        "2-4 2-5",
        {INIT: INIT + "        self.A = ZeroEmbedding(num_users, 1)\n", P: P + " + self.A(user_ids).squeeze(1)"},
        {"2-4": "a user bias, A.weight, is added"},
    ),
    Mistake(
        "a global bias added to p",
        "2-4 2-5",
        {INIT: INIT + "        self.mu = nn.Parameter(torch.zeros(1))\n", P: P + " + self.mu"},
    ),
    # Equation 1.
    Mistake("every user with every item", SHAPES, {P: "p = u @ q.T + b"}, {"2-0": r"\(256, 256\).*row by row"}),
    Mistake(
        "a bias that broadcasts",
        SHAPES,
        {BIAS: "b = self.B(item_ids)"},
        {"2-1": r"predictions of shape \(256, 256\)", "2-2": r"predictions of shape \(256, 256\)"},
    ),
    Mistake(
        "p not squeezed",
        SHAPES,
        {P: "p = (u * q).sum(dim=1, keepdim=True) + self.B(item_ids)"},
        {"2-0": r"predictions of shape \(256, 1\).*squeeze", "2-3": r"predictions of shape \(256, 1\)"},
    ),
    Mistake("p not summed", SHAPES, {P: "p = u * q + b[:, None]"}, {"2-0": r"\(256, 32\).*without its sum"}),
    Mistake(
        "p squeezed without a dimension",
        "2-6",
        {P: "p = ((u * q).sum(dim=1, keepdim=True) + self.B(item_ids)).squeeze()"},
        {"2-6": r"in a batch of 1: predictions of shape \(\).*squeeze\(\) without a dimension"},
    ),
    Mistake(
        "the product averaged", "2-4 2-5", {P: "p = (u * q).mean(dim=1) + b"}, {"2-4": "averaged instead of summed"}
    ),
    Mistake("the cosine instead of the product", "2-4 2-5", {P: "p = F.cosine_similarity(u, q) + b"}),
    Mistake(
        "a sigmoid on p",
        "2-4 2-5",
        {P: "p = torch.sigmoid((u * q).sum(dim=1) + b)"},
        {"2-4": "a sigmoid on the predictions"},
    ),
    Mistake("p scaled", "2-4 2-5", {P: "p = ((u * q).sum(dim=1) + b) / 32**0.5"}, {"2-4": "scaled by 0.1768"}),
    Mistake(
        "p without the mean of its batch",
        "2-2 2-3 2-4 2-5 2-6",
        {P: P + "\n        p = p - p.mean()"},
        {"2-6": "across the batch"},
    ),
    Mistake("a softmax over the batch", "2-2 2-3 2-4 2-5 2-6", {P: "p = F.softmax((u * q).sum(dim=1) + b, dim=0)"}),
    Mistake("p summed over the batch", FORWARD, {P: "p = (u * q).sum(dim=0) + b"}, {"2-0": "The size of tensor a"}),
    Mistake(
        "p detached", "2-2 2-3 2-7", {P: P + "\n        p = p.detach()"}, {"2-7": "learns nothing from the BPR loss"}
    ),
    Mistake("the items detached in p", "2-3 2-7", {P: "p = (u * q.detach()).sum(dim=1) + b"}),
    Mistake(
        "p in double precision",
        FORWARD,
        {P: P + "\n        p = p.double()"},
        {"2-0": "torch.float64; expected torch.float32"},
    ),
    # Equation 4.
    Mistake(
        "no product in the concatenation",
        "2-4 2-5",
        {X: "x = torch.cat([u, q], dim=1)", INIT: INIT.replace("layer_sizes", "[2 * embedding_dim, *layer_sizes[1:]]")},
        {"2-4": "the product u ∗ q is missing"},
    ),
    Mistake(
        "no product, and an MLP that expects it",
        FORWARD,
        {X: "x = torch.cat([u, q], dim=1)"},
        {"2-0": "mat1 and mat2 shapes"},
    ),
    Mistake(
        "concatenation [q, u, u ∗ q]",
        "2-4 2-5",
        {X: X.replace("u, q,", "q, u,")},
        {"2-4": r"the MLP reads \[q, u, u ∗ q\]"},
    ),
    Mistake(
        "concatenation [u ∗ q, u, q]",
        "2-4 2-5",
        {X: X.replace("u, q, u * q", "u * q, u, q")},
        {"2-5": r"the MLP reads \[u ∗ q, u, q\]"},
    ),
    Mistake(
        "concatenation [u, q, u + q]",
        "2-4 2-5",
        {X: X.replace("u * q", "u + q")},
        {"2-4": r"the MLP reads \[u, q, u \+ q\]"},
    ),
    Mistake("concatenation along the batch", FORWARD, {X: X.replace("dim=1", "dim=0")}),
    Mistake(
        "score not squeezed",
        SHAPES,
        {SCORE: "score = self.mlp_layers(x)"},
        {"2-0": r"score of shape \(256, 1\).*squeeze"},
    ),
    Mistake(
        "score squeezed without a dimension",
        "2-6",
        {SCORE: "score = self.mlp_layers(x).squeeze()"},
        {"2-6": r"score of shape \(\).*squeeze\(\) without"},
    ),
    Mistake(
        "a sigmoid on the score",
        "2-2 2-3 2-4 2-5",
        {SCORE: SCORE + ".sigmoid()"},
        {"2-4": "a sigmoid on the score", "2-2": "the MSE comes from the score"},
    ),
    Mistake("a sigmoid stretched to 1 to 5", "2-4 2-5", {SCORE: SCORE.replace("= ", "= 1 + 4 * ") + ".sigmoid()"}),
    Mistake("a ReLU on the score", "2-2 2-4 2-5", {SCORE: SCORE + ".relu()"}, {"2-4": "a ReLU after the last layer"}),
    Mistake("score scaled", "2-4 2-5", {SCORE: SCORE.replace("= ", "= 5 * ")}, {"2-4": "scaled by 5"}),
    Mistake(
        "dropout that is always active", "2-4 2-5 2-6", {X: X + "\n        x = F.dropout(x, 0.3)"}, {"2-6": "dropout"}
    ),
    Mistake(
        "inputs normalized over the batch",
        "2-2 2-3 2-4 2-5 2-6",
        {X: X + "\n        x = (x - x.mean(0)) / (x.std(0, unbiased=False) + 1e-5)"},
        {"2-6": "across the batch"},
    ),
    Mistake(
        "inputs of the MLP detached",
        "2-2 2-3 2-7",
        {SCORE: SCORE.replace("(x)", "(x.detach())")},
        {"2-7": "U learns nothing from the MSE"},
    ),
    Mistake(
        "the product detached",
        "2-7",
        {X: X.replace("u * q", "(u * q).detach()")},
        {"2-7": "a detach or no_grad on the way"},
    ),
    Mistake(
        "score without gradients",
        "2-2 2-3 2-7",
        {"    def rating(": "    @torch.no_grad()\n    def rating("},
        {"2-7": "learns nothing from the MSE", "2-2": "one number for all ratings would do as well"},
    ),
    # The MLP.
    Mistake(
        "no ReLU", "1b-0 1b-1 2-4 2-5", {RELU: ""}, {"1b-0": "the ReLUs are missing", "2-4": "the ReLUs are missing"}
    ),
    Mistake("ReLU6 for ReLU", "1b-0 1b-1 2-4 2-5", {RELU: RELU.replace("ReLU()", "ReLU6()")}),
    Mistake("score cut to −5 to 5", "2-4 2-5", {SCORE: SCORE + ".clamp(-5, 5)"}),
    Mistake("ReLUs doubled", "1b-0 1b-1", {RELU: RELU + RELU}, {"1b-0": "has the layers Linear, ReLU, ReLU, Linear"}),
    Mistake(
        "a ReLU after the last layer",
        "1b-0 1b-1 2-2 2-4 2-5",
        {LAST: LAST + RELU[4:]},
        {"1b-0": "a ReLU after the last layer too", "2-4": "a ReLU after the last layer"},
    ),
    Mistake(
        "tanh instead of ReLU",
        "1b-0 1b-1 2-4 2-5",
        {RELU: RELU.replace("ReLU", "Tanh")},
        {"1b-0": "Linear, Tanh, Linear: expected Linear, ReLU, Linear"},
    ),
    Mistake(
        "ReLU before the linear layer",
        "1b-0 1b-1 2-4 2-5",
        {
            RELU: "",
            "        for i in range(len(layer_sizes) - 1):\n": "        for i in range(len(layer_sizes) - 1):\n" + RELU,
        },
    ),
    Mistake(
        "ReLUs in forward instead of layers",
        "1b-0 1b-1",
        {
            RELU: "",
            SEQUENTIAL: "        return nn.ModuleList(layers)\n",
            SCORE: "for layer in self.mlp_layers[:-1]:\n            x = F.relu(layer(x))\n"
            "        score = self.mlp_layers[-1](x).squeeze(1)",
        },
        {"1b-0": "applied in forward instead of being layers"},
    ),
    Mistake(
        "no last layer", f"1b-0 1b-1 {FORWARD}", {LAST: ""}, {"1b-0": "the last layer, of output width 1, is missing"}
    ),
    Mistake(
        "a hidden layer too many",
        "1b-0 1b-1",
        {"        layers = []\n": "        layers, layer_sizes = [], [layer_sizes[0], *layer_sizes]\n"},
        {"1b-0": "has the layers Linear, ReLU, Linear, ReLU, Linear"},
    ),
    Mistake(
        "another hidden width",
        "1b-0 1b-1",
        {
            "        layers = []\n": "        layers = []\n"
            "        layer_sizes = [layer_sizes[0], *(48 for _ in layer_sizes[1:])]\n"
        },
        {"1b-0": "expected .*96, 64.*64, 1"},
    ),
    Mistake(
        "layer_sizes ignored",
        "1b-1",
        {SEQUENTIAL: "        return nn.Sequential(nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 1))\n"},
    ),
    Mistake(
        "ReLU after the first layer only",
        "1b-1",
        {RELU: "            if i == 0:\n    " + RELU},
        {"1b-1": "has the layers Linear, ReLU, Linear, Linear"},
    ),
    Mistake(
        "dropout in the MLP",
        "1b-0 1b-1 2-4 2-5 2-6",
        {RELU: RELU + "            layers.append(nn.Dropout(0.3))\n"},
        {"1b-0": "Linear, ReLU, Dropout, Linear"},
    ),
    Mistake(
        "batch normalization in the MLP",
        "1b-0 1b-1 2-2 2-3 2-4 2-5 2-6",
        {RELU: RELU + "            layers.append(nn.BatchNorm1d(layer_sizes[i + 1]))\n"},
    ),
    Mistake(
        "layers in a list",
        "1b-0 1b-1 2-2 2-3",
        {
            SEQUENTIAL: "        return layers\n",
            SCORE: "for layer in self.mlp_layers:\n            x = layer(x)\n        score = x.squeeze(1)",
        },
        {"1b-0": "returned a list of 3: expected"},
    ),
    # forward as a whole.
    Mistake(
        "score and predictions in the other order",
        "2-2 2-3 2-4 2-5 2-7",
        {"        return predictions, score": "        return score, predictions"},
    ),
    Mistake(
        "predictions alone",
        FORWARD,
        {"        return predictions, score": "        return predictions"},
        {"2-0": "expected two tensors, predictions and score"},
    ),
    Mistake(
        "three outputs",
        FORWARD,
        {"        return predictions, score": "        return predictions, score, 0"},
        {"2-1": "a tuple of 3: expected two tensors"},
    ),
    Mistake(
        "users sorted",
        "2-2 2-3 2-4 2-5 2-6",
        {
            "        if self.embedding_sharing:": "        user_ids, _ = user_ids.sort()\n"
            "        if self.embedding_sharing:"
        },
    ),
    Mistake(
        "the first user for all",
        "2-2 2-3 2-4 2-5 2-6",
        {
            "        if self.embedding_sharing:": "        user_ids = user_ids[:1].expand_as(user_ids)\n"
            "        if self.embedding_sharing:"
        },
    ),
]
