"""Few combinations in which every pair of values occurs: built greedily, the same every time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

Choice = dict[str, Any]
Rule = Callable[[Choice], bool]


def pairs(choice: Choice) -> set[frozenset[tuple[str, Any]]]:
    return {frozenset(pair) for pair in combinations(choice.items(), 2)}


def allowed(choice: Choice, rules: Sequence[Rule]) -> bool:
    """Whether no rule is broken; a rule about a value that is still open is not."""
    for rule in rules:
        try:
            if not rule(choice):
                return False
        except KeyError:
            continue
    return True


def completions(
    choice: Choice, values: Mapping[str, Sequence[Any]], rules: Sequence[Rule]
) -> Iterator[Choice]:
    """All complete combinations that a partial one can become."""
    open_names = [name for name in values if name not in choice]
    if not allowed(choice, rules):
        return
    if not open_names:
        yield choice
        return
    for value in values[open_names[0]]:
        yield from completions(choice | {open_names[0]: value}, values, rules)


def possible_pairs(
    values: Mapping[str, Sequence[Any]], rules: Sequence[Rule]
) -> set[frozenset[tuple[str, Any]]]:
    """The pairs that occur in some combination."""
    return {
        frozenset([(a, x), (b, y)])
        for a, b in combinations(values, 2)
        for x in values[a]
        for y in values[b]
        if next(completions({a: x, b: y}, values, rules), None)
    }


def pairwise_cover(values: Mapping[str, Sequence[Any]], rules: Sequence[Rule]) -> list[Choice]:
    """Combinations that between them have every possible pair."""
    missing = possible_pairs(values, rules)
    cover = []
    while missing:
        choice = dict(min(missing, key=lambda pair: sorted(map(str, pair))))
        for name in values:
            if name not in choice:
                options = [choice | {name: value} for value in values[name]]
                fitting = [o for o in options if next(completions(o, values, rules), None)]
                choice = max(fitting, key=lambda option: len(pairs(option) & missing))
        missing -= pairs(choice)
        cover.append({name: choice[name] for name in values})
    return cover
