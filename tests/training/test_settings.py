"""Settings out of range, and settings that do not go together."""

import math
import re
from dataclasses import replace
from typing import Any

import pytest

from training.settings import Settings


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"factorization_weight": -0.5}, "factorization_weight is -0.5: expected a number from 0 to"),
        ({"regression_weight": math.nan}, "regression_weight is nan"),
        ({"regression_weight": math.inf}, "regression_weight is inf"),
        ({"factorization_weight": 0.0, "regression_weight": 0.0}, "are both 0"),
        ({"embedding_dim": 0}, "embedding_dim is 0: expected at least 1"),
        ({"layer_sizes": (96, 0)}, "layer_sizes is 96 0: expected widths of at least 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"negatives": 0}, "negatives is 0: expected at least 1"),
        ({"unseen_negatives": True}, "unseen_negatives and ranking_loss softmax are for several negatives"),
        (
            {"pseudo_ratings": 4, "rating_unit": "star"},
            "the network would learn 0 stars: give rating_baseline, or rating",
        ),
        ({"ranking_loss": "softmax"}, "expected more negatives, or ranking_loss bounded or logistic"),
        ({"ranking_loss": "hinge"}, "ranking_loss is hinge: expected bounded, logistic or softmax"),
        ({"user_balance": 2.0}, "user_balance is 2.0: expected "),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"lr_schedule": "cosine"}, "lr_schedule is cosine: expected constant"),
        ({"dropout": 1.0}, "dropout is 1.0: expected "),
        ({"embedding_dropout": -0.1}, "embedding_dropout is -0.1"),
        ({"eval_users": 0}, "eval_users is 0: expected at least 1, all or auto"),
        ({"eval_users": "1.5"}, "eval_users is '1.5': expected a whole number, all or auto"),
        ({"eval_users": ""}, "eval_users is '': expected a whole number, all or auto"),
        ({"batch_size": "all"}, "batch_size is 'all': expected a whole number or auto"),
        ({"batch_size": -3}, "batch_size is -3: expected at least 1 or auto"),
        ({"topk": [10, 0]}, "topk is 10 0: expected whole numbers of at least 1"),
        ({"topk": ()}, "topk is empty: expected whole numbers of at least 1"),
        ({"topk": 2.5}, "topk is 2.5: expected whole numbers of at least 1"),
        ({"topk": "10"}, "topk is 10: expected whole numbers of at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        Settings(**change)


def test_a_run_is_resumed_with_the_same_settings_but_for_patience_topk_and_the_number_of_epochs() -> None:
    first, patient = (
        Settings(validation_fraction=0.1),
        Settings(validation_fraction=0.1, patience=3, topk=(5, 20), epochs=7),
    )
    assert first.noted() == patient.noted()
    assert first.noted() != Settings(validation_fraction=0.2).noted()
    planned = Settings(lr_schedule="linear")
    assert planned.noted() != replace(planned, epochs=7).noted()


def test_the_batch_follows_the_number_of_interactions() -> None:
    sizes = [Settings(batch_size="auto").batch_size_for(n) for n in (3, 100, 93_000, 95_000_000)]
    assert sizes == [3, 32, 1000, 1_021_505]
    assert [Settings().batch_size_for(n) for n in (3, 100_000)] == [3, 256]
