"""Calls that are refused before a service sees them: without the token, too large, no message."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc import StatusCode

from keras_cifar.serve.memory import Hold, Memory
from keras_cifar.serve.rpc.arrivals import Arrivals
from keras_cifar.serve.rpc.wire import count_fields
from keras_cifar.serve.serving_error import ServingError, invalid
from keras_cifar.serve.settings import Limits, bears_token

# What a field may take when it is decoded, beside its content: an object, and its place in a list.
_FIELD_BYTES = 64


class TokenInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]
    """Lets in who has the token, and anyone for health checks."""

    def __init__(self, token: str) -> None:
        self._token = token
        # Not of one message: that would be waited for first.
        self._refuse = grpc.stream_unary_rpc_method_handler(_refuse)

    def intercept_service(self, continuation: Callable[..., Any], details: Any) -> Any:
        """Returns the procedure, or one that refuses."""
        given = dict(details.invocation_metadata).get("authorization", "")
        is_open = details.method.startswith("/grpc.health.")
        if is_open or bears_token(str(given), token=self._token):
            return continuation(details)
        return self._refuse


def _refuse(_: Any, context: grpc.ServicerContext) -> None:
    context.abort(StatusCode.UNAUTHENTICATED, "expected authorization: Bearer TOKEN")


class MessageInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]
    """Takes the one message of a call off the network, and decodes it, where grpcio would.

    For grpcio, all calls are of any number of messages: it then leaves that to the call's thread.
    Where its own deserializer raises, grpcio keeps the state of the call for good, 10 kB each time
    (1.85, tried in November 2026): any client could take all memory.
    """

    def __init__(self, limits: Limits, memory: Memory) -> None:
        self._limits = limits
        self._memory = memory
        self._arrivals = Arrivals(limits)

    def intercept_service(self, continuation: Callable[..., Any], details: Any) -> Any:
        """Returns the procedure in that form."""
        handler = continuation(details)
        if handler is None or handler.request_streaming:
            return handler
        behaviour = handler.unary_stream or handler.unary_unary

        def answer(messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            with Hold(self._memory) as hold:
                try:
                    request = self._received(messages, context, hold, handler.request_deserializer)
                except ServingError as error:
                    context.abort(error.code, error.message)
                return behaviour(request, context)

        wrap = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return wrap(answer, response_serializer=handler.response_serializer)

    def _received(
        self,
        messages: Iterator[bytes],
        context: grpc.ServicerContext,
        hold: Hold,
        decode: Callable[[bytes], Any],
    ) -> Any:
        content = self._arrivals.receive(messages, context)
        if content is None:  # as grpcio would say
            raise ServingError(StatusCode.UNIMPLEMENTED, "expected exactly one request message.")
        most = self._limits.values
        # Each is the method of a message's class: FromString.
        fields = count_fields(content, decode.__self__.DESCRIPTOR, most=most)  # type: ignore[attr-defined]
        if fields > most:
            raise invalid(f"message of over {most} fields; no more are read")
        hold.add(len(content) + _FIELD_BYTES * fields)
        try:
            return decode(content)
        except DecodeError as error:  # as grpcio would say
            raise ServingError(StatusCode.INTERNAL, "Exception deserializing request!") from error
