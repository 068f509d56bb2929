"""Outputs as rules of the state machine: logged, valued, credited by any policy, taken out and restored."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from credit.accounting.credits import Policy
from credit.ledger import journal, outputs, unvalued, values
from credit.records import Group
from tests.pipeline.plain_credits import Output, Paid
from tests.pipeline.plain_model import HOUSE, PROVIDERS, Posted, RefusedError, month_name
from tests.pipeline.scored import Scored, log_outputs, post_scores
from tests.pipeline.two_ledgers import TwoLedgers

KEYS = (*PROVIDERS, "ann/x", *HOUSE)

paid = st.sampled_from([Paid()] * 4 + [Paid("influence", *sums) for sums in (("period", "zero"), ("output", "net"))] * 2
                       + [Paid("influence"), Paid("influence", "period", "net")])  # fmt: skip
micro = st.lists(st.integers(0, 5_000_000), min_size=5, max_size=5)
influence = st.lists(st.one_of(st.integers(-9, 9), st.integers(-(10**6), 10**6)), min_size=5, max_size=5)
reason = st.sampled_from(["it has no token", "it is not ours"])


class FromLogToCredits(TwoLedgers):
    """Rules about outputs, up to what they credit."""

    @rule(ahead=st.sampled_from([0, 0, 0, 1, 2]), micro=micro, influence=influence, paid=paid)
    def earn(self, ahead: int, micro: list[int], influence: list[int], paid: Paid) -> None:
        """An output of an open month, valued at once."""
        if sum(micro):
            self._value(self._log(self.model.closed + 1 + ahead, micro, influence), paid)

    @rule(ahead=st.sampled_from([-1, 0, 0, 1]), micro=micro, influence=influence)
    def log(self, ahead: int, micro: list[int], influence: list[int]) -> None:
        """An output that waits, perhaps of a month that is closed."""
        if sum(micro):
            self._log(max(0, self.model.closed + 1 + ahead), micro, influence)

    @precondition(lambda self: any(output.state == "waiting" for output in self.model.outputs))
    @rule(data=st.data(), paid=paid)
    def value(self, data: st.DataObject, paid: Paid) -> None:
        waiting = [output for output in self.model.outputs if output.state == "waiting"]
        self._value(data.draw(st.sampled_from(waiting)), paid)

    @precondition(lambda self: self.model.outputs)
    @rule(data=st.data(), reason=reason)
    def unvalue(self, data: st.DataObject, reason: str) -> None:
        """What is not valued can be taken out, for one reason; that transaction is not reversed by itself."""
        self._take_out(self._one_of_them(data, "waiting"), reason)

    def _take_out(self, output: Output, reason: str) -> None:
        if output.state == "unvalued":
            if output.reason != reason:
                self.refused(lambda: self._unvalue(output, reason))
            else:
                self._nothing_new(lambda: self._unvalue(output, reason))
            return
        try:
            month = self.model.unvalue(output, reason)
        except RefusedError:
            self.refused(lambda: self._unvalue(output, reason))
            return
        event = self._unvalue(output, reason)
        assert (event.output, event.weight_micro, event.period) == (output.name, output.weight, month_name(month))
        self._nothing_new(lambda: self._unvalue(output, reason))
        self.model.posted[event.txn_id] = Posted("unvalued", month, output)

    @precondition(lambda self: self.model.outputs)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        """An unvalued output becomes pending again; a restored one stays so; one that never was unvalued is named."""
        self._take_back(self._one_of_them(data, "unvalued"))

    def _take_back(self, output: Output) -> None:
        if output.state != "unvalued":
            if output.history:
                self._nothing_new(lambda: self._restore(output))
            else:
                self.refused(lambda: self._restore(output))
            return
        month = self.model.restore(output)
        event = self._restore(output)
        self._nothing_new(lambda: self._restore(output))
        self.model.posted[event.txn_id] = Posted("reversal", month, output)

    @rule(micro=micro, influence=influence, paid=paid, reason=reason)
    def go_the_long_way(self, micro: list[int], influence: list[int], paid: Paid, reason: str) -> None:
        """An output that is taken out, restored and valued after all."""
        if sum(micro):
            output = self._log(self.model.closed + 1, micro, influence)
            self._take_out(output, reason)
            self._take_back(output)
            self.what_waits_is_what_the_model_says()
            self._value(output, paid)

    @invariant()
    def what_waits_is_what_the_model_says(self) -> None:
        waiting = [output.name for output in self.model.outputs if output.state == "waiting"]
        assert self.read(outputs.pending_names) == [waiting, waiting]

    def _one_of_them(self, data: st.DataObject, state: str) -> Output:
        """Draw an output, mostly one in the state in which a command can do something with it."""
        likely = [output for output in self.model.outputs if output.state == state]
        return data.draw(st.sampled_from([*likely * 3, *self.model.outputs]))

    def _log(self, month: int, micro: list[int], influence: list[int]) -> Output:
        """Log an output whose support sums to its weight, so that paid by it everybody gets exactly that."""
        self.number += 1
        self.now += timedelta(minutes=1)
        support = {key: value for key, value in zip(KEYS, micro, strict=True) if value}
        measures = {"support": support, "influence": dict(zip(KEYS, influence, strict=True))}
        output = Output(f"o{self.number}", month, sum(micro), measures)
        for ledger in self.ledgers:
            log_outputs(ledger, [self._scored(output)], self.now)
        self.model.outputs.append(output)
        return output

    def _value(self, output: Output, paid: Paid) -> None:
        self.now += timedelta(minutes=1)
        policy = Policy(paid.measure, basis=paid.basis, negative=paid.negative)
        for ledger in self.ledgers:
            post_scores(ledger, self.books.books, [self._scored(output)], policy, now=self.now)
        month = self.model.value(output, paid)
        number, _ = self.read(journal.chain_head)[0]
        self.model.posted[number] = Posted("credits", month, output)

    def _scored(self, output: Output) -> Scored:
        moment = datetime.combine(values.first_day(month_name(output.occurred)), time(12), UTC)
        influence, support = output.measures["influence"], output.measures["support"]
        measures = {Group(*key.split("/")): (float(influence[key]), float(support.get(key, 0))) for key in KEYS}
        return Scored(output.name, moment, measures, output.weight)

    def _unvalue(self, output: Output, reason: str) -> unvalued.UnvaluedEvent:
        return self.write(lambda conn: unvalued.unvalue(conn, output.name, reason, now=self.now))

    def _restore(self, output: Output) -> unvalued.UnvaluedEvent:
        return self.write(lambda conn: unvalued.restore(conn, output.name, "there was one", now=self.now))

    def _nothing_new(self, act: Callable[[], object]) -> None:
        """Twice is once."""
        heads = self.read(journal.chain_head)
        act()
        assert self.read(journal.chain_head) == heads
