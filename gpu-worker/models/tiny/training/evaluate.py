# python3 evaluate.py <data folder> <plan.json> <work folder> <checkpoint> far,near,prose: held-out texts and names, exact greedy answers
import sys, json, random, time

CK = sys.argv[4]
PARTS = sys.argv[5].split(",") if len(sys.argv) > 5 else ["far", "near", "prose"]
sys.argv = sys.argv[:4]
import torch, train_long as T, longmodel as M, longdata as D

m = M.Model().to(T.dev)
T.load(m, CK)
m.eval()
W = D.World(sys.argv[1], heldout=True)
dec = lambda t: W.tk.decode(t, skip_special_tokens=False)
R = {}


def rows(doc, q, a, xs, mode):
    nd = len(doc)
    ids = torch.tensor(doc + q + a + [D.PAD], device=T.dev)
    N = nd + len(q) + len(a)
    h, z, _ = m.rows(ids, xs, torch.arange(nd, N, device=T.dev), nd, N - nd, mode, False)
    k = len(q) - 1
    g1 = m.head(h[k:-1]).argmax(-1)
    g2 = m.head(z[k:-2]).argmax(-1)
    return g1.tolist(), int((g2 == g1[1:]).sum()), len(g2)


@torch.no_grad()
def test(name, cases, modes=("sparse",), show=3):
    """cases: iterator of (document tokens, [(question, answer)], bucket)"""
    st = {md: {} for md in modes}
    dr = [0, 0]
    bad = []
    t0 = time.time()
    ln = []
    for doc, qa, bucket in cases:
        ln.append(len(doc))
        for md in modes:
            with T.amp():
                xs = m.document(torch.tensor(doc + qa[0][0][:1], device=T.dev), md)
                for q, a in qa:
                    g, acc, tot = rows(doc, q, a, xs, md)
                    ok = g == a
                    b = st[md].setdefault(bucket, [0, 0])
                    b[0] += ok
                    b[1] += 1
                    if md == "sparse" and ok:
                        dr[0] += acc
                        dr[1] += tot
                    if md == "sparse" and not ok:
                        bad.append((dec(q)[-60:], dec(a), dec(g)))
    out = {md: {str(k): f"{v[0]}/{v[1]}" for k, v in sorted(s.items())} for md, s in st.items()}
    sm = {
        md: "%.4f (%d of %d)"
        % (
            sum(v[0] for v in s.values()) / sum(v[1] for v in s.values()),
            sum(v[0] for v in s.values()),
            sum(v[1] for v in s.values()),
        )
        for md, s in st.items()
    }
    R[name] = dict(
        documents=len(ln),
        tokens=f"{min(ln)}-{max(ln)}",
        exact=sm,
        by=out,
        drafts=dr[0] / max(1, dr[1]),
    )
    print(name, json.dumps(R[name]), "%.0f s" % (time.time() - t0), flush=True)
    for b in bad[:show]:
        print("      ", *map(repr, b), flush=True)


def docs(n, L, nq, seed, **kw):
    g = D.Gen(W, random.Random(seed))
    for i in range(n):
        k = dict(kind=["prose", "manual"][i % 2], nf=4, absent=0, listq=0)
        k.update(kw)
        d = i / (n - 1)
        doc, qa = T.branches(g, L, nq, depth=d, **k)
        yield doc, qa, "%.1f" % d


@torch.no_grad()
def prose(L, n):
    """Mean loss on held-out prose, dense and sparse, and how often the draft equals the next greedy token."""
    o = {"dense": [], "sparse": []}
    acc = []
    ok2 = []
    for i in range(n):
        t = W.text[["sotu", "moby", "kjv"][i % 3]]
        a = (i * 7919) % max(1, len(t) - L - 2)
        x = torch.tensor(t[a : a + L].astype("int64"), device=T.dev)[None]
        x = torch.cat([x.new_tensor([[0, 3]]), x], 1)
        for md in o:
            with T.amp():
                h, z, _ = m.full(x, md, None)
                lg = m.head(h)[0]
                g2 = m.head(z)[0].argmax(-1)
                o[md].append(torch.nn.functional.cross_entropy(lg, x[0, 1:]).item())
            if md == "sparse":
                g1 = lg.argmax(-1)
                acc.append((g2[:-1] == g1[1:]).float().mean().item())
                hit = g1[:-1] == x[0, 1:-1]
                ok2.append((g2[:-1][hit] == g1[1:][hit]).float().mean().item())
    R[f"prose {L}"] = dict(
        loss={k: sum(v) / len(v) for k, v in o.items()},
        drafts=sum(acc) / len(acc),
        drafts_after_right=sum(ok2) / len(ok2),
    )
    print(f"prose {L}", json.dumps(R[f"prose {L}"]), flush=True)


if __name__ == "__main__":
    s, b = ("sparse",), ("sparse", "dense")
    for p in PARTS:
        if p == "near":
            for L in (1024, 4096, 16384):
                test(f"needle {L // 1024}K", docs(40, L, 2, 10 + L // 1024), b)
        if p == "far":
            test("needle 32K", docs(40, 32768, 2, 24), b)
            test("needle 64K", docs(40, 65536, 2, 21), b)
            test("facts and lists 64K", docs(16, 65536, 3, 26, kind="mix", listq=0.5), s)
            for k in (25, 35):
                test("needle 96K", docs(16, 98304, 2, k), s)
            test("needle 128K", docs(28, 131072, 2, 22), s)
            test("needle 128K", docs(20, 131072, 2, 32), s)
            test("needle 128K dense", docs(20, 131072, 2, 22), ("dense",))
            for k in (23, 33):
                test("needle 160K", docs(12, 163000, 2, k), s)
            test("needle 160K dense", docs(8, 163000, 2, 23), ("dense",))
        if p == "prose":
            prose(16384, 9)
    json.dump(R, open(sys.argv[3] + "/eval.json", "w"), indent=1)
