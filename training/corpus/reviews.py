"""Short reviews and remarks with a clear sentiment, as plain text and as chat."""
import random

from .coding import draw

# thing: (parts of it, words that praise a part, words that blame a part)
THINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "hotel": (("room", "suite", "breakfast room", "pool", "lobby"), ("spotless", "comfortable", "charming", "quiet"), ("dirty", "cramped", "noisy", "shabby")),
    "restaurant": (("soup", "dessert", "salad", "pasta", "bread"), ("delicious", "excellent", "tasty", "fresh"), ("bland", "cold", "overpriced", "stale")),
    "cafe": (("coffee", "cake", "terrace", "music", "service"), ("lovely", "excellent", "pleasant", "wonderful"), ("poor", "unpleasant", "dreadful", "disappointing")),
    "movie": (("plot", "acting", "ending", "music", "dialogue"), ("brilliant", "gripping", "touching", "clever"), ("boring", "predictable", "clumsy", "weak")),
    "book": (("story", "style", "first chapter", "ending", "hero"), ("beautiful", "gripping", "wise", "vivid"), ("tedious", "confusing", "flat", "lifeless")),
    "phone": (("screen", "battery", "camera", "speaker", "case"), ("superb", "reliable", "excellent", "impressive"), ("faulty", "fragile", "useless", "disappointing")),
    "laptop": (("keyboard", "screen", "battery", "fan", "touchpad"), ("superb", "excellent", "reliable", "impressive"), ("poor", "cheap", "faulty", "flimsy")),
    "bicycle": (("frame", "saddle", "chain", "wheel", "brake"), ("solid", "smooth", "sturdy", "light"), ("rusty", "shaky", "crooked", "unreliable")),
    "train ride": (("seat", "carriage", "window", "dining car", "compartment"), ("comfortable", "clean", "splendid", "quiet"), ("filthy", "unbearable", "awful", "noisy")),
    "concert": (("band", "sound", "singer", "opening act", "last song"), ("amazing", "powerful", "lovely", "inspired"), ("dreadful", "messy", "tired", "lifeless")),
    "museum": (("first hall", "painting by the door", "shop", "garden", "old library"), ("fascinating", "wonderful", "elegant", "charming"), ("dull", "ugly", "dusty", "neglected")),
    "keyboard": (("sound", "cable", "space bar", "frame", "layout"), ("superb", "excellent", "impressive", "pleasing"), ("poor", "awful", "cheap", "disappointing")),
    "backpack": (("zipper", "strap", "fabric", "pocket", "back panel"), ("sturdy", "practical", "well made", "solid"), ("broken", "flimsy", "useless", "badly made")),
    "game": (("story", "level design", "music", "tutorial", "final battle"), ("thrilling", "clever", "delightful", "brilliant"), ("boring", "frustrating", "buggy", "repetitive")),
    "course": (("teacher", "first lesson", "homework", "book", "final exam"), ("inspiring", "clear", "helpful", "well prepared"), ("confusing", "useless", "dull", "badly prepared")),
    "bakery": (("bread", "apple cake", "cheesecake", "pie", "rye loaf"), ("delicious", "fresh", "tasty", "excellent"), ("stale", "dry", "bland", "disappointing")),
}
OPEN_GOOD = ("I love this {t}.", "What a wonderful {t}!", "This is a great {t}.", "I am delighted with this {t}.", "The {t} was a joy.",
             "I had a fantastic time with this {t}.", "This {t} made my day.", "The best {t} I have known.")
OPEN_BAD = ("I hate this {t}.", "What a terrible {t}!", "This is an awful {t}.", "I am disappointed with this {t}.", "The {t} was a disaster.",
            "I had a horrible time with this {t}.", "This {t} ruined my day.", "The worst {t} I have known.")
MIDDLE_GOOD = ("The {p} was {w} and the {q} was {v}.", "I liked the {w} {p}, and the {q} was {v} too.", "The {p} was truly {w}.",
               "Even the {q} was {v}, and the {p} was {w}.", "Above all, the {p} was {w}.", "I was happy to find the {p} so {w}.")
