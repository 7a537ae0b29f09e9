# Trains tiny-long: python3 train_long.py <folder with tokenizer.json, names.json, corpus.npz> <plan.json> <work folder>
# Stages of the plan follow each other; each has a time, learning rates, and "slots": every step takes one item of each slot.
import os, sys, json, time, random, math

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
import numpy as np, torch, torch.nn.functional as F, multiprocessing as mp
import longdata as D, longmodel as M

DATA, PLAN, WORK = sys.argv[1:4]
T0 = time.time()
dev = M.dev
os.makedirs(WORK, exist_ok=True)
plan = json.load(open(PLAN))
M.C.update(plan.get("config", {}))
torch.backends.cuda.matmul.allow_tf32 = True
torch.set_float32_matmul_precision("high")
torch.manual_seed(plan.get("seed", 1))
rng = random.Random(plan.get("seed", 1))
LOG = open(WORK + "/log.txt", "a")


def say(*a):
    t = " ".join(str(x) for x in a) + f"  [{time.time() - T0:.0f} s]"
    print(t, flush=True)
    LOG.write(t + "\n")
    LOG.flush()


def worker(q, seed, specs, heldout=False):
    torch.set_num_threads(1)
    r = random.Random(seed)
    g = D.Gen(world, r)
    ws = [s["w"] for s in specs]
    while True:
        s = r.choices(specs, ws)[0]
        try:
            if s["t"] == "full":
                it = g.batch(s["B"], s["L"], s["nq"], plan["KA"], s.get("lm", 4096))
            else:
                it = g.long(int(s["L"] * r.uniform(0.75, 1)), r.choice(s["nq"]), s["rows"])
        except Exception as e:
            print("data", s, repr(e), flush=True)
            continue
        q.put((s, it))


class Data:
    def __init__(s, specs, n):
        s.q = mp.Queue(max(16, n * 2))
        s.ps = [
            mp.Process(target=worker, args=(s.q, rng.randrange(1 << 30), specs), daemon=True)
            for _ in range(n)
        ]
        [p.start() for p in s.ps]

    def get(s):
        return s.q.get()

    def stop(s):
        for p in s.ps:
            p.terminate()
        s.q.close()


world = D.World(DATA)
amp = lambda: torch.autocast(dev, torch.bfloat16)


def ce(m, h, t, w):
    return (F.cross_entropy(m.head(h), t, reduction="none") * w).sum() / w.sum().clamp(min=1)


def full_loss(m, s, it, kr):
    X, ai, aw, li = it
    L, B = s["L"], s["B"]
    X = torch.from_numpy(X).to(dev).long()
    ai = torch.from_numpy(ai).to(dev).long()
    aw = torch.from_numpy(aw).to(dev)
    li = torch.from_numpy(li).to(dev).long()
    krows = None if not kr else torch.randint(0, L, (kr,), device=dev).sort()[0]
    with amp():
        h, z, kl = m.full(X[:, : L + 1], s["mode"], krows, ckpt=s.get("ckpt", False))
        h = h.reshape(-1, h.shape[-1])
        z = z.reshape(-1, z.shape[-1])
        tgt = X[:, 1 : L + 1].reshape(-1)
        t2 = X[:, 2 : L + 2].reshape(-1)
        la = ce(m, h.index_select(0, ai), tgt[ai], aw)
        ma = ce(m, z.index_select(0, (ai - 1).clamp(min=0)), tgt[ai], aw)
        lt, mt = tgt[li], t2[li]
        ll = ce(m, h.index_select(0, li), lt, (lt != D.PAD).float())
        ml = ce(m, z.index_select(0, li), mt, (mt != D.PAD).float())
    return la, ll, ma, ml, kl


def long_loss(m, s, it):
    ids, nd, ro, an = it
    ids = torch.from_numpy(ids).to(dev).long()
    N = ids.shape[0]
    ids = torch.cat([ids, ids.new_full((2,), D.PAD)])
    k = len(ro)
    pos = torch.cat([torch.from_numpy(ro).to(dev), torch.arange(nd, N, device=dev)])
    an = torch.from_numpy(an).to(dev)
    tail = N - nd
    with amp():
        xs = m.document(ids[: nd + 1], s["doc"])
        h, z, kl = m.rows(ids[: N + 1], xs, pos, nd, tail, s["mode"], s.get("kl", True))
        one = torch.ones(len(an), device=dev)
        a = an - nd + k
        la = ce(m, h[a], ids[an + 1], one)
        ma = ce(m, z[a - 1], ids[an + 1], one)
        r = pos[:k]
        w = torch.ones(k, device=dev)
        ll = ce(m, h[:k], ids[r + 1], w)
        ml = ce(m, z[:k], ids[r + 2], w)
    return la, ll, ma, ml, kl


