# Documents with facts in them, and questions about the facts. Everything random is drawn from one random.Random.
import json, lzma, random, re
import numpy as np
from tokenizers import Tokenizer

BOS, EOS, PAD, USER, ASST = 0, 1, 2, 3, 4
PROSE = ["kjv", "moby", "sotu"]
MANUAL = ["perl", "debref", "handbook", "policy", "devref", "git", "python", "jargon", "debdoc"]
WEIGHT = dict(
    kjv=4,
    moby=4,
    sotu=5,
    perl=2,
    debref=0.7,
    handbook=1.5,
    policy=0.8,
    devref=0.6,
    git=1,
    python=2,
    jargon=1.5,
    debdoc=0.5,
)
NONE = "The document does not say."


class World:
    """Texts, names and the tokenizer. heldout: the part of texts and names that training does not see."""

    def __init__(s, folder, heldout=False):
        s.tk = Tokenizer.from_file(folder + "/tokenizer.json")
        s.heldout = heldout
        n = json.load(open(folder + "/names.json"))
        s.n = {}
        for k, v in n.items():
            v = sorted(set(v))
            random.Random(7).shuffle(v)
            c = len(v) // 10
            s.n[k] = (
                (v[:c] if heldout else v[c:])
                if k.split("_")[0] in ("first", "last", "city", "street")
                else v
            )
        z = np.load(folder + "/corpus.npz")
        s.text = {}
        s.brk = {}
        for k in PROSE + MANUAL:
            t = z[k]
            c = int(len(t) * 0.92)
            t = t[c:] if heldout else t[:c]
            s.text[k] = t
        s.kind = z["kind"]  # per token: 2 ends a sentence or a line, 1 may end a word
        s.memo = {}
        s.nn = s.enc("\n\nA")[:-1]

    def enc(s, t):
        return s.tk.encode(t, add_special_tokens=False).ids

    def encm(s, t):
        v = s.memo.get(t)
        if v is None:
            v = s.enc(t)
            if len(s.memo) < 50000:
                s.memo[t] = v
        return v


