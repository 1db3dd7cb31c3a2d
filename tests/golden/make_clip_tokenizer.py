# SPDX-License-Identifier: Apache-2.0
"""Makes clip_tokenizer.json and the folder clip_tokenizer for tests/runtime/text/clip_tokenizer_test.cpp: what transformers'
CLIPTokenizer makes of texts.

    ~/.cache/lockstep/peers/bin/python tests/golden/make_clip_tokenizer.py bpe_simple_vocab_16e6.txt.gz
    (environment: bench/peers/install; the file: configs/data/reduce_clip_tokenizer.py says where it comes from)

The folder holds CLIP's tokenizer without the merges that none of these texts uses, under CLIP's ids: of these texts, and of
no others, it makes the same tokens. transformers says so here, and so it does of configs/data/clip_small.
"""

import json
import pathlib
import random
import sys
import tempfile
import unicodedata

import transformers

HERE = pathlib.Path(__file__).parent
SMALL = HERE.parent.parent / "configs" / "data"
sys.path.insert(0, str(SMALL))
import reduce_clip_tokenizer as clip  # noqa: E402

# text, ids: as both major versions of transformers gave them before.
KNOWN = [
    ("a photo of a cat", "320 1125 539 320 2368"),
    ("A photo of an astronaut riding a horse on Mars", "320 1125 539 550 18376 6765 320 4558 525 7496"),
    ("  two\tred   squares\nand 12 blue circles ", "1237 736 26972 537 272 273 1746 19411"),
    ("it's the dog's bone, isn't it? WE'LL SEE!", "585 568 518 1929 568 6195 267 2923 713 585 286 649 1342 862 256"),
    ("a caf\u00e9 in Z\u00fcrich, cre\u0301me br\u00fbl\u00e9e", "320 15304 530 89 6522 4021 267 1075 3459 614 711 127 119 75 13489"),
    ("supercalifragilisticexpialidocious", "1642 2857 13093 2076 5868 26850 835 639 38466"),
    ("8k, ultra-detailed, (masterpiece:1.2), [artstation]__trending--", "279 330 267 8118 268 12609 267 263 12066 281 272 269 273 2361 314 1486 2631 60 3838 6087 2432"),
    ("100% 3.14 1st 2ND \u00bd \u0663 \u2167", "272 271 271 260 274 269 272 275 272 545 273 1764 33613 149 352 158 227 371"),
    ("'S 'T 'RE 'll'd ''s", "568 713 982 1342 1896 8445 338"),
    ("!!'s?'t x'y", "1443 262 338 13610 339 343 262 344"),
    ("A\n'll 11p223RF\u2606ho!!to?'d'd''d of a cat to-$''d.", "320 1342 272 272 335 273 273 274 16368 13439 2971 748 531 13610 323 1896 8445 323 539 320 2368 531 12 3 8445 323 269"),
    ("high quality photo of a red cube on top of a blue cylinder", "1400 3027 1125 539 320 736 11353 525 1253 539 320 1746 22092"),
    ("\u732b\u3068\u72ac \u65e5\u672c", "163 234 104 34671 163 232 361 39121 19277 361"),
    ("\U0001F600 smiling face \U0001F431\u200d\U0001F464", "7334 9200 1710 35710 4244 964 353"),
    ("a\u0000b\u200bc\u00a0d\u3000e", "320 444 321 9844 322 323 324"),
    ("\u0130stanbul stra\u00dfe \u03a3\u03a3", "328 16384 11231 1894 127 253 324 139 225 139 481"),
    ("a <|endoftext|> b", "320 49407 321"),
]  # fmt: skip
ODD = [
    "", " ", "<|startoftext|>", "x<|endoftext|>y", "<|endoftext|><|endoftext|>!", "<|ENDOFTEXT|>!! !<|EndOfText|>!", "<|endoftext|",
    "\u0301a\u0323\u0307\u0301\u0323 >\u0338 \u1e9b\u0323 \uac00\u11a8 \u1100\u1161\u11a8 \u212b \u2126 \u0958",  # marks out of order, Hangul, exclusions
    "\u01c5 \u1fbc \u1e9e \u13a0 \uab70 \u2c2f \U00010400",  # letters with a rare lower case
    "\x1c\x1f\x85\u180e\u1680\u2028\u2029\u202f\u205f\ufeff.",  # spaces, and what only looks like it
]  # fmt: skip
WORDS = ["a", "photo", "of", "the", "cat", "Dog's", "don't", "we'LL", "x'd", "1984", "red-blue", "<|endoftext|>", "<|STARTOFTEXT|>", "??!", "''"]


