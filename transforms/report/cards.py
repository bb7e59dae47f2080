"""The rows that the page shows: each with its images, scores and the link to its file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from transforms.batch import (
    CAPTION,
    CLIP_SCORE,
    ENCODING,
    IMAGE_PATH,
    KEY,
    ORIGINAL_HEIGHT,
    ORIGINAL_WIDTH,
    PROMPT,
    PSNR,
    RANK,
    SAMPLE,
    SEED,
    VIEW,
    first_caption,
)
from transforms.errors import OutputDamaged
from transforms.ledger.plan import Plan
from transforms.report.drawn import Budget, Group, Place
from transforms.report.links import Links
from transforms.report.originals import Original, Originals, Wanted
from transforms.report.pictures import picture, pixels_of
from transforms.report.reconstructions import Coded, Open, Reconstructions, as_seen, likeness, reconstruct
from transforms.report.rows import open_rows

LONGEST = 600  # characters of a caption that are shown and found
LONGEST_KEY = 200


@dataclass(frozen=True)
class Picture:
    """An image on the page; `src` is None if there is none, for the reason in `note`."""

    src: str | None
    label: str
    note: str = ""
    link: str | None = None


@dataclass(frozen=True)
class Card:
    """A row, or the images of one prompt. `psnr` in dB, infinite for equal images."""

    key: str
    caption: str
    pictures: tuple[Picture, ...]
    facts: tuple[str, ...] = ()
    psnr: float | None = None
    link: str | None = None
    linked: str = ""  # the path that the link leads to


@dataclass
class Row:
    """A stored row with what was found for it. `image` are the pixels of its own image."""

    place: Place
    values: Mapping[str, Any]
    image: np.ndarray | None = None
    problem: str = ""
    original: Picture | None = None
    seen: list[np.ndarray | None] = field(default_factory=list)  # by tokenizer
    made: list[np.ndarray | None] = field(default_factory=list)

    @property
    def key(self) -> str:
        return str(self.values[KEY])

    @property
    def caption(self) -> str:
        return first_caption(self.values.get(PROMPT) or self.values.get(CAPTION))


@dataclass
class Cards:
    """Makes cards. `paths` are those of the main objects of shards, `scores` those of all rows that were looked at,
    sorted. `problems` are sentences on what could not be shown, for the page."""

    output: str
    plan: Plan
    coded: Sequence[Coded]
    opened: Open
    links: Links
    paths: Mapping[int, str]
    originals: Budget
    reconstructions: Budget
    problems: list[str] = field(default_factory=list)
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def make(self, groups: Sequence[Group]) -> list[Card]:
        """A card for each group whose rows are there still."""
        rows = self._rows(place for group in groups for place in group.places)
        every = list(rows.values())
        self._find_originals(every)
        if any(ENCODING + one.suffix in row.values and row.image is None for one in self.coded for row in every):
            self._reconstruct(every)
        found = ([rows[place] for place in group.places if place in rows] for group in groups)
        return [self._card(group) for group in found if group]

    def _rows(self, places: Iterable[Place]) -> dict[Place, Row]:
        by_shard: defaultdict[int, list[int]] = defaultdict(list)
        for place in places:
            by_shard[place.shard].append(place.position)
        found: dict[Place, Row] = {}
        for shard, positions in sorted(by_shard.items()):
            try:
                with open_rows(self.output, self.paths[shard]) as stored:
                    positions = sorted({*positions})
                    for position, values in zip(positions, stored.take(positions), strict=True):
                        row = Row(Place(shard, position), values)
                        try:
                            data = stored.image(position, values)
                            row.image = pixels_of(data) if data else None
                            row.problem = "" if row.image is not None or not data else "cannot be read"
                        except FileNotFoundError:
                            row.problem = "its file is gone"
                        found[row.place] = row
            except (FileNotFoundError, OutputDamaged) as error:
                self.problems.append(str(error))
        return found

    def _find_originals(self, rows: Sequence[Row]) -> None:
        """Of what images were made of; a generator made its own."""
        if self.plan.schema["kind"] == "prompts" or (
            self.plan.command == "rank" and rows and rows[0].image is not None
        ):
            return
        if self.plan.command == "export":
            self.problems.append(
                "An export does not know its originals: `vqbeam report` on what it was made of shows them"
            )
            return
        finder = Originals(self.output, self.plan, self.originals)
        wanted: dict[tuple[int, str], Row] = {}
        for row in rows:  # variations of one image have one original
            wanted.setdefault((row.place.shard, row.key if SAMPLE in row.values else str(row.place.position)), row)
        per_row = self.plan.views or 1
        asked = [Wanted(row.place, row.key, 0 if SAMPLE in row.values else per_row) for row in wanted.values()]
        by_place = {row.place: row for row in rows}
        for place, original in finder.find(asked):
            row = by_place[place]
            row.seen = [as_seen(original, row.key, row.values, one) for one in self.coded]
            row.original = self._picture(original, row)
        for place, why in finder.missing.items():
            by_place[place].original = Picture(None, "original", why)
        missing = len(finder.missing)
        if missing:
            example = next(iter(finder.missing.values()))
            self.problems.append(f"{missing:,} of {len(asked):,} originals were not found, such as one: {example}")

    def _picture(self, original: Original, row: Row) -> Picture:
        first = next((pixels for pixels in row.seen if pixels is not None), None)
        pixels = pixels_of(original.data) if first is None else first
        if pixels is None:
            return Picture(None, "original", "cannot be read")
        wide, high = row.values.get(ORIGINAL_WIDTH), row.values.get(ORIGINAL_HEIGHT)
        note = f"{wide:,} x {high:,}" if isinstance(wide, int) and isinstance(high, int) else ""
        return Picture(picture(pixels), "original", note, self.links.elsewhere(original.uri))

    def _reconstruct(self, rows: Sequence[Row]) -> None:
        for one in self.coded:
            made: Reconstructions = reconstruct([row.values for row in rows], one, self.opened, self.reconstructions)
            for row, image in zip(rows, made.images, strict=True):
                row.made.append(image)
            if made.problem:
                self.problems.append(f"{one.name}: {made.problem}")

    def _card(self, rows: Sequence[Row]) -> Card:
        first = rows[0]
        card = Card(shortened(first.key, LONGEST_KEY), shortened(first.caption, LONGEST), ())
        path = self.paths[first.place.shard]
        card = replace(card, link=self.links.inside(path), linked=path)
        if first.made:
            return self._of_codes(card, first)
        if len(rows) > 1 or SAMPLE in first.values:
            return self._of_several(card, rows)
        return self._of_one(card, first)

    def _of_codes(self, card: Card, row: Row) -> Card:
        pictures, values = [row.original] if row.original else [], []
        for i, (one, made) in enumerate(zip(self.coded, row.made, strict=True)):
            found = likeness(row.seen[i] if row.seen else None, made)
            values.append(found)
            label = f"{i + 1}: {one.name}" if len(self.coded) > 1 else "reconstruction"
            src = None if made is None else picture(made)
            pictures.append(Picture(src, label, decibels(found) if src else "not decoded"))
        stored = [row.values.get(PSNR + one.suffix) for one in self.coded] if values[0] is None else []
        facts = [f"{decibels(value)} in the table" for value in stored if value is not None]
        facts += [f"view {row.values[VIEW]}"] if row.values.get(VIEW) is not None else []
        return replace(card, pictures=tuple(pictures), psnr=values[0], facts=tuple(facts))

    def _of_several(self, card: Card, rows: Sequence[Row]) -> Card:
        """The best first; without ranks as they were written."""
        scored = [row.values.get(CLIP_SCORE) for row in rows]
        if any(score is not None for score in scored):
            order = sorted(range(len(rows)), key=lambda i: (scored[i] is None, -(scored[i] or 0.0)))
            rows = [rows[i] for i in order]
        made = [row for row in rows if row.image is not None]  # else their originals are all there is to see
        original = [row.original for row in made if row.original and row.original.src][:1]
        images = [self._own(row, number) for number, row in enumerate(rows, 1)]
        return replace(card, pictures=(*original, *images))

    def _own(self, row: Row, number: int) -> Picture:
        """One of several images of a prompt, an input or a caption."""
        score, rank = row.values.get(CLIP_SCORE), row.values.get(RANK)
        told = [f"{name} {row.values[name]}" for name in (SAMPLE, SEED) if row.values.get(name) is not None]
        if score is not None:
            told = [f"rank {number if rank is None else rank} · {score:.3f}", *told]
        first, *others = told or [f"image {number}"]
        return self._image(row, first, ", ".join(others))

    def _image(self, row: Row, label: str, note: str = "") -> Picture:
        if row.image is None:
            if row.original is not None:
                return replace(row.original, label=label, note=row.original.note if row.original.src else "not found")
            return Picture(None, label, row.problem or "no image is stored")
        path = row.values.get(IMAGE_PATH)
        return Picture(picture(row.image), label, note, self.links.inside(path) if path else None)

    def _of_one(self, card: Card, row: Row) -> Card:
        score = row.values.get(CLIP_SCORE)
        if score is not None:
            share = np.searchsorted(self.scores, score) / max(1, len(self.scores))
            facts = (f"better than {share:.0%} of the rows looked at",)
            return replace(card, pictures=(self._image(row, f"score {score:.3f}"),), facts=facts)
        found = likeness(row.seen[0] if row.seen else None, row.image)
        own = self._image(row, "decoded" if row.original else "image", decibels(found) if found is not None else "")
        return replace(card, pictures=(*([row.original] if row.original else []), own), psnr=found)


def decibels(value: float | None) -> str:
    if value is None:
        return ""
    return "exact" if value == float("inf") else f"{value:.1f} dB"


def shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"


def singles(places: Collection[Place]) -> list[Group]:
    return [Group("", (place,)) for place in places]
