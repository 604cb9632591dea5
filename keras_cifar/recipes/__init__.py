"""The recipes: each a network and a way to train it; and the settings of a run by one of them.

Nothing here loads TensorFlow: a recipe imports it in the functions that use it.
"""

from keras_cifar.recipes.config import TrainConfig
from keras_cifar.recipes.table import RECIPES

__all__ = ["RECIPES", "TrainConfig"]
