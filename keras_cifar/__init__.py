"""CIFAR-10 on Keras 3 and TensorFlow: data, training, exact resume, evaluation, prediction."""
