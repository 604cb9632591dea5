"""The networks, in Keras's own layers; their files, and their form for inference."""

# Of an image, by test-time augmentation (`tta`). Here, where it is read without loading Keras.
TTA_VIEWS = 6
