"""`credit approve`: actions of two people, and decisions on proposals; and how other commands propose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

import click

from credit.cli.options import NUMBER, CommandGroup, ledger_options
from credit.cli.printing import say
from credit.errors import EXIT_PROPOSED

if TYPE_CHECKING:
    from credit.approval.actions import Action
    from credit.approval.proposals import ProposalView
    from credit.ledger.approvals import Approval, Proposal
    from credit.pipeline.workspace import Workspace

R = TypeVar("R")


def act(workspace: Workspace, action: Action[R]) -> R:
    """Do an action and return its result; where it needs an approval, print its proposal and exit with 5."""
    from credit.approval.actions import Effect
    from credit.approval.proposals import perform

    with workspace.open() as ledger:
        done = perform(ledger, action, books=workspace.books)
    if isinstance(done, Effect):
        return done.result
    say(
        {"proposal": done.id, "action": done.action, "summary": done.summary.splitlines(), "done": False},
        f"proposed, not done: {done.summary}",
        f"somebody other than {done.proposed_by} looks at it and approves it: credit approve show {done.id};"
        f" credit approve give {done.id}",
        exit_code=EXIT_PROPOSED,
    )
    raise AssertionError  # `say` has left the command


@click.group(cls=CommandGroup)
def approve() -> None:
    """Two pairs of eyes: one person proposes what moves money, another approves it.

    Off by default. `credit approve require` switches it on, for everything or for some actions: pool, terms, details,
    adjustment, advance, remittance, reversal, close, payment-export, void, hold-release, fx-rate. From then on, the
    command of such an action does nothing. It records a proposal and exits with 5. Nobody switches it off alone.

    \b
    Example: credit approve require
             credit approve list
    """


@approve.command()
@click.argument("actions", nargs=-1)
@click.option("--off", is_flag=True, help="Propose to end the requirement for these actions; somebody else approves.")
@ledger_options
def require(workspace: Workspace, actions: tuple[str, ...], off: bool) -> None:
    """Let ACTIONS, or all, need the approval of a second person from now on.

    Repeating the command changes nothing. On PostgreSQL, who approves must log in as another database role than who
    proposes: see credit roles.

    \b
    Example: credit approve require
             credit approve require close payment-export
             credit approve require --off terms
    """
    from credit.approval.actions import ACTIONS, SwitchOff
    from credit.approval.proposals import require as switch_on
    from credit.ledger.approvals import required_actions
    from credit.ledger.guards import SWITCH_OFF

    if off:
        if len(actions) != 1:
            raise click.UsageError("--off takes one action at a time: each is a proposal of its own")
        act(workspace, SwitchOff(actions[0]))
        say({"changed": []}, f"{actions[0]} needs no approval")
        return
    with workspace.open() as ledger:
        changed = sorted(switch_on(ledger, frozenset(actions or ACTIONS.keys() - {SWITCH_OFF})))
        with ledger.read() as conn:
            needed = sorted(required_actions(conn) - {SWITCH_OFF})
    say({"required": needed, "changed": changed}, f"approval of a second person is needed for: {', '.join(needed)}")


@approve.command(name="list")
@click.option("--all", "everything", is_flag=True, help="Include those that are decided.")
@ledger_options
def list_all(workspace: Workspace, everything: bool) -> None:
    """List the waiting proposals, and the actions that need an approval.

    Exits with 5 while a proposal waits, with 0 if none does.

    \b
    Example: credit approve list
             credit approve list --all --json
    """
    from credit.ledger.approvals import proposals, required_actions
    from credit.ledger.guards import SWITCH_OFF

    with workspace.open() as ledger, ledger.read() as conn:
        found = proposals(conn)
        needed = sorted(required_actions(conn) - {SWITCH_OFF})
    shown = [(item, decision) for item, decision in found if everything or decision is None]
    waiting = sum(decision is None for _, decision in found)
    lines = [line for item, decision in shown for line in _proposal_lines(item, decision)]
    say(
        {"required": needed, "proposals": [{"proposal": item, "decision": decision} for item, decision in shown]},
        f"an approval is needed for: {', '.join(needed) or 'nothing; switch it on: credit approve require'}",
        *(lines or ["no proposal waits"]),
        exit_code=EXIT_PROPOSED if waiting else 0,
    )


@approve.command()
@click.argument("proposal", type=NUMBER)
@ledger_options
def show(workspace: Workspace, proposal: int) -> None:
    """Show PROPOSAL, and try it now: does it still do what was proposed?

    Payment details are printed in full while they wait: compare them with the letter of the provider.

    \b
    Example: credit approve show 7
    """
    from credit.approval.proposals import view

    with workspace.open() as ledger:
        found = view(ledger, proposal, books=workspace.books)
    say(found, *_view_lines(found))


@approve.command()
@click.argument("proposal", type=NUMBER)
@ledger_options
def give(workspace: Workspace, proposal: int) -> None:
    """Approve PROPOSAL, and do it at once. Repeating the command changes nothing.

    It is refused if you proposed it, or if something else would happen now than was proposed.

    \b
    Example: credit approve give 7
    """
    from credit.approval.proposals import give as approve_it

    with workspace.open() as ledger:
        effect = approve_it(ledger, proposal, books=workspace.books)
        actor = ledger.actor
    facts = {"proposal": proposal, "decision": "given", "by": actor, "replayed": effect is None}
    lines = ["you gave it before"] if effect is None else [f"done: {line}" for line in effect.lines]
    say(facts, *lines, *_afterwards(proposal, effect))


def _afterwards(proposal: int, effect: object) -> Iterator[str]:
    """Yield the command to write the file of an approved payment."""
    from credit.approval.actions import Effect
    from credit.payments.export import ExportReport

    if isinstance(effect, Effect) and isinstance(effect.result, ExportReport) and effect.result.batch:
        batch = effect.result.batch
        yield f"write its file: credit pay export {batch.period} --batch {batch.id} --out FILE"


@approve.command()
@click.argument("proposal", type=NUMBER)
@click.option("--reason", required=True, help="Why, in words; it stays on record.")
@ledger_options
def refuse(workspace: Workspace, proposal: int, reason: str) -> None:
    """Refuse PROPOSAL for good. Whoever proposed it withdraws it so.

    \b
    Example: credit approve refuse 7 --reason "the amount is October's"
    """
    from credit.approval.proposals import refuse as refuse_it

    with workspace.open() as ledger:
        refuse_it(ledger, proposal, reason=reason)
    say({"proposal": proposal, "decision": "refused"}, f"proposal {proposal} is refused: {reason}")


def _proposal_lines(item: Proposal, decision: Approval | None) -> Iterator[str]:
    said = "waits"
    if decision is not None:
        said = f"{decision.decision} by {decision.decided_by} on {decision.created_at:%Y-%m-%d}"
    yield f"proposal {item.id}  {item.action}  by {item.proposed_by} on {item.created_at:%Y-%m-%d}: {said}"
    for line in item.summary.splitlines():
        yield f"    {line}"
    if decision is not None and decision.reason:
        yield f"    reason: {decision.reason}"


def _view_lines(found: ProposalView) -> Iterator[str]:
    yield from _proposal_lines(found.proposal, found.decision)
    for name, value in sorted((found.personal or {}).items()):
        yield f"    {name.replace('_', ' ')}: {value or '(taken out)'}"
    if found.decision is None:
        yield found.changed or f"it still does the same; approve it: credit approve give {found.proposal.id}"
