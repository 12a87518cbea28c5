"""The event file, read by TensorBoard's own readers."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import fit_in
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata

import train
from cli.signals import Stopped
from data import Interactions
from models import MultiTaskNet
from tracking.folder import contains_run
from tracking.metric_table import CHARTS as CHARTS_OF_RUNS
from tracking.metric_table import METRICS
from tracking.tensorboard import EventFile
from training.settings import Settings

Split = tuple[Interactions, Interactions]
SETTINGS = {"seed": 3, "learning_rate": 0.5, "shared_embeddings": True, "layer_sizes": [96, 64], "note": None}
CHARTS = {"one": ("a/MSE", "b/MSE"), "other": ("b/c.d",)}


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), purge_orphaned_data=False)
    events.Reload()
    return events


def settings(folder: Path) -> dict[str, Any]:
    content = read(folder).SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    info = metadata.parse_session_start_info_plugin_data(content)
    assert info.group_name == ""  # a row of its own for each run
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in info.hparams.items()}


def test_settings_and_charts_can_be_read_while_the_file_is_written(tmp_path: Path) -> None:
    """A run that is killed at any time is therefore listed."""
    with EventFile(tmp_path, {"a": "a/MSE", "b": "b/MSE", "c": "c/MSE"}, SETTINGS, CHARTS) as file:
        file.add(0, {"a": 1.0, "b": 2.0, "c": math.nan}, 1e9)
        assert settings(tmp_path) == {
            "seed": 3.0, "learning_rate": 0.5, "shared_embeddings": True, "layer_sizes": "96 64", "note": "None",
        }  # fmt: skip
        events = read(tmp_path)
        layout = layout_pb2.Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
        assert [(chart.title, list(chart.multiline.tag)) for chart in layout.category[0].chart] == [
            ("one", ["a/MSE$", "b/MSE$"]),
            ("other", [r"b/c\.d$"]),
        ]
        assert [event.value for event in events.Scalars("b/MSE")] == [2.0]
        assert set(events.Tags()["scalars"]) == {"a/MSE", "b/MSE"}


def fit(split: Split, folder: Path, epochs: int, stop: bool = False) -> None:
    data, test = split
    torch.manual_seed(0)
    trainer = train.Trainer(MultiTaskNet(data.num_users, data.num_items), data, Settings(epochs=epochs, seed=7))

    def interrupted() -> train.Losses:
        raise Stopped(15)

    if stop:
        trainer.run_epoch = interrupted  # type: ignore[method-assign]
    fit_in(folder, trainer, test)


def test_a_resumed_run_has_one_copy_of_its_settings_and_charts(split: Split, tmp_path: Path) -> None:
    for epochs in (1, 3):
        fit(split, tmp_path, epochs)
        assert len(list(tmp_path.glob("events*"))) == 1
        assert settings(tmp_path)["seed"] == 7.0
        events = read(tmp_path)
        assert len(events.Tensors("custom_scalars__config__")) == 1
        assert [event.step for event in events.Scalars("eval/MSE")] == list(range(epochs))
        written = {metric.tag.replace("{k}", "10") for metric in METRICS.values() if metric.when != "validation"}
        assert set(events.Tags()["scalars"]) == written
        assert [event.step for event in events.Scalars("users/NDCG@10")] == [epochs - 1]
    assert {tag for tags in CHARTS_OF_RUNS.values() for tag in tags} <= written


def test_metrics_that_tensorboard_cannot_show_are_left_out(tmp_path: Path) -> None:
    with EventFile(tmp_path, {"mse": "eval/MSE", "mrr": "eval/MRR"}, {}, {}) as file:
        for epoch, mse in enumerate((3e38, 1e39, float("nan"), -3e38)):
            file.add(epoch, {"mse": mse, "mrr": 0.5}, 0.0)
    events = read(tmp_path)
    assert [event.step for event in events.Scalars("eval/MSE")] == [0, 3]
    assert [event.step for event in events.Scalars("eval/MRR")] == [0, 1, 2, 3]


def test_a_run_stopped_in_its_first_epoch_leaves_no_event_file(split: Split, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        fit(split, tmp_path, 3, stop=True)
    assert not contains_run(tmp_path)
    fit(split, tmp_path, 1)
    with pytest.raises(Stopped):  # a resumed run keeps its epochs
        fit(split, tmp_path, 3, stop=True)
    assert [event.step for event in read(tmp_path).Scalars("eval/MSE")] == [0]
