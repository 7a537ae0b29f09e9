# Cases for expected.json: python3 expected_long.py <data folder> <checkpoint> <model folder> - short|far
# In float32, by transformers' DeepseekV32; the far case (over 60,000 tokens) by longmodel.py, which agrees with it, because
# transformers would need the scores of all pairs of tokens at once.
import sys, json

SRC = (
    open(__file__.replace("expected_long", "export_long"))
    .read()
    .split("if __name__ == '__main__'")[0]
)
exec(SRC)
from transformers import DynamicCache

kjv = open(DATA + "/kjv.txt").read()
sotu = open(DATA + "/sotu.txt").read()
moby = open(DATA + "/moby.txt").read()
W = D.World(DATA)
fill = kjv[int(len(kjv) * 0.93) :]
doc = (
    fill[:3000]
    + " The access code of Helsinki is 48213. "
    + fill[3000:7000]
    + " Marta works at the library in Lisbon. "
    + fill[7000:9000]
)
r = random.Random(12)
its = [f"Item {r.randint(1, 40)} lies on shelf {r.randint(1, 40)}." for _ in range(250)]
its.insert(125, "The access code of Bamiko is 73019.")
a, b, c = (
    sotu[int(len(sotu) * 0.925) :],
    moby[int(len(moby) * 0.925) :],
    kjv[int(len(kjv) * 0.93) :],
)
far = (
    a[:30000]
    + " The serial number of Oslo is 91746. "
    + a[30000:110000]
    + " Dr. Weber lives in Madrid. "
    + a[110000:135000]
    + "\n\n"
    + b[:60000]
    + "\n\n"
    + c[:14000]
)


def run(prompt, n=24, piece=2048):
    ids = [0, 3] + W.enc(prompt) + [4]
    cache = DynamicCache(config=cfg)
    nll = 0.0
    last = None
    with torch.no_grad():
        for p in range(0, len(ids), piece if len(ids) < 8000 else 512):
            e = min(len(ids), p + (piece if len(ids) < 8000 else 512))
            lg = h(
                input_ids=torch.tensor([ids[p:e]]), past_key_values=cache, use_cache=True
            ).logits[0]
            t = torch.tensor(ids[p + 1 : e + 1])
            nll -= torch.log_softmax(lg[: len(t)].double(), -1).gather(1, t[:, None]).sum().item()
            last = lg[-1]
            if len(ids) > 8000 and p % 8192 == 0:
                print(p, flush=True)
        lg = last
        g = []
        for _ in range(n):
            t = int(lg.argmax())
            if t == 1:
                break
            g.append(t)
            lg = h(input_ids=torch.tensor([[t]]), past_key_values=cache, use_cache=True).logits[
                0, -1
            ]
    c = dict(
        prompt=prompt,
        input_ids=ids,
        mean_nll=nll / (len(ids) - 1),
        last_logits=[round(x, 5) for x in last.tolist()],
        greedy=g,
        text=W.tk.decode(g),
    )
    print(len(ids), repr(prompt[-60:]), "->", repr(c["text"]), c["mean_nll"], flush=True)
    return c


short = [
    "Hello",
    "Who are you?",
    "The access code of Rome is 55512.\n\nWhat is the access code of Rome?",
    doc + "\n\nWhat is the access code of Helsinki?",
    doc + "\n\nWhere does Marta work?",
    " ".join(its) + "\n\nWhat is the access code of Bamiko?",
]
if len(sys.argv) > 5 and sys.argv[5] == "short":
    cases = [run(p) for p in short]
    json.dump(cases, open(OUT + "/expected.json", "w"))
else:
    prompt = far + "\n\nWhat is the serial number of Oslo?"
    ids = [0, 3] + W.enc(prompt) + [4]
    print(len(ids), flush=True)
    t = torch.tensor(ids + [2])
    n = len(ids)
    c, sn = M.cs(torch.arange(n))
    x = m.emb(t[:n])[None]
    xs = []
    with torch.no_grad():
        for l, b in enumerate(m.layers):
            xs.append(x[0])
            x, _ = b(x, c, sn, "sparse")
            print("layer", l, flush=True)
        hid = m.norm(x)[0]
        nll = sum(
            torch.nn.functional.cross_entropy(
                m.head(hid[p : p + 4096])[: n - 1 - p], t[p + 1 : min(n, p + 4097)], reduction="sum"
            )
            .double()
            .item()
            for p in range(0, n - 1, 4096)
        )
        lg = last = m.head(hid[-1:])[0]
        g = []
        for _ in range(24):
            k = int(lg.argmax())
            if k == 1:
                break
            g.append(k)
            full = torch.tensor(ids + g + [2])
            N = n + len(g)
            hh, _, _ = m.rows(
                full, xs + [xs[0]], torch.arange(n, N), n, N - n, "sparse", False, mtp=False
            )
            lg = m.head(hh[-1:])[0]
    cases = [
        dict(
            prompt=prompt,
            input_ids=ids,
            mean_nll=nll / (n - 1),
            last_logits=[round(v, 5) for v in last.tolist()],
            greedy=g,
            text=W.tk.decode(g),
        )
    ]
    print(cases[0]["text"], cases[0]["mean_nll"], flush=True)
    json.dump(cases, open(OUT + "/far.json", "w"))
    sys.exit()
if False:
    cases = [run(far + "\n\nWhat is the serial number of Oslo?")]
    json.dump(cases, open(OUT + "/far.json", "w"))
