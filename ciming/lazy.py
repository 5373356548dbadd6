# SPDX-License-Identifier: Apache-2.0
"""What is made when it is first used."""

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

Value = TypeVar("Value")


class cached_property(Generic[Value]):
    """Made when first used, and kept in the instance.

    Before Python 3.12 that of functools holds one lock for all instances meanwhile: a cloud that hangs
    would stop all others.
    """

    def __init__(self, make: Callable[[Any], Value]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...
    def __get__(self, instance: object | None, owner: type) -> Self | Value:
        if instance is None:
            return self
        made = instance.__dict__[self._name] = self._make(instance)
        return made
