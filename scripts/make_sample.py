"""Makes the sample that ships in the package, from the full CIFAR-10.

Takes the first images of each class in canonical order, so that anybody who runs it gets the same.
Prints the digests that belong in keras_cifar/cifar10.py.
"""

from pathlib import Path

import click
import numpy as np

import keras_cifar
from keras_cifar.cifar10 import CIFAR10, NUM_CLASSES, SAMPLE, SplitFacts
from keras_cifar.data.examples import Examples, Splits, in_canonical_order
from keras_cifar.data.tfds_folder import dataset_folder, read_split, write_folder

SAMPLE_DIR = Path(keras_cifar.__file__).parent / "data" / "sample"


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    envvar="TFDS_DATA_DIR",
    help="Where TFDS keeps the full CIFAR-10.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=SAMPLE_DIR,
    show_default=True,
    help="The sample's data folder; must not hold a sample yet.",
)
def main(data_dir: Path, out: Path) -> None:
    """Write the sample of CIFAR-10 under --out."""
    full = dataset_folder(CIFAR10, data_dir=data_dir)
    splits = Splits(
        train=_first_of_each_class(
            read_split(full, split="train", dataset=CIFAR10), count=SAMPLE.train.examples
        ),
        test=_first_of_each_class(
            read_split(full, split="test", dataset=CIFAR10), count=SAMPLE.test.examples
        ),
    )
    dataset = SAMPLE._replace(train=_facts(splits.train), test=_facts(splits.test))
    print(write_folder(splits, dataset=dataset, data_dir=out, id_prefix=""))
    print(dataset)


def _first_of_each_class(examples: Examples, *, count: int) -> Examples:
    positions = [
        np.flatnonzero(examples.labels == label)[: count // NUM_CLASSES]
        for label in range(NUM_CLASSES)
    ]
    return examples.take(np.sort(np.concatenate(positions)))


def _facts(examples: Examples) -> SplitFacts:
    return SplitFacts(len(examples.labels), in_canonical_order(examples)[1])


if __name__ == "__main__":
    main()
