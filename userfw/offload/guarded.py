"""What a driver does wrong stays the driver's: whatever it raises becomes an answer that the contract knows.

Laws
- Raised while probing: a refusal. While installing: FAULT for every rule that was not answered, and those are removed again.
- A driver that cannot remove cannot be believed at all: everything of it is taken away (`close`), its devices are lost, and flows
  are offered to it again as after any reset of a device.
- Raised while reading: nothing was read. Everything is logged once in the same words.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from userfw.offload.contract import Capabilities, Done, Driver, Failure, Filter, Refusal, Rule, Statistics, Target

log = logging.getLogger("userfw.offload")


class Guarded(Driver):
    """A driver that raises nothing, around one that may."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.name, self.interval, self.rank = driver.name, driver.interval, driver.rank
        self._devices: set[str] = set()
        self._words = ""
        self._fallen = False
        self._told: set[str] = set()

    def _failed(self, doing: str, error: Exception) -> str:
        words = f"{doing}: {type(error).__name__}: {error}"
        if words not in self._told:
            self._told.add(words)
            log.error("offload driver %s failed to %s", self.name, words, exc_info=error)
        return f"the driver failed to {words}"

    def probe(self, target: Target) -> Capabilities | Refusal:
        try:
            answer = self.driver.probe(target)
        except Exception as error:
            return Refusal(self._failed("probe", error))
        if isinstance(answer, Capabilities):
            self._devices.add(target.name)
        elif not isinstance(answer, Refusal):
            return Refusal(f"the driver answers {answer!r}")
        return answer

    def install(self, rules: Sequence[Rule], done: Done) -> None:
        answered: set[int] = set()

        def tell(id: int, failure: Failure | None) -> None:
            answered.add(id)
            done(id, failure)

        words = "the driver is being reset"
        try:
            if not self._fallen:
                self.driver.install(rules, tell)
                return
        except Exception as error:
            words = self._failed("install", error)
        left = [rule.id for rule in rules if rule.id not in answered]
        self.remove(left)
        for id in left:
            self._words = words
            done(id, Failure.FAULT)
            self._words = ""

    def explain(self, id: int) -> str:
        try:
            return self._words or self.driver.explain(id)
        except Exception as error:
            return self._failed("explain", error)

    def remove(self, ids: Iterable[int]) -> list[Statistics]:
        if self._fallen:
            return []
        try:
            return list(self.driver.remove(list(ids)) or ())
        except Exception as error:
            self._failed("remove", error)
            self._fallen = True
            self.close()
            return []

    def statistics(self) -> list[Statistics]:
        return self._read(self.driver.statistics)

    def filter_statistics(self) -> list[Statistics]:
        return self._read(self.driver.filter_statistics)

    def _read(self, read: Callable[[], Iterable[Statistics]]) -> list[Statistics]:
        try:
            return list(read())
        except Exception as error:
            self._failed("read statistics", error)
            return []

    def poll(self, now: int, lost: Callable[[str], None]) -> None:
        try:
            self.driver.poll(now, lost)
        except Exception as error:
            self._failed("poll", error)
        if self._fallen:
            names, self._devices = self._devices, set()
            for name in names:
                lost(name)
            self._fallen = False

    def describe(self, target: Target) -> dict[str, object]:
        try:
            return self.driver.describe(target)
        except Exception as error:
            return {"because": self._failed("describe", error)}

    def set_filters(self, target: Target, filters: Sequence[Filter]) -> tuple[int, str] | None:
        try:
            return self.driver.set_filters(target, filters)
        except Exception as error:
            return 0, self._failed("set filters", error)

    def release(self, target: Target) -> None:
        self._devices.discard(target.name)
        try:
            self.driver.release(target)
        except Exception as error:
            self._failed("release", error)

    def close(self) -> None:
        try:
            self.driver.close()
        except Exception as error:
            self._failed("close", error)


def takes_filters(driver: Driver) -> bool:
    """Whether a driver has stateless filters at all."""
    inner = driver.driver if isinstance(driver, Guarded) else driver
    return type(inner).set_filters is not Driver.set_filters
