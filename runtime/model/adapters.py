"""Adapters: what predict() gets from the body of a request, and what its answer becomes.

    @api(input_adapter=JsonInputAdapter(), output_adapter=JsonOutputAdapter())
    def predict(self, request): ...

An input adapter of one's own is a subclass of BaseInputAdapter with `extract_user_func_arg(data)`, an output adapter
one of BaseOutputAdapter with `pack_user_func_return_value(result)`. Packages that an adapter needs are imported when it
is first used; a missing one is told in a sentence.
"""

from __future__ import annotations

import base64
import importlib
import io
from collections.abc import Mapping, Sequence
from email.parser import BytesParser
from email.policy import HTTP
from enum import Enum
from types import ModuleType
from typing import Any, TypeVar

from runtime.model import frames, jsons
from runtime.model.exceptions import BadRequest, ModelError, NoAnswer

JSON = "application/json"
BYTES = "application/octet-stream"
NPY = "application/x-npy"

Adapter = TypeVar("Adapter", "BaseInputAdapter", "BaseOutputAdapter")


def _needs(package: str, adapter: object, distribution: str = "") -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ModelError(
            f"{type(adapter).__name__} needs {distribution or package}, which cannot be imported ({error}): "
            f"add {distribution or package} to the requirements of the model."
        ) from error


# -- input --


class BaseInputAdapter:
    """Turns the body of a request into the argument of predict()."""

    #: whether the rows of several requests may be put into one call of predict()
    batchable = False

    def prepare(self) -> None:
        """Import what is needed, so that a missing package is told when a model is loaded. Raises ModelError."""

    def decode(self, body: bytes, content_type: str, headers: Mapping[str, str]) -> Any:  # noqa: ARG002 - for others
        """The argument of predict(). Names of headers are in lower case. Raises BadRequest."""
        return self.extract_user_func_arg(body)

    def extract_user_func_arg(self, data: Any) -> Any:
        """The argument of predict(), from the whole body."""
        return data

    def from_tensors(self, tensors: dict[str, Any]) -> Any:  # noqa: ARG002 - for those that can
        """The argument of predict(), from named tensors as nested lists. Raises BadRequest."""
        raise BadRequest(
            f"The model reads its input by {type(self).__name__}, not as tensors; use its predict endpoint."
        )


class DataFrameInputAdapter(BaseInputAdapter):
    """A DataFrame with a row for each row of the JSON body; without pandas, a list of dicts (or of lists, unnamed).

    `input_orient` is one of pandas' (split, records, index, columns, values); by default the shape of the body says it.
    """

    batchable = True

    def __init__(self, input_orient: str | None = None) -> None:
        if input_orient is not None and input_orient not in frames.ORIENTS:
            raise ValueError(f"input_orient is {input_orient!r}; it must be one of {', '.join(frames.ORIENTS)}")
        self.input_orient = input_orient

    def prepare(self) -> None:
        frames.pandas()

    def extract_user_func_arg(self, data: bytes | str) -> Any:
        return frames.rows_of(jsons.loads(data), self.input_orient)

    def from_tensors(self, tensors: dict[str, Any]) -> Any:
        if len(tensors) == 1:
            (tensor,) = tensors.values()
            if tensor and isinstance(tensor[0], list) and len(tensor[0]) != 1:
                return frames.rows_of(tensor, "values")
        return frames.rows_of({name: [_single(name, item) for item in tensors[name]] for name in tensors}, "columns")


def _single(name: str, item: Any) -> Any:
    if not isinstance(item, list):
        return item
    if len(item) == 1 and not isinstance(item[0], list):
        return item[0]
    raise BadRequest(f"Of several tensors each is a column: send {name!r} with the shape [rows] or [rows, 1].")


class JsonInputAdapter(BaseInputAdapter):
    """The JSON value as it is: dict, list, text, number, true, false or None."""

    def extract_user_func_arg(self, data: bytes | str) -> Any:
        return jsons.loads(data)

    def from_tensors(self, tensors: dict[str, Any]) -> Any:
        return tensors


class StringInputAdapter(BaseInputAdapter):
    """The body as text."""

    def extract_user_func_arg(self, data: bytes | str) -> str:
        try:
            return data if isinstance(data, str) else data.decode()
        except UnicodeDecodeError as error:
            raise BadRequest(f"The body is not UTF-8: byte {error.start} cannot be read. Send text in UTF-8.") from None


