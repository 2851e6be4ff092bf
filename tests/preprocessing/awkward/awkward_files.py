"""Awkward raw files: their bytes, how they are read, and what must come of them, stated literally.

Expected are ``(offset, text)`` of documents and ``(offset, reason)`` of rejects (reasons are upper
case here, to be told from texts), in the order of offsets.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable

import pyarrow as pa
from awkward_forms import Awkward, arrow_bytes, parquet_bytes, zst_bytes

_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "zst": zst_bytes,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}
_REPLACE = {"invalid_bytes": "replace"}
_SPLIT = {"oversized": "split", "max_document_bytes": 1024}
_SMALL = {"max_document_bytes": 1024}
_WORD = "x" * 1_000_000
_DAMAGED, _BYTES, _JSON = "DAMAGED_ARCHIVE", "INVALID_BYTES", "INVALID_JSON"

TEXT = [
    Awkward("empty", b"", []),
    Awkward("blank lines only", b"\n\r\n \t\n\r\x0b\n", []),
    Awkward("utf-8 mark only", b"\xef\xbb\xbf", []),
    Awkward("utf-16 mark only", b"\xff\xfe", []),
    Awkward("utf-32 mark only", b"\xff\xfe\0\0", []),
    Awkward("mark and blank line", b"\xef\xbb\xbf\n\none", [(5, "one")]),
    Awkward("two marks", b"\xef\xbb\xbf\xef\xbb\xbfone", [(3, "\ufeffone")]),
    Awkward("mark inside", b"one\n\n\xef\xbb\xbftwo", [(0, "one"), (5, "\ufefftwo")]),
    Awkward("no line end at the end", b"one\n\ntwo", [(0, "one"), (5, "two")]),
    Awkward("windows", b"one\r\ntwo\r\n\r\nthree\r\n", [(0, "one\ntwo"), (12, "three")]),
    Awkward("old mac", b"one\rtwo\r\rthree\r", [(0, "one\ntwo"), (9, "three")]),
    Awkward(
        "every line end", b"a\nb\r\nc\rd\n\re\r\n\rf", [(0, "a\nb\nc\nd"), (10, "e"), (14, "f")]
    ),
    Awkward("line feed, return", b"a\n\rb", [(0, "a"), (3, "b")]),
    Awkward("blank by unicode", "a\n\u2003\u3000\nb\n\x85\nc".encode(),
            [(0, "a"), (9, "b"), (14, "c")]),
    Awkward("next line is no line end", "a\x85b\u2028c".encode(), [(0, "a\x85b\u2028c")]),
    Awkward("zero width space is text", "a\n\u200b\nb".encode(), [(0, "a\n\u200b\nb")]),
    Awkward("form feed between", b"a\n\x0c\nb", [(0, "a"), (4, "b")]),
    Awkward("zeros", b"a\0b\n\0\n\nc\0", [(0, "a\0b\n\0"), (7, "c\0")]),
    Awkward("controls", b"\x01\x02\x1b[31m\x7f\n\n\x08",
            [(0, "\x01\x02\x1b[31m\x7f"), (10, "\x08")]),
    Awkward("invalid", b"one\n\nt\xffwo\n\nthree", [(0, "one"), (5, _BYTES), (11, "three")]),
    Awkward("cut character", b"one\n\ncaf\xc3", [(0, "one"), (5, _BYTES)]),
    Awkward("overlong", b"\xc0\xaf\n\n\xe0\x80\xaf", [(0, _BYTES), (4, _BYTES)]),
    Awkward("half a pair in utf-8", b"\xed\xa0\x80\n\nok", [(0, _BYTES), (5, "ok")]),
    Awkward("beyond unicode", b"\xf4\x90\x80\x80", [(0, _BYTES)]),
    Awkward("noncharacters", "\ufffe\uffff".encode(), [(0, "\ufffe\uffff")]),
    Awkward("replaced", b"a\xff\xe3\x80b\n\nc", [(0, "a\ufffd\ufffdb"), (7, "c")], _REPLACE),
    Awkward("replaced to nothing else", b"\xff", [(0, "\ufffd")], _REPLACE),
    Awkward("one word of a megabyte", _WORD.encode(), [(0, _WORD)]),
    Awkward("too large", b"one\n\n" + b"x" * 1025 + b"\n\ntwo",
            [(0, "one"), (5, "OVERSIZED"), (1032, "two")], _SMALL),
    Awkward("just not too large", b"x" * 1024 + b"\r\n", [(0, "x" * 1024)], _SMALL),
    Awkward("split", b"a " * 600 + b"\nb\n\nc",
            [(0, "SPLIT"), (0, "a " * 512), (1024, "a " * 88 + "\nb"), (1204, "c")], _SPLIT),
    Awkward("split at a line", b"a" * 1000 + b"\n" + b"b" * 1000,
            [(0, "SPLIT"), (0, "a" * 1000), (1001, "b" * 1000)], _SPLIT),
    Awkward("split between characters", "é".encode() * 600,
            [(0, "SPLIT"), (0, "é" * 512), (1024, "é" * 88)], _SPLIT),
    Awkward("trailing spaces stay", b"  a  \n  b  \n\n", [(0, "  a  \n  b  ")]),
    Awkward("lines", b"\xef\xbb\xbfone\r\n\r\ntwo\rthree\n \n",
            [(3, "one"), (10, "two"), (14, "three")],
            {"form": "lines"}),
    Awkward("a novel on a line", b"word " * 300_000, [(0, "word " * 300_000)], {"form": "lines"}),
    Awkward("lines with zeros", b"\0\n\0\0\n", [(0, "\0"), (2, "\0\0")], {"form": "lines"}),
    Awkward("file", b"\xef\xbb\xbfone\r\n\r\ntwo\r\n\r\n", [(3, "one\n\ntwo")], {"form": "file"}),
    Awkward("file without text", b"", [(0, "EMPTY_TEXT")], {"form": "file"}),
    Awkward("file of blanks", b" \r\n\n", [(0, "EMPTY_TEXT")], {"form": "file"}),
    Awkward("file with a bad byte", b"one\n\n\xff", [(0, _BYTES)], {"form": "file"}),
    Awkward("large file", b"x" * 1025, [(0, "OVERSIZED")], {"form": "file"} | _SMALL),
    Awkward("file with many line ends", b"x" * 1024 + b"\n" * 9, [(0, "x" * 1024)],
            {"form": "file"} | _SMALL),
    Awkward("split file", b"x" * 1030 + b"\n\n", [(0, "SPLIT"), (0, "x" * 1024), (1024, "x" * 6)],
            {"form": "file"} | _SPLIT),
]  # fmt: skip

_BODY = "één\r\n\r\nzwei\n\n東"
_TEXTS = ["één", "zwei", "東"]
ENCODINGS = [
    Awkward(
        f"{encoding}{', marked' if mark else ''}{', otherwise set' if other else ''}",
        mark + _BODY.encode(encoding),
        [(len(mark) if encoding == "utf-8" else 0, "één"), (9 + 3 * (encoding == "utf-8"), "zwei"),
         (15 + 3 * (encoding == "utf-8"), "東")],
        {"encoding": other or encoding},
    )
    for encoding, mark, other in [
        ("utf-8", b"\xef\xbb\xbf", "cp1252"),
        ("utf-16-le", b"\xff\xfe", "utf-8"),
        ("utf-16-be", b"\xfe\xff", "utf-8"),
        ("utf-32-le", b"\xff\xfe\0\0", "utf-8"),
        ("utf-32-be", b"\0\0\xfe\xff", "utf-8"),
        ("utf-16-le", b"\xff\xfe", "utf-16-be"),
        ("utf-16-le", b"", None),
        ("utf-32-be", b"", None),
        ("gb18030", b"", None),
        ("utf-7", b"", None),
    ]
] + [
    Awkward("latin-1", "né\n\n\xa0\n\nü".encode("latin-1"), [(0, "né"), (9, "ü")],
            {"encoding": "latin-1"}),
    Awkward("cp1252 with a hole", b"caf\xe9\n\n\x81x", [(0, "café"), (7, _BYTES)],
            {"encoding": "windows-1252"}),
    Awkward("cp1252 with a hole, replaced", b"caf\xe9\n\n\x81x", [(0, "café"), (7, "\ufffdx")],
            {"encoding": "cp1252"} | _REPLACE),
    Awkward("shift_jis", "日本\n\nソ表\n".encode("shift_jis"), [(0, "日本"), (8, "ソ表")],
            {"encoding": "shift_jis"}),
    Awkward("euc-jp cut", "日本\n\n語".encode("euc-jp")[:-1], [(0, "日本"), (8, _BYTES)],
            {"encoding": "euc-jp"}),
    Awkward("koi8-r", "мир\n\nда".encode("koi8-r"), [(0, "мир"), (8, "да")],
            {"encoding": "KOI8-R"}),
    Awkward("iso-2022-jp", "日本\n\n語".encode("iso2022_jp"), [(0, "日本"), (8, "語")],
            {"encoding": "iso-2022-jp"}),
    Awkward("half a utf-16 unit", b"\xff\xfea\0\n\0\n\0b", [(0, "a"), (3, _BYTES)]),
    Awkward("half a utf-16 pair", b"\xff\xfe\x00\xd8a\0\n\0\n\0b\0", [(0, _BYTES), (9, "b")]),
    Awkward("half a utf-16 pair, replaced", b"\xff\xfe\x00\xd8a\0\n\0\n\0b\0",
            [(0, "\ufffda"), (9, "b")], _REPLACE),
    Awkward("utf-16 json", '{"text": "é"}\n{"text": "b"}'.encode("utf-16"), [(0, "é"), (15, "b")],
            {"form": "jsonl"}),
    Awkward("utf-16 csv", 'text\n"é\n,b"'.encode("utf-16"), [(5, "é\n,b")], {"form": "csv"}),
    Awkward("zipped utf-16", gzip.compress("a\n\nb".encode("utf-16")), [(0, "a"), (3, "b")],
            name="a.gz"),
]  # fmt: skip

_TWO = b"one\n\ntwo"
ARCHIVES = [
    case
    for suffix, pack in _COMPRESSORS.items()
    for case in [
        Awkward(f"{suffix}", pack(_TWO), [(0, "one"), (5, "two")], name=f"a.{suffix}"),
        Awkward(f"{suffix} without its suffix", pack(_TWO), [(0, "one"), (5, "two")]),
        Awkward(f"{suffix} in capitals", pack(_TWO), [(0, "one"), (5, "two")],
                name=f"A.TXT.{suffix.upper()}"),
        Awkward(f"{suffix} of two", pack(_TWO) + pack(b"") + pack(b" more\n\nx"),
                [(0, "one"), (5, "two more"), (15, "x")], name=f"a.{suffix}"),
        Awkward(f"{suffix} of nothing", pack(b""), [], name=f"a.{suffix}"),
        Awkward(f"{suffix} with zeros behind", pack(_TWO) + bytes(5000),
                [(0, "one"), (5, "two")], name=f"a.{suffix}"),
        Awkward(f"{suffix} with garbage behind", pack(_TWO) + b"garbage at the end",
                [(0, "one"), (5, "two"), (8, _DAMAGED)], name=f"a.{suffix}"),
        Awkward(f"{suffix} with a byte behind", pack(_TWO) + b"x",
                [(0, "one"), (5, "two"), (8, _DAMAGED)], name=f"a.{suffix}"),
        Awkward(f"{suffix} of no bytes", b"", [(0, _DAMAGED)], name=f"a.{suffix}"),
        Awkward(f"{suffix} of its first byte", pack(_TWO)[:1], [(0, _DAMAGED)], name=f"a.{suffix}"),
        Awkward(f"{suffix} cut in its second member", pack(b"one\n\n") + pack(_TWO)[:12],
                [(0, "one"), ({"gz": 6, "zst": 8}.get(suffix, 5), _DAMAGED)], name=f"a.{suffix}"),
        Awkward(f"{suffix} that is text", b"plain text", [(0, _DAMAGED)], name=f"a.{suffix}"),
        Awkward(f"{suffix} that is zeros", bytes(100), [(0, _DAMAGED)], name=f"a.{suffix}"),
        Awkward(f"{suffix} of json", pack(b'[{"text": "a"}, "b"]'), [(1, "a"), (16, "b")],
                {"form": "json"}, name=f"a.json.{suffix}"),
        Awkward(f"{suffix} with a mark", pack(b"\xef\xbb\xbfone"), [(3, "one")],
                name=f"a.{suffix}"),
    ]
] + [
    Awkward("gz that is zst", zst_bytes(_TWO), [(0, "one"), (5, "two")], name="a.gz"),
    Awkward("zst with a skippable frame", b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zst_bytes(_TWO),
            [(0, "one"), (5, "two")], name="a.zst"),
    Awkward("text that begins like bzip2", b"BZh9 is how bzip2 begins",
            [(0, "BZh9 is how bzip2 begins")]),
    Awkward("wrong check sum", gzip.compress(b"one\n\ntwo\n\n")[:-8] + bytes(8),
            [(0, _DAMAGED)], name="a.gz"),
    Awkward("zip", b"PK\x03\x04" + bytes(30) + b"\x80", [(0, _BYTES)]),
]  # fmt: skip

_JSONL = {"form": "jsonl"}
JSON_LINES = [
    Awkward("empty lines", b"", [], _JSONL),
    Awkward("strings and objects", b'"one"\n\n{"text": "two"}\r\n{"text": "a\\r\\nb"}',
            [(0, "one"), (7, "two"), (24, "a\nb")], _JSONL),
    Awkward("no json", b'{"text": "a"\n{\n}\nnull\n[1]\n7\ntrue\n{"text": "b"} {"text": "c"}\n',
            [(0, _JSON), (13, _JSON), (15, _JSON), (17, _JSON), (22, _JSON), (26, _JSON),
             (28, _JSON), (33, _JSON)], _JSONL),
    Awkward("no text", b'{"txt": "a"}\n{"text": null}\n{"text": 1}\n{"text": ["a"]}\n{}',
            [(0, "MISSING_TEXT"), (13, "MISSING_TEXT"), (28, "MISSING_TEXT"),
             (40, "MISSING_TEXT"), (56, "MISSING_TEXT")], _JSONL),
    Awkward("nothing in the text", b'{"text": ""}\n{"text": " \\n\\u3000"}\n""',
            [(0, "EMPTY_TEXT"), (13, "EMPTY_TEXT"), (35, "EMPTY_TEXT")], _JSONL),
    Awkward("half pairs", b'{"text": "\\ud800"}\n{"text": "\\udc00x"}\n{"text": "\\ud83d\\ude00"}',
            [(0, "LONE_SURROGATE"), (19, "LONE_SURROGATE"), (39, "😀")], _JSONL),
    Awkward("half pairs, replaced", b'{"text": "a\\ud800"}', [(0, "a\ufffd")], _JSONL | _REPLACE),
    Awkward("half a pair elsewhere", b'{"text": "a", "x": "\\ud800", "\\ud800": 1}', [(0, "a")],
            _JSONL),
    Awkward("bad bytes", b'{"text": "\xff"}\n{"text": "a", "x": "\xff"}',
            [(0, _BYTES), (14, _BYTES)], _JSONL),
    Awkward("bad bytes, replaced", b'{"text": "\xff"}\n{"text": "a", "x": "\xff"}',
            [(0, "\ufffd"), (14, "a")], _JSONL | _REPLACE),
    Awkward("the same key twice", b'{"text": "a", "text": "b"}\n{"x": 1, "x": 2, "text": "c"}',
            [(0, _JSON), (27, "c")], _JSONL),
    Awkward("the same key in another object", b'{"text": "a", "x": {"text": "b"}}', [(0, "a")],
            _JSONL),
    Awkward("not a number", b'{"text": "a", "x": NaN, "y": -Infinity}', [(0, "a")], _JSONL),
    Awkward("a huge number", b'{"text": "a", "x": ' + b"1" * 5000 + b"}", [(0, "a")], _JSONL),
    Awkward("deep", b'{"text": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b'}\n"b"',
            [(0, _JSON), (200_021, "b")], _JSONL),
    Awkward("escapes", b'{"te\\u0078t": "\\u0000\\t\\/\\"\\\\"}', [(0, '\0\t/"\\')], _JSONL),
    Awkward("controls in a string", b'{"text": "a\tb"}', [(0, _JSON)], _JSONL),
    Awkward("a line too large", b'"a"\n{"text": "' + b"x" * 2100 + b'"}\n"b"',
            [(0, "a"), (4, "OVERSIZED"), (2117, "b")], _JSONL | _SMALL),
    Awkward("a text too large", b'{"text": "' + b"x " * 600 + b'"}',
            [(0, "SPLIT"), (0, "x " * 512), (0, "x " * 88)], _JSONL | _SPLIT),
    Awkward("marked", b'\xef\xbb\xbf{"text": "a"}', [(3, "a")], _JSONL),
    Awkward("pretty printed", b'{\n "text": "a"\n}', [(0, _JSON), (2, _JSON), (15, _JSON)], _JSONL),
]  # fmt: skip

_ARRAY = {"form": "json"}
JSON_ARRAYS = [
    Awkward("empty file", b" \n", [], _ARRAY),
    Awkward("empty array", b" [ ] \n", [], _ARRAY),
    Awkward("one line", b'[{"text":"a"},{"text":"b"},"c"]', [(1, "a"), (14, "b"), (27, "c")],
            _ARRAY),
    Awkward("brackets in strings", b'[{"text": "]}[{,\\"]"}, "\\\\", "b,"]',
            [(1, ']}[{,"]'), (23, "\\"), (29, "b,")], _ARRAY),
    Awkward("nested", b'[{"x": [{"text": "no"}], "text": "a"}]', [(1, "a")], _ARRAY),
    Awkward("an array in it", b'[["a"], "b"]', [(1, _JSON), (8, "b")], _ARRAY),
    Awkward("garbage behind", b'["a"] more', [(1, "a"), (6, _JSON)], _ARRAY),
    Awkward("two arrays", b'["a"]\n["b"]', [(1, "a"), (6, _JSON)], _ARRAY),
    Awkward("cut in a string", b'["a", "b', [(1, "a"), (5, _JSON)], _ARRAY),
    Awkward("cut in an object", b'["a", {"text": "b"', [(1, "a"), (5, _JSON)], _ARRAY),
    Awkward("cut behind an element", b'["a"', [(1, _JSON)], _ARRAY),
    Awkward("cut behind a comma", b'["a",', [(1, "a"), (5, _JSON)], _ARRAY),
    Awkward("comma too many", b'["a",]', [(1, "a"), (5, _JSON)], _ARRAY),
    Awkward("commas", b'["a",,"b"]', [(1, "a"), (5, _JSON), (6, "b")], _ARRAY),
    Awkward("comma too few", b'["a" "b", "c"]', [(1, _JSON), (10, "c")], _ARRAY),
    Awkward("bad element", b'["a", {"text": b}, "c"]', [(1, "a"), (6, _JSON), (19, "c")], _ARRAY),
    Awkward("no array", b'{"text": "a"}\n{"text": "b"}', [(0, _JSON)], _ARRAY),
    Awkward("bad bytes in it", b'["a", "\xff", "c"]', [(1, "a"), (6, _BYTES), (11, "c")], _ARRAY),
    Awkward("element too large", b'["a", "' + b'x\\"' * 800 + b'", "c"]',
            [(1, "a"), (6, "OVERSIZED"), (2410, "c")], _ARRAY | _SMALL),
    Awkward("marked array", b'\xef\xbb\xbf["a"]', [(4, "a")], _ARRAY),
]  # fmt: skip

_CSV, _TSV, _CSV_BAD = {"form": "csv"}, {"form": "tsv"}, "INVALID_CSV"
DELIMITED = [
    Awkward("empty csv", b"", [], _CSV),
    Awkward("header only", b"text\n", [], _CSV),
    Awkward("quoted", b'id,text\n1,"a ""b"", c\nd"\n2,e\n', [(8, 'a "b", c\nd'), (25, "e")], _CSV),
    Awkward("ragged", b"id,text\n1\n2,a,b\n3,c\n\n4,d", [(8, _CSV_BAD), (10, _CSV_BAD), (16, "c"),
            (21, "d")], _CSV),
    Awkward("windows csv", b'text,id\r\n"a\r\nb",1\r\nc,2\r\n', [(9, "a\nb"), (19, "c")], _CSV),
    Awkward("old mac csv", b"text,id\ra,1\rb,2\r", [(8, "a"), (12, "b")], _CSV),
    Awkward("open quote", b'text,id\na,1\n"b,2\nc,3\n', [(8, "a"), (12, _CSV_BAD)], _CSV),
    Awkward("text behind a quote", b'text,id\n"a"b,1\nc,2\n"d, e",3\nf,4\n',
            [(8, _CSV_BAD), (19, "d, e"), (28, "f")], _CSV),
    Awkward("stray quotes", b'id,text\n1,"He said "hi" to\nme, then left\nand so, it ends"\n2,ok\n',
            [(8, _CSV_BAD), (58, "ok")], _CSV),
    Awkward("stray quotes before a delimiter", b'id,text\n1,"I said "a", b\nme, too"\n2,ok\n',
            [(8, _CSV_BAD), (34, "ok")], _CSV),
    Awkward("stray quotes in a large field",
            b'id,text\n1,"' + b"said he, so\n" * 100 + b'a "b" c\nd, e"\n2,ok\n',
            [(8, _CSV_BAD), (1225, "ok")], _CSV | _SMALL),
    Awkward("stray quote, no other", b'text,id\n"a"b,1\n' + b"x,1\n" * 600,
            [(8, _CSV_BAD), *((place, "x") for place in range(2059, 2415, 4))], _CSV | _SMALL),
    Awkward("open quote before a quoted row", b'id,text\n1,"a\n2,b\n3,"c, d"\n4,e\n',
            [(8, _CSV_BAD), (17, "c, d"), (26, "e")], _CSV),
    Awkward("open quote, large", b'id,text\n1,"a\n' + b"2,b\n" * 600 + b'"3",c\n4,d\n',
            [(8, _CSV_BAD), (2413, "c"), (2419, "d")], _CSV | _SMALL),
    Awkward("open quote, large, to the end", b'id,text\n1,"a\n' + b"2,b\n" * 600, [(8, _CSV_BAD)],
            _CSV | _SMALL),
    Awkward("field too large", b'id,text\n1,"' + b'he, ""too\n' * 300 + b'"\n2,ok\n3,ok3\n',
            [(8, "OVERSIZED"), (3013, "ok"), (3018, "ok3")], _CSV | _SMALL),
    Awkward("field with a large line", b'id,text\n1,"a\n' + b"x" * 3000 + b'\nb"\n2,ok\n',
            [(8, "OVERSIZED"), (3017, "ok")], _CSV | _SMALL),
    Awkward("row too large, then quoted", b"id,text\n" + b"x" * 3000 + b',"a\n""b"\n2,ok\n',
            [(8, "OVERSIZED"), (3017, "ok")], _CSV | _SMALL),
    Awkward("row too large at the end", b'id,text\n1,"' + b"he, and\n" * 300 + b'"',
            [(8, "OVERSIZED")], _CSV | _SMALL),
    Awkward("row too large to be split", b'id,text\n1,"' + b"he, and\n" * 300 + b'"\n2,ok\n',
            [(8, "OVERSIZED"), (2413, "ok")], _CSV | _SPLIT),
    Awkward("long delimiter and quote", "id¦text\n1¦«a¦\n««b«\n2¦c«\n3¦«d\n".encode(),
            [(9, "a¦\n«b"), (26, "c«"), (33, _CSV_BAD)],
            _CSV | {"delimiter": "¦", "quote": "«"}),
    Awkward("quote inside", b'text,id\na "b" c,1\n', [(8, 'a "b" c')], _CSV),
    Awkward("empty cells", b"text,id\n,1\n\"\",2\n  ,3\n",
            [(8, "EMPTY_TEXT"), (11, "EMPTY_TEXT"), (16, "EMPTY_TEXT")], _CSV),
    Awkward("bad cell", b"text,id\na\xff,1\nb,\xff\n", [(8, _BYTES), (13, "b")], _CSV),
    Awkward("zero in a cell", b"text,id\na\0b,1\n", [(8, "a\0b")], _CSV),
    Awkward("a word of a megabyte", b"text,id\n" + _WORD.encode() + b",1\n", [(8, _WORD)], _CSV),
    Awkward("marked csv", b"\xef\xbb\xbftext,id\na,1", [(11, "a")], _CSV),
    Awkward("semicolons", b"id;text\n1;a,b\n", [(8, "a,b")], _CSV | {"delimiter": ";"}),
    Awkward("no header", b"1,a\n2,b", [(0, "a"), (4, "b")],
            _CSV | {"header": False, "text_field": "2"}),
    Awkward("line too large", b"text\n" + b"x" * 2100 + b"\na\n", [(5, "OVERSIZED"), (2106, "a")],
            _CSV | _SMALL),
    Awkward("tsv", b"id\ttext\n1\t\"a\tb\nc\"\n2\td, e\n", [(8, "a\tb\nc"), (18, "d, e")], _TSV),
    Awkward("tsv without quotes", b'id\ttext\n1\t"a\n2\tb"c"\n', [(8, '"a'), (13, 'b"c"')],
            _TSV | {"quote": None}),
]  # fmt: skip

_MISSING = "MISSING_TEXT"
_COLUMN = pa.array(["a", None, "", "b\r\n"])
COLUMNS = [
    case
    for form, write in (("parquet", parquet_bytes), ("arrow", arrow_bytes))
    for case in [
        Awkward(f"{form}: {name}", write(column), expected, {"form": form}, name=f"a.{form}")
        for name, column, expected in [
            ("strings", _COLUMN, [(0, "a"), (1, _MISSING), (2, "EMPTY_TEXT"), (3, "b\n")]),
            ("no rows", pa.array([], pa.string()), []),
            ("nulls", pa.nulls(2), [(0, _MISSING), (1, _MISSING)]),
            ("large strings", pa.array(["a", None], pa.large_string()), [(0, "a"), (1, _MISSING)]),
            ("views", pa.array(["a", "b" * 50], pa.string_view()), [(0, "a"), (1, "b" * 50)]),
            ("bytes", pa.array([b"a", b"\xff", b"\0"], pa.binary()),
             [(0, "a"), (1, _BYTES), (2, "\0")]),
            ("dictionary", pa.array(["a", None, "a"]).dictionary_encode(),
             [(0, "a"), (1, _MISSING), (2, "a")]),
            ("more than a batch", pa.array([str(number) for number in range(600)]),
             [(number, str(number)) for number in range(600)]),
        ]
    ] + [
        Awkward(f"{form}: no bytes", b"", [(0, _DAMAGED)], {"form": form}),
        Awkward(f"{form}: text", b"some text, no table", [(0, _DAMAGED)], {"form": form}),
        Awkward(f"{form}: zipped", gzip.compress(write(_COLUMN)), [(0, _DAMAGED)], {"form": form}),
    ]
] + [
    Awkward("arrow stream", arrow_bytes(_COLUMN, file=False),
            [(0, "a"), (1, _MISSING), (2, "EMPTY_TEXT"), (3, "b\n")], {"form": "arrow"}),
    Awkward("arrow without its footer", arrow_bytes(pa.array(["a", "b"]))[:-40],
            [(0, "a"), (1, "b"), (2, _DAMAGED)], {"form": "arrow"}),
    Awkward("parquet without its footer", parquet_bytes(_COLUMN)[:-4], [(0, _DAMAGED)],
            {"form": "parquet"}),
]  # fmt: skip

_WIKI, _MARKUP = {"form": "wikiextractor"}, "INVALID_MARKUP"
_DOC = b'<doc id="1" url="u" title="T">\nT\n\nBody.\n\n</doc>\n'
WIKI = [
    Awkward("articles", _DOC + b"\n" + _DOC.replace(b"\n", b"\r\n"),
            [(0, "T\n\nBody."), (49, "T\n\nBody.")], _WIKI),
    Awkward("article without text", b'<doc id="1">\n\n</doc>\n', [(0, "EMPTY_TEXT")], _WIKI),
    Awkward("article without end", _DOC + b'<doc id="2">\ntext', [(0, "T\n\nBody."), (48, _MARKUP)],
            _WIKI),
    Awkward("article in an article", b'<doc id="2">\ntext\n' + _DOC,
            [(0, _MARKUP), (18, "T\n\nBody.")],
            _WIKI),
    Awkward("text outside", b"x\ny\n" + _DOC + b"z\n",
            [(0, _MARKUP), (4, "T\n\nBody."), (52, _MARKUP)], _WIKI),
    Awkward("tags in the text", b"<doc id='1'>\na <doc b> </doc> c\n</doc>\n",
            [(0, "a <doc b> </doc> c")], _WIKI),
    Awkward("its json output", b'{"id": "1", "text": "a"}\n{"id": "2", "text": ""}\n',
            [(0, "a"), (25, "EMPTY_TEXT")], _WIKI),
    Awkward("no articles", b"", [], _WIKI),
]  # fmt: skip

CUT = [
    Awkward(f"cut {form}", gzip.compress(data, mtime=0)[:-9], expected, {"form": form}, "a.gz")
    for form, data, expected in [
        ("text", b"one\n\ntwo\n\nthree", [(0, "one"), (5, "two"), (15, _DAMAGED)]),
        ("lines", b"one\ntwo\nthr", [(0, "one"), (4, "two"), (11, _DAMAGED)]),
        ("jsonl", b'"one"\n"two"\n"th', [(0, "one"), (6, "two"), (15, _DAMAGED)]),
        ("json", b'["one", "two", "th', [(1, "one"), (8, "two"), (18, _DAMAGED)]),
        ("csv", b'text\none\n"two"\n"th', [(5, "one"), (9, "two"), (18, _DAMAGED)]),
        ("tsv", b'text\none\n"two"\n"th', [(5, "one"), (9, "two"), (18, _DAMAGED)]),
        ("wikiextractor", b"<doc >\none\n</doc>\n<doc >\ntwo\n", [(0, "one"), (29, _DAMAGED)]),
        ("file", b"one", [(3, _DAMAGED)]),
    ]
]

CASES = [
    *TEXT,
    *ENCODINGS,
    *ARCHIVES,
    *CUT,
    *JSON_LINES,
    *JSON_ARRAYS,
    *DELIMITED,
    *COLUMNS,
    *WIKI,
]