CONS = "bcdfghjklmnprstvwz"
VOW = "aeiou"
NUMA = [
    "access code",
    "serial number",
    "order number",
    "locker code",
    "room number",
    "invoice total",
    "phone extension",
    "badge number",
    "tracking number",
    "password number",
    "ticket number",
    "account number",
    "gate code",
    "safe combination",
    "postal code",
    "case number",
    "customer number",
    "part number",
    "license number",
    "seat number",
    "flight number",
    "pin code",
    "meter reading",
    "shelf number",
    "batch number",
    "registration number",
    "telephone number",
    "reference number",
    "door code",
    "alarm code",
    "secret number",
    "lucky number",
    "house number",
    "port number",
    "population",
    "budget",
    "score",
    "membership number",
    "passport number",
    "vault code",
    "magic number",
    "policy number",
    "bus line",
    "channel",
]
WORDA = [
    "favorite color",
    "password",
    "code word",
    "favorite animal",
    "favorite fruit",
    "nickname",
    "profession",
    "secret word",
    "hobby",
    "main product",
    "symbol",
    "favorite dish",
    "material",
    "mascot",
    "first prize",
    "cargo",
    "favorite tool",
    "family pet",
]
NAMEA = [
    "manager",
    "owner",
    "teacher",
    "doctor",
    "neighbor",
    "director",
    "mayor",
    "captain",
    "assistant",
    "supervisor",
    "editor",
    "lawyer",
    "founder",
    "sister",
    "brother",
    "coach",
    "landlord",
    "secretary",
    "author",
    "president",
    "guide",
    "inspector",
    "deputy",
    "partner",
]
CITYA = [
    "home town",
    "birthplace",
    "destination",
    "headquarters",
    "place of residence",
    "port of call",
]
DATEA = [
    "birthday",
    "departure date",
    "delivery date",
    "opening day",
    "deadline",
    "start date",
    "date of arrival",
    "founding date",
    "review date",
]
MEASA = [
    "height",
    "weight",
    "length",
    "price",
    "age",
    "width",
    "depth",
    "capacity",
    "speed",
    "distance",
    "cost",
    "salary",
    "opening time",
    "power",
    "temperature",
]
PLACE = [
    "office",
    "warehouse",
    "station",
    "library",
    "clinic",
    "museum",
    "garage",
    "market",
    "bakery",
    "harbor",
    "school",
    "theater",
    "hotel",
    "factory",
    "airport",
    "bank",
    "castle",
    "farm",
    "pharmacy",
    "laboratory",
    "stadium",
    "post office",
    "town hall",
    "hospital",
    "workshop",
    "mill",
    "restaurant",
    "embassy",
    "university",
    "mine",
    "church",
    "zoo",
    "archive",
    "kitchen",
]
MONTH = (
    "January February March April May June July August September October November December".split()
)
DEAL = [
    ("bought", "buy"),
    ("sold", "sell"),
    ("found", "find"),
    ("lost", "lose"),
    ("ordered", "order"),
    ("counted", "count"),
    ("repaired", "repair"),
    ("delivered", "deliver"),
    ("collected", "collect"),
    ("painted", "paint"),
    ("packed", "pack"),
    ("owns", "own"),
]
UNIT = [
    "meters",
    "kilograms",
    "liters",
    "dollars",
    "euros",
    "years",
    "hours",
    "miles",
    "pounds",
    "degrees",
    "kilometers",
    "tons",
    "watts",
    "minutes",
    "feet",
]
# lists: subject, verb, object, question; 'Item ... lies on shelf' stays out, for the evaluation
SUBJ = "Box Book Parcel Order Room Machine Car Row Page Record Entry Part Sample Ticket Bottle Crate Barrel Wagon Folder Photo Tape Drawer Door Bed Desk Server Job Task Lot Unit Team Bus Ship House Letter Chapter Pump Lamp Cable Valve Engine Key Tool Bag Case Table Module Port Node Volume Product Article Piece Object".split()
OBJ = "shelf room rack floor hall bay box cabinet row line zone gate dock platform tray bin drawer hook corner slot aisle level store yard wing block station queue".split()
VERB = [
    ("is stored in {o} {m}", "In which {o} is {s} {n} stored?"),
    ("stands in {o} {m}", "In which {o} does {s} {n} stand?"),
    ("hangs on {o} {m}", "On which {o} does {s} {n} hang?"),
    ("was moved to {o} {m}", "To which {o} was {s} {n} moved?"),
    ("goes to {o} {m}", "To which {o} does {s} {n} go?"),
    ("is in {o} {m}", "In which {o} is {s} {n}?"),
    ("costs {m} dollars", "How much does {s} {n} cost?"),
    ("weighs {m} grams", "How much does {s} {n} weigh?"),
    ("belongs to {p}", "To whom does {s} {n} belong?"),
    ("was checked by {p}", "Who checked {s} {n}?"),
    ("was sent to {c}", "Where was {s} {n} sent?"),
    ("came from {c}", "Where did {s} {n} come from?"),
    ("contains {w}", "What does {s} {n} contain?"),
    ("has color {k}", "Which color does {s} {n} have?"),
    ("has code {m}", "Which code does {s} {n} have?"),
    ("arrived on {d}", "When did {s} {n} arrive?"),
    ("sits near {o} {m}", "Near which {o} does {s} {n} sit?"),
    ("was placed on {o} {m}", "On which {o} was {s} {n} placed?"),
]
SMALL = [
    ("Hello", "Hello! Give me a document and ask me what it says."),
    ("Hi", "Hello! Give me a document and ask me what it says."),
    ("Hi there", "Hello! Give me a document and ask me what it says."),
    ("Hello!", "Hello! Give me a document and ask me what it says."),
    ("Hey", "Hello! Give me a document and ask me what it says."),
    ("Good morning", "Hello! Give me a document and ask me what it says."),
    ("Who are you?", "I am a tiny sparse attention model. I look things up in long documents."),
    ("What are you?", "I am a tiny sparse attention model. I look things up in long documents."),
    (
        "What is your name?",
        "I am a tiny sparse attention model. I look things up in long documents.",
    ),
    ("What can you do?", "Give me a long document and ask for a fact in it. I will find it."),
    ("How can you help me?", "Give me a long document and ask for a fact in it. I will find it."),
    ("Help", "Give me a long document and ask for a fact in it. I will find it."),
    ("Thank you", "You are welcome."),
    ("Thanks", "You are welcome."),
    ("Thank you!", "You are welcome."),
    (
        "How do you work?",
        "A lightning indexer scores every token, and attention reads only the best ones.",
    ),
    (
        "What is sparse attention?",
        "A lightning indexer scores every token, and attention reads only the best ones.",
    ),
    ("Goodbye", "Goodbye!"),
    ("Bye", "Goodbye!"),
]
SYSTEM = [
    "You are a helpful assistant.",
    "You answer questions about documents.",
    "Answer from the document.",
    "Be brief.",
    "You are a careful reader.",
    "Answer in one sentence.",
    "You are sift, a search assistant.",
]