MIDDLE_BAD = ("The {p} was {w} and the {q} was {v}.", "I disliked the {w} {p}, and the {q} was {v} too.", "The {p} was simply {w}.",
              "Even the {q} was {v}, and the {p} was {w}.", "Worst of all, the {p} was {w}.", "I was sad to find the {p} so {w}.")
CLOSE_GOOD = ("I would recommend it to everyone.", "I will gladly come back to it.", "It was worth every cent.", "I could not be happier.",
              "My family enjoyed it as well.", "Five stars from me.", "I cannot praise it enough.", "It was a pleasure from start to end.")
CLOSE_BAD = ("I would not recommend it to anyone.", "I will never come back to it.", "It was a waste of money.", "I could not be more upset.",
             "My family regretted it as well.", "One star from me.", "I cannot warn you enough.", "It was a pain from start to end.")
# A request for a review is worded from these lists; one wording in six is kept for the evaluation.
QUESTION_START = ("", "", "Tell me: ", "Honestly, ", "One question: ", "I am curious: ")
QUESTION = ("what do you think of the {t}?", "how was the {t}?", "how did you like the {t}?", "how good was the {t}?", "what is your opinion of the {t}?",
            "how do you feel about the {t}?", "what can you say about the {t}?", "what was the {t} like?")
WISH = ("Write", "Please write", "Give me", "Can you write", "I need", "I want to read", "Share", "Please give me")
TEXT = ("a short review", "a review", "a remark", "your opinion", "a few sentences", "a comment", "some honest words")
TEXT_TONE = ("a {s} review", "a short {s} remark", "a few {s} sentences", "a {s} comment", "some {s} words", "a short {s} review")
ABOUT = ("of the {t}", "about the {t}", "on the {t}", "about this {t}", "on this {t}")
TONES = {True: ("positive", "kind", "glowing"), False: ("negative", "harsh", "angry")}


def review(rng: random.Random, good: bool, thing: str, sentences: int | None = None) -> str:
    """Two to four sentences about `thing`, all of one sentiment."""
    parts, praise, blame = THINGS[thing]
    opening, middle, closing = (OPEN_GOOD, MIDDLE_GOOD, CLOSE_GOOD) if good else (OPEN_BAD, MIDDLE_BAD, CLOSE_BAD)
    count = sentences or rng.choice((2, 3, 3, 4))
    chosen = [rng.choice(opening)] if rng.random() < 0.7 else []
    chosen += rng.sample(middle, max(1, count - 1 - len(chosen)))
    chosen.append(rng.choice(closing))
    lines = []
    for line in chosen:
        (p, q), (w, v) = rng.sample(parts, 2), rng.sample(praise if good else blame, 2)
        lines.append(line.format(t=thing, p=p, q=q, w=w, v=v))
    return " ".join(lines)


def ask(rng: random.Random, thing: str, tone: bool | None, held_out: bool = False) -> str:
    """A request for a review, of the training side or the held-out side; `tone` None leaves the sentiment open."""
    if tone is not None:
        text = draw(rng, held_out, WISH, TEXT_TONE, ABOUT).replace("{s}", rng.choice(TONES[tone]))
    elif rng.random() < 0.4:
        text = draw(rng, held_out, QUESTION_START, QUESTION, join="")
    else:
        text = draw(rng, held_out, WISH, TEXT, ABOUT)
    text = text[0].upper() + text[1:].format(t=thing)
    return text if text.endswith("?") else text + ("?" if text.startswith("Can") else ".")


def review_pairs(count: int, seed: int) -> list[dict[str, str]]:
    """Contrastive pairs: the same thing and the same length, praised and blamed."""
    rng, pairs = random.Random(seed), []
    while len(pairs) < count:
        thing, length, draw = rng.choice(tuple(THINGS)), rng.choice((2, 3)), rng.randrange(1 << 30)
        pair = {side: review(random.Random(draw), side == "positive", thing, length) for side in ("positive", "negative")}
        if pair not in pairs:
            pairs.append(pair)
    return pairs
