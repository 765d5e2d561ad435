"""Small evaluation sets from the demo's own held-out text (two plays that no demo model was
trained on), so that `headless evaluate` has something to do without a model hub.

    scripts/demo_evaluation.py OUTPUT_DIR [--data data/demo] [--items 300] [--seed 0]
                               [--agreement FILE.tsv[.xz] [--pairs 2000]]
    headless evaluate --model runs/demo/headless \\
        --tasks lambada:OUTPUT_DIR/last_words.jsonl,blimp:OUTPUT_DIR/minimal_pairs.jsonl

last_words.jsonl, in LAMBADA's format {"text"}: passages of 40 to 60 words, no two of which overlap,
whose last word has at least four letters, is no function word and no name in capitals, follows a
blank, and occurs in the passage before its last five words. Unlike LAMBADA's, no reader has checked
that the word can be guessed.

minimal_pairs.jsonl, in BLiMP's format {"sentence_good", "sentence_bad", "UID"}: sentences of 4 to
25 words, each used once, line breaks made blanks, with one change by a rule whose outcome no
grammar of Early Modern English allows:
  agreement      after a subject pronoun the verb of another person, where that form belongs to no
                 mood of it: I am, thou art, he/she/it is, we/you/they are, … (AGREEMENT below);
                 "he were" or "he have" would be subjunctives, so he was and he has stay out; so do
                 subjects joined by and, or, nor, than
  article_order  an article and the word after it change places: the king -> king the
The agreement pairs come first, up to half of all; article_order fills up the rest.

With --agreement, tab-separated lines (subset, context, good verb, bad verb), such as the
subject-verb pairs of BIG-bench, become subject_verb.jsonl: a seeded sample of --pairs of them, the
verb being the last word of the sentence. The same arguments always give the same bytes.
"""

import argparse
import json
import lzma
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from headless.downstream.evaluation.tasks import Task, read_items
from headless.files import write_text

AGREEMENT = {
    ("I", "am"): "is",
    ("I", "have"): "has",
    ("thou", "art"): "is",
    ("thou", "hast"): "has",
    ("he", "is"): "are",
    ("she", "is"): "are",
    ("it", "is"): "are",
    ("we", "are"): "is",
    ("we", "have"): "has",
    ("we", "were"): "was",
    ("you", "are"): "is",
    ("you", "have"): "has",
    ("they", "are"): "is",
    ("they", "have"): "has",
    ("they", "were"): "was",
}
JOINING = {"and", "or", "nor", "than", "as", "but"}
ARTICLES = {"the", "a", "an"}
FUNCTION_WORDS = set(
    "about above after again against also although among another any are because been before being "
    "below beneath beside besides between beyond both cannot could dare dost doth down during each "
    "either else even ever every from further hast hath have having hence here hers herself hither "
    "himself however indeed into itself less made make many more most much must myself neither "
    "never none nothing only other others ought ours ourselves over said same shall shalt should "
    "since some still such than that thee their theirs them themselves then thence there therefore "
    "these they thine this thither those thou though through thus thyself till together toward "
    "under unless until unto upon very want well were wert what whatever when whence where "
    "wherefore whether which while whilst whither whom whose will wilt with within without would "
    "wouldst your yours yourself yourselves".split()
)
PASSAGE_WORDS = (40, 60)
SENTENCE_WORDS = (4, 25)


def last_words(texts: Sequence[str], items: int, draw: random.Random) -> list[dict[str, str]]:
    """Passages in LAMBADA's format; see above."""
    found = [passage for text in texts for passage in _passages(text, draw)]
    return [{"text": text} for text in draw.sample(found, min(items, len(found)))]


def _passages(text: str, draw: random.Random) -> Iterator[str]:
    """Passages from the beginning of a text to its end, each as early as it can begin."""
    words = list(re.finditer(r"\S+", text))
    begin = 0
    while begin + PASSAGE_WORDS[1] < len(words):
        for last in range(begin + draw.randint(*PASSAGE_WORDS) - 1, begin + PASSAGE_WORDS[1]):
            word = re.match(r"[A-Za-z]+", words[last].group())
            if word is None or text[words[last].start() - 1] != " ":
                continue
            target = word.group()
            before = " ".join(w.group() for w in words[begin : last - 5])
            if (
                len(target) >= 4
                and not target.isupper()
                and target.lower() not in FUNCTION_WORDS
                and re.search(rf"\b{target}\b", before)
            ):
                yield text[words[begin].start() : words[last].start() + len(target)]
                begin = last + 1
                break
        else:
            begin += 1