class NumpyInputAdapter(BaseInputAdapter):
    """An array: from nested JSON lists, or from a body of the type application/x-npy.

    Values are cast to `dtype` where that loses no more than precision, and reshaped to `shape` (-1: any length). What
    cannot be is passed on as it came; with `enforce_dtype`, `enforce_shape` it is a BadRequest.
    """

    batchable = True

    def __init__(
        self,
        dtype: Any = None,
        enforce_dtype: bool = False,
        shape: Sequence[int] | None = None,
        enforce_shape: bool = False,
    ) -> None:
        self.dtype = dtype
        self.enforce_dtype = enforce_dtype
        self.shape = tuple(shape) if shape is not None else None
        self.enforce_shape = enforce_shape

    def prepare(self) -> None:
        numpy = _needs("numpy", self)
        try:
            numpy.dtype(self.dtype)
        except TypeError as error:
            raise ModelError(f"NumpyInputAdapter(dtype={self.dtype!r}): {error}") from error

    def decode(self, body: bytes, content_type: str, headers: Mapping[str, str]) -> Any:  # noqa: ARG002 - the base's
        if _media_type(content_type) == NPY:
            return self._fitted(self._load(body))
        return self.extract_user_func_arg(body)

    def extract_user_func_arg(self, data: bytes | str) -> Any:
        return self._array(jsons.loads(data))

    def from_tensors(self, tensors: dict[str, Any]) -> Any:
        if len(tensors) > 1:
            raise BadRequest(f"The model reads one array; send one tensor, not {', '.join(sorted(tensors))}.")
        (tensor,) = tensors.values()
        return self._array(tensor)

    def _array(self, value: Any) -> Any:
        numpy = _needs("numpy", self)
        if isinstance(value, dict):
            raise BadRequest("The body is an object; send an array as nested lists, for example [[1, 2], [3, 4]].")
        try:
            array = numpy.array(value)
        except (ValueError, OverflowError) as error:
            raise BadRequest(f"The body cannot become an array: {error}. Send lists of one length and type.") from None
        return self._fitted(array)

    def _fitted(self, array: Any) -> Any:
        numpy = _needs("numpy", self)
        dtype = numpy.dtype(self.dtype) if self.dtype is not None else array.dtype
        if dtype != array.dtype:
            # JSON does not tell 1 from 1.0.
            if numpy.can_cast(array.dtype, dtype, casting="same_kind"):
                array = array.astype(dtype)
            elif self.enforce_dtype:
                raise BadRequest(f"The array holds {array.dtype}; send {dtype}.")
        if self.shape is not None and not _fits(array.shape, self.shape):
            wanted = str(list(self.shape)).replace("-1", "any")
            if self.enforce_shape:
                raise BadRequest(f"The array has the shape {list(array.shape)}; send {wanted}.")
            try:
                array = array.reshape(self.shape)
            except ValueError:
                return array
        return array

    def _load(self, body: bytes) -> Any:
        numpy = _needs("numpy", self)
        stream = io.BytesIO(body)
        try:
            version = numpy.lib.format.read_magic(stream)
            read = (
                numpy.lib.format.read_array_header_1_0 if version == (1, 0) else numpy.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read(stream)
            # numpy allocates what the header says before it reads.
            if dtype.hasobject or int(numpy.prod(shape, dtype=object)) * dtype.itemsize != len(body) - stream.tell():
                raise BadRequest("The body is no whole .npy file of numbers or text; send what numpy.save() writes.")
            return numpy.load(io.BytesIO(body), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise BadRequest(f"The body is no .npy file: {error}. Send what numpy.save() writes.") from None


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(shape) == len(wanted) and all(
        -1 in (want, have) or want == have for have, want in zip(shape, wanted, strict=True)
    )


class FileInputAdapter(BaseInputAdapter):
    """A binary file: the first one of a multipart/form-data body (with its `name`), else the whole body."""

    def decode(self, body: bytes, content_type: str, headers: Mapping[str, str]) -> Any:  # noqa: ARG002 - the base's
        return self.extract_user_func_arg(_file(body, content_type))

    def extract_user_func_arg(self, data: Any) -> Any:
        return io.BytesIO(data) if isinstance(data, bytes) else data


class _NamedFile(io.BytesIO):
    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


def _file(body: bytes, content_type: str) -> io.BytesIO:
    if _media_type(content_type) != "multipart/form-data":
        return io.BytesIO(body)
    try:
        header = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1")
    except UnicodeEncodeError:
        raise BadRequest("The Content-Type is not ASCII.") from None
    for part in BytesParser(policy=HTTP).parsebytes(header + body).walk():
        name = part.get_filename()
        content = part.get_payload(decode=True)
        if name is not None and isinstance(content, bytes):
            return _NamedFile(content, name)
    raise BadRequest("The form has no file; send one with a filename, or the file alone as the body.")


class ImageInputAdapter(FileInputAdapter):
    """An array of height, width and the colours red, green, blue (uint8). Needs Pillow and numpy."""

    def prepare(self) -> None:
        _needs("numpy", self)
        _needs("PIL.Image", self, "Pillow")

    def extract_user_func_arg(self, data: Any) -> Any:
        numpy, pillow = _needs("numpy", self), _needs("PIL.Image", self, "Pillow")
        try:
            with pillow.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
                return numpy.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
            # Its text has the address of an object.
            unknown = type(error).__name__ == "UnidentifiedImageError"
            reason = "its format is not known" if unknown else str(error)
            raise BadRequest(f"The body is no image that can be read: {reason}. Send PNG, JPEG or the like.") from None


class ProtobufFlavor(Enum):
    """Which package made the message's class."""

    GOOGLE_PROTO = 1
    BETTERPROTO = 2


class ProtoInputAdapter(BaseInputAdapter):
    """A protocol buffer message of the class `message`."""

    def __init__(self, message: Any, flavor: ProtobufFlavor = ProtobufFlavor.GOOGLE_PROTO) -> None:
        self.message = message
        self.flavor = flavor

    def extract_user_func_arg(self, data: Any) -> Any:
        message = self.message()
        parse = message.ParseFromString if self.flavor is ProtobufFlavor.GOOGLE_PROTO else message.parse
        try:
            parse(data)
        except Exception as error:
            raise BadRequest(
                f"The body is no {self.message.__name__}: {error}. Send the message serialised."
            ) from error
        return message

    def is_named(self, name: str) -> bool:
        """Whether this is the name of its message, alone or with its package."""
        descriptor = getattr(self.message, "DESCRIPTOR", None)
        return name in (
            self.message.__name__,
            getattr(descriptor, "name", None),
            getattr(descriptor, "full_name", None),
        )


class TfTensorInputAdapter(BaseInputAdapter):
    """A tensor from {"instances": ...}, as TensorFlow Serving takes it: {"b64": ...} for bytes. Needs tensorflow."""

    def prepare(self) -> None:
        _needs("tensorflow", self)

    def extract_user_func_arg(self, data: bytes | str) -> Any:
        value = jsons.loads(data)
        if not isinstance(value, dict) or "instances" not in value:
            raise BadRequest('Send {"instances": [...]}: one element for each prediction.')
        return self._tensor(_decoded(value["instances"]))

    def from_tensors(self, tensors: dict[str, Any]) -> Any:
        if len(tensors) > 1:
            raise BadRequest(f"The model reads one tensor; send one, not {', '.join(sorted(tensors))}.")
        (tensor,) = tensors.values()
        return self._tensor(tensor)

    def _tensor(self, value: Any) -> Any:
        try:
            return _needs("tensorflow", self).constant(value)
        except (ValueError, TypeError) as error:
            raise BadRequest(f"The body cannot become a tensor: {error}.") from None


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() != {"b64"}:
        return {name: _decoded(item) for name, item in value.items()}
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (ValueError, TypeError):
        raise BadRequest('The value of "b64" must be base64.') from None


class MultiInputAdapter(BaseInputAdapter):
    """The first of several adapters that can read the body. The header Adapter-Name may name the message of one."""

    def __init__(self, adapters: Sequence[BaseInputAdapter | type[BaseInputAdapter]]) -> None:
        self.adapters = [made(adapter) for adapter in adapters]

    def prepare(self) -> None:
        for adapter in self.adapters:
            adapter.prepare()

    def decode(self, body: bytes, content_type: str, headers: Mapping[str, str]) -> Any:
        wanted = headers.get("adapter-name", "")
        named = [
            adapter for adapter in self.adapters if isinstance(adapter, ProtoInputAdapter) and adapter.is_named(wanted)
        ]
        return self._first(named or self.adapters, lambda adapter: adapter.decode(body, content_type, headers))

    def extract_user_func_arg(self, data: Any) -> Any:
        return self._first(self.adapters, lambda adapter: adapter.extract_user_func_arg(data))

    def from_tensors(self, tensors: dict[str, Any]) -> Any:
        return self._first(self.adapters, lambda adapter: adapter.from_tensors(tensors))

    def _first(self, adapters: Sequence[BaseInputAdapter], read: Any) -> Any:
        refusals = []
        for adapter in adapters:
            try:
                return read(adapter)
            except BadRequest as refusal:
                refusals.append(f"{type(adapter).__name__}: {refusal}")
        raise BadRequest(f"None of the model's adapters reads the body. {' '.join(refusals)}")


# -- output --


class BaseOutputAdapter:
    """Turns what predict() answered into the body of the response."""

    #: whether a row of the answer looks the same, whichever rows were beside it in a batch
    batchable = True

    def encode(self, result: Any) -> tuple[bytes, str]:
        """The body and its Content-Type. Raises NoAnswer."""
        packed = self.pack_user_func_return_value(result)
        body = packed if isinstance(packed, bytes) else str(packed).encode()
        return body, self.http_content_type()["Content-Type"]

    def pack_user_func_return_value(self, return_result: Any) -> bytes | str:
        """The body; text is sent as UTF-8."""
        return jsons.dumps(return_result)

    @staticmethod
    def http_content_type() -> dict[str, str]:
        """The headers that say what the body is."""
        return {"Content-Type": JSON}


class JsonOutputAdapter(BaseOutputAdapter):
    """JSON of anything that JSON can hold."""


class DefaultOutputAdapter(BaseOutputAdapter):
    """Of each type what fits it: bytes and messages as they are, DataFrames as records, all else as JSON."""

    output_orient = "records"

    def encode(self, result: Any) -> tuple[bytes, str]:
        if isinstance(result, bytes | bytearray | memoryview):
            return bytes(result), BYTES
        if callable(getattr(result, "SerializeToString", None)):
            return result.SerializeToString(), BYTES
        return self.pack_user_func_return_value(result), JSON

    def pack_user_func_return_value(self, return_result: Any) -> bytes:
        if frames.is_frame(return_result) or frames.is_series(return_result):
            return jsons.dumps(frames.structure_of(return_result, self.output_orient))
        return jsons.dumps(return_result)


AutodetectOutputAdapter = DefaultOutputAdapter


class DataFrameOutputAdapter(DefaultOutputAdapter):
    """A DataFrame as JSON; anything else as by DefaultOutputAdapter.

    `output_orient` is one of pandas' (split, records, index, columns, values).
    """

    def __init__(self, output_orient: str = "records") -> None:
        if output_orient not in frames.ORIENTS:
            raise ValueError(f"output_orient is {output_orient!r}; it must be one of {', '.join(frames.ORIENTS)}")
        self.output_orient = output_orient
        # The others show the index, and a batch numbers its rows anew.
        self.batchable = output_orient in ("records", "values")


class NumpyOutputAdapter(BaseOutputAdapter):
    """An array as a .npy file (application/x-npy)."""

    def pack_user_func_return_value(self, return_result: Any) -> bytes:
        numpy = _needs("numpy", self)
        if not isinstance(return_result, numpy.ndarray):
            raise NoAnswer(
                f"predict() answered a {type(return_result).__name__}; NumpyOutputAdapter sends a numpy.ndarray."
            )
        stream = io.BytesIO()
        try:
            numpy.save(stream, return_result, allow_pickle=False)
        except ValueError as error:
            raise NoAnswer(f"predict() answered an array that has Python objects in it: {error}.") from None
        return stream.getvalue()

    @staticmethod
    def http_content_type() -> dict[str, str]:
        return {"Content-Type": NPY}


class ProtoOutputAdapter(BaseOutputAdapter):
    """A protocol buffer message, serialised."""

    def pack_user_func_return_value(self, return_result: Any) -> bytes:
        serialise = getattr(return_result, "SerializeToString", None)
        if not callable(serialise):
            raise NoAnswer(f"predict() answered a {type(return_result).__name__}; ProtoOutputAdapter sends a message.")
        return bytes(serialise())

    @staticmethod
    def http_content_type() -> dict[str, str]:
        return {"Content-Type": BYTES}


class TfTensorOutputAdapter(BaseOutputAdapter):
    """A TensorFlow tensor, or a list of them, as nested lists in JSON."""

    batchable = False


def made(adapter: Adapter | type[Adapter]) -> Adapter:
    """An adapter, where its class may have been given instead."""
    return adapter() if isinstance(adapter, type) else adapter


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
