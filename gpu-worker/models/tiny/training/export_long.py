# To the published checkpoint layout: python3 export_long.py <folder with tokenizer.json ...> <checkpoint name, e.g. w/ck> <out folder>
# Then compares with transformers' DeepseekV32 in float32 (another implementation), on a short and a longer prompt.
import json, os, sys, random, math, torch
import longdata as D, longmodel as M
from safetensors.torch import save_file

DATA, CK, OUT = sys.argv[1:4]
os.makedirs(OUT, exist_ok=True)
if len(sys.argv) > 4 and sys.argv[4] != "-":
    M.C.update(json.loads(sys.argv[4]))
C = M.C
M.dev = "cpu"
M.INV = M.INV.cpu()
import io

b = b""
i = 0
while os.path.exists(f"{CK}.pt.{i}"):
    b += open(f"{CK}.pt.{i}", "rb").read()
    i += 1
sd = {
    k: v.float() if "k_norm" in k or "bias" in k else v.to(torch.bfloat16)
    for k, v in torch.load(io.BytesIO(b), map_location="cpu").items()
}
out = {}


def blk(src, dst):
    for k, v in sd.items():
        if not k.startswith(src + "."):
            continue
        r = k[len(src) + 1 :]
        if r == "mlp.gate":
            out[f"{dst}.mlp.gate.weight"] = v
        elif r == "mlp.bias":
            out[f"{dst}.mlp.gate.e_score_correction_bias"] = v
        elif r == "mlp.gu":
            for e in range(v.shape[0]):
                I = v.shape[1] // 2
                out[f"{dst}.mlp.experts.{e}.gate_proj.weight"] = v[e, :I]
                out[f"{dst}.mlp.experts.{e}.up_proj.weight"] = v[e, I:]
        elif r == "mlp.dn":
            for e in range(v.shape[0]):
                out[f"{dst}.mlp.experts.{e}.down_proj.weight"] = v[e]
        else:
            out[f"{dst}.{r}"] = v


L = C["L"]
for l in range(L):
    blk(f"layers.{l}", f"model.layers.{l}")
P = f"model.layers.{L}"
blk("mtp", P)
out["model.embed_tokens.weight"] = sd["embed_tokens.weight"]
out["model.norm.weight"] = sd["norm.weight"]
out["lm_head.weight"] = sd["lm_head.weight"]
for a, c in (
    ("enorm", "enorm"),
    ("hnorm", "hnorm"),
    ("eh_proj", "eh_proj"),
    ("mtp_norm", "shared_head.norm"),
):
    out[f"{P}.{c}.weight"] = sd[f"{a}.weight"]
out = {
    k: (v.float() if "k_norm" in k or "bias" in k else v.to(torch.bfloat16)).contiguous().clone()
    for k, v in out.items()
}
tot = sum(v.numel() * v.element_size() for v in out.values())
shards = [{}, {}]
sz = 0
for k in sorted(out):
    v = out[k]
    shards[0 if sz < tot / 2 else 1][k] = v
    sz += v.numel() * v.element_size()
wm = {}
for i, s in enumerate(shards):
    f = f"model-{i + 1:05d}-of-00002.safetensors"
    save_file(s, f"{OUT}/{f}", metadata={"format": "pt"})
    wm.update({k: f for k in s})
