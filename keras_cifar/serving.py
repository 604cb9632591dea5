"""How a model is served: what export, deployment and clients agree on."""

# Of weights and arithmetic of an exported model.
EXPORT_PRECISIONS = ("float32", "bfloat16")
# The name that a model has on a server where the user does not say otherwise.
MODEL_NAME = "cifar10"
# Signatures, and what each one calls its only input.
IMAGE_SIGNATURE, IMAGE_INPUT = "serving_default", "image"
BYTES_SIGNATURE, BYTES_INPUT = "image_bytes", "image_bytes"
# Images that a server computes at once; it fills a batch up to the next of these sizes. On a CPU
# each image of the filling costs its time: small steps. On a GPU it costs next to nothing, and
# each size is compiled and kept: few sizes.
BATCH_SIZES = {
    "cpu": (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64),
    "gpu": (1, 2, 4, 8, 16, 32, 64, 128),
}
DEVICES = tuple(BATCH_SIZES)
# Not 2.21.0: nothing confirms that there is an image of it (November 2026).
_IMAGE = "tensorflow/serving:2.20.0"


def default_image(device: str) -> str:
    """Returns the Docker image of TensorFlow Serving for "cpu" or "gpu"."""
    return f"{_IMAGE}-gpu" if device == "gpu" else _IMAGE
