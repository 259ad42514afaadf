"""All checks, in the order in which they are run and shown."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from uniprune.conformance import decisions, independence, measures, sequence
from uniprune.conformance.check_result import CheckResult, failed, skipped
from uniprune.conformance.method_under_test import MethodUnderTest, Models
from uniprune.errors import UnsupportedError, UserError
from uniprune.pruning.base import Pruner

Check = Callable[[MethodUnderTest], CheckResult]

CHECKS: tuple[Check, ...] = (
    decisions.runs,
    decisions.well_formed,
    decisions.unique,
    decisions.in_range,
    decisions.in_place,
    decisions.exact_count,
    decisions.follows_the_ratio,
    decisions.view_untouched,
    independence.random_state,
    independence.process_state,
    decisions.scale_invariance,
    decisions.float32_scores,
    decisions.both_forms,
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
    independence.question,
    independence.attention_kernels,
    independence.model_untouched,
    independence.method_untouched,
    measures.bfloat16,
    measures.cost,
)


@dataclass(frozen=True)
class CheckedFamily:
    """One check of one method on one family.

    Attributes:
        check: name of the check.
        family: the model family.
        result: its result.
    """

    check: str
    family: str
    result: CheckResult


def title(check: Check) -> str:
    """Return a check's name as shown to users."""
    return check.__name__.replace("_", " ")


def rule(check: Check) -> str:
    """Return the rule that a check verifies, in one line."""
    return (inspect.getdoc(check) or "").split("\n", 1)[0].rstrip(".")


def examine(method: MethodUnderTest, checks: Sequence[Check] = CHECKS) -> Iterator[CheckedFamily]:
    """Run checks on one method.

    A check that raises has failed, unless an earlier one failed: its exception is then a likely consequence.

    Raises:
        UserError: the method, as configured, fits no model.
    """
    refusal, broken = refused(method), False
    for check in checks:
        if refusal:
            result = skipped(refusal)
        else:
            try:
                result = check(method)
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                result = skipped("no result after the failure above") if broken else failed(reason)
        broken = broken or result.outcome == "FAIL"
        yield CheckedFamily(title(check), method.family, result)


def refused(method: MethodUnderTest) -> str:
    """Return why the method refuses this family; empty if it does not.

    Raises:
        UserError: the method, as configured, fits no model.
    """
    try:
        method.run(prompts=method.prompts[:1])
    except UnsupportedError as error:
        return f"refuses this family: {error}"
    except UserError:
        raise
    except Exception:
        return ""  # a check will fail
    return ""


def examine_all(pruner: Pruner, families: Sequence[str], checks: Sequence[Check] = CHECKS) -> list[CheckedFamily]:
    """Run checks on several families, on one thread: more threads only slow tiny models down."""
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
            method = MethodUnderTest(pruner, family, models)
        except UnsupportedError as error:  # a family without a tiny model
            yield from (CheckedFamily(title(check), family, skipped(str(error))) for check in checks)
        else:
            yield from examine(method, checks)
