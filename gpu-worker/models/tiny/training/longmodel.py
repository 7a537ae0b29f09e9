# A small DeepSeek-V3.2 model for training: MLA, lightning indexer, mixture of experts, one module for multi-token prediction.
# Three ways to attend: dense (flash attention), sparse (every row takes its top-k tokens, by gathering latents), and rows
# (some rows of a long document, dense or sparse, whose keys come from hidden states computed before without gradients).
import math, torch, torch.nn as nn, torch.nn.functional as F

C = dict(
    V=4096,
    D=256,
    L=4,
    H=8,
    nope=48,
    rope=16,
    v=64,
    qr=192,
    kvr=128,
    IH=8,
    ID=64,
    topk=256,
    E=8,
    K=2,
    EI=256,
    FI=768,
    theta=1e4,
    scale=2.5,
    yarn=dict(factor=40.0, orig=4096, fast=32.0, slow=1.0),
    maxpos=163840,
)
dev = "cuda" if torch.cuda.is_available() else "cpu"
try:
    import triton, triton.language as tl

    @triton.jit
    def _index_kernel(
        Q,
        K,
        W,
        P,
        O,
        R,
        N,
        so,
        IH: tl.constexpr,
        ID: tl.constexpr,
        BR: tl.constexpr,
        BN: tl.constexpr,
    ):
        r = tl.program_id(0) * BR + tl.arange(0, BR)
        n = tl.program_id(1) * BN + tl.arange(0, BN)
        d = tl.arange(0, ID)
        p = tl.load(P + r, mask=r < R, other=-1)
        acc = tl.zeros([BR, BN], tl.float32)
        if tl.max(p, 0) >= tl.program_id(1) * BN:
            k = tl.load(
                K + n[None, :].to(tl.int64) * ID + d[:, None], mask=n[None, :] < N, other=0.0
            )
            for h in range(IH):
                q = tl.load(
                    Q + r[:, None].to(tl.int64) * (IH * ID) + h * ID + d[None, :],
                    mask=r[:, None] < R,
                    other=0.0,
                )
                w = tl.load(W + r * IH + h, mask=r < R, other=0.0)
                acc += tl.maximum(tl.dot(q, k), 0.0) * w[:, None]
        acc = tl.where(n[None, :] <= p[:, None], acc, float("-inf"))
        tl.store(
            O + r[:, None].to(tl.int64) * so + n[None, :],
            acc,
            mask=(r[:, None] < R) & (n[None, :] < N),
        )

    HAVE_TRITON = torch.cuda.is_available()
except ImportError:
    HAVE_TRITON = False


def index_scores(q, w, k, pos):
    """No gradients: q [R, IH, ID], w [R, IH] float32, k [N, ID], pos [R] -> [R, N] float32, -inf where n > pos."""
    R, N = q.shape[0], k.shape[0]
    if HAVE_TRITON and q.dtype == torch.bfloat16:
        o = torch.empty(R, N, device=q.device, dtype=torch.float32)
        BR, BN = 64, 128
        _index_kernel[(triton.cdiv(R, BR), triton.cdiv(N, BN))](
            q.contiguous(),
            k.contiguous(),
            w.contiguous(),
            pos.to(torch.int32),
            o,
            R,
            N,
            N,
            q.shape[1],
            q.shape[2],
            BR,
            BN,
            num_warps=8,
        )
        return o
    o = torch.zeros(R, N, device=q.device)
    for h in range(q.shape[1]):
        o += F.relu((q[:, h] @ k.t()).float()) * w[:, h, None]
    return o.masked_fill(torch.arange(N, device=q.device)[None] > pos[:, None], float("-inf"))