# ---------- evaluation
EV = None


def branches(g, L, nq, **kw):
    doc, qa = g.sample(L, nq, **kw)
    return doc, [((q if not i else g.w.nn + q[1:]), a) for i, (q, a) in enumerate(qa)]


@torch.no_grad()
def ask(m, doc, qa, dmode, rmode, split=None):
    """Exact answers (greedy), and accepted drafts of all drafts of exact answers."""
    nd = len(doc)
    d = torch.tensor(doc + [D.PAD], device=dev)
    out = []
    acc = tot = 0
    with amp():
        xs = m.document(torch.cat([d[:nd], torch.tensor(qa[0][0][:1], device=dev)]), dmode)
        for q, a in qa:
            ids = torch.tensor(doc + q + a + [D.PAD], device=dev)
            N = nd + len(q) + len(a)
            pos = torch.arange(nd, N, device=dev)
            h, z, _ = m.rows(ids, xs, pos, nd, N - nd, rmode, False)
            k = len(q) - 1
            g1 = m.head(h[k:-1]).argmax(-1)
            ok = bool((g1 == ids[nd + k + 1 : N]).all())
            out.append(ok)
            if ok:
                g2 = m.head(z[k:-2]).argmax(-1)
                acc += int((g2 == g1[1:]).sum())
                tot += len(g2)
    return out, acc, tot


def needle(m, L, docs, dmode, rmode, seed=5, nq=4, **kw):
    global EV
    if EV is None:
        EV = D.World(DATA, heldout=True)
    m.eval()
    g = D.Gen(EV, random.Random(seed))
    hit = []
    acc = tot = 0
    for i in range(docs):
        k = dict(kw)
        k.setdefault("kind", ["prose", "manual"][i % 2])
        k.setdefault("nf", 4)
        k.setdefault("absent", 0)
        k.setdefault("listq", 0)
        if k.get("depth") == "all":
            k["depth"] = i / max(1, docs - 1)
        doc, qa = branches(g, L, nq, **k)
        o, a, t = ask(m, doc, qa, dmode, rmode)
        hit += o
        acc += a
        tot += t
    m.train()
    return sum(hit) / len(hit), len(hit), acc / max(1, tot)


def save(m, name):
    torch.save(
        {k: v.to(torch.bfloat16) if v.dim() >= 2 else v.float() for k, v in m.state_dict().items()},
        WORK + "/tmp.pt",
    )
    b = open(WORK + "/tmp.pt", "rb").read()
    n = 15 * 2**20
    for i in range(0, len(b), n):
        open(f"{WORK}/{name}.pt.{i // n}.part", "wb").write(b[i : i + n])
        os.replace(f"{WORK}/{name}.pt.{i // n}.part", f"{WORK}/{name}.pt.{i // n}")


def load(m, name):
    import io

    b = b""
    i = 0
    while os.path.exists(f"{name}.pt.{i}"):
        b += open(f"{name}.pt.{i}", "rb").read()
        i += 1
    m.load_state_dict(
        {k: v.float() for k, v in torch.load(io.BytesIO(b), map_location=dev).items()}
    )


