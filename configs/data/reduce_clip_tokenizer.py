#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes a small tokenizer of CLIP's: the 512 symbols of single bytes, so that any prompt can be encoded, the merges that some
words need, in CLIP's order, and the two special tokens. A word becomes the same symbols as with CLIP's own.

    configs/data/reduce_clip_tokenizer.py bpe_simple_vocab_16e6.txt.gz configs/data/clip_small

The first file is CLIP's list of merges (github.com/openai/CLIP, clip/bpe_simple_vocab_16e6.txt.gz, MIT); the folder has the
words in words.txt.
"""

import gzip
import json
import pathlib
import sys

MERGES = 49152 - 256 - 2  # of the file's lines, behind its first; CLIP uses no more
START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 24  # ids of a caption, with start and end


def read_merges(path):
    lines = gzip.open(path, "rt", encoding="utf-8").read().split("\n")
    return [tuple(line.split()) for line in lines[1 : 1 + MERGES]]


def byte_symbols():
    """The symbol of each byte: printable ones stand for themselves, the others for U+0100 and on; in the order of ids."""
    order = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in order]
    return {b: chr(b) for b in order} | {b: chr(256 + i) for i, b in enumerate(others)}


def base_symbols():
    inner = list(byte_symbols().values())
    return inner + [s + "</w>" for s in inner]


def vocabulary(merges):
    """Symbol to id, as CLIP numbers them."""
    symbols = base_symbols() + ["".join(pair) for pair in merges] + [START, END]
    return {symbol: i for i, symbol in enumerate(symbols)}


def encode_piece(piece, ranks, used):
    """A word, given as symbols of bytes, as symbols. Adds the merges on the way to `used`."""
    symbols = [*piece[:-1], piece[-1] + "</w>"]
    while True:
        best = min(zip(symbols, symbols[1:]), key=lambda pair: ranks.get(pair, MERGES), default=None)
        if best not in ranks:
            return symbols
        used.add(best)
        merged = []
        for symbol in symbols:
            if merged and (merged[-1], symbol) == best:
                merged[-1] += symbol
            else:
                merged.append(symbol)
        symbols = merged


def write(folder, ids, merges, length):
    folder.mkdir(parents=True, exist_ok=True)
    specials = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": length, **specials}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(specials, indent=2) + "\n")


def main():
    merges = read_merges(sys.argv[1])
    folder = pathlib.Path(sys.argv[2])
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    used = set()
    for word in (folder / "words.txt").read_text().split():
        if len(encode_piece(word, ranks, used)) != 1:
            sys.exit(f"{word} is not one token of CLIP's")
    kept = sorted(used, key=ranks.get)
    write(folder, vocabulary(kept), kept, LENGTH)


if __name__ == "__main__":
    main()
