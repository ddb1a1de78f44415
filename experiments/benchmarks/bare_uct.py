"""The same Monte Carlo tree search as `MCTS`, over plain lists and without anything around it: a yardstick."""

from __future__ import annotations

from collections.abc import Callable
from math import log, sqrt

from stl_programs import Environment
from stl_programs.records import State, Task


class BareUct:
    """UCT over an environment whose actions can be listed, with a function for a value.

    The same rules as `MCTS`: the successors of a leaf are all made and judged together, the best one's worth is backed
    up, its own estimate counts as a first visit, what has nothing left to learn below it is closed, and simulations in
    flight count as visits.
    """

    def __init__(self, environment: Environment, task: Task, judge: Callable[[State], float], exploration: float = 1.0):
        self.environment, self.judge, self.c = environment, judge, exploration
        self.state, self.children = [environment.reset(task)], list[tuple[int, ...]]([()])
        self.visits, self.sum, self.worth = [0], [0.0], [0.0]
        self.in_flight, self.closed = [0], [False]

    def simulate(self) -> bool:
        """One simulation; False where nothing is left to learn."""
        path = self.select()
        if path is None:
            return False
        leaf = path[-1]
        if not self.state[leaf].terminal:
            best = self.expand(leaf)
            self.in_flight[best] += 1
            path.append(best)
        self.back_up(path, self.worth[path[-1]])
        return True

    def select(self) -> list[int] | None:
        node, path = 0, [0]
        if self.closed[0]:
            return None
        children, visits, sums, worth = self.children, self.visits, self.sum, self.worth
        in_flight, closed = self.in_flight, self.closed
        while children[node]:
            best, top = -1, -1.0
            explore = self.c * sqrt(2.0 * log(visits[node] + in_flight[node] + 1))
            for child in children[node]:
                if closed[child] or (in_flight[child] and not children[child]):
                    continue
                n = visits[child] + 1
                score = (worth[child] + sums[child]) / n + explore / sqrt(n + in_flight[child])
                if score > top:
                    best, top = child, score
            if best < 0:
                return None
            node = best
            path.append(node)
        for node in path:
            in_flight[node] += 1
        return path

    def expand(self, leaf: int) -> int:
        """Make and judge all successors; the best one."""
        first, state, step = len(self.state), self.state[leaf], self.environment.step
        for action in self.environment.legal_actions(state):
            reached = step(state, action).state
            self.state.append(reached)
            self.worth.append(self.judge(reached))
            self.children.append(())
            self.visits.append(0)
            self.sum.append(0.0)
            self.in_flight.append(0)
            self.closed.append(False)
        made = tuple(range(first, len(self.state)))
        self.children[leaf] = made
        return max(made, key=self.worth.__getitem__)

    def back_up(self, path: list[int], value: float) -> None:
        for node in path:
            self.in_flight[node] -= 1
            self.visits[node] += 1
            self.sum[node] += value
        for node in reversed(path):
            self.closed[node] = self.state[node].terminal or (
                bool(self.children[node]) and all(self.closed[child] for child in self.children[node]))
            if not self.closed[node] and self.children[node]:
                break