def main():
    m = M.Model().to(dev)
    say("parameters", sum(p.numel() for p in m.parameters()), M.C)
    if plan.get("resume"):
        load(m, plan["resume"])
        say("resumed", plan["resume"])
    if dev == "cuda":
        M.compile_parts()
    idx = [p for n, p in m.named_parameters() if "indexer" in n]
    main_ = [(n, p) for n, p in m.named_parameters() if "indexer" not in n]
    mats = [p for _, p in main_ if p.dim() >= 2]
    vecs = [p for _, p in main_ if p.dim() < 2]
    mp_ = mats + vecs
    opt = torch.optim.AdamW(
        [
            dict(params=mats, weight_decay=0.05, k="main"),
            dict(params=vecs, weight_decay=0.0, k="main"),
            dict(params=idx, weight_decay=0.01, k="idx"),
        ],
        lr=1e-3,
        betas=(0.9, 0.95),
        eps=1e-9,
        fused=dev == "cuda",
    )
    step = 0
    for si, name in enumerate([s["name"] for s in plan["stages"]]):
        if si < plan.get("start", 0):
            continue
        st = [s for s in json.load(open(PLAN))["stages"] if s["name"] == name]
        if not st:
            continue
        st = st[0]
        per = max(1, plan["procs"] // len(st["slots"]))
        ds = [Data(sl, per) for sl in st["slots"]]
        first = [d.get() for d in ds]
        t = time.time()
        n = 0
        av = {}
        wait = 0.0
        ok = True
        say("stage", name, "data ready")
        stop = f"{WORK}/stop.{name}"
        while True:
            f = (time.time() - t) / st["secs"]
            if f >= 1 or os.path.exists(stop):
                break
            lr = st["lr"][0] * (st["lr"][1] / st["lr"][0]) ** f
            li = st["lri"][0] * (st["lri"][1] / st["lri"][0]) ** f
            wu = min(1, (n + 1) / st.get("warm", 50))
            for g in opt.param_groups:
                g["lr"] = (lr if g["k"] == "main" else li) * wu
            opt.zero_grad(set_to_none=True)
            for i, d in enumerate(ds):
                t1 = time.time()
                s, it = first[i] if n == 0 else d.get()
                wait += time.time() - t1
                if s["t"] == "full":
                    la, ll, ma, ml, kl = full_loss(
                        m, s, it, s.get("kr", 0) if f >= st.get("kfrom", 0) else 0
                    )
                else:
                    la, ll, ma, ml, kl = long_loss(m, s, it)
                tot = (
                    la
                    + st.get("lmw", 0.3) * ll
                    + st.get("mtpw", 0.3) * (ma + 0.4 * ml)
                    + (kl if kl is not None else 0)
                )
                (tot * s.get("lw", 1.0)).backward()
                if n % 10 == 0 or n < 5:
                    k = f"{s['t']}{s['L']}{s['mode'][0]}"
                    v = [x.item() if x is not None else float("nan") for x in (la, ll, ma, ml, kl)]
                    o = av.setdefault(k, [0, [0] * 5])
                    o[0] += 1
                    o[1] = [a + b for a, b in zip(o[1], v)]
            if st.get("train", "all") == "idx":
                for p in mp_:
                    p.grad = None
            gn = (
                torch.nn.utils.clip_grad_norm_([p for p in mp_ if p.grad is not None], 1.0)
                if st.get("train", "all") == "all"
                else 0
            )
            gi = torch.nn.utils.clip_grad_norm_(
                [p for p in idx if p.grad is not None] or idx[:1], 1.0
            )
            opt.step()
            m.balance(st.get("bal", 1e-3))
            n += 1
            if n in (1, 2, 3, 20) or n % st.get("every", 200) == 0:
                say(
                    name,
                    n,
                    "lr %.1e" % lr,
                    "gn %.2f %.2f" % (gn, gi),
                    "wait %.1f" % wait,
                    " ".join(
                        k + " " + "/".join("%.3f" % (x / c) for x in v)
                        for k, (c, v) in sorted(av.items())
                    ),
                )
                av = {}
        if dev == "cuda":
            torch.cuda.synchronize()
        for d in ds:
            d.stop()
        say(
            "stage",
            name,
            "done",
            n,
            "steps",
            "mem %.1f GB" % (torch.cuda.max_memory_allocated() / 2**30 if dev == "cuda" else 0),
        )
        save(m, "ck")
        open(WORK + "/ck.txt", "w").write(name)
        for e in st.get("eval", []):
            t1 = time.time()
            L, docs, modes = e[:3]
            kw = e[3] if len(e) > 3 else {}
            for md in modes:
                try:
                    a, c, ac = needle(m, L, docs, md, md, **kw)
                    say(f"  needle {md} {L} {kw}: {a:.3f} of {c}, drafts {ac:.3f}")
                except Exception as ex:
                    say("  needle failed", L, repr(ex)[:200])
    say("all done")
    open(WORK + "/done", "w").write("1")


if __name__ == "__main__":
    main()
