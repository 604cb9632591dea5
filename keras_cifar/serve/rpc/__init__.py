"""The gRPC side: TensorFlow Serving's services and health checks, over grpcio."""
