"""JSON from outside: what is read, and everything that is refused (hostile-input row M6)."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podctl.errors import ManifestInvalid
from podctl.model import jsontext

ACCEPTED: dict[str, tuple[bytes, object]] = {
    "empty array": (b"[]", []),
    "empty object": (b"{}", {}),
    "array in array": (b"[[]   ]", [[]]),
    "empty string in array": (b'[""]', [""]),
    "trailing newline": (b"[1]\n", [1]),
    "leading blanks": (b" \t\r\n[1]", [1]),
    "null elements": (b"[1,null,null,2]", [1, None, None, 2]),
    "booleans": (b"[true,false]", [True, False]),
    "integer": (b"[123]", [123]),
    "zero": (b"[0]", [0]),
    "minus zero": (b"[-0]", [0]),
    "negative": (b"[-123]", [-123]),
    "largest integer": (b"[9223372036854775807]", [2**63 - 1]),
    "smallest integer": (b"[-9223372036854775808]", [-(2**63)]),
    "fraction": (b"[0.5]", [0.5]),
    "negative fraction": (b"[-1.25]", [-1.25]),
    "exponent": (b"[1E2]", [100.0]),
    "exponent with plus": (b"[1e+2]", [100.0]),
    "exponent with minus": (b"[1E-2]", [0.01]),
    "fraction and exponent": (b"[1.5e2]", [150.0]),
    "near zero": (b"[-0." + b"0" * 60 + b"1]", [-1e-61]),
    "largest double": (b"[1.7976931348623157e308]", [1.7976931348623157e308]),
    "long fraction": (b"[0." + b"1" * 200 + b"]", [float("0." + "1" * 200)]),
    "empty key": (b'{"":0}', {"": 0}),
    "one key": (b'{"a":"b"}', {"a": "b"}),
    "keys that differ by case": (b'{"a":1,"A":2}', {"a": 1, "A": 2}),
    "same key in two objects": (b'[{"a":1},{"a":2}]', [{"a": 1}, {"a": 2}]),
    "same key nested": (b'{"a":{"a":1}}', {"a": {"a": 1}}),
    "short escapes": (rb'["\"\\\/\b\f\n\r\t"]', ['"\\/\b\f\n\r\t']),
    "unicode escape": (rb'["\u0060\u012a\u12AB"]', ["`\u012a\u12ab"]),
    "escaped control": (rb'["\u0012"]', ["\x12"]),
    "surrogate pair": (rb'["\uD801\udc37"]', ["\U00010437"]),
    "two surrogate pairs": (rb'["\ud83d\ude39\ud83d\udc8d"]', ["\U0001f639\U0001f48d"]),
    "escaped backslash before u": (rb'["\\u0000"]', ["\\u0000"]),
    "noncharacter": (rb'["\uFFFF"]', ["\uffff"]),
    "raw UTF-8": ('["\u20ac\U0001d11e"]'.encode(), ["\u20ac\U0001d11e"]),
    "raw delete": (b'["\x7f"]', ["\x7f"]),
    "raw line separator": ('["\u2028"]'.encode(), ["\u2028"]),
    "byte order mark inside": ('["\ufeff"]'.encode(), ["\ufeff"]),
    "lonely string": (b'"x"', "x"),
    "lonely number": (b"42", 42),
    "lonely null": (b"null", None),
    "brackets in strings": (b'["' + b"[{" * 500 + b'"]', ["[{" * 500]),
    "quote and brackets in strings": (b'["\\"' + b"[" * 500 + b'"]', ['"' + "[" * 500]),
    "deepest nesting": (b"[" * 64 + b"]" * 64, None),
    "many shallow objects": (b"[" + b",".join([b"{}"] * 5000) + b"]", [{}] * 5000),
}

MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "blanks": b" \n",
    "one brace": b"{",
    "one bracket": b"[",
    "closing bracket": b"]",
    "wrong closing": b"[}",
    "wrong closing object": b'{"a":1]',
    "unclosed array": b"[1",
    "unclosed nested": b'[{"a":[1}',
    "trailing comma": b"[1,]",
    "two trailing commas": b"[1,,]",
    "leading comma": b"[,1]",
    "only comma": b"[,]",
    "double comma": b"[1,,2]",
    "no comma": b"[1 2]",
    "colon in array": b'["a":1]',
    "trailing garbage": b"[1]x",
    "second document": b"[1][2]",
    "second brace": b'{"a":1}}',
    "object trailing comma": b'{"a":1,}',
    "object double comma": b'{"a":1,,"b":2}',
    "object no colon": b'{"a" 1}',
    "object no value": b'{"a":}',
    "object double colon": b'{"a"::1}',
    "object comma for colon": b'{"a",1}',
    "key without quotes": b"{a:1}",
    "key in single quotes": b"{'a':1}",
    "number as key": b"{1:1}",
    "null as key": b"{null:1}",
    "array as key": b"{[]:1}",
    "string in single quotes": b"['a']",
    "unclosed string": b'["a',
    "unclosed key": b'{"a',
    "string with raw newline": b'["a\nb"]',
    "string with raw tab": b'["\t"]',
    "string with raw NUL": b'["\x00"]',
    "string with raw escape": b'["\x1b"]',
    "NUL after the document": b"[1]\x00",
    "NUL before the document": b"\x00[1]",
    "bad escape": rb'["\a"]',
    "hex escape": rb'["\x00"]',
    "escaped quote only": rb'["\"]',
    "unfinished unicode escape": rb'["\u12"]',
    "no digits in unicode escape": rb'["\u"]',
    "bad digits in unicode escape": rb'["\u00g0"]',
    "sign in unicode escape": rb'["\u+123"]',
    "blank in unicode escape": rb'["\u 123"]',
    "capital unicode escape": rb'["\U0041"]',
    "backslash at the end": b'["\\',
    "leading zero": b"[01]",
    "negative leading zero": b"[-01]",
    "plus sign": b"[+1]",
    "two signs": b"[--1]",
    "minus alone": b"[-]",
    "minus blank": b"[- 1]",
    "dot at the end": b"[1.]",
    "dot at the beginning": b"[.5]",
    "dot before exponent": b"[1.e3]",
    "two dots": b"[1.2.3]",
    "exponent without digits": b"[1e]",
    "exponent with sign only": b"[1e+]",
    "two exponents": b"[1e2e3]",
    "fractional exponent": b"[1e2.5]",
    "hexadecimal": b"[0x10]",
    "octal": b"[0o7]",
    "underscore in number": b"[1_000]",
    "blank in number": b"[1 000]",
    "full-width digit": "[\uff11]".encode(),
    "arabic digit": "[\u0661]".encode(),
    "letter after number": b"[1a]",
    "True": b"[True]",
    "TRUE": b"[TRUE]",
    "nul": b"[nul]",
    "tru": b"[tru]",
    "None": b"[None]",
    "line comment": b"[1] // x",
    "block comment": b"[1 /* x */]",
    "hash comment": b"[1] # x",
    "form feed": b"\x0c[1]",
    "vertical tab": b"[1\x0b]",
    "no-break space": "[1\u00a0]".encode(),
    "word joiner": "[\u2060]".encode(),
    "markup": b"<a>",
    "invalid byte": b'["\xff"]',
    "overlong slash": b'["\xc0\xaf"]',
    "overlong NUL": b'["\xc0\x80"]',
    "truncated sequence": b'["\xe2\x82"]',
    "lone continuation": b'["\x81"]',
    "raw surrogate": b'["\xed\xa0\x80"]',
    "beyond unicode": b'["\xf4\xbf\xbf\xbf"]',
    "latin-1": b'["\xe9"]',
}

#: what Python's own reader lets through; the test below shows that it does.
LENIENT: dict[str, bytes] = {
    "duplicate key": b'{"a":1,"a":2}',
    "duplicate key, same value": b'{"a":1,"a":1}',
    "duplicate key, nested": b'[{"b":{"a":1,"c":2,"a":3}}]',
    "duplicate key, spelt with an escape": rb'{"a":1,"\u0061":2}',
    "duplicate empty key": b'{"":1,"":2}',
    "NaN": b"[NaN]",
    "Infinity": b"[Infinity]",
    "-Infinity": b"[-Infinity]",
    "1e400": b"[1e400]",
    "-1e400": b"[-1e400]",
    "number beyond a double": b"[123123e100000]",
    "long number": b"[1" + b"0" * 400 + b".5]",
    "integer over 64 bits": b"[9223372036854775808]",
    "integer under 64 bits": b"[-9223372036854775809]",
    "integer of 41 digits": b"[" + b"9" * 41 + b"]",
    "integer of 4000 digits": b"[" + b"9" * 4000 + b"]",
    "lone high surrogate": rb'["\ud800"]',
    "lone low surrogate": rb'["\uDC00"]',
    "two high surrogates": rb'["\ud800\ud800"]',
    "surrogates in the wrong order": rb'["\udc00\ud800"]',
    "high surrogate and a letter": rb'["\ud800abc"]',
    "high surrogate and another escape": rb'["\ud800\n"]',
    "lone surrogate in a key": rb'{"\ud800":1}',
    "lone surrogate deep inside": rb'{"a":[1,{"b":["\udfff"]}]}',
    "NUL in a string": rb'["a\u0000b"]',
    "NUL in a key": rb'{"\u0000":1}',
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16 little endian": '\ufeff{"a":"\u00e9"}'.encode("utf-16-le"),
    "UTF-16 big endian": '\ufeff{"a":"\u00e9"}'.encode("utf-16-be"),
    "UTF-16 without mark": '{"a":"\u00e9"}'.encode("utf-16-le"),
    "UTF-32": '{"a":"\u00e9"}'.encode("utf-32-le"),
    "one level too deep": b"[" * 65 + b"]" * 65,
    "objects one level too deep": b'{"a":' * 65 + b"1" + b"}" * 65,
    "mixed one level too deep": b'[{"a":' * 33 + b"1" + b"}]" * 33,
    "too deep after brackets in a string": b'["\\"[[", ' + b"[" * 64 + b"]" * 64 + b"]",
}


def loads(data: bytes) -> object:
    return jsontext.loads(data, what="test")


@pytest.mark.parametrize("name", ACCEPTED)
def test_reads_valid_documents(name: str) -> None:
    data, expected = ACCEPTED[name]
    if expected is None:
        expected = json.loads(data)
    assert loads(data) == expected


@pytest.mark.parametrize("name", MALFORMED)
def test_refuses_malformed_documents(name: str) -> None:
    with pytest.raises(ManifestInvalid, match=r"^test: "):
        loads(MALFORMED[name])


@pytest.mark.parametrize("name", LENIENT)
def test_refuses_what_parsers_disagree_about(name: str) -> None:
    json.loads(LENIENT[name])  # control: without the extra rules it would be read
    with pytest.raises(ManifestInvalid, match=r"^test: "):
        loads(LENIENT[name])


def test_tables_are_as_large_as_they_claim() -> None:
    assert len(ACCEPTED) + len(MALFORMED) + len(LENIENT) > 150


@pytest.mark.parametrize(
    ("data", "what"),
    [
        pytest.param(b"[" * 100_000, "brackets", id="brackets"),
        pytest.param(b'{"a":' * 100_000, "objects", id="objects"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, "closed", id="closed"),
        pytest.param(b'[{"":' * 50_000, "mixed", id="mixed"),
    ],
)
def test_depth_of_100_000_is_refused_without_recursion(data: bytes, what: str) -> None:
    with pytest.raises(RecursionError):
        json.loads(data)
    with pytest.raises(ManifestInvalid, match="nested deeper than 64"):
        jsontext.loads(data, what=what)


def test_depth_limit_can_be_chosen() -> None:
    assert jsontext.loads(b"[[1]]", what="x", max_depth=2) == [[1]]
    with pytest.raises(ManifestInvalid):
        jsontext.loads(b"[[[1]]]", what="x", max_depth=2)


@pytest.mark.parametrize(
    "data",
    [
        b'"' + b'\\"' * 1_000_000 + b"[" * 100,
        b'"' * 1_999_999 + b"[" * 100,
        b'["' + b"\\" * 2_000_001 + b"[" * 100,
        b"[" * 100 + b'"' + b"a" * 2_000_000,
    ],
    ids=["escaped quotes", "quotes", "backslashes", "long string"],
)
def test_depth_scan_is_linear_on_unterminated_strings(data: bytes) -> None:
    # A scan that begins again at every quote would outlast the test's time limit by hours.
    with pytest.raises(ManifestInvalid):
        loads(data)


def test_size_is_checked_before_anything_else() -> None:
    assert jsontext.loads(b"[12345678]", what="x", max_bytes=10) == [12345678]
    with pytest.raises(ManifestInvalid, match="11 bytes are more than the 10 allowed"):
        jsontext.loads(b"\xff" * 11, what="x", max_bytes=10)
    with pytest.raises(ManifestInvalid, match="more than the 4194304 allowed"):
        loads(b" " * (4 << 20) + b"1")


def test_hundreds_of_thousands_of_keys_are_read() -> None:
    data = b"{" + b",".join(b'"%d":0' % number for number in range(300_000)) + b"}"
    value = loads(data)
    assert isinstance(value, dict)
    assert len(value) == 300_000


def test_duplicate_key_is_named() -> None:
    with pytest.raises(ManifestInvalid, match=r"'b' appears twice"):
        loads(b'{"a":1,"b":2,"b":3}')


def test_position_of_a_syntax_error_is_named() -> None:
    with pytest.raises(ManifestInvalid, match="line 2, column 3"):
        loads(b"{\n  x: 1}")


def test_messages_do_not_repeat_huge_numbers() -> None:
    with pytest.raises(ManifestInvalid) as caught:
        loads(b"[" + b"9" * 100_000 + b"]")
    assert len(caught.value.message) < 200


def test_dumps_keeps_order_and_is_compact_or_indented() -> None:
    value = {"b": 1, "a": ["\u00e9", None]}
    assert jsontext.dumps(value) == '{"b":1,"a":["\u00e9",null]}'.encode()
    assert jsontext.dumps(value, pretty=True).startswith(b'{\n\t"b": 1,\n\t"a": [\n')


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf], "\ud800"])
def test_dumps_refuses_what_loads_would_not_read(value: object) -> None:
    with pytest.raises(ValueError):
        jsontext.dumps(value)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_what_is_written_is_read_back(value: object, pretty: bool) -> None:
    assert loads(jsontext.dumps(value, pretty=pretty)) == value


@given(st.binary(max_size=60) | st.text('[]{}":,\\u019.eE-+ntfd', max_size=40).map(str.encode))
def test_any_bytes_are_read_or_refused_and_never_read_differently(data: bytes) -> None:
    try:
        value = loads(data)
    except ManifestInvalid:
        return
    assert json.loads(data) == value
