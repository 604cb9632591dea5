"""Calls that are refused before a service sees them: without the token, or no message at all."""

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc import StatusCode

from keras_cifar.serve.settings import bears_token

_NO_MESSAGE = object()


class TokenInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]
    """Lets in who has the token, and anyone for health checks."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._refuse = grpc.unary_unary_rpc_method_handler(_refuse)

    def intercept_service(self, continuation: Callable[..., Any], details: Any) -> Any:
        """Returns the procedure, or one that refuses."""
        given = dict(details.invocation_metadata).get("authorization", "")
        is_open = details.method.startswith("/grpc.health.")
        if is_open or bears_token(str(given), token=self._token):
            return continuation(details)
        return self._refuse


def _refuse(_: Any, context: grpc.ServicerContext) -> None:
    context.abort(StatusCode.UNAUTHENTICATED, "expected authorization: Bearer TOKEN")


class DecodingInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]
    """Decodes requests so that grpcio never sees it fail.

    Where a deserializer raises, grpcio keeps the state of the call for good, 10 kB each time (1.85,
    tried in November 2026): any client could take all memory.
    """

    def intercept_service(self, continuation: Callable[..., Any], details: Any) -> Any:
        """Returns the procedure, told apart from what cannot be decoded."""
        handler = continuation(details)
        if handler is None or handler.request_streaming:
            return handler

        def decode(content: bytes) -> Any:
            try:
                return handler.request_deserializer(content)
            except DecodeError:
                return _NO_MESSAGE

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            if request is _NO_MESSAGE:  # what grpcio would say
                context.abort(StatusCode.INTERNAL, "Exception deserializing request!")
            return (handler.unary_stream or handler.unary_unary)(request, context)

        wrap = (
            grpc.unary_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return wrap(
            answer, request_deserializer=decode, response_serializer=handler.response_serializer
        )
