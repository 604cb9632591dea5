"""Makes `python -m keras_cifar` the same as `keras-cifar`."""

from keras_cifar.cli import main

main(prog_name="keras-cifar")
