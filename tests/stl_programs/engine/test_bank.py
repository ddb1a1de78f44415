"""Waiting for a budget: in the order of the tasks, nobody forgotten, nobody passed over for ever."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stl_programs import Budget
from stl_programs.engine import Cost, Gate, Ledger
from stl_programs.engine.bank import Bank
from stl_programs.errors import BudgetSpent

ONE = Cost(1)


def waiting(bank, ledgers, served, order, cost=ONE):
    """A call that notes when it was served. It is in its line after one turn of the loop."""

    async def call():
        await bank.reserve(ledgers, cost, order)
        served.append(order)

    return asyncio.ensure_future(call())


async def turns(count=3):
    for _ in range(count):
        await asyncio.sleep(0)


def test_waiting_calls_are_served_in_the_order_of_their_tasks_then_as_they_came():
    async def main():
        bank, run, served = Bank(), Ledger(Budget(calls=1000), "run"), []
        await bank.reserve([run], Cost(1000))
        orders = [random.Random(1).randrange(20) for _ in range(100)]
        calls = [waiting(bank, [run], served, order) for order in orders]
        await turns()
        assert served == []
        bank.settle([run], Cost(1000), Cost())
        await asyncio.gather(*calls)
        assert served == sorted(orders)

    asyncio.run(main())


def test_a_large_call_is_not_passed_by_small_ones_of_later_tasks_but_by_those_of_earlier_ones():
    async def main():
        bank, run, served = Bank(), Ledger(Budget(tokens=100), "run"), []
        for _ in range(2):
            await bank.reserve([run], Cost(1, 40))
        large = waiting(bank, [run], served, 5, Cost(1, 90))
        await turns()
        late, early = waiting(bank, [run], served, 6, Cost(1, 10)), waiting(bank, [run], served, 4, Cost(1, 10))
        await turns()
        assert served == [4]  # 20 tokens are free: enough for the early one, and the late one waits behind the large
        bank.settle([run], Cost(1, 40), Cost())
        bank.settle([run], Cost(1, 10), Cost())
        bank.settle([run], Cost(1, 40), Cost())
        await asyncio.gather(large, late, early)
        assert served == [4, 5, 6]

    asyncio.run(main())


def test_a_task_at_the_end_of_its_own_budget_does_not_hold_up_the_others():
    async def main():
        bank, run, served = Bank(), Ledger(Budget(calls=10), "run"), []
        first, second = Ledger(Budget(calls=1), "task"), Ledger(Budget(calls=5), "task")
        await bank.reserve([run, first], Cost(1))
        stuck = waiting(bank, [run, first], served, 0)
        await turns()
        await asyncio.gather(*(waiting(bank, [run, second], served, 1) for _ in range(3)))
        assert served == [1, 1, 1]
        bank.settle([run, first], Cost(1), Cost())
        await stuck
        assert served == [1, 1, 1, 0]

    asyncio.run(main())


@pytest.mark.parametrize("after", ["before its turn", "as its turn comes"])
def test_a_cancelled_call_takes_nobodys_turn(after):
    async def main():
        bank, run, served = Bank(), Ledger(Budget(tokens=100), "run"), []
        await bank.reserve([run], Cost(1, 50))
        large, small = waiting(bank, [run], served, 0, Cost(1, 60)), waiting(bank, [run], served, 1, Cost(1, 50))
        await turns()
        assert served == []
        if after == "as its turn comes":
            bank.settle([run], Cost(1, 50), Cost())
        large.cancel()
        await small
        assert served == [1] and large.cancelled() and run.reserved["tokens"] in (50, 100)

    asyncio.run(main())


def test_what_can_never_fit_is_refused_at_once_and_holds_nobody_up():
    async def main():
        bank, run, served = Bank(), Ledger(Budget(tokens=100), "run"), []
        await bank.reserve([run], Cost(1, 60))
        with pytest.raises(BudgetSpent, match="the run's budget of 100 tokens is spent: 0 used, and the next request "
                                              "may need 101"):
            await bank.reserve([run], Cost(1, 101))
        large, small = waiting(bank, [run], served, 0, Cost(1, 90)), waiting(bank, [run], served, 1, Cost(1, 50))
        await turns()
        bank.settle([run], Cost(1, 60), Cost(1, 20))  # 20 are gone for good
        with pytest.raises(BudgetSpent, match="20 used, and the next request may need 90"):
            await large
        await small

    asyncio.run(main())


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_every_call_is_served_refused_or_cancelled_and_no_limit_is_broken(seed):
    """Budgets of run, tasks and modules, replies in any order, calls cancelled at any time."""
    rng = random.Random(seed)
    bank = Bank()
    run = Ledger(Budget(calls=rng.randint(5, 60), tokens=rng.randint(100, 2000)), "run")
    tasks = [Ledger(Budget(tokens=rng.randint(50, 400)) if rng.random() < 0.7 else Budget(), "task") for _ in range(6)]
    modules = [Ledger(Budget(calls=rng.randint(3, 30)), "module"), Ledger(Budget(dollars=rng.random() * 3), "module")]

    async def call(order):
        ledgers = [run, tasks[order], *rng.sample(modules, rng.randint(0, 1))]
        bound = Cost(1, rng.randint(5, 60), rng.random() * 0.2)
        await bank.reserve(ledgers, bound, order)
        try:
            await asyncio.sleep(rng.random() * 0.001)
        finally:
            bank.settle(ledgers, bound, Cost(1, rng.randint(0, bound.tokens), (bound.dollars or 0) * rng.random()))
            for ledger in ledgers:
                for name, limit in ledger.limits.items():
                    assert ledger.spent[name] + ledger.reserved[name] <= limit + 1e-9

    async def main():
        calls = [asyncio.ensure_future(call(rng.randrange(len(tasks)))) for _ in range(60)]
        for _ in range(rng.randint(0, 20)):
            await asyncio.sleep(rng.random() * 0.001)
            rng.choice(calls).cancel()
        async with asyncio.timeout(5):
            ended = await asyncio.gather(*calls, return_exceptions=True)
        assert all(error is None or isinstance(error, (BudgetSpent, asyncio.CancelledError)) for error in ended)
        assert not bank._lines and not any(ledger.held for ledger in (run, *tasks, *modules))

    asyncio.run(main())


# The gate

def hold(gate, order, name, rank):
    async def call():
        async with gate.slot(name, rank):
            order.append((name, rank))

    return asyncio.ensure_future(call())


def test_a_place_goes_to_the_earliest_request_to_its_endpoint():
    async def main():
        gate, order = Gate(1), []
        held = {name: gate.slot(name, 0) for name in ("a", "b")}
        for slot in held.values():
            await slot.__aenter__()
        calls = [hold(gate, order, *call) for call in (("a", 1), ("b", 3), ("b", 2))]
        await turns()
        await held["b"].__aexit__(None, None, None)
        await turns(8)
        assert order == [("b", 2), ("b", 3)]
        await held["a"].__aexit__(None, None, None)
        await asyncio.gather(*calls)
        assert gate.in_flight == 0 and not gate._queues

    asyncio.run(main())


def test_where_the_total_was_reached_a_place_goes_to_the_earliest_request_of_all():
    async def main():
        gate, order = Gate(2, total=2), []
        held = [gate.slot("a", 0), gate.slot("a", 0)]
        for slot in held:
            await slot.__aenter__()
        calls = [hold(gate, order, *call) for call in (("a", 9), ("c", 7), ("b", 5))]
        await turns()
        assert order == []
        await held[0].__aexit__(None, None, None)
        await turns(12)
        assert order == [("b", 5), ("c", 7), ("a", 9)]
        await held[1].__aexit__(None, None, None)
        await asyncio.gather(*calls)
        assert gate.in_flight == 0 and not gate._queues

    asyncio.run(main())
