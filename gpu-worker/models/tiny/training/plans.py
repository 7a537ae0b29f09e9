# The three runs of train_long.py that made tiny-long: python3 plans.py writes plan-1.json, plan-2.json and plan-3.json.
# Each run starts from the checkpoint of the one before (copied to the folder start-2 or start-3). Seconds are of one H200.
import json


def F(w, mode, L, B, nq, **k):
    return dict(
        t="full", w=w, mode=mode, L=L, B=B, nq=nq, **k
    )  # whole sequences, with all gradients


def G(w, doc, mode, L, nq=[16, 24], rows=128):
    return dict(
        t="long", w=w, doc=doc, mode=mode, L=L, nq=nq, rows=rows
    )  # some rows of one long document


d, s = "dense", "sparse"
A = [
    F(0.15, d, 256, 256, [1, 2, 3, 4]),
    F(0.2, d, 512, 128, [1, 2, 4, 6]),
    F(0.65, d, 1024, 64, [2, 4, 8, 12], kr=8),
]
B = [
    F(0.15, d, 512, 64, [1, 2, 4, 6], lm=2048),
    F(0.3, d, 1024, 48, [2, 4, 8, 12], kr=8),
    F(0.2, d, 2048, 16, [2, 4, 8], kr=16),
    F(0.15, d, 4096, 8, [4, 8], kr=32),
    F(0.2, d, 8192, 4, [4, 8, 16], kr=64),
]


def S(z=1):
    return [
        F(0.15 * z, d, 256, 192, [1, 2, 3, 4]),
        F(0.2 * z, d, 512, 96, [1, 2, 4, 6]),
        F(0.35 * z, d, 1024, 64, [2, 4, 8, 12], kr=8),
        F(0.1 * z, d, 2048, 24, [2, 4, 8], kr=16),
        F(0.1 * z, d, 4096, 12, [4, 8], kr=32),
        F(0.1 * z, d, 8192, 6, [4, 8, 16], kr=64),
    ]


def X(w):
    return [
        F(w, s, 1024, 16, [2, 4, 8], kr=16, lm=2048),
        F(w, s, 4096, 4, [4, 8], kr=64, lm=2048),
        F(w, s, 16384, 1, [8, 16], kr=64, lm=2048),
    ]


ev = [[1000, 16, [d]], [16000, 8, [s]], [64000, 6, [d, s]], [128000, 4, [s]]]
runs = [
    dict(
        KA=8192,
        procs=15,
        seed=1,
        stages=[
            dict(
                name="A",
                secs=120,
                lr=[3e-3, 2e-3],
                lri=[2e-3, 2e-3],
                warm=200,
                kfrom=0.5,
                slots=[A],
                eval=[[1000, 16, [d]]],
            ),
            dict(
                name="B",
                secs=65,
                lr=[2e-3, 1.4e-3],
                lri=[2e-3, 1.7e-3],
                slots=[B],
                eval=[[8000, 16, [d, s]]],
            ),
        ],
    ),
    dict(
        KA=8192,
        procs=15,
        seed=2,
        resume="start-2/ck",
        stages=[
            dict(
                name="C2",
                secs=270,
                lr=[1.2e-3, 8e-4],
                lri=[1.5e-3, 1e-3],
                every=100,
                slots=[
                    S(),
                    S(0.4)
                    + [
                        G(0.2, d, d, 16384, [8, 16]),
                        G(0.2, d, d, 32768),
                        G(0.15, d, d, 65536),
                        G(0.05, d, d, 131072),
                        G(0.03, d, d, 163840),
                    ],
                ],
                eval=ev,
            ),
            dict(
                name="D",
                secs=150,
                lr=[8e-4, 4e-4],
                lri=[1e-3, 5e-4],
                every=100,
                slots=[
                    S() + X(0.06),
                    S(0.3)
                    + [
                        G(0.1, d, s, 16384, [8, 16]),
                        G(0.1, s, s, 32768),
                        G(0.1, d, d, 65536),
                        G(0.15, d, s, 65536),
                        G(0.1, d, s, 131072),
                        G(0.06, d, s, 163840),
                    ],
                ],
                eval=ev,
            ),
        ],
    ),
    dict(
        KA=8192,
        procs=15,
        seed=3,
        resume="start-3/ck",
        stages=[
            dict(
                name="E",
                secs=440,
                lr=[6e-4, 1.5e-5],
                lri=[1.2e-3, 5e-5],
                warm=40,
                bal=3e-4,
                every=100,
                slots=[
                    S() + X(0.03),
                    S(0.2)
                    + [
                        G(0.06, s, s, 16384, [8, 16]),
                        G(0.1, s, s, 32768),
                        G(0.1, s, s, 65536),
                        G(0.1, d, s, 65536),
                        G(0.2, d, s, 131072, [24, 40]),
                        G(0.05, s, s, 131072),
                        G(0.14, d, s, 163840, [24, 40]),
                    ],
                ],
            )
        ],
    ),
]
for i, p in enumerate(runs):
    json.dump(p, open(f"plan-{i + 1}.json", "w"), indent=1)
