"""Facts about CIFAR-10, each with its source. Nothing here reads a file."""

from typing import NamedTuple

IMAGE_SHAPE = (32, 32, 3)
# In the order of the labels 0..9: batches.meta.txt of the original archive.
CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
NUM_CLASSES = len(CLASS_NAMES)

# Of each channel (red, green, blue) over all pixels of the 50,000 training images, in 0..255.
# Computed from the data; tests/test_cifar10.py computes them again.
MEAN = (125.306918, 122.950394, 113.865383)
STANDARD_DEVIATION = (62.993219, 62.088708, 66.704900)


class SplitFacts(NamedTuple):
    """What the examples of one split must be, wherever they came from.

    Attributes:
        examples: how many; each class has a tenth of them.
        sha256: digest of all images and labels that does not depend on their order
            (see `keras_cifar.data.examples.in_canonical_order`).
    """

    examples: int
    sha256: str


class DatasetFacts(NamedTuple):
    """Name, TFDS version and splits of a dataset."""

    name: str
    version: str
    train: SplitFacts
    test: SplitFacts


CIFAR10 = DatasetFacts(
    name="cifar10",
    version="3.0.2",
    train=SplitFacts(50_000, "d59acf989e068e709ce686cda292672c7b212c08d29d3d3e6d8c3aa99eba6a85"),
    test=SplitFacts(10_000, "899683d46c3a8c66fd56e1af12202e69fe5a4517be10b0f68e04c78fe585c57c"),
)
# Of the files in cifar-10-python.tar.gz, as torchvision's CIFAR10 class (datasets/cifar.py) lists
# them; a git-annex copy of the extracted files has the same digests as their keys.
PYTHON_BATCHES_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
# A stratified part of CIFAR-10 that ships in this package (scripts/make_sample.py).
SAMPLE = DatasetFacts(
    name="cifar10_sample",
    version="1.0.0",
    train=SplitFacts(2_000, "5c31ea5d29b554f02eaab2da764131e0dc8a2e9873be10cdf4c1d037e0f6ec49"),
    test=SplitFacts(500, "ecbce45aebe05b991f61abf3c76fa60784b11dc6fdba53be32c9efdfc0283c0c"),
)
DATASETS = {"cifar10": CIFAR10, "sample": SAMPLE}
