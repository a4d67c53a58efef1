#!/usr/bin/env python3
"""Writes tests/data/damaged: small hostile files, named <parser>-<what is wrong>.

Needs nothing but tests/data/formats. Findings of the fuzz targets are added beside these by hand.
"""
import io
import json
import pathlib
import struct
import zipfile
import zlib

ROOT = pathlib.Path(__file__).resolve().parent.parent / "tests/data"
OUT = ROOT / "damaged"


def write(name, content):
    (OUT / name).write_bytes(content)


def safetensors(header, buffer=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + buffer


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def damage_safetensors():
    write("safetensors-header-100GB", struct.pack("<Q", 100 << 30) + b"{}")
    write("safetensors-header-wraps", struct.pack("<Q", 2**64 - 4) + b"{}      ")
    write("safetensors-product-wraps", safetensors({"a": entry([2**32, 2**32, 2**32], 0, 0)}))
    write("safetensors-product-wraps-then-zero", safetensors({"a": entry([2**62, 2**62, 0], 0, 0)}))
    write("safetensors-hole", safetensors({"a": entry([1], 4, 8)}, b"\0" * 8))
    write("safetensors-overlap", safetensors({"a": entry([2], 0, 8), "b": entry([1], 4, 8)}, b"\0" * 8))
    write("safetensors-deep-json", safetensors(b'{"a":' + b"[" * 50000))
    write("safetensors-duplicate", safetensors(b'{"a":' + json.dumps(entry([], 0, 4)).encode() + b',"a":' +
                                               json.dumps(entry([], 4, 8)).encode() + b"}", b"\0" * 8))
    write("safetensors-invalid-utf8", safetensors(b'{"\xff":' + json.dumps(entry([], 0, 4)).encode() + b"}",
                                                  b"\0" * 4))


def varint(value):
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7f | 0x80]), value >> 7
    return out + bytes([value])