def select(q, w, k, pos, T):
    """Indices [R, T] of the best T tokens of every row, and whether each is one (rows with fewer than T before them)."""
    R, N = q.shape[0], k.shape[0]
    if N <= T:
        i = torch.arange(N, device=q.device)[None].expand(R, N)
        return i, i <= pos[:, None]
    i = torch.empty(R, T, dtype=torch.int64, device=q.device)
    step = max(64, int(2**28 // N))
    for a in range(0, R, step):
        p = pos[a : a + step]
        n = min(N, max(T, (a + step if R == N else N)))
        i[a : a + step] = index_scores(q[a : a + step], w[a : a + step], k[:n], p).topk(
            T, -1, sorted=False
        )[1]
    return i, i <= pos[:, None]


class Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, i):
        ctx.save_for_backward(i)
        ctx.n = x.shape
        ctx.dt = x.dtype
        return x[i.reshape(-1)].view(*i.shape, x.shape[-1])

    @staticmethod
    def backward(ctx, g):
        (i,) = ctx.saved_tensors
        o = torch.zeros(ctx.n, device=g.device, dtype=torch.float32)
        return o.index_add_(0, i.reshape(-1), g.reshape(-1, g.shape[-1]).float()).to(ctx.dt), None


def yarn_inv():
    d, b, y = C["rope"], C["theta"], C["yarn"]
    f = b ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
    cd = lambda r: d * math.log(y["orig"] / (r * 2 * math.pi)) / (2 * math.log(b))
    lo, hi = max(math.floor(cd(y["fast"])), 0), min(math.ceil(cd(y["slow"])), d - 1)
    ramp = (
        (torch.arange(d // 2, dtype=torch.float64) - lo) / (hi - lo if hi != lo else 0.001)
    ).clamp(0, 1)
    return (f / y["factor"] * ramp + f * (1 - ramp)).float()


INV = yarn_inv().to(dev)
SM = (C["nope"] + C["rope"]) ** -0.5 * (0.1 * math.log(C["yarn"]["factor"]) + 1) ** 2


def cs(pos):
    a = pos.float()[:, None] * INV
    return a.cos(), a.sin()


def rope_i_(x, c, s):  # interleaved; x [..., S, H, r]
    return (
        torch.view_as_real(
            torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
            * torch.complex(c, s)[:, None]
        )
        .flatten(-2)
        .to(x.dtype)
    )


def rope_h_(x, c, s):
    h = x.shape[-1] // 2
    a, b = x[..., :h].float(), x[..., h:].float()
    c = c[:, None]
    s = s[:, None]
    return torch.cat([a * c - b * s, b * c + a * s], -1).to(x.dtype)


def act_(h, w):  # h [n, E, 2I] gate and up of every expert, w [n, E]
    g, u = h.chunk(2, -1)
    return (F.silu(g.float()) * u.float() * w[..., None].float()).to(h.dtype)


def rms_(x, w):
    with torch.autocast(x.device.type, enabled=False):
        return F.rms_norm(x, (x.shape[-1],), w.to(x.dtype), 1e-6)


fn = dict(rope_i=rope_i_, rope_h=rope_h_, act=act_, rms=rms_)


def compile_parts():
    import torch._dynamo

    torch._dynamo.config.cache_size_limit = 256
    fn["act"] = torch.compile(act_, dynamic=True)


class Norm(nn.Module):
    def __init__(s, d):
        super().__init__()
        s.weight = nn.Parameter(torch.ones(d))

    def forward(s, x):
        return fn["rms"](x, s.weight)


lin = lambda i, o: nn.Linear(i, o, bias=False)


class Indexer(nn.Module):
    def __init__(s):
        super().__init__()
        s.wq_b = lin(C["qr"], C["IH"] * C["ID"])
        s.wk = lin(C["D"], C["ID"])
        s.k_norm = nn.LayerNorm(C["ID"], eps=1e-6)
        s.weights_proj = lin(C["D"], C["IH"])

    def keys(s, x, c, sn):  # [B, S, D] -> [B, S, ID]
        r = C["rope"]
        k = F.layer_norm(s.wk(x).float(), (C["ID"],), s.k_norm.weight, s.k_norm.bias, 1e-6).to(
            x.dtype
        )
        return torch.cat([fn["rope_h"](k[..., None, :r], c, sn)[..., 0, :], k[..., r:]], -1)

    def queries(s, x, qr, c, sn):
        r = C["rope"]
        q = s.wq_b(qr).unflatten(-1, (C["IH"], C["ID"]))
        q = torch.cat([fn["rope_h"](q[..., :r], c, sn), q[..., r:]], -1)
        with torch.autocast(x.device.type, enabled=False):
            w = F.linear(x.float(), s.weights_proj.weight.float()) * (
                C["IH"] ** -0.5 * C["ID"] ** -0.5
            )
        return q, w


def scores(q, w, k):
    """With gradients: q [R, IH, ID], w [R, IH], k [N, ID] -> [R, N] float32."""
    a = torch.matmul(q.flatten(0, 1), k.t()).view(q.shape[0], q.shape[1], k.shape[0])
    return (F.relu(a).float() * w[..., None]).sum(1)


class Attn(nn.Module):
    def __init__(s):
        super().__init__()
        D, H = C["D"], C["H"]
        s.q_a_proj = lin(D, C["qr"])
        s.q_a_layernorm = Norm(C["qr"])
        s.q_b_proj = lin(C["qr"], H * (C["nope"] + C["rope"]))
        s.kv_a_proj_with_mqa = lin(D, C["kvr"] + C["rope"])
        s.kv_a_layernorm = Norm(C["kvr"])
        s.kv_b_proj = lin(C["kvr"], H * (C["nope"] + C["v"]))
        s.o_proj = lin(H * C["v"], D)
        s.indexer = Indexer()

    def q(s, x, c, sn):
        n = C["nope"]
        qr = s.q_a_layernorm(s.q_a_proj(x))
        q = s.q_b_proj(qr).unflatten(-1, (C["H"], n + C["rope"]))
        return qr, torch.cat([q[..., :n], fn["rope_i"](q[..., n:], c, sn)], -1)

    def kv(s, x, c, sn):
        kv = s.kv_a_proj_with_mqa(x)
        lat = s.kv_a_layernorm(kv[..., : C["kvr"]])
        return lat, fn["rope_i"](kv[..., None, C["kvr"] :], c, sn)[..., 0, :]

    def expand(s, lat, kr):
        n = C["nope"]
        b = s.kv_b_proj(lat).unflatten(-1, (C["H"], n + C["v"]))
        return torch.cat(
            [b[..., :n], kr[..., None, :].expand(*kr.shape[:-1], C["H"], C["rope"])], -1
        ), b[..., n:]

    def absorbed(s, q, lat, kr, idx, ok):
        """q [R, H, n+r] over gathered latents."""
        n = C["nope"]
        W = s.kv_b_proj.weight.view(C["H"], n + C["v"], C["kvr"]).to(q.dtype)
        o = []
        both = torch.cat([lat, kr], -1)
        for a in range(0, q.shape[0], 16384):
            g = Gather.apply(both, idx[a : a + 16384])
            qa = q[a : a + 16384]
            ql = torch.einsum("rhn,hnc->rhc", qa[..., :n], W[:, :n])
            p = (
                (torch.bmm(torch.cat([ql, qa[..., n:]], -1), g.transpose(1, 2)).float() * SM)
                .masked_fill(~ok[a : a + 16384, None], float("-inf"))
                .softmax(-1)
                .to(q.dtype)
            )
            o.append(torch.einsum("rhc,hvc->rhv", torch.bmm(p, g[..., : C["kvr"]]), W[:, n:]))
        return torch.cat(o)

    def kl(s, x, qr, q, k, c, sn, rows, ik):
        """Indexer's loss on some rows of sequences: x, qr, q of those rows [B, R, ...], k [B, N, H, d] of all tokens, ik their index keys."""
        m = torch.arange(k.shape[1], device=k.device)[None] > rows[:, None]
        with torch.no_grad():
            p = (
                torch.matmul(q.detach().transpose(1, 2), k.detach().permute(0, 2, 3, 1))
                .float()
                .mul_(SM)
                .masked_fill_(m, float("-inf"))
                .softmax(-1)
                .mean(1)
            )
        iq, w = s.indexer.queries(x.detach(), qr.detach(), c, sn)
        a = torch.matmul(iq.flatten(1, 2), ik.transpose(1, 2)).unflatten(1, iq.shape[1:3])
        lp = (
            (F.relu(a).float() * w[..., None])
            .sum(2)
            .masked_fill(m, float("-inf"))
            .log_softmax(-1)
            .clamp(min=-100)
        )
        return (p * ((p + 1e-9).log() - lp)).sum(-1).mean()

    def full(s, x, c, sn, mode, krows):
        """Whole sequences x [B, S, D]; mode dense or sparse; krows [R] rows for the indexer's loss or None."""
        B, S, _ = x.shape
        qr, q = s.q(x, c, sn)
        lat, kr = s.kv(x, c, sn)
        kl = None
        sparse = mode == "sparse" and S > C["topk"]
        grad = torch.is_grad_enabled()
        if krows is not None or sparse:
            ik = s.indexer.keys(x.detach(), c, sn)
        if not sparse or krows is not None:
            k, v = s.expand(lat, kr)
        if not sparse:
            o = F.scaled_dot_product_attention(
                q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True, scale=SM
            ).transpose(1, 2)
        else:
            with torch.no_grad():
                iq, w = s.indexer.queries(x.detach(), qr.detach(), c, sn)
                ar = torch.arange(S, device=x.device)
                sel = [select(iq[b], w[b], ik[b], ar, C["topk"]) for b in range(B)]
            idx = torch.cat([i + b * S for b, (i, _) in enumerate(sel)])
            ok = torch.cat([v_ for _, v_ in sel])
            o = s.absorbed(q.flatten(0, 1), lat.flatten(0, 1), kr.flatten(0, 1), idx, ok).view(
                B, S, C["H"], C["v"]
            )
        if krows is not None:
            kl = s.kl(x[:, krows], qr[:, krows], q[:, krows], k, c[krows], sn[krows], krows, ik)
        return s.o_proj(o.flatten(-2)), kl

    def rows(s, x, pos, c, sn, xd, cd, sd, tail, mode, want_kl=True):
        """Rows x [R, D] at pos; keys: document's xd [Nd, D] (no gradient through it), then the last `tail` of the rows."""
        qr, q = s.q(x, c, sn)
        lat, kr = s.kv(xd, cd, sd)
        lt, kt = s.kv(x[-tail:], c[-tail:], sn[-tail:])
        lat = torch.cat([lat, lt])
        kr = torch.cat([kr, kt])
        N = lat.shape[0]
        kl = None
        xi, qi = x.detach(), qr.detach()
        ik = torch.cat(
            [
                s.indexer.keys(xd[None], cd, sd)[0],
                s.indexer.keys(xi[None, -tail:], c[-tail:], sn[-tail:])[0],
            ]
        )
        iq, w = s.indexer.queries(xi, qi, c, sn)
        m = torch.arange(N, device=x.device)[None] > pos[:, None]
        if want_kl or mode == "dense":
            k, v = s.expand(lat, kr)
            kt_ = k.permute(1, 2, 0)
            vt = v.transpose(0, 1)
        o = []
        kls = 0.0
        step = max(32, int(2**27 // N))
        if mode == "sparse":
            with torch.no_grad():
                idx, ok = select(iq, w, ik, pos, C["topk"])
            o = [s.absorbed(q, lat, kr, idx, ok)]

        def part(qa, wa, iqa, ma):
            with torch.set_grad_enabled(torch.is_grad_enabled() and mode == "dense"):
                a = (
                    (torch.matmul(qa.transpose(0, 1), kt_).float() * SM)
                    .masked_fill(ma, float("-inf"))
                    .softmax(-1)
                )
            oa = torch.matmul(a.to(vt.dtype), vt).transpose(0, 1) if mode == "dense" else None
            ka = None
            if want_kl:
                p = a.detach().mean(0)
                lp = (
                    scores(iqa, wa, ik)
                    .masked_fill(ma, float("-inf"))
                    .log_softmax(-1)
                    .clamp(min=-100)
                )
                ka = (p * ((p + 1e-9).log() - lp)).sum()
            return oa, ka

        if want_kl or mode == "dense":
            for a in range(0, q.shape[0], step):
                sl = slice(a, a + step)
                qa = q[sl] if mode == "dense" else q[sl].detach()
                f = lambda *t: part(*t)
                oa, ka = (
                    torch.utils.checkpoint.checkpoint(
                        part, qa, w[sl], iq[sl], m[sl], use_reentrant=False
                    )
                    if torch.is_grad_enabled()
                    else part(qa, w[sl], iq[sl], m[sl])
                )
                if mode == "dense":
                    o.append(oa)
                if want_kl:
                    kls = kls + ka
        return s.o_proj(torch.cat(o).flatten(-2)), kls / q.shape[0] if want_kl else None


class MLP(nn.Module):
    def __init__(s, i):
        super().__init__()
        s.gate_proj = lin(C["D"], i)
        s.up_proj = lin(C["D"], i)
        s.down_proj = lin(i, C["D"])

    def forward(s, x):
        return s.down_proj(F.silu(s.gate_proj(x)) * s.up_proj(x))


class MoE(nn.Module):
    """Every expert computes every token, as one wide layer; tokens' weights for experts they don't take are 0."""

    def __init__(s):
        super().__init__()
        E, D, I = C["E"], C["D"], C["EI"]
        s.gate = nn.Parameter(torch.randn(E, D) * 0.02)
        s.register_buffer("bias", torch.zeros(E))
        s.gu = nn.Parameter(torch.randn(E, 2 * I, D) * 0.05)
        s.dn = nn.Parameter(torch.randn(E, D, I) * 0.03)
        s.shared_experts = MLP(I)
        s.load = None

    def forward(s, x):
        E, D, I = C["E"], C["D"], C["EI"]
        xf = x.reshape(-1, D)
        with torch.autocast(x.device.type, enabled=False):
            sg = F.linear(xf.float(), s.gate.float()).sigmoid()
        idx = (sg.detach() + s.bias).topk(C["K"], -1)[1]
        w = torch.zeros_like(sg).scatter(1, idx, sg.gather(1, idx))
        w = w / (w.sum(-1, keepdim=True) + 1e-20) * C["scale"]
        if s.training and torch.is_grad_enabled():
            s.load = (w > 0).float().sum(0).detach()
        h = F.linear(xf, s.gu.view(E * 2 * I, D)).view(-1, E, 2 * I)
        y = F.linear(fn["act"](h, w).view(-1, E * I), s.dn.permute(1, 0, 2).reshape(D, E * I))
        return y.view(x.shape) + s.shared_experts(x)


class Block(nn.Module):
    def __init__(s, l):
        super().__init__()
        s.input_layernorm = Norm(C["D"])
        s.self_attn = Attn()
        s.post_attention_layernorm = Norm(C["D"])
        s.mlp = MLP(C["FI"]) if l == 0 else MoE()

    def forward(s, x, c, sn, mode, krows=None):
        a, kl = s.self_attn.full(s.input_layernorm(x), c, sn, mode, krows)
        x = x + a
        return x + s.mlp(s.post_attention_layernorm(x)), kl

    def rows(s, x, pos, c, sn, xd, cd, sd, tail, mode, want_kl):
        a, kl = s.self_attn.rows(
            s.input_layernorm(x),
            pos,
            c,
            sn,
            s.input_layernorm(xd).detach(),
            cd,
            sd,
            tail,
            mode,
            want_kl,
        )
        x = x + a
        return x + s.mlp(s.post_attention_layernorm(x)), kl


class Model(nn.Module):
    def __init__(s):
        super().__init__()
        s.embed_tokens = nn.Embedding(C["V"], C["D"])
        s.layers = nn.ModuleList(Block(l) for l in range(C["L"]))
        s.norm = Norm(C["D"])
        s.lm_head = lin(C["D"], C["V"])
        s.enorm = Norm(C["D"])
        s.hnorm = Norm(C["D"])
        s.eh_proj = lin(2 * C["D"], C["D"])
        s.mtp = Block(1)
        s.mtp_norm = Norm(C["D"])
        for n, p in s.named_parameters():
            if p.dim() == 2:
                nn.init.normal_(
                    p,
                    std=0.02
                    if ("embed" in n or "lm_head" in n or "gate" == n[-4:])
                    else 1
                    / math.sqrt(p.shape[-1])
                    * (0.5 if ("o_proj" in n or "down" in n) else 1),
                )

    def emb(s, ids):
        x = s.embed_tokens(ids)
        return x.to(torch.bfloat16) if torch.is_autocast_enabled(x.device.type) else x

    def join(s, e, h):
        return s.eh_proj(torch.cat([s.enorm(e), s.hnorm(h)], -1))

    def full(s, ids, mode, krows=None, mtp=True, ckpt=False):
        """ids [B, S+1]: hidden of S tokens after the last norm, of the MTP module before lm_head, the indexers' losses."""
        S = ids.shape[1] - 1
        c, sn = cs(torch.arange(S, device=ids.device))
        x = s.emb(ids[:, :S])
        kls = []
        run = (
            (lambda b, *a: torch.utils.checkpoint.checkpoint(b, *a, use_reentrant=False))
            if ckpt
            else (lambda b, *a: b(*a))
        )
        for b in s.layers:
            x, kl = run(b, x, c, sn, mode, krows)
            kls.append(kl)
        h = s.norm(x)
        z = None
        if mtp:
            z, kl = run(s.mtp, s.join(s.emb(ids[:, 1:]), h), c, sn, mode, krows)
            kls.append(kl)
            z = s.mtp_norm(z)
        return h, z, (sum(kls) if krows is not None else None)

    @torch.no_grad()
    def document(s, ids, mode):
        """Inputs of every layer for a document's rows; the last entry is the MTP module's. ids [Nd+1], the last is the token after it."""
        n = ids.shape[0] - 1
        c, sn = cs(torch.arange(n, device=ids.device))
        x = s.emb(ids[:n])[None]
        xs = []
        for b in s.layers:
            xs.append(x[0])
            x, _ = b(x, c, sn, mode)
        xs.append(s.join(s.emb(ids[1:]), s.norm(x)[0]))
        return xs

    def rows(s, ids, xs, pos, nd, tail, mode, want_kl=True, mtp=True):
        """ids [N+1]; pos [R] rows, the last `tail` of which follow the document. As full, for those rows."""
        c, sn = cs(pos)
        cd, sd = cs(torch.arange(nd, device=ids.device))
        x = s.emb(ids[pos])
        kls = []
        for b, xd in zip(s.layers, xs):
            x, kl = b.rows(x, pos, c, sn, xd, cd, sd, tail, mode, want_kl)
            kls.append(kl)
        h = s.norm(x)
        z = None
        if mtp:
            z, kl = s.mtp.rows(
                s.join(s.emb(ids[pos + 1]), h), pos, c, sn, xs[-1], cd, sd, tail, mode, want_kl
            )
            kls.append(kl)
            z = s.mtp_norm(z)
        return h, z, (sum(kls) if want_kl else None)

    def head(s, h):
        return s.lm_head(h).float()

    @torch.no_grad()
    def balance(s, rate=1e-3):
        for b in list(s.layers) + [s.mtp]:
            if isinstance(b.mlp, MoE) and b.mlp.load is not None:
                b.mlp.bias += rate * (b.mlp.load.mean() - b.mlp.load).sign()
