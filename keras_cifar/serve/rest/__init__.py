"""The HTTP side: TensorFlow Serving's REST API, probes, metrics and the page, over uvicorn."""
