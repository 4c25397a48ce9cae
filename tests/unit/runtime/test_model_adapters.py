"""What predict() gets and answers through each adapter."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import StringValue
from PIL import Image

from runtime.model import adapters
from runtime.model.adapters import (
    BaseInputAdapter,
    BaseOutputAdapter,
    DefaultOutputAdapter,
    FileInputAdapter,
    ImageInputAdapter,
    JsonInputAdapter,
    JsonOutputAdapter,
    MultiInputAdapter,
    NumpyInputAdapter,
    NumpyOutputAdapter,
    ProtobufFlavor,
    ProtoInputAdapter,
    ProtoOutputAdapter,
    StringInputAdapter,
    TfTensorInputAdapter,
)
from runtime.model.api import api, api_of
from runtime.model.exceptions import BadRequest, ModelError, NoAnswer


def read(adapter: BaseInputAdapter, body: bytes, content_type: str = "application/json", **headers: str) -> Any:
    return adapter.decode(body, content_type, {name.replace("_", "-"): value for name, value in headers.items()})


def test_json_is_passed_on_as_it_is() -> None:
    assert read(JsonInputAdapter(), b'{"a": [1, null, true, "x"]}') == {"a": [1, None, True, "x"]}
    assert read(JsonInputAdapter(), b"3") == 3


def test_text_is_passed_on_as_it_is() -> None:
    assert read(StringInputAdapter(), "é, {".encode(), "text/plain") == "é, {"
    with pytest.raises(BadRequest, match="The body is not UTF-8: byte 1 cannot be read"):
        read(StringInputAdapter(), b"a\xff")


# -- arrays --


def test_lists_become_an_array() -> None:
    array = read(NumpyInputAdapter(), b"[[1, 2], [3, 4]]")
    assert array.tolist() == [[1, 2], [3, 4]]
    assert read(NumpyInputAdapter(dtype="float32"), b"[1]").dtype == np.float32


def test_a_npy_body_becomes_an_array() -> None:
    stream = io.BytesIO()
    np.save(stream, np.arange(6.0).reshape(2, 3))
    array = read(NumpyInputAdapter(shape=(-1, 3), enforce_shape=True), stream.getvalue(), "application/x-npy")
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_shape_may_leave_a_length_open_and_is_made_where_it_can_be() -> None:
    assert read(NumpyInputAdapter(shape=(-1, 2)), b"[[1, 2]]").shape == (1, 2)
    assert read(NumpyInputAdapter(shape=(2, 2)), b"[1, 2, 3, 4]").shape == (2, 2)
    assert read(NumpyInputAdapter(shape=(2, 2)), b"[1, 2, 3]").shape == (3,)


@pytest.mark.parametrize(
    ("adapter", "body", "sentence"),
    [
        (NumpyInputAdapter(shape=(-1, 2), enforce_shape=True), b"[1]", "The array has the shape [1]; send [any, 2]."),
        (NumpyInputAdapter(dtype="int64", enforce_dtype=True), b"[1.5]", "The array holds float64; send int64."),
        (NumpyInputAdapter(), b"[[1], [2, 3]]", "The body cannot become an array: "),
        (NumpyInputAdapter(), b'{"a": 1}', "The body is an object; send an array as nested lists"),
    ],
)
def test_what_is_no_array_is_told(adapter: BaseInputAdapter, body: bytes, sentence: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(adapter, body)
    assert sentence in str(caught.value)


def test_a_npy_header_cannot_make_the_server_allocate_what_did_not_come() -> None:
    stream = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    np.lib.format.write_array_header_1_0(stream, header)
    with pytest.raises(BadRequest, match=r"no whole \.npy file"):
        read(NumpyInputAdapter(), stream.getvalue(), "application/x-npy")


def test_a_npy_file_with_python_objects_is_not_unpickled() -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([object()], dtype=object), allow_pickle=True)
    with pytest.raises(BadRequest, match=r"no whole \.npy file"):
        read(NumpyInputAdapter(), stream.getvalue(), "application/x-npy")
    with pytest.raises(BadRequest, match=r"The body is no \.npy file"):
        read(NumpyInputAdapter(), b"[1]", "application/x-npy")


def test_an_array_is_answered_as_a_npy_file() -> None:
    body, content_type = NumpyOutputAdapter().encode(np.array([1.5, np.nan]))
    assert content_type == "application/x-npy"
    assert np.load(io.BytesIO(body)).tolist()[0] == 1.5
    with pytest.raises(NoAnswer, match=r"predict\(\) answered a list; NumpyOutputAdapter sends a numpy.ndarray"):
        NumpyOutputAdapter().encode([1])
    with pytest.raises(NoAnswer, match="Python objects"):
        NumpyOutputAdapter().encode(np.array([object()]))


# -- files and images --

FORM = (
    b'--limit\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
    b'--limit\r\nContent-Disposition: form-data; name="file"; filename="scan.png"\r\n'
    b"Content-Type: image/png\r\n\r\n%b\r\n--limit--\r\n"
)
FORM_TYPE = "multipart/form-data; boundary=limit"


def test_a_file_is_the_body_or_the_first_one_of_a_form() -> None:
    assert read(FileInputAdapter(), b"\x00\xff", "application/octet-stream").read() == b"\x00\xff"
    file = read(FileInputAdapter(), FORM % b"\x00\r\n\xff", FORM_TYPE)
    assert (file.name, file.read()) == ("scan.png", b"\x00\r\n\xff")


@pytest.mark.parametrize("content_type", [FORM_TYPE, "multipart/form-data", "multipart/form-data; boundary=é☃"])
def test_a_form_without_a_file_is_told(content_type: str) -> None:
    with pytest.raises(BadRequest, match=r"The form has no file|not ASCII"):
        read(FileInputAdapter(), b"--limit--", content_type)


def _png(mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (3, 2), "red" if mode == "RGB" else 128).save(stream, "PNG")
    return stream.getvalue()


def test_an_image_is_an_array_of_red_green_and_blue() -> None:
    array = read(ImageInputAdapter(), _png(), "image/png")
    assert (array.shape, array.dtype, array[0, 0].tolist()) == ((2, 3, 3), np.uint8, [255, 0, 0])
    assert read(ImageInputAdapter(), FORM % _png("L"), FORM_TYPE).shape == (2, 3, 3)


@pytest.mark.parametrize("body", [b"", b"no image", _png()[:-30]])
def test_what_is_no_image_is_told(body: bytes) -> None:
    with pytest.raises(BadRequest, match=r"The body is no image that can be read: (?!.*0x)"):
        read(ImageInputAdapter(), body, "image/png")


# -- messages --


def test_a_message_is_read_and_answered() -> None:
    message = Struct()
    message.update({"age": 41})
    adapter = ProtoInputAdapter(Struct)
    assert dict(read(adapter, message.SerializeToString(), "application/octet-stream")) == {"age": 41}
    assert ProtoOutputAdapter().encode(message) == (message.SerializeToString(), "application/octet-stream")
    with pytest.raises(BadRequest, match="The body is no Struct: "):
        read(adapter, b"\xff\xff")
    with pytest.raises(NoAnswer, match=r"predict\(\) answered a dict; ProtoOutputAdapter sends a message"):
        ProtoOutputAdapter().encode({})


class Parsed:
    """A message as betterproto makes them."""

    def parse(self, data: bytes) -> Parsed:
        self.data = data
        return self


def test_a_message_of_betterproto_is_read() -> None:
    assert read(ProtoInputAdapter(Parsed, ProtobufFlavor.BETTERPROTO), b"\x01").data == b"\x01"


# -- several --


def test_the_first_adapter_that_can_reads_the_body() -> None:
    adapter = MultiInputAdapter([ProtoInputAdapter(StringValue), JsonInputAdapter, StringInputAdapter()])
    assert read(adapter, StringValue(value="x").SerializeToString()).value == "x"
    assert read(adapter, b'{"a": 1}') == {"a": 1}
    assert read(adapter, b"some text") == "some text"
    with pytest.raises(
        BadRequest, match=r"None of the model.s adapters reads the body\. ProtoInputAdapter: .*JsonInput"
    ):
        read(adapter, b"\xff")


def test_a_header_may_name_the_message() -> None:
    adapter = MultiInputAdapter([ProtoInputAdapter(Struct), ProtoInputAdapter(StringValue)])
    body = StringValue(value="x").SerializeToString()
    for name in ("StringValue", "google.protobuf.StringValue"):
        assert isinstance(read(adapter, body, adapter_name=name), StringValue)


# -- answers of any type --


@pytest.mark.parametrize(
    ("result", "body", "content_type"),
    [
        ("text", b'"text"', "application/json"),
        (b"\x00", b"\x00", "application/octet-stream"),
        (bytearray(b"x"), b"x", "application/octet-stream"),
        ({"a": 1}, b'{"a":1}', "application/json"),
        (np.array([1]), b"[1]", "application/json"),
        (None, b"null", "application/json"),
        (StringValue(value="x"), b"\n\x01x", "application/octet-stream"),
    ],
)
def test_an_answer_is_sent_as_what_it_is(result: Any, body: bytes, content_type: str) -> None:
    assert DefaultOutputAdapter().encode(result) == (body, content_type)


def test_json_output_is_always_json() -> None:
    assert JsonOutputAdapter().encode(b"x") == (b'"x"', "application/json")


# -- adapters of one's own --


class Reversed(BaseInputAdapter):
    """As somebody may write it."""

    def extract_user_func_arg(self, data: bytes) -> str:
        return data.decode()[::-1]


class Loud(BaseOutputAdapter):
    """As somebody may write it."""

    def pack_user_func_return_value(self, return_result: Any) -> str:
        return f"{return_result}!"

    @staticmethod
    def http_content_type() -> dict[str, str]:
        return {"Content-Type": "text/plain"}


class Model:
    """Says what it gets."""

    @api(input_adapter=Reversed(), output_adapter=Loud())
    def predict(self, text: str) -> str:
        return text


def test_an_adapter_may_be_ones_own() -> None:
    asked = api_of(Model())
    assert asked.encode(asked.call(asked.decode(b"abc"))) == (b"cba!", "text/plain")
    assert not asked.batchable


# -- packages that are missing --

_BARE = """
import sys
sys.path.insert(0, sys.argv[1])
from runtime.model import api
from runtime.model import adapters
from runtime.model.api import api_of

