"""What runs there are, how far they are and what they came to."""

from keras_cifar.runs.listing import SORTS, STATES, Row, list_runs, sort_rows
from keras_cifar.runs.run_table import format_table

__all__ = ["SORTS", "STATES", "Row", "format_table", "list_runs", "sort_rows"]
