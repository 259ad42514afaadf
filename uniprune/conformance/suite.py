"""All checks, in the order in which they are made and shown."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from uniprune.conformance import answers, independence, measures, sequence
from uniprune.conformance.subject import MethodUnderTest, Models
from uniprune.conformance.verdicts import CheckResult, failed, skipped
from uniprune.errors import UnsupportedError, UserError
from uniprune.pruning.base import Pruner

Check = Callable[[MethodUnderTest], CheckResult]

CHECKS: tuple[Check, ...] = (
    answers.runs,
    answers.well_formed,
    answers.unique,
    answers.in_range,
    answers.in_place,
    answers.exact_count,
    answers.follows_the_ratio,
    answers.view_untouched,
    answers.scale_invariance,
    answers.float32_scores,
    sequence.ratio_1,
    sequence.text_kept,
    sequence.original_positions,
    sequence.compact_positions,
    sequence.kv_lengths,
    sequence.text_only,
    sequence.one_token,
    independence.repeatable,
    independence.seeds,
    independence.sample_order,
    independence.batch,
    independence.several_images,
    independence.attention_kernels,
    independence.random_state,
    independence.process_state,
    independence.model_untouched,
    independence.method_untouched,
    measures.bfloat16,
    measures.cost,
)


@dataclass(frozen=True)
class CheckedFamily:
    """One check of one method on one family.

    Attributes:
        check: its name. family: the model family. verdict: the outcome.
    """

    check: str
    family: str
    verdict: CheckResult


def title(check: Check) -> str:
    """A check's name as users read it."""
    return check.__name__.replace("_", " ")


def proves(check: Check) -> str:
    """What it proves, in one line."""
    return (inspect.getdoc(check) or "").split("\n", 1)[0].rstrip(".")


def examine(subject: MethodUnderTest, checks: Sequence[Check] = CHECKS) -> Iterator[CheckedFamily]:
    """Make all checks on one subject.

    A check that an exception ends has failed, unless an earlier one did: then nothing more is to be learnt.

    Raises:
        UserError: the method as it was configured fits no model.
    """
    refusal, broken = refused(subject), False
    for check in checks:
        if refusal:
            verdict = skipped(refusal)
        else:
            try:
                verdict = check(subject)
            except Exception as error:
                told = f"{type(error).__name__}: {error}"
                verdict = skipped("no result after what failed above") if broken else failed(told)
        broken = broken or verdict.word == "FAIL"
        yield CheckedFamily(title(check), subject.family, verdict)


def refused(subject: MethodUnderTest) -> str:
    """Why the method refuses this family; empty if it does not.

    Raises:
        UserError: the method as it was configured fits no model.
    """
    try:
        subject.run(prompts=subject.prompts[:1])
    except UnsupportedError as error:
        return f"refuses this family: {error}"
    except UserError:
        raise
    except Exception:
        return ""  # a check will tell
    return ""


def examine_all(pruner: Pruner, families: Sequence[str], checks: Sequence[Check] = CHECKS) -> list[CheckedFamily]:
    """Make all checks on several families with models of their own, on one thread: more only slow tiny models down."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return list(_examine_all(pruner, families, checks))
    finally:
        torch.set_num_threads(threads)


def _examine_all(pruner: Pruner, families: Sequence[str], checks: Sequence[Check]) -> Iterator[CheckedFamily]:
    models = Models()
    for family in families:
        try:
            subject = MethodUnderTest(pruner, family, models)
        except UnsupportedError as error:  # a family without a tiny model
            yield from (CheckedFamily(title(check), family, skipped(str(error))) for check in checks)
        else:
            yield from examine(subject, checks)
