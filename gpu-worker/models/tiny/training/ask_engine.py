# Kinds of documents, asked of a running engine (OpenAI-style chat completions): python3 ask_engine.py <data folder> <url> <model> bare,talk,plain,items,short,lists,facts,absent,turns,mid,long,far
import sys, random, json, time, urllib.request
import longdata as D

W = D.World(sys.argv[1], heldout=True)
URL = sys.argv[2]
MODEL = sys.argv[
    3
]  # data folder, e.g. http://localhost:8788, name of the model; then names of tests joined by commas


def chat(ms, n=40):
    r = urllib.request.Request(
        URL + "/v1/chat/completions",
        data=json.dumps(dict(model=MODEL, messages=ms, temperature=0, max_tokens=n)).encode(),
        headers={"content-type": "application/json"},
    )
    d = json.load(urllib.request.urlopen(r))
    return d["choices"][0]["message"]["content"], d["usage"]


txt = lambda t: W.tk.decode(t)


def run(name, cases):
    n = ok = 0
    t0 = time.time()
    bad = []
    tk = []
    for ms, a in cases:
        o, u = chat(ms)
        n += 1
        ok += o.strip() == a
        tk.append(u["prompt_tokens"])
        if o.strip() != a:
            bad.append((ms[-1]["content"][-60:], a, o))
    print(
        name,
        f"{ok}/{n} = {ok / n:.3f}",
        "tokens",
        min(tk),
        max(tk),
        "%.0f s" % (time.time() - t0),
        flush=True,
    )
    for b in bad[:6]:
        print("      ", b, flush=True)


U = lambda s: [dict(role="user", content=s)]


def real(n, seed, L, kind):
    r = random.Random(seed)
    g = D.Gen(W, r)
    for i in range(n):
        k = dict(nf=4, absent=0, listq=0, kind=kind)
        doc, qa = g.sample(L, 1, depth=i / (n - 1), **k)
        q, a = qa[0]
        yield U(txt(doc) + txt(q)), txt(a)


def items(n, seed):
    r = random.Random(seed)
    g = D.Gen(W, r)
    for i in range(n):
        f = g.fact(0)
        s = [f"Item {r.randint(1, 40)} lies on shelf {r.randint(1, 40)}." for _ in range(250)]
        s.insert(int(i / (n - 1) * 250), f[1])
        yield U([" ", "\n"][i % 2].join(s) + "\n\n" + f[2]), f[3]


PAIRS = [
    ("Alice", "Paris"),
    ("Bob", "Rome"),
    ("Marta", "Lisbon"),
    ("Carol", "Berlin"),
    ("Dave", "Oslo"),
    ("Erin", "Vienna"),
    ("Frank", "Madrid"),
    ("Grace", "Dublin"),
    ("Heidi", "Prague"),
    ("Ivan", "Athens"),
    ("Judy", "Boston"),
    ("Peter", "Geneva"),
    ("Anna", "Helsinki"),
    ("Thomas", "London"),
    ("Maria", "Warsaw"),
    ("John Smith", "Tokyo"),
]


def plain(n, seed, L):
    r = random.Random(seed)
    g = D.Gen(W, r)
    for i in range(n):
        p, c = PAIRS[i % len(PAIRS)]
        v = g.num(5)
        at = r.choice(D.NUMA[:10])
        f = [
            (f"The {at} of {c} is {v}.", f"What is the {at} of {c}?"),
            (f"The {at} of {p} is {v}.", f"What is the {at} of {p}?"),
            (f"{p} works at the library in {c}.", f"Where does {p} work?"),
            (f"The manager of {p} is {PAIRS[(i + 5) % 16][0]}.", f"Who is the manager of {p}?"),
        ][i % 4]
        fill = txt(g.text(L, ["sotu", "moby", "kjv", "python", "handbook"][i % 5]).tolist())
        k = int(len(fill) * (i / (n - 1)))
        k = fill.rfind(". ", 0, k) + 1
        yield U(fill[:k] + " " + f[0] + fill[k:] + "\n\n" + f[1]), f[0]


def bare(n, seed):
    for i in range(n):
        p, c = PAIRS[i % 16]
        p2, c2 = PAIRS[(i * 7 + 3) % 16]
        yield (
            U(
                f"{p} works in the bakery in {c}. The access code of {c} is {10000 + i * 3571}. The manager of {p} is {p2}.\n\n"
                + [f"What is the access code of {c}?", f"Who is the manager of {p}?"][i % 2]
            ),
            [f"The access code of {c} is {10000 + i * 3571}.", f"The manager of {p} is {p2}."][
                i % 2
            ],
        )


def absent(n, seed, L):
    r = random.Random(seed)
    g = D.Gen(W, r)
    for i in range(n):
        doc, _ = g.sample(L, 1, nf=6, absent=0, listq=0, kind=["prose", "manual", "list"][i % 3])
        q = g.fact(r.choice([0, 0, 1, 3, 4]))[2]
        if "about" in q:
            continue
        yield U(txt(doc) + "\n\n" + q), D.NONE


def turns(n, seed, L, nq):
    r = random.Random(seed)
    g = D.Gen(W, r)
    for i in range(n):
        doc, qa = g.sample(
            L, nq, nf=nq + 4, absent=0, listq=0, kind=["prose", "manual", "facts", "list"][i % 4]
        )
        ms = []
        for j, (q, a) in enumerate(qa):
            ms = ms + U((txt(doc) if not j else "") + txt(q))
            yield list(ms), txt(a)
            ms = ms + [dict(role="assistant", content=txt(a))]


T = dict(
    bare=lambda: run("plain names, a few sentences", bare(16, 1)),
    talk=lambda: run("small talk", ((U(q), a) for q, a in D.SMALL)),
    plain=lambda: run("plain names in prose 2K", plain(20, 2, 2000)),
    items=lambda: run("items on shelves", items(16, 3)),
    short=lambda: run("short 160", real(40, 4, 160, "prose")),
    lists=lambda: run("lists and tables 3K, a fact among them", real(24, 5, 3000, "list")),
    facts=lambda: run("only facts 3K", real(24, 6, 3000, "facts")),
    absent=lambda: run("not in the document 2K", absent(30, 7, 2000)),
    turns=lambda: run("five questions in a row 2K", turns(8, 8, 2000, 5)),
    long=lambda: run("plain names in prose 20K", plain(4, 9, 20000)),
    mid=lambda: run("plain names in prose 8K", plain(30, 19, 8000)),
    far=lambda: run("plain names in prose 30K", plain(12, 29, 30000)),
)
for k in sys.argv[4].split(","):
    T[k]()
