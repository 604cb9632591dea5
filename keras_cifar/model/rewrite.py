"""A network -> a copy with other layers in the place of some, for training or for inference."""

from collections import Counter
from collections.abc import Callable
from itertools import chain
from typing import Any

import keras


class Line:
    """The pairs of layers in which the second alone takes what the first returns.

    Args:
        model: Sequential or Functional, built.
    """

    def __init__(self, model: keras.Model) -> None:
        # Keras has no public way to list the calls that a model is made of.
        function = model._functional if isinstance(model, keras.Sequential) else model
        calls = list(chain.from_iterable(function._nodes_by_depth.values()))
        uses = Counter(call.operation for call in calls)
        taken = [
            (tensor._keras_history.operation, call.operation)
            for call in calls
            for tensor in call.arguments.keras_tensors
        ]
        takers = Counter(first for first, _ in taken)
        takers.update(tensor._keras_history.operation for tensor in model.outputs)
        inputs = Counter(second for _, second in taken)
        self._behind = {
            first: second
            for first, second in taken
            if takers[first] == inputs[second] == uses[first] == uses[second] == 1
        }
        self._before = {second: first for first, second in self._behind.items()}

    def before(self, layer: keras.layers.Layer | None) -> Any:
        """Returns the layer whose output this one alone takes; None if there is none."""
        return self._before.get(layer)

    def behind(self, layer: keras.layers.Layer | None) -> Any:
        """Returns the layer that takes this one's output alone; None if there is none."""
        return self._behind.get(layer)


def rewrite(
    model: keras.Model, replace: Callable[[keras.layers.Layer, Line], list[keras.layers.Layer]]
) -> keras.Model:
    """Copies a network; its own layers stay as they are.

    Args:
        model: Sequential or Functional, built.
        replace: returns what takes the place of a layer: a copy of it, or none, or other layers
            that take one input each, in their order.

    Returns:
        A Functional model. Its new layers have new weights.
    """
    line = Line(model)
    replaced: dict[keras.layers.Layer, list[keras.layers.Layer]] = {}

    def call(layer: keras.layers.Layer, *inputs: Any, **options: Any) -> Any:
        if layer not in replaced:
            replaced[layer] = replace(layer, line)
        match replaced[layer]:
            case [copy] if type(copy) is type(layer):
                return copy(*inputs, **options)
            case others:
                (x,) = inputs
                for other in others:
                    x = other(x)
                return x

    functional = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return keras.models.clone_model(
        functional, clone_function=lambda layer: layer, call_function=call
    )