def minimal_pairs(texts: Sequence[str], items: int, draw: random.Random) -> list[dict[str, str]]:
    """Sentences and what a rule makes of them, in BLiMP's format; see above."""
    sentences = list(dict.fromkeys(s for text in texts for s in _sentences(text)))
    draw.shuffle(sentences)
    changed: dict[str, list[dict[str, str]]] = {"agreement": [], "article_order": []}
    for sentence in sentences:
        words = sentence.split(" ")
        for name, rule in (("agreement", _disagree), ("article_order", _exchange)):
            places = [bad for i in range(len(words) - 1) if (bad := rule(words, i))]
            if places:
                bad = " ".join(draw.choice(places))
                pair = {"sentence_good": sentence, "sentence_bad": bad, "UID": name}
                changed[name].append(pair)
                break
    agreement = changed["agreement"][: items // 2]
    return agreement + changed["article_order"][: items - len(agreement)]


def _sentences(text: str) -> Iterator[str]:
    """Sentences that are one speaker's own: no names in capitals, stage directions or numbers."""
    for paragraph in re.split(r"\n\s*\n", text):
        lines = paragraph.strip().split("\n")
        if re.fullmatch(r"[A-Z][A-Z .,']+\.", lines[0].strip()):
            lines = lines[1:]  # who speaks
        for sentence in re.split(r"(?<=[.!?])\s+", " ".join(" ".join(lines).split())):
            odd = re.search(r"[\[\]_\d\"()]|--|\b[A-Z]{2,}\b", sentence)
            number = len(sentence.split())
            low, high = SENTENCE_WORDS
            if odd is None and low <= number <= high and re.match(r"[A-Z].*[.!?]$", sentence):
                yield sentence


def _disagree(words: list[str], i: int) -> list[str] | None:
    """The verb after the pronoun at `i` in another person."""
    pronoun = words[i] if words[i] == "I" else words[i].lower()
    verb = re.fullmatch(r"([a-z]+)([,;:.!?]*)", words[i + 1])
    wrong = AGREEMENT.get((pronoun, verb.group(1))) if verb else None
    if wrong is None or verb is None or (i and words[i - 1].lower().strip(",;:") in JOINING):
        return None
    return [*words[: i + 1], wrong + verb.group(2), *words[i + 2 :]]


def _exchange(words: list[str], i: int) -> list[str] | None:
    """The article at `i` behind its word; capitals and signs keep their places."""
    noun = re.fullmatch(r"([a-z]+)([,;:.!?]*)", words[i + 1])
    if words[i].lower() not in ARTICLES or noun is None:
        return None
    first, second = noun.group(1), words[i].lower()
    if words[i][0].isupper():
        first = first.capitalize()
    return [*words[:i], first, second + noun.group(2), *words[i + 2 :]]


def subject_verb(path: Path, pairs: int, draw: random.Random) -> list[dict[str, str]]:
    """Pairs from tab-separated lines: subset, context, good verb, bad verb."""
    opened = lzma.open if path.suffix == ".xz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        lines = [line.rstrip("\n").split("\t") for line in file]
    if any(len(line) != 4 for line in lines):
        raise SystemExit(f"demo_evaluation: error: {path} needs four columns in every line")
    return [
        {"sentence_good": f"{context} {good}", "sentence_bad": f"{context} {bad}", "UID": subset}
        for subset, context, good, bad in draw.sample(lines, min(pairs, len(lines)))
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the files."""
    about, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", default="data/demo", help="a dataset of headless prepare")
    parser.add_argument("--items", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--agreement", type=Path, help="tab-separated subject-verb pairs")
    parser.add_argument("--pairs", type=int, default=2000)
    options = parser.parse_args(arguments)
    documents: list[Any] = read_items(Task("text", options.data)).items
    texts = [document["text"] for document in documents]
    files = {
        "last_words.jsonl": last_words(texts, options.items, random.Random(options.seed)),
        "minimal_pairs.jsonl": minimal_pairs(texts, options.items, random.Random(options.seed)),
    }
    if options.agreement:
        draw = random.Random(options.seed)
        files["subject_verb.jsonl"] = subject_verb(options.agreement, options.pairs, draw)
    options.output.mkdir(parents=True, exist_ok=True)
    for name, records in files.items():
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        write_text(options.output / name, "".join(lines))
        print(f"{options.output / name}: {len(records)} items")


if __name__ == "__main__":
    main()
