"""The errors of the model contract: what model code raises to answer with a status, and what is wrong with a model."""

from __future__ import annotations

from typing import Any


class HTTPException(Exception):  # noqa: N818 - the name that model code of the reference platform's SDK knows
    """Raised in predict() to answer with a status: `raise HTTPException(422, "age must not be negative")`.

    `message` is a sentence, or an object that becomes the whole body. A status outside of 400 to 599 becomes 500.
    `exception_class_name` goes into the header X-Exception-Class; by default it is the name of the class.
    """

    def __init__(
        self, status_code: int, message: str | dict[str, Any], exception_class_name: str | None = None
    ) -> None:
        self.status_code = status_code
        self.message = message
        self.exception_class_name = exception_class_name or type(self).__name__

    @property
    def status(self) -> int:
        """The status to answer with: 400 to 599."""
        return self.status_code if 400 <= self.status_code <= 599 else 500

    @property
    def body(self) -> dict[str, Any]:
        """What the answer's body holds."""
        return self.message if isinstance(self.message, dict) else {"message": str(self.message)}

    def __str__(self) -> str:
        return str(self.message)


class BadRequest(HTTPException):
    """What a client sent cannot be used: what, where, and what to send instead. Status 400."""

    def __init__(self, message: str) -> None:
        super().__init__(400, message)


class NoAnswer(HTTPException):
    """What predict() answered cannot be sent: a fault of the model, told without its data. Status 500."""

    def __init__(self, message: str) -> None:
        super().__init__(500, message)


class ModelError(Exception):
    """A model's code does not keep the contract, or failed: `sentence` says what, where, and what to do.

    `details` are the frames of the model's own code, where it raised; the text of the error has both.
    """

    def __init__(self, sentence: str, details: str = "") -> None:
        super().__init__(f"{sentence}\n{details}".rstrip())
        self.sentence = sentence
        self.details = details


class QwakException(Exception):  # noqa: N818 - the reference platform's name
    """For model code that raises or catches it. Outside of predict() it is like any other exception."""

    def __init__(self, message: str, status_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code


class QwakInferenceException(Exception):  # noqa: N818 - the reference platform's name
    """For model code that raises or catches it."""


class QwakModelInitializationException(RuntimeError):  # noqa: N818 - the reference platform's name
    """For model code that raises or catches it."""


# The names that the reference platform's two SDKs have for them.
QwakHTTPException = FrogmlHTTPException = HTTPException
FrogmlException = QwakException
FrogmlInferenceException = QwakInferenceException
FrogmlModelInitializationException = QwakModelInitializationException