def field(number, content):
    """A field of a protocol-buffer message: an integer, a text, or bytes."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def onnx(graph):
    return field(7, graph) + field(8, field(1, "") + field(2, 13))


def onnx_tensor(sizes, content, kind=1, name="w"):
    return b"".join(field(1, s) for s in sizes) + field(2, kind) + field(8, name) + content


def damage_onnx():
    write("onnx-no-graph", field(1, 7) + field(8, field(2, 13)))
    write("onnx-two-graphs", onnx(b"") + field(7, b""))
    write("onnx-field-longer-than-file", bytes([0x3a]) + b"\xff\xff\xff\xff\x0f")
    write("onnx-integer-of-11-bytes", bytes([0x08]) + b"\xff" * 10 + b"\x01")
    write("onnx-group", onnx(b"\x0b\x0c"))
    write("onnx-sizes-wrap", onnx(field(5, onnx_tensor([2**32, 2**32, 2**32], field(9, b"")))))
    write("onnx-negative-size", onnx(field(5, onnx_tensor([2**64 - 1], field(9, b"")))))
    write("onnx-2-40-from-nothing", onnx(field(5, onnx_tensor([2**40], b""))))
    write("onnx-raw-too-short", onnx(field(5, onnx_tensor([4], field(9, b"\0" * 12)))))
    write("onnx-nine-dimensions", onnx(field(5, onnx_tensor([1] * 9, field(9, b"\0" * 4)))))
    write("onnx-strings", onnx(field(5, onnx_tensor([1], field(6, "x"), kind=8))))
    write("onnx-same-name-twice", onnx(field(5, onnx_tensor([1], field(9, b"\0" * 4))) * 2))
    outside = field(13, field(1, "location") + field(2, "../../../etc/passwd")) + field(14, 1)
    write("onnx-external-outside", onnx(field(5, onnx_tensor([1], outside))))


MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e80024de9032e")
SYSTEM = b"\x80\x02}X\x0d\0\0\0little_endian\x88s."


def zip_of(name, content):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def damage_torch():
    # A value takes a hundred times the byte that makes it, and deflate gives a thousand bytes for one.
    write("torch_zip-20-million-tuples", zip_of("archive/data.pkl", b"\x80\x02(" + b")" * 20_000_000 + b"t."))
    write("torch_zip-400-thousand-tuples", zip_of("archive/data.pkl", b"\x80\x02(" + b")" * 400_000 + b"t."))
    write("torch_stream-os-system", MAGIC + SYSTEM + b"\x80\x02cos\nsystem\nX\x04\0\0\0true\x85R.")
    write("torch_stream-memo-of-nothing", MAGIC + SYSTEM + b"\x80\x02h\x05.")
    write("torch_stream-deep", MAGIC + SYSTEM + b"\x80\x02)" + b"\x85" * 60000 + b".")
    write("torch_stream-self-containing-list", MAGIC + SYSTEM + b"\x80\x02]q\0h\0a.\x80\x02].")
    write("torch_stream-dict-from-itself",
          MAGIC + SYSTEM + b"\x80\x02}q\0X\1\0\0\0ah\0s.\x80\x02].")
    pair_list = b"](" + b"NN\x86" * 3000 + b"eq\0"
    write("torch_stream-multiplied-dicts", MAGIC + SYSTEM + b"\x80\x02ccollections\nOrderedDict\nq\1" +
          pair_list + b"(" + b"h\1h\0\x85R" * 3000 + b"t.\x80\x02].")
    storage = (b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" + b"0X\3\0\0\0cpu")
    rebuild = b"\x80\x02}X\1\0\0\0wctorch._utils\n_rebuild_tensor\n("
    keys = b"\x80\x02]X\1\0\0\0" + b"0a."
    write("torch_stream-storage-2-62", MAGIC + SYSTEM + rebuild + storage +
          b"\x8a\x08" + struct.pack("<q", 2**62) + b"NtQK\0K\1\x85K\1\x85tRs." + keys +
          struct.pack("<Q", 2**62))
    write("torch_stream-tensor-behind-storage", MAGIC + SYSTEM + rebuild + storage +
          b"K\1NtQJ\xff\xff\xff\x7fK\1\x85K\1\x85tRs." + keys + struct.pack("<Qf", 1, 1))
    write("torch_stream-broadcast-to-2-40", MAGIC + SYSTEM + rebuild + storage +
          b"K\1NtQK\0\x8a\x08" + struct.pack("<q", 2**40) + b"\x85K\0\x85tRs." + keys +
          struct.pack("<Qf", 1, 1))
    whole = (ROOT / "formats/torch_plain.pth").read_bytes()
    end = whole.rfind(b"PK\6\6")  # PyTorch writes a ZIP64 end record, which counts
    write("torch_zip-directory-outside", replaced(whole, end + 48, struct.pack("<Q", 2**64 - 2)))
    write("torch_zip-2-63-entries", replaced(whole, end + 32, struct.pack("<Q", 2**63)))
    write("torch_zip-only-an-end", whole[whole.rfind(b"PK\5\6"):])
    first = whole.find(b"PK\1\2")
    write("torch_zip-local-header-outside", replaced(whole, first + 42, struct.pack("<I", 2**31)))
    whole = (ROOT / "formats/stored.zip").read_bytes()
    end = whole.rfind(b"PK\5\6")
    write("zip-directory-outside", replaced(whole, end + 16, struct.pack("<I", 2**32 - 2)))
    write("zip-65535-entries", replaced(whole, end + 10, b"\xff\xff"))


def replaced(content, at, new):
    return content[:at] + new + content[at + len(new):]


def damage_arrays():
    write("idx-2-64-elements", bytes([0, 0, 8, 4]) + b"\xff" * 16)
    write("idx-nothing-of-2-60", bytes.fromhex("000008060000090944000000000a000000000000007a00000000006c"))
    write("idx-too-long", bytes([0, 0, 8, 1, 0, 0, 0, 1, 5, 6]))
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = deflate.compress(bytes([0, 0, 8, 1]) + struct.pack(">I", 2**31) + b"\0" * (1 << 22)) + deflate.flush()
    write("idx-gzip-of-zeros", bomb)
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    write("idx-gzip-longer-than-its-header",
          deflate.compress(bytes([0, 0, 8, 1, 0, 0, 0, 9]) + bytes(1 << 25)) + deflate.flush())
    write("cifar_binary-label-10", bytes([10]) + b"\0" * 3072)
    write("cifar_binary-odd-size", b"\0" * 3000)
    whole = (ROOT / "formats/cifar10_python").read_bytes()
    write("cifar_pickle-eval", whole.replace(b"cnumpy\nndarray\n", b"cbuiltins\neval\n"))
    write("cifar_pickle-more-rows", whole.replace(b"(K\1K\2M\0\x0c\x86", b"(K\1K\3M\0\x0c\x86"))


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def damage_images():
    start = b"\x89PNG\r\n\x1a\n"
    write("png-60000x60000", start + chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)) +
          chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))
    write("png-too-few-rows", start + chunk(b"IHDR", struct.pack(">IIBBBBB", 20, 20, 8, 2, 0, 0, 0)) +
          chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b""))
    write("png-chunk-2GB", start + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)) +
          b"\x7f\xff\xff\xffIDAT")
    jpeg = (ROOT / "formats/q90_444.jpg").read_bytes()
    at = jpeg.find(b"\xff\xc0")
    write("jpeg-65000x65000", jpeg[:at + 5] + struct.pack(">HH", 65000, 65000) + jpeg[at + 9:])
    write("jpeg-cut", jpeg[:len(jpeg) // 2])
    write("jpeg-no-tables", jpeg[:2] + jpeg[at:])


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    damage_safetensors()
    damage_onnx()
    damage_torch()
    damage_arrays()
    damage_images()
