"""The files of TensorBoard's PROJECTOR tab, which shows the items' embeddings.

LOGDIR/projector_config.pbtxt   the list of embeddings (TensorBoard's projector_config.proto)
LOGDIR/items….bytes             (items, embedding_dim) float32, row after row
LOGDIR/items.tsv                each item's title, genres and number of training ratings
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from torch import Tensor, nn

from cli.files import write_whole
from data import Interactions
from datasets.source import DataSource, genres
from training import parts

CONFIG, LABELS = "projector_config.pbtxt", "items.tsv"
MOST = 10_000  # items shown, because the browser computes with all of them


def write_items(folder: Path, counts: Tensor, train: Interactions, source: DataSource, network: nn.Module) -> None:
    """Write the items' embeddings and genres; print a line on stderr if either cannot be read.

    Args:
        folder: the run's folder.
        counts: (num_items,) each item's number of training ratings.
        train: the training set, for the items' IDs and titles.
        source: the source of the ratings, for the genres.
        network: the network as it recommends.

    Raises:
        OSError: a file cannot be written.
    """
    try:
        tables = parts.item_tables(network)
    except LookupError as error:
        print(f"the PROJECTOR tab is left out: {error}", file=sys.stderr)
        return
    try:
        genre_of = genres(source)
    except (ValueError, OSError) as error:
        print(f"the items' genres are not shown: {error}", file=sys.stderr)
        genre_of = {}
    _write(folder, tables, counts, train, genre_of)


def _write(
    folder: Path, tables: Mapping[str, Tensor], counts: Tensor, train: Interactions, genre_of: Mapping[str, str]
) -> None:
    """Write the embeddings of all items, or of the MOST with the most training ratings.

    Args:
        folder: the run's folder.
        tables: the items' embeddings, (num_items, d) each, by their names in the tab.
        counts, train: as for ``write_items``.
        genre_of: the genres of items, by ID.

    Raises:
        OSError: a file cannot be written.
    """
    shown = counts.argsort(descending=True, stable=True)[:MOST].sort()[0]
    ids = train.source_item_ids if isinstance(train.source_item_ids, tuple) else train.source_item_ids.tolist()
    lines = ["title\tgenres\tratings"]
    for item, count in zip(shown.tolist(), counts[shown].tolist(), strict=True):
        source_id = str(ids[item])
        cells = train.titles[item] if train.titles else source_id, genre_of.get(source_id, ""), count
        lines.append("\t".join(" ".join(str(cell).split()) for cell in cells))
    write_whole("".join(f"{line}\n" for line in lines).encode(), folder / LABELS)
    config = ProjectorConfig()
    for name, table in tables.items():
        values = table.detach().float().cpu()[shown].numpy().astype("<f4")
        path = f"{name.replace(', ', '_')}.bytes"
        write_whole(values.tobytes(), folder / path)
        config.embeddings.add(tensor_name=name, tensor_path=path, tensor_shape=values.shape, metadata_path=LABELS)
    write_whole(str(config).encode(), folder / CONFIG)