def random_text(draw):
    """Words, letters of all scripts and anything else that is assigned."""
    parts = []
    for _ in range(draw.randrange(1, 8)):
        kind = draw.randrange(4)
        if kind == 0:
            parts.append(draw.choice(WORDS))
        elif kind == 1:
            parts.append("".join(draw.choice("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789'.,-_!") for _ in range(draw.randrange(1, 9))))
        elif kind == 2:
            start = draw.choice([0xC0, 0x300, 0x370, 0x400, 0x5D0, 0x620, 0x904, 0xE01, 0x1100, 0x1E00, 0x2000, 0x3040, 0x4E00, 0xAC00, 0x1F300])
            parts.append("".join(chr(start + draw.randrange(96)) for _ in range(draw.randrange(1, 5))))
        else:
            parts.append(chr(draw.randrange(1, 0x20000)))
        parts.append(draw.choice(["", " ", "  ", "\t\n", "\u00a0", "\u3000"]))
    return "".join(c for c in "".join(parts) if is_old(c) and not 0xD800 <= ord(c) < 0xE000)


def is_old(c):
    return unicodedata.category(c) != "Cn"


def open_folder(path):
    return transformers.CLIPTokenizer.from_pretrained(path)


def main():
    merges = clip.read_merges(sys.argv[1])
    ids = clip.vocabulary(merges)
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    with tempfile.TemporaryDirectory() as folder:
        clip.write(pathlib.Path(folder), ids, merges, 77)
        full = open_folder(folder)
    encode = lambda tokenizer, text: tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
    for text, expected in KNOWN:
        assert encode(full, text) == [int(i) for i in expected.split()], text
    draw = random.Random(1)
    words = (SMALL / "clip_small" / "words.txt").read_text().split()
    texts = [text for text, _ in KNOWN] + ODD + [" ".join(words)] + [random_text(draw) for _ in range(200)]

    used = set()
    cases = []
    for text in texts:
        backend = full.backend_tokenizer
        plain = full.encode(text, add_special_tokens=False, split_special_tokens=True)
        pieces = backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))
        symbols = [s for piece, _ in pieces for s in clip.encode_piece(piece, ranks, used)]
        assert plain == [ids[s] for s in symbols], text
        tokens = encode(full, text)
        for part in text.split(clip.START):
            for plain_part in part.split(clip.END):
                for piece, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(plain_part)):
                    clip.encode_piece(piece, ranks, used)
        padded = full(text, padding="max_length", max_length=16, truncation=True).input_ids
        cases.append({"text": text, "ids": tokens, "plain": plain, "padded": padded})

    kept = sorted(used, key=ranks.get)
    symbols = [*clip.base_symbols(), *("".join(pair) for pair in kept), clip.START, clip.END]
    clip.write(HERE / "clip_tokenizer", {s: ids[s] for s in symbols}, kept, 77)
    reduced, small = open_folder(HERE / "clip_tokenizer"), open_folder(SMALL / "clip_small")
    for case in cases:
        assert encode(reduced, case["text"]) == case["ids"], case
        # The small one's symbols, put together again, are the text's bytes too.
        assert reduced.decode(case["ids"]) == small.decode(encode(small, case["text"])), case
    assert small.convert_ids_to_tokens(encode(small, " ".join(words))) == [w + "</w>" for w in words]
    assert small("red", padding="max_length").input_ids[3:] == [small.pad_token_id] * (clip.LENGTH - 3)

    lines = ",\n".join(json.dumps(case) for case in cases)
    versions = json.dumps({"transformers": transformers.__version__})
    (HERE / "clip_tokenizer.json").write_text(f'{{"versions": {versions}, "cases": [\n{lines}]}}\n')


if __name__ == "__main__":
    main()
