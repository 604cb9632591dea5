"""Calls that are refused before a service sees them: without the token, too large, no message."""

import time
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
        if _is_open(details.method) or bears_token(str(given), token=self._token):
            return continuation(details)
        return self._refuse


def _refuse(_: Any, context: grpc.ServicerContext) -> None:
    context.abort(StatusCode.UNAUTHENTICATED, "expected authorization: Bearer TOKEN")


def _is_open(method: str) -> bool:
    return method.startswith("/grpc.health.")


class MessageInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]
    """Takes the one message of a call off the network, and decodes it, where grpcio would.

    For grpcio, all calls are of any number of messages: it then leaves that to the call's thread.
    Where its own deserializer raises, grpcio keeps the state of the call for good, 10 kB each time
    (1.85, tried in November 2026): any client could take all memory.
    """

    def __init__(self, limits: Limits, memory: Memory) -> None:
        self._limits = limits
        self._memory = memory
        self._requests = Arrivals(
            limits.arrivals,
            waiting=limits.requests,
            seconds=limits.seconds,
            patience_seconds=1.0,
        )
        # Anyone may ask for them, so that their messages must not stand in the way of others. They
        # are of a few bytes, and come with their calls.
        self._checks = Arrivals(2, waiting=64, seconds=2.0, patience_seconds=0.1)

    def intercept_service(self, continuation: Callable[..., Any], details: Any) -> Any:
        """Returns the procedure in that form."""
        handler = continuation(details)
        if handler is None or handler.request_streaming:
            return handler
        behaviour = handler.unary_stream or handler.unary_unary
        arrivals = self._checks if _is_open(details.method) else self._requests

        def answer(messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            with Hold(self._memory) as hold:
                try:
                    content = arrivals.receive(messages, context)
                    request = self._decoded(content, hold, handler.request_deserializer)
                except ServingError as error:
                    context.abort(error.code, error.message)
                return behaviour(request, context)

        wrap = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return wrap(answer, response_serializer=handler.response_serializer)

    def _decoded(self, content: bytes | None, hold: Hold, decode: Callable[[bytes], Any]) -> Any:
        if content is None:  # as grpcio would say
            raise ServingError(StatusCode.UNIMPLEMENTED, "expected exactly one request message.")
        hold.add(len(content))
        most = self._limits.values
        deadline = time.time() + self._limits.seconds
        with self._memory.turn(len(content), deadline=deadline):
            # Each is the method of a message's class: FromString.
            fields = count_fields(content, decode.__self__.DESCRIPTOR, most=most)  # type: ignore[attr-defined]
            if fields > most:
                raise invalid(f"message of over {most} fields; no more are read")
            hold.add(_FIELD_BYTES * fields)
            try:
                return decode(content)
            except DecodeError as error:  # as grpcio would say
                text = "Exception deserializing request!"
                raise ServingError(StatusCode.INTERNAL, text) from error
