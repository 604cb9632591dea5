"""All recipes by name: a new one is a file and a line here."""

from keras_cifar.recipes.article import ArticleRecipe
from keras_cifar.recipes.fast import FAST94, FAST94_GPU, FAST96
from keras_cifar.recipes.recipe import Recipe

# The default first.
RECIPES: dict[str, Recipe] = {
    "article": ArticleRecipe(),
    "fast94": FAST94,
    "fast94-gpu": FAST94_GPU,
    "fast96": FAST96,
}
