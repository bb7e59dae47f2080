"""How fast something goes and when it ends, from how much of it was seen done by when."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

WINDOW = 60.0  # seconds that a speed is taken from, or a fifth of all if that is more
LEAST = 3.0  # seconds before anything is said
RECENT = 10.0  # seconds, twice: if both halves went otherwise than the time before, only they count
OTHERWISE = 1.4  # times as fast, or as slow
PATIENT = 10.0  # seconds without a movement that say nothing yet
TOLERATED = 0.15  # of the time left: below, the end that was told stays, so that the time left runs like a clock


class Estimate:
    """Notes movements, which may be the ends of long batches as well as steps within one.

    A speed is taken between movements, so that what came before the first, such as compiling, does not count once
    there are several. `abreast` workers move in turns: as many movements are one step.
    """

    def __init__(self) -> None:
        self._moves: deque[tuple[float, float]] = deque()  # when, and how much was done then
        self._began: float | None = None
        self._done = self._now = 0.0
        self._abreast = 1
        self._end: float | None = None  # that was told

    def note(self, now: float, done: float, *, abreast: int = 1) -> None:
        """`done` so far; less than before if something was taken back. The first call is the beginning."""
        self._now, self._abreast = now, max(1, abreast)
        if self._began is None:
            self._began, self._done = now, done
        elif done > self._done:
            self._moves.append((now, done))
            self._forget()
        elif done < self._done:
            self._moves = deque((at, before + done - self._done) for at, before in self._moves)
        self._done = done

    @property
    def rate(self) -> float | None:
        """A second; None if it is not known yet."""
        moves, now = self._moves, self._now
        if not moves or self._began is None or now - moves[0][0] < LEAST:
            return None
        steps = (len(moves) - 1) // self._abreast * self._abreast
        first = moves[-1 - steps] if steps else (self._began, 0.0)
        idle = now - moves[-1][0] - self._longest_gap()  # a device that stands still has a speed, too
        return (moves[-1][1] - first[1]) / (moves[-1][0] - first[0] + max(0.0, idle))

    def idle(self) -> float:
        """For how many seconds nothing has moved, if that is longer than usual; else 0."""
        if not self._moves:
            return 0.0
        since = self._now - self._moves[-1][0]
        return since if since > max(PATIENT, 2 * self._longest_gap()) else 0.0

    def left(self, remaining: float) -> float | None:
        """Seconds until so much more is done; None if that cannot be told."""
        rate = self.rate
        if not rate or remaining <= 0 or self.idle():
            self._end = None
            return None
        end = max(self._moves[-1][0] + remaining / rate, self._next_step())
        if end <= self._now:  # later than usual
            self._end = None
            return None
        if self._end is None or abs(end - self._end) > max(LEAST, TOLERATED * (end - self._now)):
            self._end = end
        left = self._end - self._now
        return left if left >= 0.5 else None

    def _next_step(self) -> float:
        """When the worker that moved longest ago moves again, if it takes as long as any did; 0 if that is not
        known."""
        times, abreast = [at for at, _ in self._moves], self._abreast
        steps = [later - before for before, later in zip(times, times[abreast:], strict=False)]
        return times[-abreast] + max(steps) if steps else 0.0

    def _longest_gap(self) -> float:
        moves = self._moves
        if len(moves) < 2:
            return moves[0][0] - (self._began or 0.0)
        return max(later[0] - before[0] for before, later in pairwise(moves))

    def _forget(self) -> None:
        moves, now = self._moves, self._now
        began = self._began or 0.0
        oldest = now - max(WINDOW, (now - began) / 5)
        if self._changed():
            oldest = now - 2 * RECENT
        while len(moves) > 2 * self._abreast + 1 and moves[0][0] < oldest:
            moves.popleft()

    def _changed(self) -> bool:
        """Whether the last seconds went otherwise than those before, twice."""
        cuts = [self._now - 2 * RECENT, self._now - RECENT]
        if self._moves[0][0] > cuts[0] - RECENT or self._longest_gap() > RECENT / 4:
            return False
        parts: list[list[tuple[float, float]]] = [[], [], []]
        for move in self._moves:
            parts[sum(move[0] > cut for cut in cuts)].append(move)
        if any(len(part) < 2 for part in parts):
            return False
        before, *recent = ((part[-1][1] - part[0][1]) / (part[-1][0] - part[0][0]) for part in parts)
        return min(recent) > before * OTHERWISE or max(recent) * OTHERWISE < before
