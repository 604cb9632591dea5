"""Where CIFAR-10 comes from: an archive that the user has, or a download."""
