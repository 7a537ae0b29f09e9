"""Gives the tokenizer the tokens that mark calls of tools.

    python3 call_marks.py tokenizer.json

UTF-8 has no use for thirteen bytes, so that no text becomes their tokens, and training never saw
them: the marks take the first of their ids, and the vocabulary stays as large as it was.
"""

import json
import sys

NEVER_IN_TEXT = [0xC0, 0xC1, *range(0xF5, 0x100)]
MARKS = [
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
]


def byte_alphabet():
    """The character that stands for each byte in a byte-level vocabulary."""
    characters = []
    moved = 0
    for byte in range(256):
        if 0x21 <= byte <= 0x7E or (byte >= 0xA1 and byte != 0xAD):
            characters.append(chr(byte))
        else:
            characters.append(chr(0x100 + moved))
            moved += 1
    return characters


def add_call_marks(tokenizer):
    vocab = tokenizer["model"]["vocab"]
    alphabet = byte_alphabet()
    ids = sorted(vocab[alphabet[byte]] for byte in NEVER_IN_TEXT)
    marks = dict(zip(ids, MARKS))
    tokenizer["model"]["vocab"] = {marks.get(id, token): id for token, id in vocab.items()}
    plain = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=False)
    tokenizer["added_tokens"] += [dict(id=id, content=mark, **plain) for id, mark in marks.items()]


if __name__ == "__main__":
    path = sys.argv[1]
    with open(path, encoding="utf8") as file:
        content = json.load(file)
    add_call_marks(content)
    with open(path, "w", encoding="utf8") as file:
        json.dump(content, file, ensure_ascii=False, indent=2)
