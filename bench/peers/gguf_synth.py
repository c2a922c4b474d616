"""Writes a qwen3moe GGUF file with random weights: speed only, the numbers mean nothing. Needs numpy.

    python gguf_synth.py small|a3b:8 Q4_K_M|Q4_0|Q4_1-pure OUT.gguf

Shapes are those of `amoeba synth`. Types are what llama-quantize chooses: Q4_K_M has Q6_K in the head and in
attn_v and ffn_down of about half of the layers, Q4_0 has a Q6_K head; Q4_1-pure is Q4_1 throughout (scale and
minimum per 32 weights, the nearest to MLX's affine 4-bit). Routers are F32 as always. A quantised tensor repeats some
megabytes of random blocks, so that 17 GB take seconds.
"""

import enum
import os
import struct
import sys
import zlib

import numpy as np

SHAPES = {
    "small": dict(hidden=1024, layers=16, heads=16, kv=4, dim=64, experts=64, top=8, ff=512, vocab=32000),
    "a3b": dict(hidden=2048, layers=48, heads=32, kv=4, dim=128, experts=128, top=8, ff=768, vocab=151936),
}
VARIANTS = ("Q4_K_M", "Q4_0", "Q4_1-pure")


class T(enum.IntEnum):
    """Types of tensors, by their numbers in the file."""

    F32 = 0
    Q4_0 = 2
    Q4_1 = 3
    Q4_K = 12
    Q6_K = 14


# LLAMA_FTYPE_MOSTLY_*
FILE_TYPE = {"Q4_0": 2, "Q4_1-pure": 3, "Q4_K_M": 15}
ALIGN = 32
# Bytes of random blocks in a tensor.
TILE = 4 << 20
# type: (weights per block, bytes per block)
BLOCK = {T.Q4_0: (32, 18), T.Q4_1: (32, 20), T.Q4_K: (256, 144), T.Q6_K: (256, 210)}


