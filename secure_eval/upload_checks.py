"""The tests of a new sealed set, once, before anything is computed on it. Protocol step 0.

In every slot, padding included: labels are one-hot where the row is valid and 0 elsewhere; columns
are 0 where it is not; each row is in one cell and one level of each attribute, with its label. What
else the columns must satisfy is told by two kinds of claims over a block's parts:

- a partition: of some linear forms exactly one is 1 in every valid row and the others are 0. A
  category is the partition of its level bits; a number with ascending threshold bits b1..bk is the
  partition 1 - b1, b1 - b2, ..., bk, which makes each of them 0/1 and at most the one before.
- a relation: a linear form that is 0 everywhere, such as "the cells of stratum s, all labels
  together, are the bit of s".

Of a packed set `strip_checks` tests what names columns; the rest is tested here as of any set.
Noise tests cover all ciphertexts. That values and rows are true stays the owner's signed claim.

Guarantee: a set that breaks a claim in any slot passes with probability at most (4 / p)^2, 1.5e-11:
    per test 2 / p for the weights of the forms, 1 / p for those of the terms, 1 / p for the slots.
Assumes: weights and masks unknown to the key holder when it uploads and replies (a secret seed).
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from secure_eval.checks import ZERO_TESTS, Checks, Terms
from secure_eval.evaluator import refusing, seeded_prg
from secure_eval.framing import Kind
from secure_eval.layout import Layout, Upload
from secure_eval.params import PARAMETERS
from secure_eval.public_keys import PublicKeys
from secure_eval.sealio import Ciphertext, seal
from secure_eval.strip_checks import Form, StripChecks, drawn_weights

__all__ = ["Form", "UploadChecks", "noise_bits"]

_Place = tuple[str, int, int]
"""Which sum, of which test, for which partition."""

_P = PARAMETERS.plain_modulus


def noise_bits(ciphertexts: int) -> int:
    """Return the amplification that leaves an honest key holder 6 bits or more of budget."""
    return 83 - (ciphertexts.bit_length() + 1) // 2


def _by_part(
    plans: Sequence[dict[_Place, dict[int, int]]],
) -> dict[int, list[tuple[_Place, int]]]:
    """For each part the sums that it is in, and its weight there."""
    wanted: dict[int, list[tuple[_Place, int]]] = defaultdict(list)
    for plan in plans:
        for place, weights in plan.items():
            for part, weight in weights.items():
                wanted[part].append((place, weight))
    return wanted


class UploadChecks:
    """Builds the openings of the tests, then judges the replies."""

    def __init__(
        self,
        keys: bytes,
        layout: Layout,
        upload: Sequence[bytes],
        seed: bytes,
        check_id: str,
        *,
        partitions: Sequence[Sequence[Form]] = (),
        relations: Sequence[Form] = (),
    ) -> None:
        """Check shapes.

        Args:
            keys: the public keys' message.
            layout: shape of the sealed set.
            upload: one blob per block.
            seed: 32 secret bytes from the operating system.
            check_id: unique name of these tests.
            partitions: forms over parts, of which one is 1 in every valid row.
            relations: forms over parts that vanish everywhere.

        Raises:
            ValueError: anything malformed.
        """
        self._keys = PublicKeys.from_bytes(keys)
        self._upload = Upload(layout, upload)
        self._layout = layout
        given = [[dict(form) for form in forms] for forms in partitions]
        named = {part for forms in given for form in forms for part in form}
        named |= {part for form in relations for part in form}
        if any(not 0 <= part < layout.parts for part in named):
            raise ValueError(f"claims: expected parts below {layout.parts}")
        linear = [dict(form) for form in relations]
        self._partitions = [*self._own_partitions(), *given]
        self._relations = [*self._own_relations(), *linear]
        claims = json.dumps([self._partitions, self._relations], sort_keys=True)
        self._strips: StripChecks | None = None
        if layout.strips:
            self._strips = StripChecks(layout, given, linear)
            self._partitions, self._relations = self._own_partitions(), self._own_relations()
        context: list[bytes | str] = [keys, layout.to_json(), self._upload.digest, check_id, claims]
        prg = seeded_prg(seed, "upload checks", *context)
        self._checks = Checks(self._keys, prg, noise_bits(layout.n_blocks * layout.ciphertexts))

    def _tables(self) -> list[range]:
        """Parts of each (cell or level) x label table."""
        layout = self._layout
        cells = range(layout.cell_part(0, 0), layout.cell_part(layout.cells, 0))
        groups = [layout.group_parts(name) for name, _ in layout.groups]
        return [cells, *groups] if layout.cells else groups

    def _own_partitions(self) -> list[list[dict[int, int]]]:
        labels = range(self._layout.columns, self._layout.valid_part)
        return [[{part: 1} for part in parts] for parts in (labels, *self._tables())]

    def _own_relations(self) -> list[dict[int, int]]:
        """Labels sum to valid, each table's column of a label to that label."""
        layout = self._layout
        labels = [layout.label_part(label) for label in range(layout.labels)]
        found = [dict.fromkeys(labels, 1) | {layout.valid_part: -1}]
        for parts in self._tables():
            for label, whole in enumerate(labels):
                found.append(dict.fromkeys(parts[label :: layout.labels], 1) | {whole: -1})
        return found

    @refusing("UPLOAD_BLOCK")
    def message(self) -> bytes:
        """Return the checks' openings; call once."""
        for block in range(self._layout.n_blocks):
            self._checks.add(self._block_terms(block))
        return self._checks.message(Kind.UPLOAD_CHECKS)

    def accept(self, replies: bytes) -> None:
        """Accept the replies.

        Raises:
            ValueError: malformed, or a check failed.
        """
        self._checks.accept(replies, Kind.UPLOAD_REPLIES)

    def _plan(self, terms: Terms, test: int) -> dict[_Place, dict[int, int]]:
        """For each sum of a test, the fresh random weight of each part in it."""
        plan: dict[_Place, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        for index, forms in enumerate(self._partitions):
            left, right = drawn_weights(terms, len(forms)), drawn_weights(terms, len(forms))
            for form, first, second in zip(forms, left, right, strict=True):
                for part, coefficient in form.items():
                    plan["left", test, index][part] += coefficient * first
                    plan["right", test, index][part] += coefficient * second
                    plan["both", test, index][part] += coefficient * (first * second % _P)
        for form, weight in zip(
            self._relations, drawn_weights(terms, len(self._relations)), strict=True
        ):
            for part, coefficient in form.items():
                plan["zero", test, 0][part] += coefficient * weight
        if self._strips is None:
            for part, weight in enumerate(drawn_weights(terms, self._layout.columns)):
                plan["columns", test, 0][part] += weight
        return plan

    def _block_terms(self, block: int) -> Terms:
        """Read each part once and add it to all sums; multiply a partition's when it is whole.

        So the sums that are held at a time are those of few partitions, however many there are.
        """
        terms = self._checks.terms("block", block)
        plans = [self._plan(terms, test) for test in range(ZERO_TESTS)]
        drawn = [] if self._strips is None else [self._strips.draw(terms) for _ in plans]
        for test, strips in enumerate(drawn):
            plans[test]["tied", test, 0] = strips.parts
        wanted = _by_part(plans)
        valid = self._layout.valid_part  # first, as numbers' partitions all begin with it
        first = self._layout.columns if self._strips else 0
        order = [valid, *(part for part in range(first, self._layout.parts) if part != valid)]
        whole = self._ends(order)
        factors = [terms.scalars(len(self._partitions) + 1) for _ in plans]
        sums: dict[_Place, Any] = {}
        totals: list[Any] = [None] * ZERO_TESTS
        for part in order:
            ciphertext = self._upload.ciphertext(block, part)
            terms.noise([ciphertext])
            for place, weight in wanted[part]:
                sums[place] = seal().add_scaled(sums.get(place), ciphertext, weight)
            for index in whole[part]:
                for test in range(ZERO_TESTS):
                    product = self._product(test, index, sums)
                    factor = int(factors[test][index])
                    totals[test] = seal().add_scaled(totals[test], product, factor)
        for test in range(ZERO_TESTS):
            total = seal().accumulate(totals[test], sums["zero", test, 0])
            if self._layout.columns and self._strips is None:
                off = seal().times(sums["columns", test, 0], self._absent(block))
                total = seal().add_scaled(total, off, int(factors[test][-1]))
            terms.zero(test, total)
        if self._strips is not None:
            tied = [sums.get(("tied", test, 0)) for test in range(ZERO_TESTS)]
            self._strips.add(terms, self._upload, block, drawn, tied)
        return terms

    def _ends(self, order: Sequence[int]) -> dict[int, list[int]]:
        """For each part the partitions that it completes."""
        position = {part: index for index, part in enumerate(order)}
        found: dict[int, list[int]] = defaultdict(list)
        for index, forms in enumerate(self._partitions):
            last = max(position[part] for form in forms for part in form)
            found[order[last]].append(index)
        return found

    def _product(self, test: int, index: int, sums: dict[_Place, Any]) -> Ciphertext:
        """What vanishes where at most one form of a partition is 1 and the others are 0."""
        left, right, both = (sums.pop((name, test, index)) for name in ("left", "right", "both"))
        product = seal().times(left, right)
        seal().evaluator.sub_inplace(product, both)
        return product

    def _absent(self, block: int) -> Ciphertext:
        """1 where there is no row."""
        valid = self._upload.ciphertext(block, self._layout.valid_part)
        seal().evaluator.negate_inplace(valid)
        seal().evaluator.add_plain_inplace(valid, seal().constant(1))
        return valid