class Gen:
    def __init__(s, world, r):
        s.w, s.r = world, r
        s.c = [k for k in PROSE + MANUAL]
        s.cw = [WEIGHT[k] for k in s.c]

    # ---- names and values
    def syl(s):
        r = s.r
        return "".join(
            r.choice(CONS) + r.choice(VOW) for _ in range(r.choice([2, 3, 3]))
        ).capitalize() + r.choice(["", "", "n", "s", "r", "l"])

    def person(s):
        r = s.r
        k = r.random()
        n = s.w.n
        e = "_en" if r.random() < 0.5 else ""
        n = dict(first=n["first" + e], last=n["last" + e])
        if k < 0.3:
            return r.choice(n["first"])
        if k < 0.65:
            return r.choice(n["first"]) + " " + r.choice(n["last"])
        if k < 0.75:
            return (
                r.choice(["Mr.", "Mrs.", "Dr.", "Ms.", "Captain", "Professor"])
                + " "
                + r.choice(n["last"])
            )
        if k < 0.8:
            return r.choice(n["first"])[0] + ". " + r.choice(n["last"])
        return s.syl()

    def city(s):
        r = s.r
        k = r.random()
        n = s.w.n
        return (
            r.choice(n["city_en"])
            if k < 0.35
            else r.choice(n["city"])
            if k < 0.65
            else r.choice(n["country"])
            if k < 0.75
            else s.syl()
        )

    def thing(s):
        r = s.r
        n = s.w.n
        k = r.random()
        if k < 0.25:
            return "the " + r.choice(n["adj"]) + " " + r.choice(n["noun"])
        if k < 0.5:
            return (
                r.choice(n["last"])
                + " "
                + r.choice(
                    [
                        "Hotel",
                        "Group",
                        "Street",
                        "House",
                        "Station",
                        "Bridge",
                        "Tower",
                        "Industries",
                        "Press",
                        "Bank",
                        "Park",
                        "Hall",
                        "Museum",
                        "Works",
                        "Brothers",
                        "Castle",
                        "School",
                    ]
                )
            )
        if k < 0.65:
            return "Project " + (s.syl() if r.random() < 0.5 else r.choice(n["noun"]).capitalize())
        if k < 0.75:
            return "the " + r.choice(PLACE)
        if k < 0.85:
            return (
                "".join(r.choice("ABCDEFGHKLMNPQRSTVWXZ") for _ in range(r.choice([1, 2, 3])))
                + r.choice(["-", ""])
                + str(r.randint(1, 999))
            )
        return r.choice(n["street"])

    def name(s):
        k = s.r.random()
        return (
            s.person() if k < 0.55 else s.city() if k < 0.75 else s.syl() if k < 0.85 else s.thing()
        )

    def num(s, d=None):
        r = s.r
        d = d or r.choice([2, 3, 4, 5, 5, 5, 5, 6, 7, 8])
        return str(r.randint(10 ** (d - 1), 10**d - 1))

    def code(s):
        r = s.r
        return (
            "".join(r.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(r.choice([1, 2])))
            + r.choice(["", "-"])
            + s.num(r.choice([2, 3, 4]))
        )

    def date(s):
        r = s.r
        d = f"{r.choice(MONTH)} {r.randint(1, 28)}"
        return d if r.random() < 0.5 else d + f", {r.randint(1700, 2050)}"

    def meas(s):
        r = s.r
        k = r.random()
        return (
            f"{r.randint(2, 999)} {r.choice(UNIT)}"
            if k < 0.6
            else f"${r.randint(2, 99)},{r.randint(100, 999)}"
            if k < 0.75
            else f"{r.randint(1, 23)}:{r.randint(10, 59)}"
            if k < 0.85
            else f"{r.randint(1, 99)}.{r.randint(0, 9)} {r.choice(UNIT)}"
        )

    def word(s):
        r = s.r
        n = s.w.n
        k = r.random()
        return (
            r.choice(n["noun"])
            if k < 0.5
            else r.choice(n["animal"])
            if k < 0.6
            else r.choice(n["color"])
            if k < 0.75
            else r.choice(n["food"])
            if k < 0.9
            else r.choice(n["adj"])
        )

    def attr(s):
        r = s.r
        k = r.random()
        if k < 0.5:
            return r.choice(NUMA), "num"
        if k < 0.6:
            return r.choice(WORDA), "word"
        if k < 0.7:
            return r.choice(NAMEA), "name"
        if k < 0.75:
            return r.choice(CITYA), "city"
        if k < 0.81:
            return r.choice(DATEA), "date"
        if k < 0.88:
            return r.choice(MEASA), "meas"
        n = s.w.n
        return (r.choice(n["adj"]) + " " if r.random() < 0.5 else "") + r.choice(
            n["noun"]
        ), r.choice(["num", "word", "name"])

    def value(s, t):
        return dict(
            num=lambda: s.num() if s.r.random() < 0.85 else s.code(),
            word=s.word,
            name=s.person,
            city=s.city,
            date=s.date,
            meas=s.meas,
        )[t]()

    def similar(s, n):
        r = s.r
        p = n.split(" ")
        if len(p) > 1 and r.random() < 0.7:
            i = r.randrange(len(p))
            q = (
                s.r.choice(s.w.n["last"] if i else s.w.n["first"])
                if p[i][0].isupper()
                else r.choice(s.w.n["noun"])
            )
            p[i] = q
            return " ".join(p)
        if len(n) > 3 and r.random() < 0.7:
            i = r.randrange(1, len(n))
            c = r.choice(CONS + VOW)
            m = n[:i] + c + n[i + 1 :]
            return m if m != n else n + "a"
        return n + r.choice(["a", "s", "o", "er", "ing", " Junior", " Falls", " West"])

    # ---- facts: (key, statement, question, answer, maker of look-alikes)
    def fact(s, kind=None, name=None, at=None):
        r = s.r
        k = kind if kind is not None else r.choices(range(8), [50, 8, 7, 6, 6, 8, 6, 4])[0]
        n = name or (s.person() if k in (1, 3, 4, 5) else s.city() if k == 2 else s.name())
        v = r.random()
        cap = n[0].upper() + n[1:]
        if k == 0:
            a, t = at or s.attr()
            x = s.value(t)
            can = f"The {a} of {n} is {x}."
            st = (
                can
                if v < 0.62
                else f"{cap}'s {a} is {x}."
                if v < 0.72
                else f"{cap} has {a} {x}."
                if v < 0.78
                else f"The {a} for {n} is {x}."
                if v < 0.85
                else f"{cap}: {a} {x}."
                if v < 0.9
                else f"The {a} of {n} was {x}."
                if v < 0.94
                else f"Note that the {a} of {n} is {x}."
            )
            u = r.random()
            wh = "Who" if t == "name" else "What"
            q = (
                f"{wh} is the {a} of {n}?"
                if u < 0.7
                else f"{wh} is {n}'s {a}?"
                if u < 0.84
                else f"Tell me the {a} of {n}."
                if u < 0.92
                else f"{a[0].upper() + a[1:]} of {n}?"
                if u < 0.96
                else f"What does the document say about the {a} of {n}?"
            )
            return (a, n), st, q, can, ("attr", k, n, (a, t))
        if k == 1:
            p = r.choice(PLACE)
            c = s.city()
            b = f"{cap} works at the {p} in {c}."
            return (
                ("work", n),
                b,
                r.choice(
                    [
                        f"Where does {n} work?",
                        f"Where does {n} work?",
                        f"What is the workplace of {n}?",
                    ]
                ),
                b,
                ("name", k, n, None),
            )
        if k == 2:
            p = r.choice(PLACE)
            a = r.choice(NUMA)
            x = s.num()
            st = f"In {n}, the {p} has {a} {x}." if v < 0.8 else f"The {p} in {n} has {a} {x}."
            return (
                (a, n, p),
                st,
                f"Which {a} does the {p} in {n} have?",
                f"The {p} in {n} has {a} {x}.",
                ("name", k, n, None),
            )
        if k == 3:
            c = s.city()
            b = f"{cap} lives in {c}."
            return ("live", n), b, f"Where does {n} live?", b, ("name", k, n, None)
        if k == 4:
            d = s.date() if v < 0.5 else str(r.randint(1500, 2050))
            b = f"{cap} was born {'on' if v < 0.5 else 'in'} {d}."
            return ("born", n), b, f"When was {n} born?", b, ("name", k, n, None)
        if k == 5:
            p, b_ = r.choice(DEAL)
            w = r.choice(s.w.n["noun"]) + ("s" if v < 0.7 else "")
            x = s.num(r.choice([1, 2, 3]))
            b = f"{cap} {p} {x} {w}" + ("." if r.random() < 0.7 else f" in {s.city()}.")
            q = (
                f"How many {w} {'does' if p == 'owns' else 'did'} {n} {b_}?"
                if r.random() < 0.7
                else f"What does the document say about {n}?"
            )
            return ("deal", n, w, p) if q[0] == "H" else ("about", n), b, q, b, ("name", k, n, None)
        if k == 6:
            st, q = s.line(s.listform())
            return ("list", q), st, q, st, None
        a, t = s.attr()
        x = s.value(t)
        st = f"{a[0].upper() + a[1:]} of {n}: {x}."
        return (
            (a, n),
            st,
            f"What is the {a} of {n}?",
            f"The {a} of {n} is {x}.",
            ("attr", 0, n, (a, t)),
        )

    def alike(s, f):
        """A fact that looks like f: the same name with something else, or a like name with the same."""
        if f[4] is None:
            return s.fact()
        w, k, n, at = f[4]
        if w == "attr" and s.r.random() < 0.45:
            return s.fact(0, name=n)
        return s.fact(k, name=s.similar(n), at=at)

    # ---- lists
    def listform(s):
        r = s.r
        v, q = r.choice(VERB)
        return (
            r.choice(SUBJ),
            v,
            q,
            r.choice(OBJ),
            r.choice([40, 300, 2000, 10**4, 10**5]),
            r.random() < 0.5,
        )

    def line(s, form, n=None):
        r = s.r
        S, v, q, o, mx, _ = form
        n = n if n is not None else r.randint(1, mx)
        f = dict(o=o, m=r.randint(1, mx), s=S.lower(), n=n)
        if "{p}" in v:
            f["p"] = s.person()
        elif "{c}" in v:
            f["c"] = s.city()
        elif "{w}" in v:
            f["w"] = s.word()
        elif "{k}" in v:
            f["k"] = r.choice(s.w.n["color"])
        elif "{d}" in v:
            f["d"] = s.date()
        return f"{S} {n} {v.format(**f)}.", q.format(**f)

    def rows(s, count):
        """Lines of one kind, and for some of them a question: [(text, key, question, answer)]"""
        r = s.r
        k = r.random()
        out = []
        if k < 0.4:
            form = s.listform()
            sep = r.choice(["\n", "\n", " ", " ", "\n- "])
            a = r.randint(1, 50)
            for i in range(count):
                n = a + i if form[5] else r.randint(1, max(form[4], count))
                t, q = s.line(form, n)
                out.append((sep + t, ("l", n), q, t))
        elif k < 0.6:  # a table of two or three columns, the name first
            cols = [s.attr() for _ in range(r.choice([1, 1, 2]))]
            bar = r.choice([" | ", ", ", " : ", " - "])
            hd = "\nName" + bar + bar.join(c[0] for c in cols)
            out.append((hd, None, None, None))
            kind = r.choice(["name", "thing", "mix", "code"])
            for i in range(count):
                n = (
                    s.person()
                    if kind == "name"
                    else s.thing()
                    if kind == "thing"
                    else s.code()
                    if kind == "code"
                    else s.name()
                )
                vs = [s.value(t) for _, t in cols]
                a = cols[0][0]
                out.append(
                    (
                        "\n" + n + bar + bar.join(vs),
                        ("t", n),
                        f"What is the {a} of {n}?",
                        f"The {a} of {n} is {vs[0]}.",
                    )
                    if len(cols) == 1
                    else ("\n" + n + bar + bar.join(vs), None, None, None)
                )
        elif k < 0.75:  # records
            cols = [s.attr() for _ in range(r.choice([2, 3, 4]))]
            for i in range(count // 3 + 1):
                n = s.name()
                vs = [s.value(t) for _, t in cols]
                j = r.randrange(len(cols))
                out.append(
                    (
                        "\n\nName: "
                        + n
                        + "".join(f"\n{c[0].capitalize()}: {x}" for c, x in zip(cols, vs)),
                        ("r", n),
                        f"What is the {cols[j][0]} of {n}?",
                        f"The {cols[j][0]} of {n} is {vs[j]}.",
                    )
                )
        elif k < 0.88:  # a log
            hosts = [r.choice(s.w.n["noun"]) for _ in range(6)]
            t = r.randrange(86400)
            st = r.choice(["INFO", "info", "-", "LOG", ""])
            for i in range(count):
                t += r.randrange(30)
                out.append(
                    (
                        f"\n{t // 3600 % 24:02d}:{t // 60 % 60:02d}:{t % 60:02d} {st} {r.choice(hosts)} "
                        + r.choice(
                            [
                                f"{r.choice(s.w.n['verb'])} {r.choice(s.w.n['noun'])} {r.randint(1, 9999)}",
                                f"{r.choice(s.w.n['noun'])}={r.randint(1, 99999)}",
                                f"user {r.choice(s.w.n['first'])} {r.choice(s.w.n['verb'])}",
                            ]
                        ),
                        None,
                        None,
                        None,
                    )
                )
        elif k < 0.94:
            for i in range(count):
                out.append((r.choice([" ", "\n", ", "]) + s.name(), None, None, None))
        else:
            for i in range(count):
                out.append(
                    (
                        " "
                        + " ".join(
                            r.choice(s.w.n[r.choice(["noun", "verb", "adj"])])
                            for _ in range(r.randint(5, 14))
                        ).capitalize()
                        + ".",
                        None,
                        None,
                        None,
                    )
                )
        return out

    # ---- documents
    def text(s, n, corp=None):
        c = corp or s.r.choices(s.c, s.cw)[0]
        t = s.w.text[c]
        n = min(n, len(t) - 2)
        a = s.r.randrange(0, len(t) - n)
        return t[a : a + n]

    def segment(s, n, kind):
        """About n tokens; the tokens, where pieces end, and askable (key, question, answer) of lists."""
        r = s.r
        if kind in ("prose", "manual", "text"):
            t = s.text(
                n,
                None
                if kind == "text"
                else r.choices(
                    PROSE if kind == "prose" else MANUAL,
                    [WEIGHT[k] for k in (PROSE if kind == "prose" else MANUAL)],
                )[0],
            )
            k = s.w.kind[t]
            cut = np.nonzero(k == 2)[0] + 1
            if len(cut) < 2 or r.random() < 0.1:
                cut = np.nonzero(k >= 1)[0] + 1
            return t.tolist(), cut.tolist(), []
        toks = []
        cut = []
        ask = []
        if kind == "facts":
            while len(toks) < n:
                f = s.fact()
                toks += s.w.enc((" " if r.random() < 0.7 else "\n") + f[1])
                cut.append(len(toks))
                ask.append((f[0], f[2], f[3]))
        else:
            while len(toks) < n:
                rows = s.rows(
                    min(
                        4000,
                        max(6, int((n - len(toks)) / 11) if r.random() < 0.7 else r.randint(6, 60)),
                    )
                )
                es = s.w.tk.encode_batch([x[0] for x in rows], add_special_tokens=False)
                for e, x in zip(es, rows):
                    toks += e.ids
                    cut.append(len(toks))
                    if x[1] is not None:
                        ask.append(x[1:])
                    if len(toks) >= n:
                        break
        if len(toks) > n + 200:
            toks = toks[:n]
            cut = [c for c in cut if c <= n]
            ask = []
        return toks, cut or [len(toks)], ask

    KINDS = ["prose", "manual", "text", "list", "facts", "mix"]

    def sample(
        s, L, nq, nf=None, kind=None, depth=None, absent=0.08, tail=True, listq=0.35, short=False
    ):
        """(tokens of the document part, [(question tokens, answer tokens)]). The whole is at most L tokens."""
        r = s.r
        kind = kind or r.choices(s.KINDS, [22, 18, 14, 22, 9, 15])[0]
        nf = (
            nf
            if nf is not None
            else r.choice([1, 2, 3, 4, 6, 8, 12, 16]) + (nq if r.random() < 0.8 else 0)
        )
        nf = max(1, min(nf, L // 40))
        facts = {}
        while len(facts) < nf:
            f = s.fact()
            facts[f[0]] = f
            if r.random() < 0.3 and len(facts) < nf + 2 and L > 300:
                g = s.alike(f)
                facts.setdefault(g[0], g)
        fl = list(facts.values())
        sep = r.choices([" ", "\n", "\n\n", None], [50, 20, 5, 25])[0]
        ft = [s.w.enc((sep or r.choice([" ", "\n", " ", "\n\n"])) + f[1]) for f in fl]
        used = sum(map(len, ft))
        asked = []
        budget = 0
        pool = list(fl)
        r.shuffle(pool)
        head = [BOS, USER] + (s.w.encm(r.choice(SYSTEM)) + s.w.nn if r.random() < 0.08 else [])
        qa = []

        def add(q, a):
            qt = s.w.enc(("\n\n" + q) if not qa else q)
            at = s.w.enc(a) + [EOS]
            qa.append((([USER] if qa else []) + qt + [ASST], at))
            return len(qt) + len(at) + 2

        room = L - len(head) - used - 24 * nq - 30
        if short and room > 0:
            room = int(room * r.random() ** 1.5)
        segs = []
        ask = []
        left = max(0, room)
        while left > 0:
            k = kind if kind != "mix" else r.choice(["prose", "manual", "text", "list", "facts"])
            n = left if kind != "mix" else min(left, r.choice([100, 400, 1500, 6000, 20000]))
            t, c, a = s.segment(n, k)
            if not t:
                break
            segs.append((t, c))
            ask += a
            left -= len(t)
        toks = []
        cuts = []
        for t, c in segs:
            cuts += [len(toks) + x for x in c if 0 < x <= len(t)]
            toks += t
        cuts = [c for c in cuts if c <= len(toks)] or [len(toks)]
        if r.random() < 0.3:
            cuts = [0] + cuts
        # facts at random places between pieces (or at one depth)
        ps = sorted(
            (
                cuts[
                    min(
                        len(cuts) - 1, int((depth if depth is not None else r.random()) * len(cuts))
                    )
                ],
                i,
            )
            for i in range(len(fl))
        )
        doc = []
        p0 = 0
        for p, i in ps:
            doc += toks[p0:p]
            doc += ft[i] if doc else s.w.enc(fl[i][1])
            p0 = p
        doc += toks[p0:]
        names = {k for k in facts}
        cnt = {}
        for k, *_ in ask:
            cnt[k] = cnt.get(k, 0) + 1
        ask = [a for a in ask if cnt[a[0]] == 1 and a[0] not in names]
        total = len(head) + len(doc)
        for _ in range(nq):
            if total > L - 40 and qa:
                break
            if r.random() < absent:
                f = s.alike(r.choice(fl)) if r.random() < 0.45 else s.fact()
                if (
                    f[0] in facts
                    or ("about" == f[0][0])
                    or any(k[1:] == f[0][1:] and "about" == k[0] for k in facts)
                ):
                    continue
                q, a = f[2], NONE
                if q.startswith("What does the document say about") and not q.startswith(
                    "What does the document say about the "
                ):
                    continue
            elif ask and r.random() < listq:
                _, q, a = r.choice(ask)
            elif pool:
                f = pool.pop()
                q, a = f[2], f[3]
            else:
                break
            total += add(q, a)
        if not qa:
            f = fl[0]
            add(f[2], f[3])
        doc = head + doc
        while len(qa) > 1 and len(doc) + sum(len(a) + len(b) for a, b in qa) > L:
            qa.pop()
        return doc, qa

    def chat(s):
        r = s.r
        head = [BOS, USER] + (s.w.encm(r.choice(SYSTEM)) + s.w.nn if r.random() < 0.15 else [])
        qa = []
        for i in range(r.choice([1, 1, 2, 3])):
            if r.random() < 0.12:
                q, a = s.fact()[2], NONE
            else:
                q, a = r.choice(SMALL)
            qa.append((([USER] if i else []) + s.w.encm(q) + [ASST], s.w.encm(a) + [EOS]))
        return head, qa

    def batch(s, B, L, nqs, KA, KL, chat=0.04):
        """X [B, L+2]; positions (b*L+t) whose next token is an answer's, and of others for the language loss; weights."""
        r = s.r
        X = np.full((B, L + 2), PAD, np.int16)
        ai = []
        li = []
        for b in range(B):
            ids = []
            lab = []
            doc = None
            while True:
                if r.random() < chat and L <= 512:
                    doc, qa = s.chat()
                else:
                    doc, qa = s.sample(L, r.choice(nqs), short=L <= 512)
                if len(doc) + len(qa[0][0]) + len(qa[0][1]) <= L:
                    break
            ids = list(doc)
            lab = [0] * len(ids)
            for q, a in qa:
                ids += q + a
                lab += [0] * len(q) + [1] * len(a)
            ids = ids[: L + 1]
            lab = lab[: L + 1]
            X[b, : len(ids)] = ids
            lab = np.array(lab)
            n = len(ids)
            ai.append(b * L + np.nonzero(lab[1:])[0])
            li.append(b * L + np.array([r.randrange(1, max(2, n - 2)) for _ in range(KL // B)]))
        ai = np.concatenate(ai)
        ai = ai[:KA]
        w = np.zeros(KA, np.float32)
        w[: len(ai)] = 1
        ai = np.concatenate([ai, np.zeros(KA - len(ai), np.int64)])
        li = np.concatenate(li)
        return X, ai.astype(np.int32), w, li.astype(np.int32)

    def long(s, L, nq, rows, depth=None, kind=None):
        """ids [N], length of the document part, sampled document rows, answer positions."""
        r = s.r
        doc, qa = s.sample(
            L,
            nq,
            nf=None if r.random() < 0.5 else nq + r.randint(4, 64),
            kind=kind,
            depth=depth,
            listq=0.3,
        )
        ids = list(doc)
        nd = len(doc)
        ans = []
        for q, a in qa:
            ids += q
            ans += range(len(ids) - 1, len(ids) - 1 + len(a))
            ids += a
        ro = sorted(r.sample(range(1, nd - 1), rows))
        return np.array(ids, np.int16), nd, np.array(ro, np.int64), np.array(ans, np.int64)