class Model:
    @api(input_adapter=getattr(adapters, sys.argv[2])())
    def predict(self, value): return value

try:
    api_of(Model())
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("adapter", "package"),
    [("NumpyInputAdapter", "numpy"), ("ImageInputAdapter", "numpy"), ("TfTensorInputAdapter", "tensorflow")],
)
def test_a_missing_package_is_told_when_the_model_is_loaded(adapter: str, package: str) -> None:
    repository = str(Path(adapters.__file__).parents[2])
    bare = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _BARE, repository, adapter], capture_output=True, text=True, check=True
    )
    assert bare.stdout.startswith(f"ModelError {adapter} needs {package}, which cannot be imported (")
    assert bare.stdout.endswith(f"add {package} to the requirements of the model.\n")


def test_a_type_that_numpy_does_not_know_is_told_when_the_model_is_loaded() -> None:
    class Wrong:
        @api(input_adapter=NumpyInputAdapter(dtype="float1"))
        def predict(self, array: Any) -> Any:
            return array

    with pytest.raises(ModelError, match=r"NumpyInputAdapter\(dtype='float1'\): "):
        api_of(Wrong())


@pytest.mark.parametrize("body", [b"[]", b'{"instances": [{"b64": "?"}]}', b'{"instances": [{"b64": 1}]}'])
def test_the_body_for_a_tensor_is_checked_before_tensorflow_is_asked(body: bytes) -> None:
    with pytest.raises(BadRequest, match=r"instances|base64"):
        read(TfTensorInputAdapter(), body)


def test_bodies_as_tensorflow_serving_takes_them_are_decoded() -> None:
    assert adapters._decoded([{"b64": "AP8="}, {"a": [{"b64": ""}]}, 1]) == [b"\x00\xff", {"a": [b""]}, 1]
    assert json.dumps(adapters._decoded([[1, 2]])) == "[[1, 2]]"
