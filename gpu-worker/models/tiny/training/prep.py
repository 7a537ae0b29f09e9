# tokenizer and tokenized texts: python3 prep.py <folder with *.txt and names.json>
import sys, json, random, numpy as np, os

os.environ["TOKENIZERS_PARALLELISM"] = "true"
from tokenizers import Tokenizer, models, pre_tokenizers, decoders, trainers

F = sys.argv[1]
NAMES = [
    "kjv",
    "moby",
    "sotu",
    "perl",
    "debref",
    "handbook",
    "policy",
    "devref",
    "git",
    "python",
    "jargon",
    "debdoc",
]
import re

T = {k: open(f"{F}/{k}.txt").read() for k in NAMES}
LIM = dict(sotu=6_000_000, perl=5_000_000, python=4_000_000, git=2_000_000)
for k, n in LIM.items():
    T[k] = T[k][:n]
T["kjv"] = re.sub(r"(?m)^\S+\d+:\d+ ", "", T["kjv"])
T["sotu"] = re.sub(r"(?<![\n.:;])\n(?!\n)", " ", T["sotu"])
T["moby"] = re.sub(r"(?<!\n)\n(?!\n)", " ", T["moby"])
for k in T:
    open(f"{F}/{k}.txt", "w").write(T[k])
SP = [
    "<|begin|>",
    "<|end|>",
    "<|pad|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<think>",
    "</think>",
]
tk = Tokenizer(models.BPE())
tk.pre_tokenizer = pre_tokenizers.Sequence(
    [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ]
)
tk.decoder = decoders.ByteLevel()
n = json.load(open(f"{F}/names.json"))
r = random.Random(3)
it = []
for k in NAMES:
    c = T[k]
    m = min(len(c), 2_000_000)
    it += [c[i : i + 2000] for i in range(0, m, 2000)]
for k in (
    "first",
    "last",
    "city",
    "street",
    "first_en",
    "last_en",
    "city_en",
    "country",
    "noun",
    "adj",
    "food",
):
    v = list(n[k])
    rep = 2 if len(v) > 5000 else 10
    for _ in range(rep):
        r.shuffle(v)
        it += [" ".join(v[i : i + 50]) for i in range(0, len(v), 50)]
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))


class W:
    pass


import longdata as D

w = W()
w.n = n
w.enc = lambda t: []
g = D.Gen(w, random.Random(5))
ls = []
for _ in range(20000):
    f = g.fact()
    ls.append(" " + f[1] + "\n\n" + f[2])
ls += [x[0] for x in D.SMALL] * 20 + [x[1] for x in D.SMALL] * 20 + [D.NONE] * 200
it += ["".join(ls[i : i + 20]) for i in range(0, len(ls), 20)]
tk.train_from_iterator(
    it,
    trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=SP,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    ),
)
tk.save(f"{F}/tokenizer.json")
out = {}
for k in NAMES:
    ids = []
    for e in tk.encode_batch(
        [T[k][i : i + 20000] for i in range(0, len(T[k]), 20000)], add_special_tokens=False
    ):
        ids += e.ids
    out[k] = np.array(ids, np.int16)
    print(k, len(T[k]), len(ids), len(T[k]) / len(ids))
kind = np.zeros(4096, np.int8)
for i in range(4096):
    t = tk.decode([i], skip_special_tokens=False)
    if i < 8:
        continue
    if t.endswith((".", "!", "?", "\n")):
        kind[i] = 2
    elif not t[-1:].isalnum():
        kind[i] = 1
out["kind"] = kind
np.savez(f"{F}/corpus.npz", **out)
for s in [
    " The access code of Bamiko is 73019.",
    " Helsinki",
    " Katarzyna Wiśniewska works at the library in Lisbon.",
    "Item 3 lies on shelf 21.",
]:
    e = tk.encode(s, add_special_tokens=False)
    print(len(e.ids), e.tokens)
