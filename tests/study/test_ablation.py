"""The variants of the ablation, and a search on validation sets."""

import json
from pathlib import Path

import pytest

from data import synthetic
from datasets.source import DataSource
from study import ablation
from study.ablation import Options


def write(path: Path) -> DataSource:
    made = synthetic(num_users=40, num_items=40, num_interactions=300, seed=1)
    columns = zip(*(each.tolist() for each in (made.user_ids, made.item_ids, made.ratings)), strict=True)
    path.write_text("user,item,rating\n" + "".join(f"{user},{item},{rating:g}\n" for user, item, rating in columns))
    return DataSource(ratings=path)


@pytest.mark.long
def test_variants_of_a_file_are_scored_on_validation_sets(tmp_path: Path) -> None:
    variants = tmp_path / "variants.json"
    variants.write_text(json.dumps({"no decay": {"weight_decay": 0.0}, "short": {"epochs": 2, "negatives": 8}}))
    source, split = write(tmp_path / "mine.csv"), {"test_fraction": 0.1}
    options = Options(jobs=1, seeds=1, epochs=1, variants=variants, validation_fraction=0.2)
    table = ablation.make_tables(options, source, split)
    assert "| no decay | " in table
    assert "| short | " in table
    assert table != ablation.make_tables(Options(jobs=1, seeds=1, epochs=1, variants=variants), source, split)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[", "Expecting value"),
        ('["a"]', "expected settings by name for each variant"),
        ('{"a": 3}', "expected settings by name for each variant"),
        ('{"a": {"epoch": 3}}', "epoch"),
        ('{"a": {"epochs": 0}}', "epochs is 0: expected at least 1"),
    ],
)
def test_wrong_variants_are_refused(content: str, says: str, tmp_path: Path) -> None:
    variants = tmp_path / "variants.json"
    variants.write_text(content)
    with pytest.raises(ValueError, match=says):
        ablation.variants_of(Options(variants=variants))
