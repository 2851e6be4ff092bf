"""Documents of some languages by number, and some with which cleaning has something to do."""

from __future__ import annotations

import random
from collections.abc import Mapping

_PARTS: Mapping[str, tuple[str, ...]] = {
    "en": (
        "The old miller|A young captain|The judge of the town|Her brother|The gardener|"
        "Every student|The ferryman|A tired doctor",
        "carried|counted|painted|forgot|mended|sold|described|followed",
        "the letters|a broken clock|seven barrels of salt|the maps that nobody wanted|"
        "a basket with apples|the longest rope|an unfinished violin|an empty cage",
        "to the harbour before sunrise|and went home with the others|in the garden of the mill|"
        "while the bells were ringing|because the winter had been hard|along the river and back|"
        "for three silver coins|until the lamps went out",
    ),
    "de": (
        "Der alte Müller|Eine junge Kapitänin|Der Richter aus der Stadt|Ihr Bruder|Die Gärtnerin|"
        "Jeder Schüler|Der Fährmann|Die müde Ärztin",
        "trug|zählte|malte|vergaß|flickte|verkaufte|beschrieb|suchte",
        "die Briefe|eine zerbrochene Uhr|sieben Fässer mit Salz|die Karten von der Küste|"
        "einen Korb und zwei Äpfel|das längste Seil|die unfertige Geige|den leeren Käfig",
        "vor Sonnenaufgang in den Hafen|und ging mit den anderen nach Hause|in dem Garten bei der "
        "Mühle|zu der Zeit, in der die Glocken läuten|nach einem Winter, der hart gewesen ist|"
        "am Fluss, nicht am See|zu einem Preis von drei Münzen|bis die Lampen erloschen",
    ),
    "zh": (
        "年老的磨坊主人|年轻的船长|城里的法官|她的哥哥|花园里的工人|每一个学生|河边的船夫|疲倦的医生",
        "搬走了|数过了|画出了|忘记了|修好了|卖掉了|描写了|寻找着",
        "那些没有寄出的信|一个坏了的时钟|七桶白色的盐|没有人要的地图|一篮红色的苹果|最长的一根绳子|"
        "还没有做完的小提琴|一个空空的鸟笼",
        "在日出以前到港口去|然后跟别人一起回家|在磨坊后面的花园|钟声还在响的时候|因为冬天太冷|"
        "沿着河走过那座桥|只要三个银币|一直到灯都灭掉",
    ),
    "fr": (
        "Le vieux meunier|Une jeune capitaine|Le juge de la ville|Son frère|La jardinière",
        "portait|comptait|peignait|oubliait|réparait",
        "les lettres|une horloge cassée|sept barils de sel|le plus long cordage|une cage vide",
        "vers le port avant l'aube|avec les autres|dans le jardin derrière le moulin|"
        "pendant que les cloches sonnaient|parce que l'hiver avait été rude",
    ),
}


def prose(language: str, number: int, *, sentences: int = 5) -> str:
    """A document of some three hundred bytes; equal parameters give equal text."""
    draw = random.Random(f"{language} {number}")
    columns = [draw.sample(part.split("|"), sentences) for part in _PARTS[language]]
    if language == "zh":
        return "".join("".join(row) + "。" for row in zip(*columns, strict=True))
    return " ".join(" ".join(row) + "." for row in zip(*columns, strict=True))


def en(first: int, stop: int) -> list[str]:
    """English documents."""
    return [prose("en", number) for number in range(first, stop)]


def de(first: int, stop: int) -> list[str]:
    """German documents."""
    return [prose("de", number) for number in range(first, stop)]


def zh(first: int, stop: int) -> list[str]:
    """Chinese documents."""
    return [prose("zh", number) for number in range(first, stop)]


def near(text: str) -> str:
    """Nearly the same text: four shingles more."""
    return f"{text} So it was told."


LARGE = "word " * 420
"""More than the 2048 bytes that a document may have here."""
QUESTION = "which of the seven hills did the first king of the valley choose for his own house"

DIRTY: Mapping[str, str] = {
    "c4_curly_brackets": prose("en", 900) + " It ended with a { in the text.",
    "c4_lorem_ipsum": prose("en", 901) + " Lorem ipsum dolor sit amet.",
    "c4_sentences": prose("en", 902).replace(". ", " and "),
    "contaminated": f"{prose('en', 903)} Who knows {QUESTION}?",
    "empty": "\x00\x01",
    "gopher_bullet_lines": "- " + prose("en", 904).replace(". ", ".\n- "),
    "gopher_duplicate_lines": "\n".join([prose("en", 905, sentences=3)] * 3),
    "gopher_stop_words": "Seven barrels sank. Nobody swam. "
    + "Lamps went out. " * 8
    + "Bells rang.",
    "gopher_symbol_ratio": prose("en", 906).replace(" ", " #", 9),
    "gopher_word_count": "He came. He saw the sea. He left.",
}
"""A document for each of many reasons that clean has."""

UNTIDY = (
    prose("en", 920).replace("the", "&lt;the&gt;", 1),
    prose("en", 921).replace(" ", "  ", 3),
    prose("en", 922) + " Write to miller@example.org and to clock@example.com today.",
    prose("en", 923) + " The cafe\u0301 was closed.",
    prose("en", 924).replace(" ", "\x00 ", 2),
)
"""Documents with one thing each that clean repairs."""
