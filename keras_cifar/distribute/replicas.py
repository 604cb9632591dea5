"""What each replica of a model must have of its own."""

import keras
import tensorflow as tf


def draw_own_masks(model: keras.Model) -> None:
    """Gives each replica's dropout a seed of its own, by its number; the first keeps its seed.

    In Keras 3.15 all replicas draw the same masks. A checkpoint holds the first one's seeds: to be
    called after it was restored, once.
    """
    strategy = model.distribute_strategy
    dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    if strategy.num_replicas_in_sync == 1 or not dropouts:
        return

    def shift() -> None:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        for dropout in dropouts:
            seed = dropout.seed_generator.state
            seed.assign(seed + tf.cast(tf.stack([replica, 0]), seed.dtype))

    tf.function(lambda: strategy.run(shift), autograph=False)()