def use_more_bits(layer, layers):
    """llama-quantize's rule for which layers of a *_M mix get the larger type."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def halves(random, count, size):
    """Random f16 of about that size, both signs."""
    values = random.uniform(0.75, 1.25, count) * size * random.choice([-1.0, 1.0], count)
    return values.astype(np.float16)


def blocks(random, kind, count, deviation):
    """The bytes of quantised blocks: random codes, scales such that weights have that deviation."""
    size = BLOCK[kind][1]
    data = np.frombuffer(random.bytes(count * size), np.uint8).reshape(count, size).copy()

    def put(at, values):
        data[:, at : at + 2] = values.view(np.uint8).reshape(count, 2)

    if kind == T.Q4_0:  # d, then codes: d (q - 8)
        put(0, halves(random, count, deviation / 4.64))
    elif kind == T.Q4_1:  # d, m, then codes: d q + m
        d = halves(random, count, deviation / 4.61)
        put(0, d)
        put(2, (d.astype(np.float32) * -7.5).astype(np.float16))
    elif kind == T.Q4_K:  # d, dmin, 12 bytes of 6-bit scales and minima, codes: d sc q - dmin m
        d = halves(random, count, deviation / 63.5)
        put(0, d)
        put(2, (d.astype(np.float32) * 7.5).astype(np.float16))
        data[:, 4:12] &= 0x0F  # scales and minima below 16, so that d is a normal f16
    elif kind == T.Q6_K:  # low bits, high bits, 16 int8 scales, d: d sc (q - 32)
        scales = data[:, 192:208]
        scales[:] = ((scales & 0x0F).astype(np.int8) - 8).view(np.uint8)
        put(208, halves(random, count, deviation / 85.2))
    return data


def tensors(shape, variant):
    """Name, type and shape (outermost first) of every tensor."""
    body = {"Q4_K_M": T.Q4_K, "Q4_0": T.Q4_0, "Q4_1-pure": T.Q4_1}[variant]
    head = T.Q4_1 if variant == "Q4_1-pure" else T.Q6_K
    h, q, kv = shape["hidden"], shape["heads"] * shape["dim"], shape["kv"] * shape["dim"]
    e, ff, n = shape["experts"], shape["ff"], shape["layers"]
    yield "token_embd.weight", body, (shape["vocab"], h)
    for i in range(n):
        more = T.Q6_K if variant == "Q4_K_M" and use_more_bits(i, n) else body
        at = f"blk.{i}."
        yield at + "attn_norm.weight", T.F32, (h,)
        yield at + "attn_q.weight", body, (q, h)
        yield at + "attn_k.weight", body, (kv, h)
        yield at + "attn_v.weight", more, (kv, h)
        yield at + "attn_output.weight", body, (h, q)
        yield at + "attn_q_norm.weight", T.F32, (shape["dim"],)
        yield at + "attn_k_norm.weight", T.F32, (shape["dim"],)
        yield at + "ffn_norm.weight", T.F32, (h,)
        yield at + "ffn_gate_inp.weight", T.F32, (e, h)
        yield at + "ffn_gate_exps.weight", body, (e, ff, h)
        yield at + "ffn_up_exps.weight", body, (e, ff, h)
        yield at + "ffn_down_exps.weight", more, (e, h, ff)
    yield "output_norm.weight", T.F32, (h,)
    yield "output.weight", head, (shape["vocab"], h)


def stored(kind, shape):
    """Bytes of a tensor."""
    if kind == T.F32:
        return 4 * int(np.prod(shape))
    weights, size = BLOCK[kind]
    assert shape[-1] % weights == 0, f"{shape} does not fit blocks of {weights}"
    return int(np.prod(shape)) // weights * size


def token_bytes(shape, variant):
    """Weights that one decoded token reads."""
    total = 0
    for name, kind, dims in tensors(shape, variant):
        size = stored(kind, dims)
        if name == "token_embd.weight":
            size //= shape["vocab"]
        elif "_exps" in name:
            size = size * shape["top"] // shape["experts"]
        total += size
    return total


def fill(name, kind, dims):
    """The bytes of a tensor in pieces."""
    random = np.random.Generator(np.random.SFC64(zlib.crc32(name.encode())))
    cols = dims[-1]
    if len(dims) == 1:
        yield random.uniform(0.75, 1.25, cols).astype("<f4").data
        return
    deviation = 1.0 if name == "token_embd.weight" else cols**-0.5
    if kind == T.F32:
        yield (random.standard_normal(dims, np.float32) * np.float32(deviation)).astype("<f4").data
        return
    left = stored(kind, dims)
    size = BLOCK[kind][1]
    tile = blocks(random, kind, min(left, TILE) // size, deviation).reshape(-1).data
    while left > 0:
        yield tile[:left]
        left -= len(tile)


def parse(spec):
    name, _, layers = spec.partition(":")
    shape = dict(SHAPES[name])
    if layers:
        shape["layers"] = int(layers)
    return shape


def header(spec, variant):
    """All that stands before the data."""
    shape = parse(spec)
    numbers = {
        "context_length": 40960,
        "embedding_length": shape["hidden"],
        "block_count": shape["layers"],
        "feed_forward_length": 3 * shape["hidden"],
        "attention.head_count": shape["heads"],
        "attention.head_count_kv": shape["kv"],
        "attention.key_length": shape["dim"],
        "attention.value_length": shape["dim"],
        "rope.freq_base": 1e6,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "expert_count": shape["experts"],
        "expert_used_count": shape["top"],
        "expert_feed_forward_length": shape["ff"],
        "vocab_size": shape["vocab"],
    }
    values = {"general.architecture": "qwen3moe", "general.name": f"synthetic {spec} {variant}"}
    values |= {f"qwen3moe.{key}": value for key, value in numbers.items()}
    values |= {"tokenizer.ggml.model": "no_vocab", "general.file_type": FILE_TYPE[variant]}
    listed = list(tensors(shape, variant))
    out = [b"GGUF", struct.pack("<IQQ", 3, len(listed), len(values))]
    for key, value in values.items():
        kind, data = {str: (8, text), int: (4, u32), float: (6, f32)}[type(value)]
        out += [text(key), u32(kind), data(value)]
    at = 0
    for name, kind, dims in listed:
        out += [text(name), u32(len(dims)), struct.pack(f"<{len(dims)}Q", *reversed(dims)), u32(kind)]
        out.append(struct.pack("<Q", at))
        at += stored(kind, dims)
        at += -at % ALIGN
    out = b"".join(out)
    return out + bytes(-len(out) % ALIGN)


def u32(value):
    return struct.pack("<I", value)


def f32(value):
    return struct.pack("<f", value)


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def write(spec, variant, path):
    shape = parse(spec)
    with open(path + ".part", "wb", buffering=0) as file:
        file.write(header(spec, variant))
        for name, kind, dims in tensors(shape, variant):
            for piece in fill(name, kind, dims):
                file.write(piece)
            file.write(bytes(-stored(kind, dims) % ALIGN))
    os.replace(path + ".part", path)
    print(f"{path}: {os.path.getsize(path) / 1e6:.0f} MB, {token_bytes(shape, variant) / 1e6:.0f} MB/token")


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[2] not in VARIANTS:
        sys.exit(__doc__)
    write(*sys.argv[1:])