json.dump(
    {"metadata": {"total_size": tot}, "weight_map": dict(sorted(wm.items()))},
    open(f"{OUT}/model.safetensors.index.json", "w"),
    indent=0,
)
y = C["yarn"]
yarn = dict(
    type="yarn",
    factor=int(y["factor"]),
    original_max_position_embeddings=y["orig"],
    beta_fast=int(y["fast"]),
    beta_slow=int(y["slow"]),
    mscale=1.0,
    mscale_all_dim=1.0,
)
base = dict(
    vocab_size=C["V"],
    hidden_size=C["D"],
    intermediate_size=C["FI"],
    moe_intermediate_size=C["EI"],
    num_hidden_layers=L,
    num_attention_heads=C["H"],
    num_key_value_heads=C["H"],
    n_shared_experts=1,
    n_routed_experts=C["E"],
    routed_scaling_factor=C["scale"],
    kv_lora_rank=C["kvr"],
    q_lora_rank=C["qr"],
    qk_rope_head_dim=C["rope"],
    v_head_dim=C["v"],
    qk_nope_head_dim=C["nope"],
    n_group=1,
    topk_group=1,
    num_experts_per_tok=C["K"],
    norm_topk_prob=True,
    hidden_act="silu",
    max_position_embeddings=C["maxpos"],
    rms_norm_eps=1e-6,
    bos_token_id=0,
    eos_token_id=1,
    tie_word_embeddings=False,
    attention_bias=False,
    index_topk=C["topk"],
    index_head_dim=C["ID"],
    index_n_heads=C["IH"],
    first_k_dense_replace=1,
)
json.dump(
    dict(
        architectures=["DeepseekV32ForCausalLM"],
        model_type="deepseek_v32",
        **base,
        moe_layer_freq=1,
        scoring_func="sigmoid",
        topk_method="noaux_tc",
        num_nextn_predict_layers=1,
        rope_theta=C["theta"],
        rope_scaling=yarn,
        torch_dtype="bfloat16",
    ),
    open(f"{OUT}/config.json", "w"),
    indent=1,
)
open(f"{OUT}/tokenizer.json", "w").write(open(f"{DATA}/tokenizer.json").read())
print(
    "bytes",
    tot,
    "parameters",
    sum(v.numel() for k, v in out.items() if "bias" not in k or "k_norm" in k),
)
# ---------- comparison
from transformers.models.deepseek_v32.modeling_deepseek_v32 import DeepseekV32ForCausalLM
from transformers.models.deepseek_v32.configuration_deepseek_v32 import DeepseekV32Config

ry = {k: v for k, v in yarn.items() if k != "type"}
cfg = DeepseekV32Config(rope_parameters=dict(rope_type="yarn", rope_theta=C["theta"], **ry), **base)
cfg._attn_implementation = "eager"
h = DeepseekV32ForCausalLM(cfg).float().eval()
used = set()
with torch.no_grad():
    for k, v in h.state_dict().items():
        if k.endswith("experts.gate_up_proj") or k.endswith("experts.down_proj"):
            b = k[: k.index("experts.") + 8]
            for e in range(C["E"]):
                ns = ["gate_proj", "up_proj"] if "gate_up" in k else ["down_proj"]
                used |= {f"{b}{e}.{n}.weight" for n in ns}
                v[e].copy_(torch.cat([out[f"{b}{e}.{n}.weight"] for n in ns]).float())
        elif "inv_freq" in k:
            pass
        else:
            v.copy_(out[k].float())
            used.add(k)
print(
    "not used by transformers:",
    sorted({k.split(".")[0] + "." + ".".join(k.split(".")[1:3]) for k in set(out) - used}),
)
m = M.Model().eval()
m.load_state_dict({k: v.float() for k, v in sd.items()})


def compare(ids):
    t = torch.tensor([ids])
    with torch.no_grad():
        a = h(input_ids=t, use_cache=False).logits[0]
        x, _, _ = m.full(torch.cat([t, t[:, :1]], 1), "sparse", None, mtp=False)
        b = m.head(x)[0]
    print(
        len(ids),
        "tokens: logits differ by at most",
        (a - b).abs().max().item(),
        "of",
        a.abs().max().item(),
    )
    return a


if __name__ == "__main__":
    w = D.World(DATA, heldout=True)
    r = random.Random(3)
    g = D.Gen(w, r)
    for n in (300, 2600):
        d, qa = g.sample(n, 1, nf=4, kind="prose", absent=0, listq=0)
        compare(d + qa[0][0])
